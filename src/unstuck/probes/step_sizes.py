"""Is another learning rate better? The same steps with the rate times 0.01 to 100, from the end and from the start."""

from __future__ import annotations

import math
import time
from typing import Any

from unstuck.probes.bench import Bench, Clock

FACTORS = (1.0, 10.0, 0.1, 100.0, 0.01)
LEAST = 8  # updates, of which fewer tell nothing
ADAM = (1e-3, 1e-2)


def step_sizes(bench: Bench, clock: Clock, *, most: int = 100) -> dict[str, Any] | None:
    """Continues the training on every other kept batch with other learning rates, and looks at the batches between.

    Args:
        bench: The training.
        clock: Shared out among the rates.
        most: Updates with each rate.

    Returns:
        `factors`, and by factor the mean `losses` and `scores` of the other batches after `steps` updates (of the same
        batch, where there is only one), and `own_losses` of those it was continued on; `before`, `score_before`; `rate`. A loss
        is None where it diverged.
    """
    return _tried(bench, clock, most, start=False)


def from_start(bench: Bench, clock: Clock, *, most: int = 200) -> dict[str, Any] | None:
    """The same from the network's first values, with a fresh optimizer; and with Adam.

    Args:
        bench: The training.
        clock: Shared out among the rates.
        most: Updates with each rate; never more than the script made.

    Returns:
        As `step_sizes`, and `adam_rates`, `adam_losses`, `adam_scores`.
    """
    if not bench.starts:
        return None
    found = _tried(bench, clock.part(0.7), min(most, max(10, bench.training.steps)), start=True)
    if found is None:
        return None
    losses, scores = [], []
    for rate in ADAM:
        bench.restore(start=True)
        loss, score, _ = _after(bench, bench.adam(rate), found["steps"], bench.some(bench.held, clock, 8))
        losses.append(loss)
        scores.append(score)
    return {**found, "adam_rates": list(ADAM), "adam_losses": losses, "adam_scores": scores}


def _tried(bench: Bench, clock: Clock, most: int, *, start: bool) -> dict[str, Any] | None:
    if not bench.steps_known:
        return None
    steps = _steps_for(bench, clock, most, start=start)
    if steps < LEAST:
        return None
    bench.restore(start=start)
    look = bench.some(bench.held, clock, 40)
    before, score_before = bench.measured(look)
    found: dict[float, tuple[float | None, float | None, float | None]] = {}
    for factor in FACTORS:
        if not clock.left and len(found) >= 3:
            break
        bench.restore(start=start)
        found[factor] = _after(bench, bench.optimizer(factor, start=start), steps, look)
    ordered = sorted(found)
    return {
        "factors": ordered, "losses": [found[f][0] for f in ordered], "scores": [found[f][1] for f in ordered],
        "own_losses": [found[f][2] for f in ordered], "before": before, "score_before": score_before, "steps": steps,
        "rate": bench.training.first_rate if start else bench.training.usual_rate, "batches": len(bench.tapes),
    }  # fmt: skip


def _steps_for(bench: Bench, clock: Clock, most: int, *, start: bool) -> int:
    """Updates with each rate that the clock leaves time for."""
    bench.restore(start=start)
    optimizer, before, began = bench.optimizer(start=start), clock.left, time.perf_counter()
    bench.train(optimizer, bench.batches, 2, clock)
    each = max(before - clock.left, 1e-5) / 2 if clock.processor else (time.perf_counter() - began) / 2
    return int(min(most, clock.left / max(each, 1e-6) / (len(FACTORS) + 1)))


def _after(bench: Bench, optimizer: Any, steps: int, look: range) -> tuple[float | None, float | None, float | None]:
    losses = bench.train(optimizer, bench.fitted, steps)
    loss, score = bench.measured_after(losses, look)
    own = bench.measured_after(losses, bench.fitted[-len(look) :])[0] if bench.held != bench.fitted else loss
    return tuple(v if math.isfinite(v) else None for v in (loss, score, own))  # pyright: ignore[reportReturnType]
