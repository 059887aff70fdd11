"""bfloat16 autocast, a disabled scaler, accumulation over 3 batches, clipping, warm-up, several groups."""

import digest
import torch
from torch import nn

torch.manual_seed(14)
model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))
groups = [{"params": model[0].parameters(), "lr": 1e-3}, {"params": model[2:].parameters(), "weight_decay": 0.1}]
optimizer = torch.optim.AdamW(groups, lr=1e-2)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 5))
scaler = torch.amp.GradScaler("cpu", enabled=False)
losses = []
for step in range(18):
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(model(torch.randn(8, 8)), torch.randint(4, (8,))) / 3
    scaler.scale(loss).backward()
    losses.append(loss.item())
    if step % 3 == 2:
        scaler.unscale_(optimizer)
        losses.append(nn.utils.clip_grad_norm_(model.parameters(), 0.5).item())
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        schedule.step()
digest.show(model, losses=losses, optimizers=[optimizer])
