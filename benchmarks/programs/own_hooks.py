"""The user's own hooks of every kind: all run, once each, in the user's order, and may change what passes."""

import digest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

torch.manual_seed(13)
calls = []
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
handle = register_module_forward_hook(lambda module, args, out: calls.append(f"global {type(module).__name__}"))
register_module_forward_pre_hook(lambda module, args: calls.append(f"before {type(module).__name__}"))
model[0].register_forward_hook(lambda module, args, out: out * 1.5)
model[1].register_forward_pre_hook(lambda module, args: (args[0] + 0.1,))
model[2].register_full_backward_hook(lambda module, before, after: calls.append(f"backward {after[0].sum():.6f}"))
model[2].weight.register_hook(lambda gradient: gradient * 0.5)
model[2].weight.register_post_accumulate_grad_hook(lambda p: calls.append(f"accumulated {p.grad.sum():.6f}"))
optimizer.register_step_pre_hook(lambda *_: calls.append("before step"))
optimizer.register_step_post_hook(lambda *_: calls.append("after step"))
losses = []
for step in range(4):
    if step == 2:
        handle.remove()
    out = model(torch.randn(8, 4))
    out.retain_grad()
    out.register_hook(lambda gradient: calls.append("at the output"))
    loss = out.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses += [loss.item(), out.grad.sum().item()]
print(*calls, sep="\n")
digest.show(model, losses=losses, optimizers=[optimizer])
