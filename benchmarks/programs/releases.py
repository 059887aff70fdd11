"""Memory goes back when the user lets go of it, without waiting for the garbage collector."""

import gc
import weakref

import tiny
import torch
from torch import nn

gc.disable()
kept = []
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(6):
    x = torch.randn(8, 4)
    hidden = model[1](model[0](x))
    out = model[2](hidden)
    loss = out.pow(2).mean()
    loss.backward()
    optimizer.step()
    gradient = weakref.ref(model[0].weight.grad)
    optimizer.zero_grad()
    kept += [weakref.ref(t) for t in (x, hidden, out, loss)] + [gradient]
    del x, hidden, out, loss
    print(step, [ref() is None for ref in kept[-5:]])
print(all(ref() is None for ref in kept))
first = weakref.ref(model[0].weight)
del model
optimizer = None
gc.collect()
print("model released", first() is None)
model, optimizer, _ = tiny.train()
whole = weakref.ref(model)
del model, optimizer
gc.collect()
print("second model released", whole() is None)
