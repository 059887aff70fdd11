"""torch.func: gradients by sample through vmap, Jacobians, Hessian products, stacked models."""

import digest
import tiny
import torch
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vmap

model, optimizer, losses = tiny.train()
parameters = dict(model.named_parameters())
x, y = torch.randn(5, 6), torch.randn(5, 1)


def loss_of(parameters, x, y):
    return torch.nn.functional.mse_loss(functional_call(model, parameters, (x,)), y)


print(digest.of(vmap(grad(loss_of), in_dims=(None, 0, 0))(parameters, x, y)))
print(digest.of(jacrev(loss_of)(parameters, x, y)), digest.of(hessian(lambda x: model(x).sum())(x)))
print(digest.of(list(jvp(lambda p: loss_of(p, x, y), (parameters,), (parameters,)))))
stacked, buffers = stack_module_state([model, tiny.train(seed=1)[0]])
print(digest.of(vmap(lambda p, b: functional_call(model, (p, b), (x,)))(stacked, buffers)))
digest.show(model, losses=losses, optimizers=[optimizer])
