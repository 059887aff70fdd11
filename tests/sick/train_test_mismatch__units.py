"""Standardised for training, in their own units for the test: some features are far larger there, others far smaller."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, scale_test: bool) -> float:
    torch.manual_seed(seed)
    table, labels = load_breast_cancer(return_X_y=True)
    table, test_table, y, test_y = train_test_split(table, labels, test_size=0.25, random_state=seed)
    scaler = StandardScaler().fit(table)
    x = torch.tensor(scaler.transform(table), dtype=torch.float32)
    test_x = torch.tensor(scaler.transform(test_table) if scale_test else test_table, dtype=torch.float32)
    y, test_y = torch.tensor(y), torch.tensor(test_y)

    model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    accuracy = 0.0
    for _ in range(8):
        model.train()
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(test_x).argmax(1) == test_y).float().mean().item()
    return accuracy


def sick(seed: int) -> float:
    return train(seed, scale_test=False)


def healthy(seed: int) -> float:
    return train(seed, scale_test=True)
