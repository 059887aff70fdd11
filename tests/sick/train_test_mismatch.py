"""Features standardised for training, and forgotten for the test: there they are a twentieth of the size."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, scale_test: bool) -> float:
    torch.manual_seed(seed)
    table, progression = load_diabetes(return_X_y=True)
    progression = (progression - progression.mean()) / progression.std()
    x, test_x, y, test_y = train_test_split(table, progression, test_size=0.25, random_state=seed)
    scaler = StandardScaler().fit(x)
    x = scaler.transform(x)
    test_x = scaler.transform(test_x) if scale_test else test_x
    x, test_x, y, test_y = (torch.tensor(a, dtype=torch.float32) for a in (x, test_x, y[:, None], test_y[:, None]))

    model = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    r2 = 0.0
    for _ in range(15):
        model.train()
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True):
            optimizer.zero_grad()
            F.mse_loss(model(xb), yb).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            r2 = 1 - (F.mse_loss(model(test_x), test_y) / test_y.var()).item()
    return r2


def sick(seed: int) -> float:
    return train(seed, scale_test=False)


def healthy(seed: int) -> float:
    return train(seed, scale_test=True)
