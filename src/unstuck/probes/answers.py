"""Which classes does the network answer, of those that are there?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from unstuck.probes.bench import Bench, Clock


def answers(bench: Bench, clock: Clock, *, most: int = 64) -> dict[str, Any] | None:
    """Labels and answers of the network as it stands, over more batches than are looked at while it trains.

    A rare class is in few of the batches of a long run that are looked at, so that it takes many to tell whether it is ever
    answered.

    Args:
        bench: The training.
        clock: Limits how many batches are looked at.
        most: Batches.

    Returns:
        `labels`, `answers`: how often each class is there, and is the answer; None where there are no classes.
    """
    counts = bench.training.counts
    if counts is None:
        return None
    found: list[np.ndarray] = []
    for batch in bench.some(bench.batches, clock, 2, most=most):
        tape = bench.tapes[batch]
        if len(tape.targets) != 1:
            return None
        with torch.no_grad():
            _, output = bench.forward(batch)
        rows = counts(output, tape.data[tape.targets[0]]) if output is not None else None
        if rows is None or (found and len(rows[0]) != found[0].shape[1]):
            return None
        found.append(np.asarray(rows))
    labels, given = np.sum(found, axis=0).tolist()
    return {"labels": labels, "answers": given}
