"""Deep copies in the middle of training: an average of the weights, and a best model put back."""

import copy

import digest
import tiny
import torch

model, optimizer, losses = tiny.train()
average = torch.optim.swa_utils.AveragedModel(model)
best = copy.deepcopy(model)
state = copy.deepcopy((model, optimizer))[1].state_dict()
for _ in range(5):
    x = torch.randn(8, 6)
    loss = (model(x) - best(x) ** 2).pow(2).mean() + average(x).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    average.update_parameters(model)
    losses.append(loss.item())
model.load_state_dict(best.state_dict())
optimizer.load_state_dict(state)
digest.show(model, average, best, losses=losses, optimizers=[optimizer])
