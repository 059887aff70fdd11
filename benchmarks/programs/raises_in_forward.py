"""A shape that doesn't fit, in the first forward pass of a nested module."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(7, 2))

    def forward(self, x):
        return self.inner(x)


model = Block()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
print("before")
model(torch.ones(3, 4)).sum().backward()
