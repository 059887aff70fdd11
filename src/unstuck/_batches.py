"""Batches: how a network answers one, what they are drawn by, and how they are gone through without a trace."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from unstuck.errors import MisuseError

Forward = Callable[[nn.Module, Any], tuple[Any, Any]]
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def outputs_and_targets(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    """The usual forward: a batch is inputs and targets, which are moved to where the model is.

    Args:
        model: The network.
        batch: Inputs and targets, each a tensor, or tensors in tuples, lists and dicts.

    Returns:
        Outputs and targets.

    Raises:
        MisuseError: The batch is something else.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        many = f" of {len(batch)}" if isinstance(batch, Sized) else ""
        raise MisuseError(
            f"a batch is a {type(batch).__name__}{many}, but must be inputs and targets: else say by forward=... how outputs and targets "
            "are computed of the model and a batch"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs, targets = (_moved(part, device) for part in batch)
    return model(inputs), targets


def _moved(part: Any, device: torch.device) -> Any:
    if isinstance(part, Tensor):
        return part.to(device)
    if isinstance(part, (tuple, list)) and not hasattr(part, "_fields"):
        return type(part)(_moved(p, device) for p in part)
    return {k: _moved(p, device) for k, p in part.items()} if isinstance(part, dict) else part


# ---------------------------------------------------------------------- what they are drawn by


def generators(batches: Any) -> list[Any]:
    """The generators that batches are drawn by, each once.

    Args:
        batches: A DataLoader, or anything that holds generators.

    Returns:
        Those of torch, numpy and `random` that the batches or their samplers hold.
    """
    sampler = getattr(batches, "batch_sampler", None)
    holders = (batches, getattr(batches, "sampler", None), sampler, getattr(sampler, "sampler", None))
    found = [v for holder in holders for v in getattr(holder, "__dict__", {}).values()]
    return list({id(g): g for g in found if isinstance(g, _GENERATORS)}.values())


def state_of(generator: Any) -> Any:
    """Where a generator of any kind stands; it is none of the generator's own memory."""
    if isinstance(generator, np.random.Generator):
        return copy.deepcopy(generator.bit_generator.state)
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def put(generator: Any, state: Any) -> None:
    """Puts a generator to where one of its kind stood."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


@contextlib.contextmanager
def generators_kept(batches: Any) -> Iterator[None]:
    """While which batches may be drawn: afterwards their generators go on where they were."""
    states = [(generator, state_of(generator)) for generator in generators(batches)]
    try:
        yield
    finally:
        for generator, state in states:
            put(generator, state)


@contextlib.contextmanager
def numbers_kept() -> Iterator[None]:
    """While which random numbers may be drawn: afterwards torch, numpy and `random` go on where they were."""
    state, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def copied_batches(batches: Any, memo: dict[int, Any]) -> Any:
    """Batches of the same data; what they are drawn by is copied.

    Args:
        batches: The batches.
        memo: What has been copied, as for `deepcopy`.

    Returns:
        The copy; what there is no generator in is shared.
    """
    if isinstance(batches, DataLoader):
        memo[id(batches.dataset)] = batches.dataset
        new = copy.copy(batches)
        drawn_by = {k: copy.deepcopy(vars(batches)[k], memo) for k in ("sampler", "batch_sampler", "generator")}
        vars(new).update(drawn_by, _iterator=None)  # a loader refuses to have these set
        return new
    if not any(isinstance(v, _GENERATORS) for v in getattr(batches, "__dict__", {}).values()):
        return batches
    new = copy.copy(batches)
    vars(new).update({k: copy.deepcopy(v, memo) for k, v in vars(batches).items() if isinstance(v, _GENERATORS)})
    return new
