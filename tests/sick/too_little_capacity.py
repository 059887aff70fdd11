"""Ten digits through a hidden layer of one unit."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode = nn.Linear(64, width)
        self.decode = nn.Linear(width, 10)

    def forward(self, x):
        return self.decode(torch.tanh(self.encode(x)))


def train(seed: int, *, width: int) -> float:
    torch.manual_seed(seed)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 8 - 1, dtype=torch.float32), torch.tensor(digits.target)
    net = Net(width)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(12):
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(xb), yb)
            loss.backward()
            optimizer.step()
    return (net(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, width=1)


def healthy(seed: int) -> float:
    return train(seed, width=32)


EXPERIMENTS = True
