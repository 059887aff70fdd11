"""Batches that come sorted by class."""

from __future__ import annotations

import math

import numpy as np

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import progress
from unstuck.rules._words import number, share
from unstuck.verdict import Evidence, Finding


def unshuffled_data(record: Record, *, distinct: float = 0.5, batches: int = 4, labels: int = 8) -> list[Finding]:
    """Batches are sorted by class: each holds few of the classes that a draw at random would bring.

    The network learns to answer whatever class is on, and forgets the others meanwhile. Its training loss looks
    fine; evaluation does not.

    Told apart:
        The classes found in a batch are counted against how many a batch of its size holds on average when it
        is drawn at random from all labels seen. Small batches and rare classes are accounted for that way. The
        training score is no help (it rises within each run of one class), so the evaluation decides how severe
        it is.

    Wrong when:
        Batches are made of few classes on purpose, as in metric learning and few-shot episodes.

    Args:
        record: The run.
        distinct: Classes found in a batch relative to those expected, the median over batches.
        batches: Batches that must have been seen.
        labels: Labels a batch must hold.

    Returns:
        One finding at most.
    """
    rows = [v.values for v in record.vectors("label_count") if np.isfinite(v.values).all() and v.values.sum() > 0]
    rows = [row for row in rows if len(row) == len(rows[0])]
    if len(rows) < batches or record.program.task.kind not in ("classification", "binary"):
        return []
    counts = np.stack(rows)
    whole = counts.sum(axis=0) / counts.sum()
    if np.count_nonzero(whole) < 2 or float(np.median(counts.sum(axis=1))) < labels:
        return []
    found = np.array([np.count_nonzero(row) for row in counts], dtype=np.float64)
    expected = np.array([np.sum(1 - (1 - whole) ** row.sum()) for row in counts])
    ratio = float(np.median(found / expected))
    if not ratio < distinct:
        return []
    learning = progress(record)
    task, score = record.program.task, learning.eval_score
    skill = (score - task.chance_score) / (1 - task.chance_score) if task.chance_score < 1 else math.nan
    held, drawn = float(np.median(found)), float(np.median(expected))
    says = say(
        "a batch holds {held} classes where {drawn} are expected of a random draw ({ratio})",
        held=number(held),
        drawn=number(drawn),
        ratio=share(ratio),
    )
    return finding(
        "unshuffled-data",
        "note" if skill > 0.8 else "warning",
        0.9,
        say("{says}; the loader does not shuffle", says=says) if record.program.data.shuffled is False else says,
        evidence=[Evidence("distinct_labels", "", record.vectors("label_count")[-1].step, held)],
        treated_by=("shuffle",),
    )
