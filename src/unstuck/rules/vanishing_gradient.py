"""Gradients that shrink on the way back, along depth or time."""

from __future__ import annotations

import numpy as np

from unstuck._language import say, say_many
from unstuck.evidence import Record
from unstuck.rules._dead import whole_dead
from unstuck.rules._depth import gradient, lags, main_group, steepest, weighted
from unstuck.rules._finding import finding
from unstuck.rules._learning import Learning, late, progress
from unstuck.rules._words import number, then
from unstuck.verdict import Evidence, Finding

_SQUASHING = frozenset({"sigmoid", "tanh", "softsign", "hardsigmoid", "hardtanh"})
_TINY = 1e-30  # below it float32 loses digits, then everything


def vanishing_gradient(
    record: Record, *, ratio: float = 1e-3, single: float = 0.8, lag_ratio: float = 1e-3, patience: int = 200
) -> list[Finding]:
    """Gradients shrink from layer to layer, or from time step to time step, until what comes first learns nothing.

    A sigmoid passes on a quarter of a gradient at most, so ten of them in a row leave a millionth. Through time
    the same happens in one recurrent layer: a default LSTM loses ten decades in fifty steps.

    Told apart:
        The gradient of the weights of the first layer is held against that of the last in the same run: a
        ratio, never an absolute size. It must shrink over several layers; where it breaks off at one, that
        layer is the cause (dead units, a gradient that is zero by construction), and this rule is silent. Of
        layers side by side the one that gets most counts, and an embedding counts among the first: where it gets
        its gradient, a branch that doesn't (the queries of attention that is still uniform) is no decline.
        Gradients that underflow to exactly zero count when those behind them have dwindled to almost nothing. A
        network that learns well is left alone, whatever its ratio: optimizers such as Adam make up for much of
        it. So is recurrence that learns at all, since most tasks need less memory than their sequences are
        long.

    Wrong when:
        The first layers are meant to move slowly, or most of the input is constant.

    Args:
        record: The run.
        ratio: Gradient of the first layer's weights (root mean square) relative to that of the last's.
            AutoTrainer: 1e-3.
        single: Share of the decline, on a log scale, that may lie between two neighbouring layers.
        lag_ratio: Gradient of the hidden state from half the sequence back on, relative to that at the end.
        patience: Steps before recurrence is judged. Default LSTMs forget at first, and most learn to remember
            in time.

    Returns:
        One finding at most: along depth, else along time.
    """
    learning = progress(record)
    if learning.well:
        return []
    return _along_depth(record, learning, ratio, single) or _along_time(record, learning, lag_ratio, patience)


def _along_depth(record: Record, learning: Learning, ratio: float, single: float) -> list[Finding]:
    layers = [w for w in main_group(record, weighted(record)) if len(gradient(record, w))]
    if len(layers) < 3 or whole_dead(record, learning):
        return []
    found = [late(gradient(record, w), learning).median() for w in layers]
    best = {w.depth: max(s for o, s in zip(layers, found, strict=True) if o.depth == w.depth) for w in layers}
    sizes = list(best.values())  # of layers side by side, as the branches of attention, the one that gets most
    first, last = max(sizes[0], _of_embeddings(record, learning)), sizes[-1]
    if len(sizes) < 3:
        return []
    reached = [size for size in sizes if size > 0]
    if not last > 0 or (first == 0 and not (min(reached) < _TINY and len(reached) > 1)):
        return []
    part = first / last
    if not part < ratio or steepest(sizes) > single:
        return []
    kinds = [layer.op for layer in record.program.layers if layer.op in _SQUASHING and layer.role == "hidden"]
    through = (
        say_many(", through {number} {kind} layer", ", through {number} {kind} layers", len(kinds), kind=kinds[0])
        if len(set(kinds)) == 1
        else ""
    )
    if first > 0:
        says = say(
            "the gradient of {first} is {part} of that of {last}{through}",
            first=layers[0].name,
            part=number(part),
            last=layers[-1].name,
            through=through,
        )
    else:
        says = say(
            "the gradient of {first} is too small for float32 to hold{through}", first=layers[0].name, through=through
        )
    step = max(0, learning.end - 1)
    return finding(
        "vanishing-gradient",
        learning.weigh(unknown="warning" if part < ratio / 1e3 else "note"),
        0.9 if learning.stuck and kinds else 0.75 if learning.stuck else 0.55,
        then(says, learning.words()),
        layers=[w.name for w, size in zip(layers, found, strict=True) if size < last / 10],
        evidence=[Evidence("grad_rms", layers[i].weights[0].name, step, found[i]) for i in (0, -1)],
        treated_by=("activation", "initialization", "normalization", "residual"),
    )


def _of_embeddings(record: Record, learning: Learning) -> float:
    """The largest gradient of an embedding, which lies before all layers; 0 without one."""
    names = [n for layer in record.program.layers if layer.op == "embedding" for n in layer.parameters]
    return max((late(record.series("grad_rms", n).finite, learning).median() for n in names), default=0.0)


def _along_time(record: Record, learning: Learning, lag_ratio: float, patience: int) -> list[Finding]:
    if record.steps < patience:
        return []
    for place, curve in lags(record).items():
        length = len(curve)
        half = curve[length // 2 :]
        if length < 10 or not half.max() < lag_ratio:
            continue
        horizon, end = int(np.argmax(curve < lag_ratio)), float(half[-1])
        says = say(
            "the gradient of {place} reaches back {horizon} of {length} time steps, of which the first gets {end} of it",
            place=place,
            horizon=horizon,
            length=length,
            end=number(end),
        )
        return finding(
            "vanishing-gradient",
            learning.weigh(learns="note"),
            0.65 if learning.stuck else 0.4,
            then(says, learning.words()),
            layers=(place,),
            evidence=[Evidence("lag_grad", place, record.vectors("lag_grad", place)[-1].step, end)],
            treated_by=("gating", "initialization", "normalization"),
        )
    return []
