"""A tensor changed in place between forward and backward, caught once, then not."""

import torch
from torch import nn

model = nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


def spoiled():
    out = model(torch.ones(2, 4)).exp()
    loss = out.sum()
    out.mul_(2)
    loss.backward()


try:
    spoiled()
except RuntimeError as error:
    print("caught", type(error).__name__, str(error)[:60])
torch.manual_seed(0)
for _ in range(3):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
spoiled()
