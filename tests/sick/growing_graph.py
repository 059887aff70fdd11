"""The state of a recurrent network is handed from window to window, and the graph of all that was before with it."""

import math

import torch
import torch.nn.functional as F
from torch import nn

WINDOW = 10


class Forecast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(1, 16, batch_first=True)
        self.head = nn.Linear(16, 1)

    def forward(self, x, h):
        out, h = self.rnn(x, h)
        return self.head(out), h


def train(seed: int, *, detach: bool) -> float:
    torch.manual_seed(seed)
    time = torch.arange(121) + 50 * torch.rand(16, 1)
    waves = torch.sin(2 * math.pi * time / 17)[:, :, None] + 0.1 * torch.randn(16, 121, 1)
    model = Forecast()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    error = torch.tensor(0.0)
    for _ in range(12):
        h = None
        for start in range(0, 120, WINDOW):
            x, goal = waves[:, start : start + WINDOW], waves[:, start + 1 : start + WINDOW + 1]
            out, h = model(x, h)
            error = F.mse_loss(out, goal)
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            if detach:
                h = h.detach()
    return 1 - (error / waves.var()).item()


def sick(seed: int) -> float:
    return train(seed, detach=False)


def healthy(seed: int) -> float:
    return train(seed, detach=True)
