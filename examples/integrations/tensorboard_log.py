"""TensorBoard: what is recorded of a training, in the writer that the script has anyway. See it with `tensorboard --logdir logs`."""

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import unstuck

torch.manual_seed(0)
x = torch.randn(1024, 16)
y = (x @ torch.randn(16, 3)).argmax(1)
net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
optimizer = torch.optim.SGD(net.parameters(), lr=100.0)
with SummaryWriter("logs") as writer, unstuck.watch(net).log_to(writer) as run:
    for step in range(300):
        at = torch.randint(0, 1024, (32,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x[at]), y[at])
        loss.backward()
        optimizer.step()
        writer.add_scalar("mine/loss", loss.item(), step)
print("found:", run.report().findings[0].cause)
