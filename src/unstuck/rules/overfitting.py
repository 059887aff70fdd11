"""Training improves while evaluation gets worse."""

from __future__ import annotations

import math

import numpy as np

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import progress
from unstuck.rules._words import number
from unstuck.verdict import Evidence, Finding


def overfitting(
    record: Record, *, rise: float = 0.2, drop: float = 0.03, evaluations: int = 5, past: float = 0.25
) -> list[Finding]:
    """Training improves, evaluation gets worse: the network learns its training data by heart.

    Told apart:
        By trend, not by the gap, which every network has: the evaluation loss has its minimum well before the
        end and rises from there while the training loss goes on falling. A loss that rises because right
        answers are given with too much confidence, while the score stays where it was, is a note; it is a
        warning where the score falls, too. Two evaluations are no trend.

    Wrong when:
        Evaluation data are few, and their score jumps about.

    Args:
        record: The run.
        rise: Rise of the evaluation loss above its minimum, relative to it. SageMaker Debugger takes a gap of
            0.1 between training and evaluation.
        drop: Fall of the evaluation score below its best, absolute; for perplexity relative.
        evaluations: Evaluations that must have been made.
        past: Share of them that must lie behind the minimum.

    Returns:
        One finding at most.
    """
    losses = record.series("eval_loss").finite
    if len(losses) < evaluations:
        return []
    values = _smooth(losses.values)
    best = int(np.argmin(values))
    rose = float(values[-1] / values[best] - 1) if values[best] > 0 else math.nan
    if not rose > rise or len(values) - 1 - best < past * len(values):
        return []
    then, now = _training(record, int(losses.steps[best])), progress(record).last
    if not now < 0.95 * then:
        return []
    fell = _fall(record)
    severity = "warning" if fell > drop or (math.isnan(fell) and rose > 2 * rise) else "note"
    says = say(
        "the evaluation loss rises from {best} at step {step} to {last}, while the training "
        "loss falls from {then} to {now}",
        best=number(float(values[best])),
        step=int(losses.steps[best]),
        last=number(float(values[-1])),
        then=number(then),
        now=number(now),
    )
    return finding(
        "overfitting",
        severity,
        0.8,
        say("{says}; the evaluation score falls by {fell}", says=says, fell=number(fell)) if fell > drop else says,
        evidence=[Evidence("eval_loss", "", int(losses.steps[i]), float(losses.values[i])) for i in (best, -1)],
        treated_by=("dropout", "weight-decay", "early-stopping", "wider", "l1"),
    )


def _smooth(values: np.ndarray) -> np.ndarray:
    """Median of the three nearest of at least three values, so that one odd evaluation counts for nothing."""
    threes = np.median(np.lib.stride_tricks.sliding_window_view(values, 3), axis=1)
    return np.concatenate([threes[:1], threes, threes[-1:]])


def _training(record: Record, step: int) -> float:
    """Training loss around a step."""
    loss = record.series("loss").finite
    width = max(3, len(loss) // 20)
    near = np.argsort(np.abs(loss.steps - step))[:width]
    return float(np.mean(loss.values[near])) if len(near) else math.nan


def _fall(record: Record) -> float:
    scores = record.series("eval_score").finite.values
    if len(scores) < 3:
        return math.nan
    scores = _smooth(scores)
    if record.program.task.score == "perplexity":
        return float(scores[-1] / scores.min() - 1)
    return float(scores.max() - scores[-1])
