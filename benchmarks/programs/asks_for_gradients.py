"""Gradients asked for with `autograd.grad`: to train by them, of inputs, and of gradients (a step of meta-learning)."""

import digest
import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(8)
model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
losses = []
for _ in range(20):
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    loss = F.cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.sub_(gradient, alpha=0.1)
    losses.append(loss.item())

weight = torch.randn(6, 3, requires_grad=True)
optimizer = torch.optim.Adam([weight], lr=0.01)
for _ in range(10):
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    (slope,) = torch.autograd.grad(F.cross_entropy(x @ weight, y), weight, create_graph=True)
    given = x.clone().requires_grad_()
    (of_input,) = torch.autograd.grad(F.cross_entropy(given @ weight, y), given)
    loss = F.cross_entropy((x + 0.01 * of_input.sign()) @ (weight - 0.1 * slope), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
try:
    torch.autograd.grad(loss, [weight])
except RuntimeError as error:
    print(type(error).__name__, str(error)[:60])
print([p.grad is None for p in model.parameters()], torch.autograd.grad.__name__, torch.autograd.grad.__module__)
digest.show(model, losses=losses)
