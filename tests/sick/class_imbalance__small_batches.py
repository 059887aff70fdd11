"""One in twenty-five is ill, which is two or three in a batch of sixty, and the network calls everybody well."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler


def train(seed: int, *, balance: bool) -> float:
    torch.manual_seed(seed)
    ill = (torch.rand(3000) < 0.04).long()
    values = torch.randn(3000, 4) + 0.6 * ill[:, None]
    data = TensorDataset(values, ill)
    if balance:
        weights = (1 / ill.bincount())[ill]
        loader = DataLoader(data, 60, sampler=WeightedRandomSampler(weights.tolist(), len(ill)))
    else:
        loader = DataLoader(data, 60, shuffle=True)

    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    right = model(values).argmax(1) == ill
    return torch.stack([right[ill == c].float().mean() for c in (0, 1)]).mean().item()


def sick(seed: int) -> float:
    return train(seed, balance=False)


def healthy(seed: int) -> float:
    return train(seed, balance=True)


EXPERIMENTS = True
