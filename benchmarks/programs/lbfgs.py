"""LBFGS with a closure: many forward and backward passes inside one step."""

import digest
import torch
from torch import nn

torch.manual_seed(5)
torch.set_default_dtype(torch.float64)
model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
x = torch.randn(64, 3)
y = x.prod(1, keepdim=True)
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.8, max_iter=10, line_search_fn="strong_wolfe")
calls = []


def closure():
    optimizer.zero_grad()
    loss = ((model(x) - y) ** 2).mean()
    loss.backward()
    calls.append(loss.item())
    return loss


returned = [optimizer.step(closure).item() for _ in range(4)]
print(len(calls), "calls")
digest.show(model, losses=calls + returned, optimizers=[optimizer])
