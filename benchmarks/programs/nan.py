"""It diverges to NaN and goes on, with anomaly detection at the end."""

import digest
import torch
from torch import nn

torch.manual_seed(16)
model = nn.Linear(3, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=1e6)
losses = []
for _ in range(12):
    loss = model(torch.randn(4, 3)).exp().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
digest.show(model, losses=losses, optimizers=[optimizer])
with torch.autograd.detect_anomaly():
    (model(torch.ones(1, 3)) * 0).sqrt().sum().backward()
