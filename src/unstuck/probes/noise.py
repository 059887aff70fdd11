"""How much of a batch's gradient is noise."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unstuck.probes.bench import Bench, Clock


def noise(bench: Bench, clock: Clock, *, most: int = 16, parts: int = 4) -> dict[str, Any] | None:
    """The gradient noise scale (McCandlish et al. 2018, appendix A): the batch size at which noise and gradient are equal.

    Args:
        bench: The training.
        clock: Ends it.
        most: Batches whose gradients are compared; a single one is split.
        parts: Into which a single batch is split.

    Returns:
        `scale` in samples, `signal` (square of the gradient's norm) and `noise` (trace of its covariance over samples),
        `batch_size`; None with fewer than three gradients.
    """
    size, grads = float(bench.training.batch_size), []
    if len(bench.tapes) >= 3:
        for batch in bench.batches[-most:]:
            if clock.left or len(grads) < 3:
                grads.append(bench.gradients(batch)[1])
    else:
        split = _split(bench, bench.batches[-1], parts)
        size /= max(1, len(split))
        grads = [bench.gradients(bench.batches[-1], data)[1] for data in split]
    if len(grads) < 3:
        return None
    count = len(grads)
    mean = [sum(g[i] for g in grads) / count for i in range(len(grads[0]))]
    each = sum(_square(g) for g in grads) / count
    whole = _square(mean)  # pyright: ignore[reportArgumentType]
    spread = (each - whole) / (1 / size - 1 / (count * size))
    signal = max(0.0, (count * whole - each) / (count - 1))
    return {
        "scale": spread / signal if signal > 0 else None, "signal": signal, "noise": spread,
        "batch_size": bench.training.batch_size, "gradients": count,
    }  # fmt: skip


def _square(grads: list[Tensor]) -> float:
    return float(sum(float(g.double().square().sum()) for g in grads))


def _split(bench: Bench, batch: int, parts: int) -> list[list[Tensor]]:
    """The data of a batch in parts of equal size; none when it can't be told which axis is the batch's."""
    tape = bench.tapes[batch]
    sizes = {tape.data[i].shape[0] for i in (*tape.inputs, *tape.targets) if tape.data[i].dim()}
    if len(sizes) != 1 or not tape.inputs or not tape.targets:
        return []
    size = sizes.pop()
    step = size // parts
    if step < 2:
        return []
    return [
        [t[k * step : (k + 1) * step] if t.dim() and t.shape[0] == size else t for t in tape.data] for k in range(parts)
    ]
