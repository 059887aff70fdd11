"""Handwritten digits without optimizer.zero_grad(): every step follows the sum of all gradients since the first."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
table = np.loadtxt(Path(__file__).parent / "data" / "digits.csv.gz", delimiter=",", dtype=np.float32)
x, y = torch.tensor(table[:, :64]) / 16 - 0.3, torch.tensor(table[:, 64]).long()
order = torch.randperm(len(x))
train, valid = order[:1400], order[1400:]
loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=50, shuffle=True)

model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


def evaluate():
    model.eval()
    with torch.no_grad():
        logits = model(x[valid])
    return F.cross_entropy(logits, y[valid]).item(), (logits.argmax(1) == y[valid]).float().mean().item()


for epoch in range(30):
    model.train()
    for images, labels in loader:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    valid_loss, accuracy = evaluate()
    print(f"epoch {epoch + 1}: validation loss {valid_loss:.3f}, accuracy {accuracy:.3f}")

print(f"final validation accuracy {accuracy:.3f}")
