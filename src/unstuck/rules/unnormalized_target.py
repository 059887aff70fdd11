"""Regression targets of a scale the network can't reach in time."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import Learning, main_loss, progress
from unstuck.rules._words import number
from unstuck.verdict import Evidence, Finding

_SOON = 1 / 3  # of the way from chance to perfect: where a scale is still to blame


def unnormalized_target(record: Record, *, size: float = 10.0, small: float = 1e-3) -> list[Finding]:
    """Regression targets are so large, so small or so far from zero that the network can't reach them in time.

    A network starts with outputs of about unit size. Targets in the hundreds make errors and gradients in the
    hundreds: steps overshoot, or, with an optimizer that bounds its steps, the way is too long. Tiny targets
    make gradients that vanish beside the rest.

    Told apart:
        By mean and deviation of the targets of a regression. Raw targets are usual, and a network that learns
        got there all the same: that is a note. It is a warning where it came less than a third of the way, and
        an error where it is stuck.

    Wrong when:
        The output is scaled inside the network to the range of the targets.

    Args:
        record: The run.
        size: Root mean square of the targets from which on they are large. Standardised targets have 1.
        small: Their deviation below which they are small.

    Returns:
        One finding at most, for the main loss.
    """
    call = main_loss(record)
    if call is None or record.program.task.kind != "regression":
        return []
    mean, std = record.program.task.target_mean, record.program.task.target_std
    if not (math.isfinite(mean) and math.isfinite(std)):
        mean, std = call.target.get("mean", math.nan), call.target.get("std", math.nan)
    target_size = math.hypot(mean, std)
    large, tiny = target_size > size, 0 < std < small and target_size < 100 * small
    if not (large or tiny):
        return []
    learning = progress(record)
    says = say(
        "the targets have a mean of {mean} and a deviation of {std}, where an output starts at about 0 and 1; {words}",
        mean=number(mean),
        std=number(std),
        words=learning.words(),
    )
    return finding(
        "unnormalized-target",
        learning.weigh(stuck="error" if large else "warning", learns="warning" if learning.skill < _SOON else "note"),
        0.5
        if tiny
        else 0.97
        if _out_of_reach(record, learning, target_size)
        else 0.9
        if target_size > 10 * size
        else 0.75,
        says,
        layers=(call.layer,),
        evidence=[Evidence("target_mean", call.layer, 0, mean), Evidence("target_std", call.layer, 0, std)],
        treated_by=("standardize-target", "learning-rate"),
    )


def _out_of_reach(record: Record, learning: Learning, target_size: float) -> bool:
    """Whether the outputs never even came near the targets' mean, as the end finds them: steps too small for the way."""
    outputs = main_loss(record)
    spread = (
        max(abs(outputs.output.get("min", 0.0)), abs(outputs.output.get("max", 0.0)))
        if outputs is not None
        else math.nan
    )
    return learning.skill < -0.05 and learning.status != "diverges" and spread < 0.3 * target_size
