"""Gradients that grow on the way back, along depth or time, or spike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from unstuck._language import say
from unstuck.evidence import Record, Series
from unstuck.rules._depth import gradient, main_group, steepest, weighted
from unstuck.rules._finding import finding
from unstuck.rules._learning import Learning, progress
from unstuck.rules._medians import medians, medians_before, stretches
from unstuck.rules._steps import SCALE_FREE, struck_at
from unstuck.rules._words import number, then
from unstuck.verdict import Evidence, Finding

_BEFORE = 8  # norms a spike is held against

_HALF = 0.5  # of the way from chance to perfect: gradients that grow have not kept it from that


def exploding_gradient(
    record: Record,
    *,
    growth: float = 1e3,
    single: float = 0.8,
    lag_growth: float = 1e2,
    spike: float = 1e2,
    start: float = 1e3,
) -> list[Finding]:
    """Gradients grow from layer to layer or from time step to time step, or spike within one step.

    One such step is enough: it throws the weights to where everything is saturated, dead or NaN, and what
    follows looks like a gradient that vanishes. So the first step is looked at as closely as the rest.

    Told apart:
        Growth along depth or time is a ratio within one step. A spike is held against the norms before it,
        never against a fixed number, and counts only where the loss is the worse for it. A first gradient that
        is far larger than all that follow counts only where the network is stuck, since a loss far from its
        goal begins with a large gradient in health, too; nor where nothing is left of the gradient after a step of an
        optimizer that sets the length of its steps itself (Adam and its like). Where the loss grows together with the norm over many
        steps, the rate is too high: then that is the cause, and this a symptom.

    Wrong when:
        Rare samples have gradients of their own size (heavy tails in regression), and the loss jumps for
        another reason.

    Args:
        record: The run.
        growth: Gradient of the first layer's weights (root mean square) relative to the last's at step 0.
            AutoTrainer takes 70 for norms, which healthy networks with a wide first layer reach.
        single: Share of the growth, on a log scale, that may lie between two neighbouring layers.
        lag_growth: Gradient of the hidden state at the farthest lag relative to that at the end.
        spike: Norm relative to the median of those before.
        start: Norm at step 0 relative to the median of those after.

    Returns:
        One finding at most: along time, else along depth, else the first step, else the first spike.
    """
    learning = progress(record)
    if learning.status == "learns well":
        return []
    return (
        _along_time(record, learning, lag_growth)
        or _along_depth(record, learning, growth, single)
        or _first_step(record, learning, start)
        or _spike(record, learning, spike)
    )


def _along_time(record: Record, learning: Learning, lag_growth: float) -> list[Finding]:
    for place in record.places("lag_grad"):
        for vector in record.vectors("lag_grad", place):
            curve = vector.values[np.isfinite(vector.values)]
            if len(curve) >= 5 and curve[-1] > lag_growth and curve[-1] >= 0.1 * curve.max():
                grown, steps = float(curve[-1]), len(vector.values)
                says = say(
                    "the gradient of {place} grows {grown} times over {steps} time steps at step {step}",
                    place=place,
                    grown=number(grown),
                    steps=steps,
                    step=vector.step,
                )
                evidence = Evidence("lag_grad", place, vector.step, grown)
                return _explodes(
                    learning, 0.9, says, [place], [evidence], ("gradient-clipping", "initialization", "gating")
                )
    return []


def _along_depth(record: Record, learning: Learning, growth: float, single: float) -> list[Finding]:
    layers = [w for w in main_group(record, weighted(record)) if len(gradient(record, w))]
    sizes = [gradient(record, w).first for w in layers]
    if len(layers) < 3 or not sizes[-1] > 0:
        return []
    ratio = sizes[0] / sizes[-1]
    if not ratio > growth or steepest(sizes) > single:
        return []
    where = [w.name for w, size in zip(layers, sizes, strict=True) if size > 10 * sizes[-1]]
    says = say(
        "at step 0 the gradient of {first} is {ratio} times that of {last}",
        first=layers[0].name,
        ratio=number(ratio),
        last=layers[-1].name,
    )
    evidence = [Evidence("grad_rms", layers[i].weights[0].name, 0, sizes[i]) for i in (0, -1)]
    return _explodes(learning, 0.85, says, where, evidence, ("initialization", "normalization", "gradient-clipping"))


def _first_step(record: Record, learning: Learning, start: float) -> list[Finding]:
    norms = record.series("grad_norm").until(learning.end).finite
    if len(norms) < 4 or not learning.stuck or norms.steps[0] != 0:
        return []
    first, rest = norms.first, float(np.median(norms.values[1:]))
    if not first > start * rest or (rest == 0 and _scale_free(record)):
        return []
    says = say(
        "the gradient at step 0 has a norm of {first}, those after it {rest}", first=number(first), rest=number(rest)
    )
    evidence = [Evidence("grad_norm", "", 0, first), Evidence("grad_norm", "", int(norms.steps[-1]), rest)]
    return _explodes(learning, 0.7, says, [], evidence, ("gradient-clipping", "initialization", "learning-rate"))


def _scale_free(record: Record) -> bool:
    """Whether the length of a step doesn't depend on the gradient's: what nothing is left of then is the work of the rate."""
    return any(o.kind in SCALE_FREE for o in record.program.optimizers if o.steps)


def _spike(record: Record, learning: Learning, spike: float) -> list[Finding]:
    norms = record.series("grad_norm").until(learning.end).finite
    i, before = _first_spike(record, norms, spike)
    if i is None:
        return []
    now, step = float(norms.values[i]), int(norms.steps[i])
    says = say(
        "the norm of the gradient jumps from {before} to {now} at step {step}",
        before=number(before),
        now=number(now),
        step=step,
    )
    evidence = [Evidence("grad_norm", "", step, now)]
    struck = struck_at(record)
    if struck is not None and struck <= step:
        says = say(
            "{says}; the batch of step {struck} is unlike all before, and nothing in those steps led up to its loss",
            says=says,
            struck=struck,
        )
    sure = 0.5 if struck is None else 0.85
    return _explodes(learning, sure, says, [], evidence, ("gradient-clipping", "learning-rate", "warm-up"))


def _first_spike(record: Record, norms: Series, spike: float) -> tuple[int | None, float]:
    """The first norm far above the median of those before, but for that of step 0, and after which the loss is worse; and that median."""
    values, few = norms.values, 1 + _BEFORE
    if len(values) <= few:
        return None, math.nan
    lowest = np.minimum.accumulate(values[1:])[_BEFORE - 1 : -1]
    at = few + np.flatnonzero(values[few:] > spike * lowest)  # no median is below that
    at = at[_worse_after(record, norms.steps[at])]
    if not len(at):
        return None, math.nan
    before = medians_before(values[1:], at - 1)
    found = np.flatnonzero((values[at] > spike * before) & (before > 0))
    return (int(at[found[0]]), float(before[found[0]])) if len(found) else (None, math.nan)


def _worse_after(record: Record, steps: np.ndarray) -> np.ndarray:
    """Whether the loss after each of these steps is twice that before, or not finite; false where too few losses are known."""
    loss, good, few = record.series("loss"), record.series("loss").finite, 10
    known, start = np.searchsorted(good.steps, steps), np.searchsorted(loss.steps, steps + 1)
    before, after = stretches(good.values, known - few, few), stretches(loss.values, start, few)
    there = np.minimum(len(loss) - start, few)
    broken = np.count_nonzero(np.isfinite(after), axis=1) < there
    return (known >= 3) & (there > 0) & (broken | (medians(after) > 2 * np.abs(medians(before))))


def _explodes(
    learning: Learning,
    confidence: float,
    says: str,
    layers: Sequence[str],
    evidence: Sequence[Evidence],
    treated_by: Sequence[str],
) -> list[Finding]:
    return finding(
        "exploding-gradient",
        learning.weigh(breaks=True, learns="note" if learning.skill > _HALF else "warning"),
        confidence,
        then(says, learning.words()),
        layers=layers,
        evidence=evidence,
        treated_by=treated_by,
    )
