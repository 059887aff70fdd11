"""Curvature along a run: at its start, at its end, at steps between, and where the loss stalls first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from unstuck.curvature.spectrum import extremes
from unstuck.evidence import Series
from unstuck.probes.bench import Bench, Clock, Snapshot
from unstuck.probes.curvature import FEWEST, Ground, rated

SPANS = 20  # of equal length, into which a run is cut to see where it stalls
LEAST = 4  # losses in a span


def course(
    bench: Bench, clock: Clock, stalled: Sequence[tuple[int, int]] = (), *, most: int = 4
) -> Iterator[tuple[int, dict[str, float]]]:
    """Measures a training where it stood at some steps, on one and the same few batches.

    Args:
        bench: The training, with its snapshots.
        clock: Ends it; the end of the run is measured first, then its start, then what lies in a stall, then the rest.
        stalled: Spans of steps in which the loss stalls, as `stalls` gives them.
        most: Batches.

    Yields:
        Step, and by name: `hessian_top` and `hessian_bottom`, the largest and the smallest eigenvalue; `sharpness`, the
        largest as the optimizer feels it; `stable_rate`; and `edge`, the rate over that.

    Raises:
        MisuseError: The network is too large for it.
    """  # noqa: DOC502
    bench.restore()
    batches = bench.some(bench.batches, clock, 200 * (2 + len(bench.training.snapshots)), most=most)
    ground = Ground(bench, batches, clock)
    yield bench.training.steps, _measured(ground, clock.part(0.3))
    for snapshot in in_order(bench, stalled):
        if ground.affords(clock) < 2 * FEWEST:
            return
        bench.put(snapshot.values)
        ground.again()
        yield snapshot.step, _measured(ground, clock.part(0.3), optimizer_at(bench, snapshot))
    bench.restore()


def in_order(bench: Bench, stalled: Sequence[tuple[int, int]]) -> list[Snapshot]:
    """Where it is measured: the start, then what lies in a stall, then the rest, from the middle outwards."""
    training = bench.training
    found = {
        s.step: s for s in training.snapshots if 0 < s.step < training.steps and len(s.values) == len(bench.tensors)
    }
    if bench.starts:
        found[0] = Snapshot(0, training.initial, (), ())
    half = training.steps / 2

    def rank(step: int) -> tuple[bool, bool, float]:
        return step != 0, not any(first <= step <= last for first, last in stalled), abs(step - half)

    return [found[step] for step in sorted(found, key=rank)]


def optimizer_at(bench: Bench, snapshot: Snapshot) -> Any:
    """The script's optimizer as it was then; as at the first step, where nothing of it was kept."""
    if not bench.steps_known:
        return None
    if not snapshot.rates:
        return bench.optimizer(start=True)
    made = bench.optimizer(start=bool(not snapshot.state))
    for group, rate in zip(made.param_groups, snapshot.rates, strict=True):
        group["lr"] = rate
    held = [p for group in made.param_groups for p in group["params"]]
    for tensor, state in zip(held, snapshot.state, strict=False):
        if tensor in made.state:
            made.state[tensor].update(state)
    return made


def stalls(loss: Series, *, gain: float = 0.01, share: float = 0.1) -> list[tuple[int, int]]:
    """Spans of steps in which a loss stalls.

    Args:
        loss: By step.
        gain: Part of the loss by which its median must fall below all before, over a twentieth of the run, or that stalls.
        share: Part of the run that a stall must last.

    Returns:
        First and last step of each, none of a run of fewer than 80 steps.
    """
    known = loss.finite
    if len(known) < SPANS * LEAST:
        return []
    spans = np.array_split(np.arange(len(known)), SPANS)
    middles = [float(np.median(known.values[span])) for span in spans]
    found: list[tuple[int, int]] = []
    best = middles[0]
    run: list[int] = []
    for i in range(1, SPANS + 1):
        if i < SPANS and not best - middles[i] > gain * abs(best):
            run.append(i)
            continue
        if len(run) >= share * SPANS:
            found.append((int(known.steps[spans[run[0]][0]]), int(known.steps[spans[run[-1]][-1]])))
        run = []
        best = min(best, middles[i]) if i < SPANS else best
    return found


def _measured(ground: Ground, clock: Clock, optimizer: Any = None) -> dict[str, float]:
    allowed = max(FEWEST, min(40, ground.affords(clock), ground.room))
    ends = extremes(ground.krylov, most=allowed, tolerance=0.03)
    found = {"hessian_top": ends.top.values[0], "hessian_bottom": ends.bottom.values[0]}
    rate = rated(ground, clock, optimizer, most=20)
    return found | {name: rate[name] for name in ("sharpness", "stable_rate", "edge") if name in rate}
