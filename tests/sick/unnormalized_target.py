"""The progress of diabetes, from 25 to 346, to be reached by a network that starts near zero."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, standardise: bool) -> float:
    torch.manual_seed(seed)
    table, progression = load_diabetes(return_X_y=True)
    x = torch.tensor(table / table.std(axis=0), dtype=torch.float32)
    y = torch.tensor(progression, dtype=torch.float32).unsqueeze(1)
    if standardise:
        y = (y - y.mean()) / y.std()

    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(20):
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=34, shuffle=True):
            optimizer.zero_grad()
            loss = F.mse_loss(model(xb), yb)
            loss.backward()
            optimizer.step()
    return 1 - (F.mse_loss(model(x), y) / y.var()).item()


def sick(seed: int) -> float:
    return train(seed, standardise=False)


def healthy(seed: int) -> float:
    return train(seed, standardise=True)
