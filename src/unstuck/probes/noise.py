"""How much of a batch's gradient is noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unstuck.optim.noise_scale import noise_scale, split_batch
from unstuck.probes.bench import Bench, Clock
from unstuck.probes.tape import Tape

_FEWEST = 3  # gradients


def noise(bench: Bench, clock: Clock, *, most: int = 16, parts: int = 4) -> dict[str, Any] | None:
    """The gradient noise scale (McCandlish et al. 2018, appendix A): the batch size at which noise and gradient are equal.

    Batches are compared that are of one size, the most frequent among them.

    Args:
        bench: The training.
        clock: Ends it.
        most: Batches whose gradients are compared; a single one is split.
        parts: Into which a single batch is split.

    Returns:
        `scale` in samples, `signal` (square of the gradient's norm) and `noise` (trace of its covariance over samples),
        `batch_size` of the training; None with fewer than three gradients.
    """
    told = bench.training.batch_size
    axis = _axis([*bench.training.tapes, *bench.tapes], told)
    sizes = [_samples(tape, axis, told) for tape in bench.tapes]
    size = Counter(reversed(sizes)).most_common(1)[0][0]
    alike = [batch for batch in bench.batches if sizes[batch] == size]
    grads: list[list[Tensor]] = []
    if len(alike) >= _FEWEST:
        for batch in alike[-most:]:
            if clock.left or len(grads) < _FEWEST:
                grads.append(bench.gradients(batch)[1])
    else:
        split = _split(bench.tapes[alike[-1]], axis, parts)
        size //= max(1, len(split))
        grads = [bench.gradients(alike[-1], data)[1] for data in split]
    if len(grads) < _FEWEST or size < 1:
        return None
    found = noise_scale(split_batch(grads, size))
    signal = max(0.0, found.signal)
    return {
        "scale": found.scale if signal > 0 else None, "signal": signal, "noise": found.noise,
        "batch_size": told, "gradients": len(grads),
    }  # fmt: skip


def _shapes(tape: Tape) -> list[Sequence[int]]:
    return [tape.data[i].shape for i in (*tape.inputs, *tape.targets) if tape.data[i].dim()]


def _axis(tapes: Sequence[Tape], told: int) -> int:
    """The axis of the batch: along which there are as many as the training is said to have, in a batch of that size; else the first."""
    for tape in tapes:
        shapes = _shapes(tape)
        for axis in range(min(map(len, shapes), default=0)):
            if all(shape[axis] == told for shape in shapes):
                return axis
    return 0


def _samples(tape: Tape, axis: int, told: int) -> int:
    """Samples in a batch; as many as the training is said to have where its shapes don't tell."""
    sizes = {shape[axis] if len(shape) > axis else 0 for shape in _shapes(tape)}
    return sizes.pop() if len(sizes) == 1 else told


def _split(tape: Tape, axis: int, parts: int) -> list[list[Tensor]]:
    """The data of a batch in parts of equal size; none when it can't be told which axis is the batch's."""
    size = _samples(tape, axis, 0)
    step = size // parts
    if step < 2 or not tape.inputs or not tape.targets:
        return []
    return [
        [t.narrow(axis, k * step, step) if t.dim() > axis and t.shape[axis] == size else t for t in tape.data]
        for k in range(parts)
    ]
