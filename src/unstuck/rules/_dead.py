"""How much of a ReLU layer is dead."""

from __future__ import annotations

import math

from unstuck.evidence import Layer, Record
from unstuck.rules._depth import RELU_LIKE
from unstuck.rules._learning import Learning, batch_size, late

WHOLE = 0.995  # of a layer's units: all of them


def relu_layers(record: Record) -> list[Layer]:
    """Layers whose units can die, those of the loss left out."""
    return [layer for layer in record.program.layers if layer.op in RELU_LIKE and layer.role != "loss"]


def dead_share(record: Record, layer: Layer, learning: Learning, *, samples: int, batches: int) -> float:
    """Share of a layer's units that are dead at the end.

    Args:
        record: The run.
        layer: A ReLU-like layer.
        learning: The run's progress.
        samples: Samples the window must have seen; positions of a picture or sequence count as samples.
        batches: Batches the window must have seen.

    Returns:
        The share from 0 to 1, NaN when the window saw too little.
    """
    dead = late(record.series("dead_share", layer.name), learning, share=0.3)
    window = record.series("dead_window", layer.name).finite
    seen = window.values.max() if len(window) else float(len(record.series("dead_share", layer.name)))
    positions = math.prod(layer.out_shape[2:]) if len(layer.out_shape) > 2 else 1
    if not len(dead) or seen < batches or seen * batch_size(record) * positions < samples:
        return math.nan
    return dead.median()


def reaches_back(record: Record, layer: Layer) -> bool:
    """Whether the window of a layer still holds the first batch of the run: it is growing to the end, or unknown."""
    window = record.series("dead_window", layer.name).finite.values
    return len(window) < 2 or bool(window[-1] > window[-2])


def zero_share(record: Record, layer: Layer, learning: Learning) -> float:
    """Share of a layer's outputs that are zero in the last part of the run, NaN when never measured."""
    return late(record.series("act_zero", layer.name), learning, share=0.3).median()


def whole_dead(record: Record, learning: Learning, *, from_start: bool = False) -> list[Layer]:
    """ReLU layers that give nothing but zeros: at the end, or already at the first sample."""
    return [layer for layer in relu_layers(record) if _silent(record, layer, learning, from_start=from_start)]


def _silent(record: Record, layer: Layer, learning: Learning, *, from_start: bool) -> bool:
    zero, dead = record.series("act_zero", layer.name).finite, record.series("dead_share", layer.name).finite
    if from_start:
        return (zero if len(zero) else dead).first >= WHOLE
    return (zero_share(record, layer, learning) if len(zero) else late(dead, learning, 0.3).median()) >= WHOLE
