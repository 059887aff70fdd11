"""What matters is measured in small units, what doesn't in large ones: no single rate serves both."""

import torch
from torch import nn


def train(seed: int, *, optimizer_class, rate: float) -> float:
    torch.manual_seed(seed)
    small, large = 0.5 * torch.randn(600, 4), 15 * torch.randn(600, 2)
    x = torch.cat([small, large], dim=1)
    y = small @ torch.tensor([1.0, -1.0, 1.0, 1.0]) + 0.02 * large.sum(1) + 0.1 * torch.randn(600)

    model = nn.Linear(6, 1)
    optimizer = optimizer_class(model.parameters(), lr=rate)
    for _ in range(10):
        for rows in torch.randperm(len(x)).split(40):
            optimizer.zero_grad()
            loss = (model(x[rows]).squeeze(1) - y[rows]).square().mean()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return 1 - ((model(x).squeeze(1) - y).square().mean() / y.var()).item()


def sick(seed: int) -> float:
    return train(seed, optimizer_class=torch.optim.SGD, rate=2e-3)


def healthy(seed: int) -> float:
    return train(seed, optimizer_class=torch.optim.Adam, rate=0.02)


EXPERIMENTS = True
