"""What every test of this room needs: tensors of all kinds, and a guard that nothing of the user's was touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

Guard = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def untouched() -> Guard:
    """Inside it, nothing may change tensors, their gradients or graphs, global randomness, or torch's modes."""

    @contextmanager
    def guard(*tensors: Tensor) -> Iterator[None]:
        values = [t.detach().clone() for t in tensors]
        facts = [(t.grad, t.grad_fn, t._version, t.requires_grad, t.shape, t.stride()) for t in tensors]
        state, numpy_state = torch.get_rng_state(), np.random.get_state()
        modes = (torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(), np.geterr())
        yield
        assert (torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(), np.geterr()) == modes
        assert torch.equal(torch.get_rng_state(), state)
        assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # pyright: ignore
        for tensor, value, fact in zip(tensors, values, facts, strict=True):
            assert torch.equal(tensor.nan_to_num(7.0), value.nan_to_num(7.0))
            now = (tensor.grad, tensor.grad_fn, tensor._version, tensor.requires_grad, tensor.shape, tensor.stride())
            assert now[0] is fact[0] and now[1] is fact[1] and now[2:] == fact[2:]
            if tensor.untyped_storage().size():
                tensor.untyped_storage().resize_(tensor.untyped_storage().size())  # refused once numpy shares it

    return guard


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
