"""Handwritten digits with the hidden layers in a plain list: the optimizer never hears of them, so they stay random."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
table = np.loadtxt(Path(__file__).parent / "data" / "digits.csv.gz", delimiter=",", dtype=np.float32)
images, labels = torch.tensor(table[:, :64]) / 16, torch.tensor(table[:, 64]).long()
order = torch.randperm(len(images))
images, labels = images[order], labels[order]
loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=32, shuffle=True)


class DeepNet(nn.Module):
    def __init__(self, width=24, depth=6):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.hidden = [nn.Linear(width, width) for _ in range(depth)]
        self.last = nn.Linear(width, 10)

    def forward(self, x):
        x = torch.relu(self.first(x))
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self.last(x)


model = DeepNet()
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
loss_fn = nn.CrossEntropyLoss()

for epoch in range(40):
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (model(images[1400:]).argmax(1) == labels[1400:]).float().mean().item()
    if (epoch + 1) % 5 == 0:
        print(f"epoch {epoch + 1:2d}  loss {loss.item():.3f}  test accuracy {accuracy:.3f}")

print(f"final test accuracy {accuracy:.3f}")
