"""Handwritten digits with too large a learning rate: the first steps push most ReLU units below zero, for good."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(1)
table = np.loadtxt(Path(__file__).parent / "data" / "digits.csv.gz", delimiter=",", dtype=np.float32)
data = TensorDataset(torch.tensor(table[:, :64]) / 16, torch.tensor(table[:, 64]).long())
train, test = torch.utils.data.random_split(data, [1437, 360])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 128)
        self.fc2 = nn.Linear(128, 128)
        self.fc3 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


net = Net()
optimizer = torch.optim.Adam(net.parameters(), lr=0.3)

for epoch in range(1, 26):
    net.train()
    for images, labels in DataLoader(train, batch_size=64, shuffle=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
    net.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in DataLoader(test, batch_size=120):
            correct += (net(images).argmax(1) == labels).sum().item()
    print(f"epoch {epoch}: training loss {loss.item():.3f}, test accuracy {correct / len(test):.3f}")

print(f"final test accuracy {correct / len(test):.3f}")
