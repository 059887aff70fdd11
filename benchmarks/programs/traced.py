"""Tracing, scripting and exporting a trained network: nothing of a watcher may be in the graphs."""

import warnings

import digest
import tiny
import torch

warnings.simplefilter("ignore", DeprecationWarning)
model, optimizer, losses = tiny.train()
x = torch.randn(2, 6)
traced = torch.jit.trace(model, x)
print(traced.inlined_graph)
print(torch.jit.script(model).inlined_graph)
print(torch.export.export(model, (x,)).graph)
print(torch.fx.symbolic_trace(model).code)
for _ in range(4):
    loss = traced(x).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
digest.show(model, losses=losses, optimizers=[optimizer])
