"""A loss that is summed where it should be averaged."""

from __future__ import annotations

import math

import numpy as np

from unstuck.evidence import Record
from unstuck.rules._learning import batch_size, main_loss, progress
from unstuck.rules._steps import rate
from unstuck.rules._words import number
from unstuck.verdict import Evidence, Finding

_SCALE_FREE = frozenset({"Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "Rprop", "Lion", "LAMB", "Adafactor", "SparseAdam", "Muon"})


def loss_scale(record: Record, *, batch: int = 8, effective: float = 0.5, rough: float = 0.5) -> list[Finding]:
    """The loss is summed over the batch, so that gradient and step grow with the batch size.

    A rate of 0.01 on the sum over 100 samples is a rate of 1 on their mean. What suits one batch size overshoots at another,
    and the last, smaller batch of an epoch has its own.

    Told apart:
        A sum alone is no fault: with a rate that fits, or an optimizer that doesn't care for the scale of gradients (Adam and its like), it
        trains as well. It is named where plain SGD takes a step that, brought back to the mean, is large, and the loss is rough for it.

    Wrong when:
        The sum runs over something else than the batch.

    Args:
        record: The run.
        batch: Samples in a batch from which on a sum is counted as one.
        effective: Rate times batch size (for momentum, over 1 - momentum) from which on the step is large.
        rough: Deviation of the loss from one step to the next, relative to its mean at the end, from which on it is rough.

    Returns:
        One finding at most, for the main loss.
    """
    call = main_loss(record)
    samples = batch_size(record)
    if call is None or call.reduction != "sum" or samples < batch or not record.program.optimizers:
        return []
    optimizer = record.program.optimizers[0]
    if optimizer.kind in _SCALE_FREE:
        return []
    momentum = optimizer.settings.get("momentum") or 0.0
    step = rate(record) * samples / (1 - min(float(momentum), 0.99))
    learning = progress(record)
    roughness = _roughness(record)
    if not step > effective or learning.well or not (roughness > rough or learning.stuck):
        return []
    says = (
        f"the loss is summed over {samples:.0f} samples: a rate of {number(rate(record))} is one of {number(rate(record) * samples)} on their mean, and the "
        f"loss swings by {number(roughness)} of its mean; {learning.words()}"
        if math.isfinite(roughness)
        else f"the loss is summed over {samples:.0f} samples, and is not finite in the end"
    )
    evidence = (Evidence("loss", "", 0, learning.first), Evidence("batch_size", "", 0, samples))
    return [
        Finding(
            "loss-scale", "loss-scale", learning.weigh(stuck="error"), 0.7, says, (call.layer,) if call.layer else (), evidence,
            ("reduction", "learning-rate"),
        )
    ]  # fmt: skip


def _roughness(record: Record) -> float:
    """Deviation from one step to the next over the mean, in the last half of the run; NaN when it broke."""
    values = record.series("loss").finite.tail(0.5).values
    if len(values) < 8 or not values.mean() > 0:
        return math.nan
    return float(np.std(np.diff(values)) / math.sqrt(2) / values.mean())
