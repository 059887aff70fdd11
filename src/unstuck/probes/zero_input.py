"""What the network makes of its inputs: the same batches with inputs zeroed, and with inputs exchanged between samples."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from unstuck.probes.bench import Bench, Clock


def zero_input(bench: Bench, clock: Clock, *, most: int = 8) -> dict[str, Any] | None:
    """Loss and score as they are, with inputs zeroed, and with inputs exchanged between the samples of a batch.

    A network that is no worse with another sample's inputs has learned nothing from them.

    Args:
        bench: The training.
        clock: Limits how many batches are looked at.
        most: Batches.

    Returns:
        `loss`, `zeroed`, `exchanged` (NaN for batches of one sample), and the same of `score`; None when inputs and targets
        are not known.
    """
    batches = [
        b for b in bench.some(bench.batches, clock, 6, most=most) if bench.tapes[b].inputs and bench.tapes[b].targets
    ]
    if not batches:
        return None
    loss, score = bench.measured(batches)
    zeroed, score_zeroed = bench.measured(batches, data=lambda b: _changed(bench, b, torch.zeros_like))
    exchanged = score_exchanged = math.nan
    if all(_several(bench, b) for b in batches):
        exchanged, score_exchanged = bench.measured(batches, data=lambda b: _changed(bench, b, _exchanged))
    return {
        "loss": loss, "zeroed": zeroed, "exchanged": exchanged,
        "score": score, "score_zeroed": score_zeroed, "score_exchanged": score_exchanged,
    }  # fmt: skip


def _changed(bench: Bench, batch: int, change: Any) -> list[Tensor]:
    tape = bench.tapes[batch]
    return [change(t) if i in tape.inputs and t.dim() else t for i, t in enumerate(tape.data)]


def _several(bench: Bench, batch: int) -> bool:
    tape = bench.tapes[batch]
    return any(tape.data[i].dim() and len(tape.data[i]) > 1 for i in tape.inputs)


def _exchanged(tensor: Tensor) -> Tensor:
    return tensor.roll(max(1, tensor.shape[0] // 2), 0)
