"""How far the loss falls along the script's own step, and from which length on it rises."""

from __future__ import annotations

import math
from typing import Any

import torch

from unstuck.curvature.steps import searched
from unstuck.probes.bench import Bench, Clock


def critical_rate(
    bench: Bench, clock: Clock, *, most: int = 4, reach: int = 24, pooled: int = 1
) -> dict[str, Any] | None:
    """Goes along the update that the script's optimizer would make, by forward passes alone.

    Args:
        bench: The training.
        clock: Ends it.
        most: Updates it is done on.
        reach: Doublings and halvings of the step that are tried.
        pooled: Batches to an update; where fewer are at hand, all of them.

    Returns:
        `critical`: the least multiple of the step, and so of the learning rate, at which the loss is higher than before
        the step (2 over the curvature there, where the loss is a parabola; Cohen et al. 2021); `best`: the
        multiple at which it is lowest; `gain`: how much lower, relative to the loss; `rate`. The same from the first
        step's values as `start_critical`, `start_best`, `start_gain`. Medians over updates; critical is None where no
        tried length makes it rise.
    """
    if not bench.steps_known:
        return None
    found: dict[str, Any] = {"rate": bench.training.usual_rate}
    each = min(pooled, len(bench.batches))
    last = bench.batches[-most * each :]
    updates = [last[i : i + each] for i in range(len(last) % each, len(last), each)]
    for prefix, start in (("", False), ("start_", True)):
        if start and not bench.starts:
            continue
        lines = [_line(bench, batches, start=start, reach=reach) for batches in updates if clock.left]
        known = [line for line in lines if line is not None]
        if known:
            for i, name in enumerate(("critical", "best", "gain")):
                middle = sorted(line[i] for line in known)[len(known) // 2]
                found[prefix + name] = middle if math.isfinite(middle) else None
    return found if len(found) > 1 else None


def _line(bench: Bench, batches: range, *, start: bool, reach: int) -> tuple[float, float, float] | None:
    bench.restore(start=start)
    optimizer = bench.optimizer(start=start)
    before = [t.detach().clone() for t in bench.learned]
    here = bench.step(optimizer, *batches)
    way = [t.detach() - b for t, b in zip(bench.learned, before, strict=True)]
    bench.restore(start=start)
    if not math.isfinite(here) or not any(bool(w.any()) for w in way):
        return None

    def loss(multiple: float) -> float:
        with torch.no_grad():
            for tensor, value, step in zip(bench.learned, before, way, strict=True):
                tensor.copy_(value + multiple * step)
        return bench.loss(batches)

    found = searched(loss, reach=reach, tolerance=1.0)
    return found.above, found.best, found.gain / max(abs(found.start), 1e-30)
