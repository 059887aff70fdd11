"""A few steps of a small regression, for programs that are about something else."""

import torch
from torch import nn


def train(steps=5, *, seed=0, at_step=None):
    """Train and return `(model, optimizer, losses)`; `at_step(step)` is called before each update."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for step in range(steps):
        x = torch.randn(16, 6)
        loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        if at_step:
            at_step(step)
        optimizer.step()
        losses.append(loss.item())
    return model, optimizer, losses
