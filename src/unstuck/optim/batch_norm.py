"""Running statistics of batch norm, measured for weights that they were not collected with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unstuck._modes import evaluating
from unstuck.errors import MisuseError


def update_batch_norm(
    model: nn.Module, batches: Iterable[Any], *, forward: Callable[[nn.Module, Any], Any] | None = None
) -> None:
    """Measures running statistics of norms anew, for weights that they were not collected with, as an equal average of weights needs.

    Called `with average.swapped_in()` it sets the average's statistics, and those of training are left alone, if buffers are averaged.
    Unlike in torch's `update_bn`, dropout stays off, as it will be when the statistics are used, and modes, momenta and counts are as
    before afterwards, also after an error.

    Args:
        model: The model.
        batches: As in training. Each counts the same.
        forward: Computes what the model makes of a batch, as `Training` takes it; by default the model is given the batch, or the first
            of what is in it, where the model is.

    Raises:
        MisuseError: There are no batches.

    Source:
        Izmailov et al. 2018, section 3.2.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        return
    given = iter(batches)
    first = list(islice(given, 1))
    if not first:
        raise MisuseError("there are no batches to measure statistics on; can they be gone through once only?")
    with torch.no_grad(), _only_these_train(model, norms):
        for batch in chain(first, given):
            (forward or _forward)(model, batch)


@contextlib.contextmanager
def _only_these_train(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """While which norms collect the plain mean over batches, from none on, and everything else evaluates."""
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    with evaluating(model):
        try:
            for norm, _, tracked in kept:
                norm.train()
                norm.momentum = None  # the plain mean
                norm.num_batches_tracked = None if tracked is None else torch.zeros_like(tracked)
                norm.reset_running_stats()  # what isn't finite would stay so
            yield
        finally:
            for norm, momentum, tracked in kept:
                norm.momentum, norm.num_batches_tracked = momentum, tracked


def _forward(model: nn.Module, batch: Any) -> Any:
    inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
    return model(inputs.to(next(model.parameters()).device))
