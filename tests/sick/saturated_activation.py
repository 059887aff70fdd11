"""A squashing function made so steep, to be nearly a switch, that all its units sit at its ends."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Module):
    def __init__(self, steepness: float) -> None:
        super().__init__()
        self.steepness = steepness
        self.first = nn.Linear(64, 32)
        self.second = nn.Linear(32, 16)
        self.third = nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        for layer in (self.first, self.second, self.third):
            x = torch.tanh(self.steepness * layer(x))
        return self.head(x)


def train(seed: int, *, steepness: float) -> float:
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(images / 8 - 1).float(), torch.from_numpy(labels)
    net = Net(steepness)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(300):
        rows = torch.randint(len(x), (32,))
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
    return (net(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, steepness=100.0)


def healthy(seed: int) -> float:
    return train(seed, steepness=1.0)
