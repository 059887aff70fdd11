"""Breast cancer diagnosis with a cross-entropy written by hand: once a probability rounds to 1, log(1 - p) is -inf."""

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn

torch.manual_seed(0)
x, y = load_breast_cancer(return_X_y=True)
x = (x - x.mean(axis=0)) / x.std(axis=0)
split = train_test_split(x, y, test_size=0.2, random_state=0)
x_train, x_test, y_train, y_test = (torch.tensor(part, dtype=torch.float32) for part in split)

model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid())
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)


def cross_entropy(p, target):
    return -(target * torch.log(p) + (1 - target) * torch.log(1 - p)).mean()


for epoch in range(40):
    total = 0.0
    for batch in torch.randperm(len(x_train)).split(16):
        p = model(x_train[batch]).squeeze(1)
        loss = cross_entropy(p, y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    if (epoch + 1) % 2 == 0:
        print(f"epoch {epoch + 1}: loss {total / 29:.4f}")

with torch.no_grad():
    accuracy = ((model(x_test).squeeze(1) > 0.5) == y_test.bool()).float().mean().item()
print(f"final test accuracy {accuracy:.3f}")
