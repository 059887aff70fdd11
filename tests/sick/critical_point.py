"""A wave is fitted by gradient descent, which settles in the nearest of many valleys: a wave of no height."""

import torch


def train(seed: int, *, guess: float) -> float:
    torch.manual_seed(seed)
    time = torch.linspace(0, 10, 200)
    heard = 2 * torch.sin(3.0 * time + 0.5) + 0.1 * torch.randn(200)

    height = torch.tensor(1.0, requires_grad=True)
    frequency = torch.tensor(guess, requires_grad=True)
    phase = torch.tensor(0.0, requires_grad=True)
    optimizer = torch.optim.SGD([height, frequency, phase], lr=0.01)
    for _ in range(500):
        wave = height * torch.sin(frequency * time + phase)
        loss = (wave - heard).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return 1 - (loss / heard.var()).item()


def sick(seed: int) -> float:
    return train(seed, guess=5.5)


def healthy(seed: int) -> float:
    return train(seed, guess=2.8)


EXPERIMENTS = True
