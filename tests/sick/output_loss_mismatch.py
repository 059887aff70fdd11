"""A softmax before a cross-entropy, which has one of its own: applied twice, it leaves hardly any gradient."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, *, softmax: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 50)
        self.fc2 = nn.Linear(50, 10)
        self.softmax = softmax

    def forward(self, x):
        x = self.fc2(torch.relu(self.fc1(x)))
        return torch.softmax(x, dim=1) if self.softmax else x


def train(seed: int, *, softmax: bool) -> float:
    torch.manual_seed(seed)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target))
    net = Net(softmax=softmax)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(8):
        for x, y in DataLoader(data, batch_size=60, shuffle=True):
            optimizer.zero_grad()
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
    x, y = data.tensors
    return (net(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, softmax=True)


def healthy(seed: int) -> float:
    return train(seed, softmax=False)
