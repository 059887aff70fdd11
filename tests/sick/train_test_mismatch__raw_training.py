"""Trained on columns in their own units, asked about standardised ones: twenty times as large as any it was trained on."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch import nn


def train(seed: int, *, scale_training: bool) -> float:
    torch.manual_seed(seed)
    table, progression = load_diabetes(return_X_y=True)
    progression = (progression - progression.mean()) / progression.std()
    split = train_test_split(table, progression[:, None], test_size=0.25, random_state=seed)
    x, test_x, y, test_y = (torch.tensor(part, dtype=torch.float32) for part in split)
    mean, std = x.mean(0), x.std(0)
    test_x = (test_x - mean) / std
    if scale_training:
        x = (x - mean) / std

    model = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    r2 = 0.0
    for _ in range(20):
        model.train()
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.mse_loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            r2 = 1 - (F.mse_loss(model(test_x), test_y) / test_y.var()).item()
    return r2


def sick(seed: int) -> float:
    return train(seed, scale_training=False)


def healthy(seed: int) -> float:
    return train(seed, scale_training=True)
