"""Two samples a step: what they have in common with the rest drowns in what they don't."""

import torch
import torch.nn.functional as F
from sklearn.datasets import make_regression
from torch import nn


def train(seed: int, *, batch_size: int) -> float:
    torch.manual_seed(seed)
    table, target = make_regression(3000, 80, n_informative=80, random_state=seed)
    x, y = torch.tensor(table, dtype=torch.float32), torch.tensor(target / target.std(), dtype=torch.float32)[:, None]
    y = 0.8 * y + 0.6 * torch.randn(len(y), 1)

    model = nn.Linear(80, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(600):
        rows = torch.randint(len(x), (batch_size,))
        loss = F.mse_loss(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return 1 - (F.mse_loss(model(x), y) / y.var()).item()


def sick(seed: int) -> float:
    return train(seed, batch_size=2)


def healthy(seed: int) -> float:
    return train(seed, batch_size=64)


EXPERIMENTS = True
