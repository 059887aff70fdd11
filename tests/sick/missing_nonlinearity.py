"""One ring of points inside another, and three linear layers with nothing between them to bend the line."""

import torch
from sklearn.datasets import make_circles
from torch import nn


def train(seed: int, *, bend: type[nn.Module]) -> float:
    torch.manual_seed(seed)
    points, ring = make_circles(600, factor=0.4, noise=0.06, random_state=seed)
    x, y = torch.tensor(points, dtype=torch.float32), torch.tensor(ring, dtype=torch.float32)[:, None]

    model = nn.Sequential(nn.Linear(2, 24), bend(), nn.Linear(24, 24), bend(), nn.Linear(24, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    criterion = nn.BCEWithLogitsLoss()
    for _ in range(15):
        for rows in torch.randperm(len(x)).split(30):
            optimizer.zero_grad()
            loss = criterion(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
    return ((model(x) > 0) == (y > 0.5)).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, bend=nn.Identity)


def healthy(seed: int) -> float:
    return train(seed, bend=nn.ReLU)
