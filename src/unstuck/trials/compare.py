"""How runs are compared: how good each got, by how much it gained, and whether one that goes on can still win."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unstuck.errors import UnstuckError
from unstuck.evidence import Record
from unstuck.rules._learning import skill as skill_of
from unstuck.trials.estimate import Effect, paired
from unstuck.trials.job import Outcome

SAMPLES = 4  # scores of single batches, from which on a run is judged


def skill(outcome: Outcome) -> float:
    """How good a run got: share of the way from chance to perfect, else less its loss; minus infinity where it broke."""
    if outcome.status in ("failed", "diverged", "stopped") or not outcome.record:
        return -math.inf
    return outcome.skill if math.isfinite(outcome.skill) else outcome.quality


def floored(outcome: Outcome) -> float:
    """How good a run got, at worst as far below chance as perfect is above it; minus infinity where it broke."""
    own = skill(outcome)
    return max(-1.0, own) if math.isfinite(own) else own


def gained(before: Outcome, after: Outcome) -> float:
    """By how much a run got further, as a share of the way from chance to perfect; of the loss where chance is not known.

    R2 has no floor: how far below chance one is doesn't count, beyond as far as perfect is above it.
    """
    if all(math.isfinite(o.skill) for o in (before, after)):
        return floored(after) - floored(before)
    if not math.isfinite(skill(before)) or before.value == 0:
        return skill(after) - skill(before)
    return (skill(after) - skill(before)) / abs(before.value)


def effect(pairs: Sequence[tuple[Outcome, Outcome]]) -> Effect:
    """What pairs of runs, without and with a treatment, tell of it: the gain; what broke counts as far below chance."""
    if all(math.isfinite(o.skill) or not math.isfinite(skill(o)) for pair in pairs for o in pair):
        return paired([max(-1.0, skill(a)) for a, _ in pairs], [max(-1.0, skill(b)) for _, b in pairs])
    return paired([0.0] * len(pairs), [max(-10.0, min(10.0, gained(a, b))) for a, b in pairs])


def behind(path: Path, best: Outcome, *, share: float = 0.4, most: float = 0.85, far: float = 0.15) -> str:
    """Why a run that goes on need not end: its score is far below what the best had by the same step; "" while it may.

    Args:
        path: Its record so far.
        best: The best run so far.
        share: Of the best's steps that it must have made before it is judged.
        most: Of these steps, from which on it is let end.
        far: How far below, as a share of the way from chance to perfect, beyond what the scores of single batches scatter by.
    """
    if not best.record or not math.isfinite(best.skill):
        return ""
    try:
        record, other = Record.read(path), _finished(best.record)
    except UnstuckError:
        return ""
    score, theirs = record.series("score").finite, other.series("score").finite
    if not len(score) or not len(theirs) or record.program.task.score != best.score:
        return ""
    if not share * best.steps <= score.steps[-1] < most * best.steps:
        return ""
    step = int(score.steps[-1])
    (own, error), (its, its_error) = _recent(record, step), _recent(other, step)
    return "far behind the best at the same step" if own + 2 * math.hypot(error, its_error) < its - far else ""


@functools.lru_cache(maxsize=4)
def _finished(path: str) -> Record:
    """The record of a run that has ended, read once."""
    return Record.read(path)


def _recent(record: Record, step: int) -> tuple[float, float]:
    """Share of the way from chance to perfect before a step, over the last third of it, and the standard error of that."""
    values = record.series("score").finite.until(step + 1)
    late = np.array([skill_of(record, float(v)) for v in values.values[values.steps > 2 * step / 3]])
    if len(late) < SAMPLES:
        return math.nan, math.nan
    return float(np.median(late)), 1.25 * float(late.std(ddof=1)) / math.sqrt(len(late))  # of a median
