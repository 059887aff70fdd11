"""Diabetes progression: predictions of shape (N, 1) against targets of shape (N,), so the loss pairs all with all."""

import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x, y = load_diabetes(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
scale_x, scale_y = StandardScaler().fit(x_train), StandardScaler().fit(y_train[:, None])


def to_tensors(x, y):
    inputs = torch.tensor(scale_x.transform(x), dtype=torch.float32)
    targets = torch.tensor(scale_y.transform(y[:, None]).ravel(), dtype=torch.float32)
    return inputs, targets


loader = DataLoader(TensorDataset(*to_tensors(x_train, y_train)), batch_size=32, shuffle=True)
model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
loss_fn = nn.MSELoss()

for epoch in range(100):
    for inputs, targets in loader:
        loss = loss_fn(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if (epoch + 1) % 10 == 0:
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

inputs, targets = to_tensors(x_test, y_test)
with torch.no_grad():
    residual = targets - model(inputs).squeeze(1)
r2 = 1 - residual.square().sum() / (targets - targets.mean()).square().sum()
print(f"final test R2 {r2:.3f}")
