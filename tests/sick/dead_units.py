"""A hidden bias that starts at -3: no ReLU unit behind it ever gives more than zero."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, bias: float) -> float:
    torch.manual_seed(seed)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target))

    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
    nn.init.constant_(model[2].bias, bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(5):
        for x, y in DataLoader(data, batch_size=50, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    x, y = data.tensors
    return (model(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, bias=-3.0)


def healthy(seed: int) -> float:
    return train(seed, bias=0.0)
