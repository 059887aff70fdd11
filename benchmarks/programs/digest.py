"""Prints what a training came to, to the last bit: losses, weights, gradients, optimizer state, random states.

Importing it seeds the three global generators, so that a program's random states are its own doing.
"""

import hashlib
import random

import numpy as np
import torch

random.seed(0)
np.random.seed(0)
torch.manual_seed(0)


def show(*modules, losses=(), optimizers=()):
    """Print hexadecimal losses and digests of the rest; two trainings print the same only when they are the same."""
    print("losses", *(float(loss).hex() for loss in losses))
    for module in modules:
        tensors = [*module.state_dict().items(), *((f"{n}.grad", p.grad) for n, p in module.named_parameters())]
        print(type(module).__name__, "training" if module.training else "evaluating", of(dict(tensors)))
    for optimizer in optimizers:
        print(type(optimizer).__name__, of(optimizer.state_dict()))
    print("random", of(random.getstate()), of(np.random.get_state()), of(torch.get_rng_state()))


def end(scope):
    """Print what the global names of a program came to; appended to programs that don't print it themselves."""
    named = {name: value for name, value in sorted(scope.items()) if not name.startswith("_")}
    show(
        *(value for value in named.values() if isinstance(value, torch.nn.Module)),
        optimizers=[value for value in named.values() if isinstance(value, torch.optim.Optimizer)],
    )
    print(*(f"{name} {of(value)}" for name, value in named.items() if isinstance(value, torch.Tensor)))


def of(value):
    """Digest of tensors, arrays, numbers and containers of them."""
    made = hashlib.sha256()
    _feed(made, value)
    return made.hexdigest()[:20]


def _feed(made, value):
    if isinstance(value, torch.Tensor):
        value = value.detach().coalesce().to_dense() if value.is_sparse else value.detach()
        made.update(f"{value.dtype}{tuple(value.shape)}{value.stride()}{value.requires_grad}".encode())
        made.update(
            value.contiguous().view(torch.uint8).numpy().tobytes() if value.dim() else str(value.item()).encode()
        )
    elif isinstance(value, np.ndarray):
        made.update(value.tobytes())
    elif isinstance(value, dict):
        for key, part in value.items():
            made.update(repr(key).encode())
            _feed(made, part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _feed(made, part)
    else:
        made.update(repr(value).encode())
