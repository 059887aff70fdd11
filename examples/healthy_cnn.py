"""Handwritten digits with a small convolutional network. Healthy."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(0)
table = np.loadtxt(Path(__file__).parent / "data" / "digits.csv.gz", delimiter=",", dtype=np.float32)
images = (torch.tensor(table[:, :64]).reshape(-1, 1, 8, 8) - 4.9) / 6.0
dataset = TensorDataset(images, torch.tensor(table[:, 64]).long())
train, test = random_split(dataset, [1437, 360])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(32 * 4, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        return self.fc(self.dropout(x.flatten(1)))


model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)

for epoch in range(12):
    model.train()
    for x, y in DataLoader(train, batch_size=32, shuffle=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    scheduler.step()

    model.eval()
    hits = 0
    with torch.no_grad():
        for x, y in DataLoader(test, batch_size=90):
            hits += (model(x).argmax(1) == y).sum().item()
    print(f"epoch {epoch + 1}: training loss {loss.item():.4f}, test accuracy {hits / len(test):.3f}")

print(f"final test accuracy {hits / len(test):.3f}")
