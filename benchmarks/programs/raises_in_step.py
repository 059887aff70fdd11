"""An optimizer of the user's own whose step fails."""

import torch
from torch import nn


class Broken(torch.optim.Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})
        self.count = 0

    def step(self, closure=None):
        self.count += 1
        if self.count == 3:
            raise ArithmeticError("third step")
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(p.grad, alpha=-group["lr"])


model = nn.Linear(2, 1)
optimizer = Broken(model.parameters())
for step in range(5):
    print("step", step)
    optimizer.zero_grad()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
