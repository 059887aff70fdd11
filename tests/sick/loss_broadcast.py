"""Predictions of shape (N, 1) against targets of shape (N,): each prediction is compared with every target."""

import warnings

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, squeeze: bool) -> float:
    torch.manual_seed(seed)
    table, progression = load_diabetes(return_X_y=True)
    x = torch.tensor(table / table.std(0), dtype=torch.float32)
    y = torch.tensor((progression - np.mean(progression)) / np.std(progression), dtype=torch.float32)

    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(15):
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=26, shuffle=True):
            prediction = model(xb).squeeze(1) if squeeze else model(xb)
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                loss = criterion(prediction, yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return 1 - ((model(x).squeeze(1) - y).square().mean() / y.var()).item()


def sick(seed: int) -> float:
    return train(seed, squeeze=False)


def healthy(seed: int) -> float:
    return train(seed, squeeze=True)
