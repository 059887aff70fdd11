"""Two networks, two optimizers, gradients that flow through one into the other, and random numbers in each step."""

import digest
import torch
from torch import nn

torch.manual_seed(7)
maker = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.BatchNorm1d(16), nn.Linear(16, 2))
judge = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Dropout(0.2), nn.Linear(16, 1))
maker_optimizer = torch.optim.Adam(maker.parameters(), lr=2e-3, betas=(0.5, 0.9))
judge_optimizer = torch.optim.RMSprop(judge.parameters(), lr=1e-3)
score = nn.BCEWithLogitsLoss()
losses = []
for _ in range(15):
    real, made = torch.randn(32, 2) + 2, maker(torch.randn(32, 4))
    judge_optimizer.zero_grad()
    judge_loss = score(judge(real), torch.ones(32, 1)) + score(judge(made.detach()), torch.zeros(32, 1))
    judge_loss.backward()
    judge_optimizer.step()
    maker_optimizer.zero_grad()
    maker_loss = score(judge(made), torch.ones(32, 1))
    maker_loss.backward()
    maker_optimizer.step()
    losses += [judge_loss.item(), maker_loss.item()]
digest.show(maker, judge, losses=losses, optimizers=[maker_optimizer, judge_optimizer])
