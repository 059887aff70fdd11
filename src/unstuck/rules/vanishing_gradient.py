"""Gradients that shrink on the way back, along depth or time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from unstuck.evidence import Record
from unstuck.rules._dead import whole_dead
from unstuck.rules._depth import Weighted, gradient, main_group, weighted
from unstuck.rules._learning import Learning, progress
from unstuck.rules._words import number, plural
from unstuck.verdict import Evidence, Finding

_SQUASHING = frozenset({"sigmoid", "tanh", "softsign", "hardsigmoid", "hardtanh", "softmax"})
_TINY = 1e-30  # below it float32 loses digits, then everything


def vanishing_gradient(record: Record, *, ratio: float = 1e-3, steadily: float = 0.6, lag_ratio: float = 1e-3) -> list[Finding]:
    """Gradients shrink from layer to layer, or from time step to time step, until what comes first learns nothing.

    A sigmoid passes on a quarter of a gradient at most, so ten of them in a row leave a millionth. Through time the same happens in
    one recurrent layer: a default LSTM loses ten decades in fifty steps.

    Told apart:
        The gradient of the weights of the first layer is held against that of the last, in the same step, as a median over the run:
        a ratio, never an absolute size. It must shrink steadily along depth; where it breaks off at one layer, that layer is the
        cause (dead units, a gradient that is zero by construction), and this rule is silent. Gradients that
        underflow to exactly zero count when those behind them have dwindled to almost nothing. A network that learns well is
        left alone, whatever its ratio: an optimizer such as Adam makes up for much of it.

    Wrong when:
        The first layers are meant to move slowly, or most of the input is constant.

    Args:
        record: The run.
        ratio: Gradient of the first layer relative to that of the last. AutoTrainer takes 1e-3.
        steadily: Share of the layers that must have a smaller gradient than the one behind them.
        lag_ratio: Gradient of the hidden state half the sequence back, relative to that at the end.

    Returns:
        One finding at most: along depth, else along time.
    """
    learning = progress(record)
    if learning.well:
        return []
    found = _along_depth(record, learning, ratio, steadily) or _along_time(record, learning, lag_ratio)
    return [found] if found is not None else []


def _along_depth(record: Record, learning: Learning, ratio: float, steadily: float) -> Finding | None:
    layers = [w for w in main_group(record, weighted(record)) if len(gradient(record, w))]
    if len(layers) < 3 or whole_dead(record):
        return None
    sizes = [gradient(record, w).median() for w in layers]
    first, last = sizes[0], sizes[-1]
    reached = [size for size in sizes if size > 0]
    if not last > 0 or (first == 0 and not (min(reached) < _TINY and len(reached) > 1)):
        return None
    share = first / last
    if not share < ratio or _shrinking(sizes) < steadily:
        return None
    kinds = [layer.op for layer in record.program.layers if layer.op in _SQUASHING and layer.role == "hidden"]
    by = f", through {plural(len(kinds), f'{kinds[0]} layer')}" if kinds and len(set(kinds)) == 1 else ""
    says = (
        f"the gradient of {layers[0].name} is {number(share)} of that of {layers[-1].name}{by}; {learning.words()}"
        if first > 0
        else f"the gradient falls below what float32 can hold before it reaches {layers[0].name}{by}; {learning.words()}"
    )
    weak = _weak(layers, sizes, last)
    evidence = tuple(
        Evidence("grad_rms", w.weights[0].name, int(gradient(record, w).steps[-1]), size) for w, size in ((layers[0], first), (layers[-1], last))
    )
    severity = learning.weigh(unknown="warning" if share < ratio / 1e3 else "note")
    confidence = 0.9 if learning.stuck and kinds else 0.75 if learning.stuck else 0.55
    return Finding(
        "vanishing-gradient", "vanishing-gradient", severity, confidence, says, tuple(weak), evidence,
        ("activation", "initialization", "normalization", "residual"),
    )  # fmt: skip


def _shrinking(sizes: Sequence[float]) -> float:
    """Share of the neighbours of which the earlier has the smaller gradient, or both have none."""
    pairs = list(zip(sizes, sizes[1:], strict=False))
    return float(np.mean([a < b or a == b == 0 for a, b in pairs]))


def _weak(layers: Sequence[Weighted], sizes: Sequence[float], last: float) -> list[str]:
    return [w.name for w, size in zip(layers, sizes, strict=True) if size < last / 10]


def _along_time(record: Record, learning: Learning, lag_ratio: float) -> Finding | None:
    for place in record.places("lag_grad"):
        curves = [v.values for v in record.vectors("lag_grad", place) if len(v.values) > 1]
        if not curves:
            continue
        length = min(len(c) for c in curves)
        curve = np.nanmedian(np.stack([c[:length] for c in curves]), axis=0) if length else np.zeros(0)
        half = curve[length // 2 :]
        if length < 10 or not np.isfinite(half).any() or not np.nanmax(half) < lag_ratio or not np.isfinite(curve[:3]).any():
            continue
        below = np.flatnonzero(curve < lag_ratio)
        horizon = int(below[0]) if len(below) else length
        end = float(half[np.isfinite(half)][-1])
        says = (
            f"the gradient of {place} reaches back {horizon} of {length} time steps, at the far end {number(end)} of it is left; {learning.words()}"
        )
        evidence = (Evidence("lag_grad", place, int(record.vectors("lag_grad", place)[-1].step), end),)
        severity = learning.weigh(stuck="error", learns="note", unknown="note")
        confidence = 0.65 if learning.stuck and not math.isnan(end) else 0.4
        return Finding(
            "vanishing-gradient", "vanishing-gradient", severity, confidence, says, (place,), evidence, ("gating", "initialization", "normalization")
        )
    return None
