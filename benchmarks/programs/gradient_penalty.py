"""Gradients of gradients, gradients asked for without backward, and a graph kept for a second backward."""

import digest
import torch
from torch import nn

torch.manual_seed(11)
model = nn.Sequential(nn.Linear(4, 16), nn.Softplus(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
losses = []
for _ in range(10):
    x = torch.randn(8, 4, requires_grad=True)
    out = model(x)
    (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    penalty = (slope.norm(dim=1) - 1).pow(2).mean()
    optimizer.zero_grad()
    penalty.backward(retain_graph=True)
    out.mean().backward(inputs=list(model.parameters()))
    optimizer.step()
    losses += [penalty.item(), x.grad.sum().item()]
digest.show(model, losses=losses, optimizers=[optimizer])
