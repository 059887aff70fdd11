"""Sparse gradients, tied, frozen, unused, complex and parametrized weights."""

import digest
import torch
from torch import nn


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(30, 8, sparse=True)
        self.out = nn.Linear(8, 30, bias=False)
        self.middle = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.tied = self.middle
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.unused = nn.Linear(3, 3)
        self.phase = nn.Parameter(torch.randn(8, dtype=torch.complex64))

    def forward(self, x):
        h = self.tied(self.middle(self.words(x))) + self.frozen(self.words(x).detach())
        return self.out(h * (self.phase * self.phase.conj()).real)


torch.manual_seed(15)
model = Odd()
sparse = torch.optim.SparseAdam(model.words.parameters(), lr=1e-2)
dense = torch.optim.SGD([p for n, p in model.named_parameters() if not n.startswith("words")], lr=1e-2)
losses = []
for _ in range(8):
    x = torch.randint(30, (4, 5))
    loss = nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())
    model.zero_grad()
    loss.backward()
    sparse.step()
    dense.step()
    losses.append(loss.item())
digest.show(model, losses=losses, optimizers=[sparse, dense])
