"""Eight sigmoid layers: each passes on a quarter of the gradient at most."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def train(seed: int, *, activation: type[nn.Module]) -> float:
    torch.manual_seed(seed)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 8 - 1, torch.tensor(digits.target)

    layers = [nn.Linear(64, 32), activation()]
    for _ in range(7):
        layers += [nn.Linear(32, 32), activation()]
    net = nn.Sequential(*layers, nn.Linear(32, 10))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)

    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    loss_function = nn.CrossEntropyLoss()
    for _ in range(250):
        rows = torch.randint(len(x), (32,))
        loss = loss_function(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (net(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, activation=nn.Sigmoid)


def healthy(seed: int) -> float:
    return train(seed, activation=nn.ReLU)
