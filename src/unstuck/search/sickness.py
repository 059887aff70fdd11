"""Which children are too sick to go on, by their records."""

from __future__ import annotations

import functools
import math
from pathlib import Path

from unstuck.doctor import diagnose
from unstuck.errors import UnstuckError
from unstuck.evidence import Record
from unstuck.rules._learning import progress
from unstuck.trials.compare import behind
from unstuck.trials.job import Outcome, score_of

LEARNS = 0.1  # share of the way from chance to perfect


def sickness(record: Record, *, learns: float = LEARNS) -> str:
    """Why a child is not to go on: what is wrong with it by a finding that is an error, where it has learned next to nothing.

    One that learns goes on whatever is found in it: how good it is beside others says more.

    Args:
        record: Of what it did so far.
        learns: Share of the way from chance to perfect from which on it is let go on.

    Returns:
        The cause; "" where there is none.
    """
    if progress(record).broke_at is not None:
        return "non-finite"
    _, _, share = score_of(record)
    if not math.isfinite(share) or share >= learns:
        return ""
    return next((f.cause for f in diagnose(record).loud if f.severity == "error"), "")


def hopeless(path: Path, best: Outcome) -> str:
    """Why a script that is under way need not end: it is broken, or far behind the best at the same step with batches of the same size.

    Args:
        path: Its record so far.
        best: The best run so far.

    Returns:
        Why; "" while it may go on.
    """
    try:
        record = Record.read(path)
    except UnstuckError:  # there is none yet
        return ""
    if progress(record).broke_at is not None:
        return "its loss is not finite"
    if not best.record or record.series("batch_size").median() != _batch_size(best.record):
        return ""
    return behind(path, best)


@functools.lru_cache(maxsize=4)
def _batch_size(path: str) -> float:
    return Record.read(path).series("batch_size").median()
