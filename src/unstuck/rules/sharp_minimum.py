"""A minimum with steep walls."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import alternates, progress, skill
from unstuck.rules._probes import curvature_of, number_of, probe
from unstuck.rules._words import number
from unstuck.verdict import Evidence, Finding


def sharp_minimum(record: Record, *, gap: float = 0.1, edge: float = 2.0) -> list[Finding]:
    """The training ended in a sharp minimum: a note, since sharpness alone predicts little.

    Told apart:
        The network fits its training data well, does worse on evaluation data, and the walls are so steep that twice the last step would
        climb them: the loss rises from there at less than `edge` times the script's own step (the edge of stability,
        Cohen et al. 2021). Where losses along the step weren't tried, the largest stable rate by the Hessian stands in.

    Wrong when:
        The gap has other reasons; flatness can be changed by rescaling weights without changing the network (Dinh et al. 2017).
        So this is shown, and nothing is concluded.

    Args:
        record: The run.
        gap: Training score above evaluation score, as a share of the way from chance to perfect.
        edge: Multiple of the script's step at which the loss rises.

    Returns:
        One finding at most, always a note.
    """
    learning, line, hessian = progress(record), probe(record, "critical-rate"), curvature_of(record)
    if (
        hessian is None
        or (line is None and math.isnan(number_of(hessian, "edge")))
        or alternates(record)
        or not learning.well
    ):
        return []
    behind = skill(record, learning.score_last) - skill(record, learning.eval_score)
    critical, rate = number_of(line, "critical"), number_of(hessian, "edge")
    if not math.isfinite(critical) and rate > 0:
        critical = 1 / rate  # as the curvature has it
    if not math.isfinite(behind) or not behind > gap or not 0 < critical <= edge:
        return []
    top = number_of(hessian, "top")
    bears = say(" (the rate is {rate} of what it bears)", rate=number(rate)) if rate > 0 else ""
    return finding(
        "sharp-minimum",
        "note",
        0.5,
        say(
            "the loss rises at {critical} times the last step, its largest curvature is {top}{bears}, "
            "and evaluation is {behind} of the way from chance to perfect behind training",
            critical=number(critical),
            top=number(top),
            bears=bears,
            behind=number(behind),
        ),
        evidence=[
            Evidence("hessian_top", "", record.steps, top),
            Evidence("critical_rate", "", record.steps, critical),
        ],
        treated_by=("weight-averaging", "batch-size", "learning-rate"),
    )
