"""DistributedDataParallel over one gloo process, as torchrun starts it."""

import os

import digest
import torch
import torch.distributed as dist
from torch import nn

os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
os.environ.setdefault("MASTER_PORT", "29533")
dist.init_process_group("gloo", rank=0, world_size=1)
torch.manual_seed(17)
model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
optimizer = torch.optim.Adam(model.parameters())
losses = []
for step in range(8):
    with model.no_sync() if step % 2 == 0 else torch.enable_grad():
        loss = nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.randint(2, (8,)))
        loss.backward()
    if step % 2 == 1:
        optimizer.step()
        optimizer.zero_grad()
    losses.append(loss.item())
digest.show(model, losses=losses, optimizers=[optimizer])
dist.destroy_process_group()
