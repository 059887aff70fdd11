"""The same batches in training and in evaluation mode."""

from __future__ import annotations

from typing import Any

from torch import nn

from unstuck.probes.bench import Bench, Clock

_MODAL = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm, nn.RNNBase)


def modes(bench: Bench, clock: Clock, *, most: int = 8) -> dict[str, Any] | None:
    """Loss and score of the last batches with all modules in the modes they were trained in, and in evaluation mode.

    They differ by what dropout takes away, and by running statistics that don't carry over.

    Args:
        bench: The training.
        clock: Limits how many batches are looked at.
        most: Batches.

    Returns:
        `train`, `eval` (losses), `score_train`, `score_eval`; None when no module knows modes.
    """
    from unstuck.recurrent.layers import Recurrent

    if not any(isinstance(part, (*_MODAL, Recurrent)) for module in bench.modules for part in module.modules()):
        return None
    batches = bench.some(bench.batches, clock, 4, most=most)
    train, score_train = bench.measured(batches)
    evaluated, score_eval = bench.measured(batches, train=False)
    return {"train": train, "eval": evaluated, "score_train": score_train, "score_eval": score_eval}
