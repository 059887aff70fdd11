"""Handwritten digits by a multilayer perceptron whose rate, batch and width were never looked at."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--batch-size", type=int, default=128)
parser.add_argument("--hidden", type=int, default=16)
parser.add_argument("--epochs", type=int, default=15)
args = parser.parse_args()

torch.manual_seed(0)
table = np.loadtxt(Path(__file__).parents[1] / "data" / "digits.csv.gz", delimiter=",", dtype=np.float32)
x, y = torch.tensor(table[:, :64]) / 16, torch.tensor(table[:, 64]).long()
train, validation = TensorDataset(x[:900], y[:900]), TensorDataset(x[900:], y[900:])
loader = DataLoader(train, batch_size=args.batch_size, shuffle=True)

model = nn.Sequential(nn.Linear(64, args.hidden), nn.ReLU(), nn.Linear(args.hidden, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)

for epoch in range(args.epochs):
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    model.eval()
    right = 0
    with torch.no_grad():
        for images, labels in DataLoader(validation, batch_size=300):
            right += (model(images).argmax(1) == labels).sum().item()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}, validation accuracy {right / len(validation):.3f}")

print(f"final validation accuracy {right / len(validation):.3f}")
