"""torch.compile: the same graphs, as many of them, as few breaks."""

import digest
import torch
from torch import nn

torch.manual_seed(12)
model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 1))
graphs = []


def backend(module, inputs):
    graphs.append(len(module.graph.nodes))
    return module.forward


compiled = torch.compile(model, backend=backend)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
losses = []
for _ in range(12):
    loss = compiled(torch.randn(16, 6)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(graphs, dict(torch._dynamo.utils.counters["graph_break"]))
digest.show(model, losses=losses, optimizers=[optimizer])
