"""Steps that overshoot."""

from __future__ import annotations

import math

import numpy as np

from unstuck.evidence import Record
from unstuck.rules._dead import whole_dead
from unstuck.rules._learning import Learning, alternates, progress
from unstuck.rules._steps import rate, update_size
from unstuck.rules._words import number
from unstuck.verdict import Evidence, Finding


def learning_rate_too_high(
    record: Record, *, rise: float = 3.0, worse: float = 1.2, ratio: float = 0.03, jump: float = 5.0, early: float = 0.1
) -> list[Finding]:
    """Steps overshoot: each lands higher on the other side of the valley, or so far off that nothing is left of what was there.

    Signs, from the plainest: the loss rises until it is NaN; it stays above that of a constant prediction; it jumps in the first steps and
    never comes down, often because those steps killed the ReLU units or saturated the others; updates are a
    large part of the weights while the loss doesn't fall.

    Told apart:
        Every sign is a comparison, with the start of the loss, with chance, or with the weights; no rate is too high as such, since what
        a rate means depends on optimizer, scale of the data, and curvature. A NaN out of the blue, with a loss that
        was falling before, is not one. Where the gradient is zero from the first step on there is nothing to say of the rate, and where
        several losses pull against each other (GANs) or a loss has no fixed chance, a rising loss means nothing.

    Wrong when:
        Gradients are wrong, not large: a loss of the wrong sign, gradients that accumulate. Inputs or targets far from unit size have
        the same effect, and are named first where they are known.

    Args:
        record: The run.
        rise: Times its start that the loss must reach on the way to NaN. TheDeepChecker calls a doubling of the
            minimum divergence.
        worse: Loss at the end relative to chance, above which a constant prediction would have been better.
        ratio: Median size of an update relative to the weights. CS231n's rule of thumb for health is 1e-3, and 1e-2 high.
        jump: Times start and chance that the loss must jump to.
        early: Share of the run in which the jump must come, the first ten steps at least.

    Returns:
        One finding at most, its confidence by the number of signs.
    """
    learning = progress(record)
    if learning.well or learning.steps < 2 or alternates(record) or _no_gradient(record):
        return []
    signs = _signs(record, learning, rise, worse, ratio, jump, early)
    if not signs:
        return []
    size = update_size(record)
    at = rate(record)
    says = " and ".join(said for said, _, _ in signs[:2]) + (f", at a rate of {number(at)}" if math.isfinite(at) else "") + f"; {learning.words()}"
    evidence = tuple(Evidence("loss", "", step, value) for _, step, value in signs[:3])
    evidence += (Evidence("update_ratio", "", record.steps - 1, size),) if math.isfinite(size) else ()
    return [
        Finding(
            "learning-rate-too-high", "learning-rate-too-high", learning.weigh(), min(0.9, 0.5 + 0.2 * len(signs)), says, (), evidence,
            ("learning-rate", "warm-up", "gradient-clipping", "optimizer", "schedule"),
        )
    ]  # fmt: skip


def _signs(
    record: Record, learning: Learning, rise: float, worse: float, ratio: float, jump: float, early: float
) -> list[tuple[str, int, float]]:
    """What speaks for it: (words, step, loss)."""
    loss = record.series("loss").finite
    values, steps = loss.values, loss.steps
    if values.min() < 0 or learning.first <= 0:
        return []
    signs = []
    if learning.broke_at is not None:
        peak = int(np.argmax(values))
        if values[peak] > rise * values[0] and peak >= len(values) - 4:
            signs.append((f"the loss rises from {number(values[0])} to {number(values[peak])} before it is no longer finite", int(steps[peak]), float(values[peak])))
    elif learning.status == "diverges":
        signs.append((f"the loss rises from {number(learning.first)} to {number(learning.last)}", int(steps[-1]), learning.last))
    floor = np.nanmax([learning.first, learning.chance])
    count = max(10, int(early * len(values)))
    top = 1 + int(np.argmax(values[1:count])) if len(values) > 2 else 0
    if values[top] > jump * floor and learning.stuck and learning.broke_at is None:
        killed = whole_dead(record) and not whole_dead(record, from_start=True)
        after = ", which leaves units dead" if killed else ""
        signs.append((f"the loss jumps to {number(values[top])} at step {int(steps[top])}{after}", int(steps[top]), float(values[top])))
    falls = learning.last < 0.9 * learning.first
    if learning.status == "at chance" and learning.last > worse * learning.chance and not (falls and learning.last < 1.5 * learning.lowest):
        signs.append((f"the loss ends at {number(learning.last)}, above the {number(learning.chance)} of a constant prediction", int(steps[-1]), learning.last))
    size = update_size(record)
    if size > ratio and learning.status == "at chance" and not falls:
        signs.append((f"an update changes the weights by {number(size)} of their size while the loss doesn't fall", int(steps[-1]), learning.last))
    return signs


def _no_gradient(record: Record) -> bool:
    norm = record.series("grad_norm").finite
    return len(norm) > 0 and not norm.values.any()
