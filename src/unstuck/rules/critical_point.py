"""A loss that is high where its gradient vanishes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import Learning, alternates, progress, skill
from unstuck.rules._probes import curvature_of, number_of, probe, reachable, trial
from unstuck.rules._words import number, share
from unstuck.verdict import Evidence, Finding

_MINIMUM, _SADDLE, _PLATEAU = say("a local minimum"), say("a saddle"), say("a plateau")


def critical_point(
    record: Record, *, gain: float = 0.01, small: float = 0.05, negative: float = 0.01, better: float = 0.1
) -> list[Finding]:
    """The training rests where the gradient vanishes though the loss is high: at a saddle, in a local minimum, or on a plateau.

    Told apart:
        The network is at chance, the gradient of several batches is a small part of that at the start, and neither a longer nor a shorter
        step takes the loss down, though it could be lower: from the same start some rate or Adam does better, or a small
        reference network does on samples it never saw. Where nothing does, there may be nothing to learn. The Hessian
        tells which it is: an eigenvalue clearly below zero is a way out that a saddle has (Dauphin et al. 2014), none
        below zero a minimum, none apart from zero a plateau, and so is a point where the gradient lies in the kernel of the Hessian
        (Frye et al. 2021). Where the curvature is measured and the gradient, beyond its noise, would take the loss down, it is
        no such point. Dead units, saturated ones and outputs that can't move
        make plateaus too; where they are known, they are named as the cause.

    Wrong when:
        The loss is as low as it can be, and chance was estimated wrongly.

    Args:
        record: The run.
        gain: Share of the loss that no step may take away, and that is not to be gained along the gradient as the Hessian has it.
        small: Gradient at the end relative to the start.
        negative: Most negative eigenvalue relative to the largest, beyond its error, from which it counts.
        better: How much further another start or network must get, as a share of the way from chance to perfect.

    Returns:
        One finding at most.
    """
    learning = progress(record)
    line, rates, hessian = (probe(record, "critical-rate"), trial(record, "step-sizes"), curvature_of(record))
    if learning.status != "at chance" or alternates(record) or line is None or rates is None or hessian is None:
        return []
    norms = record.series("grad_norm").finite
    left = number_of(hessian, "gradient") / norms.first if len(norms) and norms.first > 0 else math.nan
    if not left < small:
        return []
    lower = min(rates.losses.values(), default=math.inf)
    if not number_of(line, "gain") < gain or not lower > (1 - gain) * rates.loss_before:
        return []
    if not _could_be_lower(record, learning, better):
        return []
    if hessian.get("kind") == "not critical" and number_of(hessian, "gain") > gain * abs(number_of(hessian, "loss")):
        return []  # the gradient is certain, and its curvature says that the loss can fall along it
    top, bottom = (number_of(hessian, key) for key in ("top", "bottom"))
    kind = _kind(hessian, learning, negative)
    saddle = kind == _SADDLE
    way = (
        say(", the most negative eigenvalue is {bottom}, the largest {top}", bottom=number(bottom), top=number(top))
        if kind != _PLATEAU
        else ""
    )
    says = say(
        "it rests at {kind}: the gradient is {share} of that at the start and no step lowers the loss{way}; {words}",
        kind=kind,
        share=share(left),
        way=way,
        words=learning.words(),
    )
    return finding(
        "critical-point",
        "error",
        0.6,
        says,
        evidence=[
            Evidence("grad_norm", "", int(norms.steps[-1]), norms.last), Evidence("hessian_bottom", "", record.steps, bottom)
        ],
        treated_by=("escape", "momentum", "optimizer", "initialization") if saddle else ("initialization", "optimizer", "escape"),
    )  # fmt: skip


def _kind(hessian: Mapping[str, Any], learning: Learning, negative: float) -> str:
    """What it rests at: as it was judged where it was measured, else by its outermost eigenvalues."""
    judged = {"minimum": _MINIMUM, "flat": _PLATEAU, "gradient-flat": _PLATEAU}.get(str(hessian.get("kind")))
    top, bottom, error = (number_of(hessian, key) for key in ("top", "bottom", "bottom_error"))
    if bottom + error < -negative * abs(top) and judged != _PLATEAU:
        return _SADDLE
    flat = max(abs(top), abs(bottom)) < 1e-6 * max(1.0, abs(learning.last))
    return judged or (_PLATEAU if flat else _MINIMUM)


def _could_be_lower(record: Record, learning: Learning, better: float) -> bool:
    """Whether from the same start, or with another network, more was learned."""
    start = trial(record, "from-start")
    qualities = [
        skill(record, reachable(record)),
        *((*start.quality.values(), start.adam) if start is not None else ()),
    ]
    reached = max((q for q in qualities if math.isfinite(q)), default=math.nan)
    known = learning.skill if math.isfinite(learning.skill) else learning.loss_skill
    return reached - max(known, 0.0) > better
