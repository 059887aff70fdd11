"""The first of fifty bits is to be told at the end, by an LSTM whose gates let half of it go at every step."""

import torch
from torch import nn


class Recall(nn.Module):
    def __init__(self, *, backwards: bool) -> None:
        super().__init__()
        self.backwards = backwards
        self.rnn = nn.LSTM(2, 16, batch_first=True)
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        out, _ = self.rnn(x.flip(1) if self.backwards else x)
        return self.head(out[:, -1]).squeeze(1)


def train(seed: int, *, backwards: bool) -> float:
    torch.manual_seed(seed)
    model = Recall(backwards=backwards)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    criterion = nn.BCEWithLogitsLoss()
    start = torch.zeros(32, 50)
    start[:, 0] = 1
    accuracy = 0.5
    for _ in range(220):
        bits = torch.randint(2, (32, 50)).float()
        logits = model(torch.stack([bits, start], dim=2))
        optimizer.zero_grad()
        criterion(logits, bits[:, 0]).backward()
        optimizer.step()
        accuracy = 0.9 * accuracy + 0.1 * ((logits > 0) == (bits[:, 0] > 0)).float().mean().item()
    return accuracy


def sick(seed: int) -> float:
    return train(seed, backwards=False)


def healthy(seed: int) -> float:
    return train(seed, backwards=True)
