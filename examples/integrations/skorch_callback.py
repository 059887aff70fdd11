"""skorch: a learning rate a thousand times too high, and the callback that says so."""

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from unstuck.integrations.skorch import UnstuckCallback


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(16, 64), nn.Linear(64, 3)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x)))


torch.manual_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(1024, 16)).astype("float32")
y = (x @ rng.normal(size=(16, 3))).argmax(1)
unstuck = UnstuckCallback()
net = NeuralNetClassifier(
    Net,
    criterion=nn.CrossEntropyLoss,
    lr=500.0,
    batch_size=32,
    max_epochs=10,
    iterator_train__shuffle=True,
    callbacks=[unstuck],
)
net.fit(x, y)
print("found:", unstuck.verdict.findings[0].cause)
