"""How much of a ReLU layer is dead."""

from __future__ import annotations

import math

from unstuck.evidence import Layer, Record
from unstuck.rules._depth import RELU_LIKE
from unstuck.rules._learning import batch_size

WHOLE = 0.995  # of a layer's units: all of them


def relu_layers(record: Record) -> list[Layer]:
    """Layers whose units can die, those of the loss left out."""
    return [layer for layer in record.program.layers if layer.op in RELU_LIKE and layer.role != "loss"]


def dead_share(record: Record, layer: Layer, *, samples: int, batches: int) -> float:
    """Share of a layer's units that are dead at the end.

    Args:
        record: The run.
        layer: A ReLU-like layer.
        samples: Samples the window must have seen; positions of a picture or sequence count as samples.
        batches: Batches the window must have seen.

    Returns:
        The share from 0 to 1, NaN when the window saw too little.
    """
    dead, window = record.series("dead_share", layer.name).finite, record.series("dead_window", layer.name).finite
    seen = window.last if len(window) else float(len(dead))
    positions = math.prod(layer.out_shape[2:]) if len(layer.out_shape) > 2 else 1
    if not len(dead) or seen < batches or seen * batch_size(record) * positions < samples:
        return math.nan
    return dead.tail(0.2).median()


def whole_dead(record: Record, *, from_start: bool = False) -> list[Layer]:
    """ReLU layers that give nothing but zeros: at the end, or already at the first sample."""
    return [layer for layer in relu_layers(record) if _silent(record, layer, from_start=from_start)]


def _silent(record: Record, layer: Layer, *, from_start: bool) -> bool:
    zero = record.series("act_zero", layer.name).finite
    if len(zero):
        return (zero.first if from_start else zero.tail(0.2).median()) >= WHOLE
    dead = record.series("dead_share", layer.name).finite
    return len(dead) > 0 and (dead.first if from_start else dead.tail(0.2).median()) >= WHOLE
