"""Hidden layers kept in a plain list: `parameters()` doesn't know them, and they stay as they were made."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

WIDTHS = (64, 24, 12, 8)


class Net(nn.Module):
    def __init__(self, keep) -> None:
        super().__init__()
        self.hidden = keep([nn.Linear(WIDTHS[i], WIDTHS[i + 1]) for i in range(3)])
        self.head = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x):
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.head(x)


def train(seed: int, *, keep) -> float:
    torch.manual_seed(seed)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))
    net = Net(keep)
    opt = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(9):
        for x, y in DataLoader(data, batch_size=64, shuffle=True):
            opt.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
    x, y = data.tensors
    return (net(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, keep=list)


def healthy(seed: int) -> float:
    return train(seed, keep=nn.ModuleList)
