"""A recurrent network by hand whose state is stretched at every step: the gradient grows over thirty of them."""

import torch
import torch.nn.functional as F
from torch import nn

STEPS = 30


class Counter(nn.Module):
    """Reads zeros and ones, one at a time, and tells how many were ones."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.inp = nn.Linear(1, 24)
        self.rec = nn.Linear(24, 24, bias=False)
        self.out = nn.Linear(24, 1)
        nn.init.orthogonal_(self.rec.weight, gain=scale)

    def forward(self, bits):
        h = torch.zeros(len(bits), 24)
        for t in range(bits.shape[1]):
            h = F.relu(self.inp(bits[:, t : t + 1]) + self.rec(h))
        return self.out(h).squeeze(1)


def train(seed: int, *, scale: float) -> float:
    torch.manual_seed(seed)
    model = Counter(scale)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(100):
        bits = (torch.rand(32, STEPS) < torch.rand(32, 1)).float()
        goal = bits.mean(1) * 2 - 1
        optimizer.zero_grad()
        F.mse_loss(model(bits), goal).backward()
        optimizer.step()
    with torch.no_grad():
        return 1 - (F.mse_loss(model(bits), goal) / goal.var()).item()


def sick(seed: int) -> float:
    return train(seed, scale=2.0)


def healthy(seed: int) -> float:
    return train(seed, scale=1.0)
