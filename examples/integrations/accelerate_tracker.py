"""Accelerate: a softmax before the cross-entropy, which takes logits, and the tracker that says so."""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.integrations.accelerate import UnstuckTracker

set_seed(0)
accelerator = Accelerator(cpu=True, log_with=UnstuckTracker())
accelerator.init_trackers("example")
x = torch.randn(1024, 16)
y = (x @ torch.randn(16, 3)).argmax(1)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3), nn.Softmax(dim=1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
for epoch in range(8):
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        accelerator.backward(loss)
        optimizer.step()
    accelerator.log({"loss": loss.item()}, step=epoch)
accelerator.end_training()
print("found:", accelerator.get_tracker("unstuck").verdict.findings[0].cause)
