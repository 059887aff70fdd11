"""Handwritten digits with a ten-layer sigmoid network. It stays at chance: its gradient vanishes layer by layer."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
table = np.loadtxt(Path(__file__).parent / "data" / "digits.csv.gz", delimiter=",", dtype=np.float32)
x, y = torch.tensor(table[:, :64]) / 16 - 0.3, torch.tensor(table[:, 64]).long()
order = torch.randperm(len(x))
train, test = order[:1437], order[1437:]
loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=32, shuffle=True)

layers = []
for _ in range(9):
    layers += [nn.Linear(64, 64), nn.Sigmoid()]
model = nn.Sequential(*layers, nn.Linear(64, 10))
for layer in model[::2]:
    nn.init.xavier_uniform_(layer.weight)
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
loss_fn = nn.CrossEntropyLoss()

for epoch in range(20):
    model.train()
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(images)
    model.eval()
    with torch.no_grad():
        accuracy = (model(x[test]).argmax(dim=1) == y[test]).float().mean().item()
    print(f"epoch {epoch + 1:2d}  loss {total / len(train):.4f}  test accuracy {accuracy:.3f}")

print(f"final test accuracy {accuracy:.3f}")
