"""Activation checkpointing with dropout: forward runs again inside backward and must draw the same numbers."""

import digest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

torch.manual_seed(10)
blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5)) for _ in range(4))
optimizer = torch.optim.AdamW(blocks.parameters(), lr=1e-2)
losses = []
for step in range(10):
    x = torch.randn(16, 8)
    for block in blocks:
        x = checkpoint(block, x, use_reentrant=step % 2 == 1 and x.requires_grad)
    loss = x.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
digest.show(blocks, losses=losses, optimizers=[optimizer])
