"""Dropout, batch norm, a shuffling loader, a schedule, and evaluation between epochs."""

import digest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(3)
model = nn.Sequential(
    nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(72, 10)
)
data = TensorDataset(torch.randn(256, 1, 8, 8), torch.randint(10, (256,)))
loader = DataLoader(data, batch_size=32, shuffle=True)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
losses = []
for epoch in range(3):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    schedule.step()
    model.eval()
    with torch.no_grad():
        correct = sum((model(x).argmax(1) == y).sum().item() for x, y in DataLoader(data, batch_size=64))
    print(f"epoch {epoch}: {correct} right, rate {schedule.get_last_lr()}")
digest.show(model, losses=losses, optimizers=[optimizer])
