"""Curvature that differs so much by direction that one rate cannot serve."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import alternates, progress
from unstuck.rules._probes import curvature_of, number_of, probe, trial
from unstuck.rules._words import number, plural
from unstuck.verdict import Evidence, Finding

_ONE_RATE = frozenset({"SGD", "ASGD", "hand-written"})


def ill_conditioned(
    record: Record, *, better: float = 0.25, margin: float = 0.1, updates: int = 20, steep: float = 100.0
) -> list[Finding]:
    """Steep in some directions, flat in others: what the steep ones bear is too little for the flat ones.

    Told apart:
        By outcome. From the same start and on the same batches, gradient descent gets nowhere near what Adam, which has a rate of its
        own for each parameter, reaches in as many updates, with no rate from a hundredth to a hundred times the script's. If
        another rate alone does it, that is the finding instead. Only plain gradient descent is judged. Where curvature was measured, it
        is told how much steeper the steepest direction is than a typical one (the mean size of an eigenvalue), and
        the finding is the surer for it; alone it says nothing, since healthy networks have such directions as well.

    Wrong when:
        The inputs or targets are not scaled, which makes it so; where that is known it is named as the cause.

    Args:
        record: The run.
        better: How much better Adam must be than the best rate, as a share of the way from chance to perfect.
        margin: How far the network must be behind what Adam reached, as such a share.
        updates: Of each, below which they tell who sets out faster and no more.
        steep: Largest eigenvalue over a typical one from which on the finding is surer.

    Returns:
        One finding at most.
    """
    learning = progress(record)
    if learning.well or alternates(record) or not record.program.optimizers:
        return []
    optimizer = record.program.optimizers[0]
    rates = trial(record, "from-start")
    if optimizer.kind not in _ONE_RATE or rates is None or not math.isfinite(rates.adam):
        return []
    if rates.steps < updates or number_of(probe(record, "from-start"), "batches") < 2:
        return []  # on a single batch Adam may have learned by heart what nobody should
    factor, best = max(
        ((f, q) for f, q in rates.quality.items() if math.isfinite(q)), key=lambda p: p[1], default=(1.0, 0.0)
    )
    if not rates.adam - best > better or not rates.adam - learning.skill > margin:
        return []
    curvature = curvature_of(record)
    condition = number_of(curvature, "top") / (number_of(curvature, "typical") or math.nan)
    times = (
        say("; the steepest direction curves {times} times as much as a typical one", times=number(condition))
        if condition > steep
        else ""
    )
    says = say(
        "from the same start {updates} of Adam go {adam} of the way from chance to perfect, those of "
        "{kind} {best} at its best rate ({rate}){times}; {words}",
        updates=plural(rates.steps, "update"),
        adam=number(rates.adam),
        kind=optimizer.kind,
        best=number(max(best, 0.0)),
        rate=number(factor * rates.rate),
        times=times,
        words=learning.words(),
    )
    return finding(
        "ill-conditioned",
        learning.weigh(stuck="warning"),
        0.65 if condition > steep else 0.55,
        says,
        evidence=[
            Evidence("quality_adam", "", rates.steps, rates.adam),
            Evidence("quality_best_rate", "", rates.steps, best),
            *([Evidence("condition", "", record.steps, condition)] if condition > steep else []),
        ],
        treated_by=("optimizer", "momentum", "normalization", "standardize-input"),
    )
