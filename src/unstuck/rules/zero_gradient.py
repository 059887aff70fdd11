"""Gradients that are zero by construction."""

from __future__ import annotations

import numpy as np

from unstuck._language import say
from unstuck.evidence import Layer, Record
from unstuck.rules._dead import whole_dead
from unstuck.rules._depth import Weighted, gradient, weighted
from unstuck.rules._finding import finding
from unstuck.rules._learning import Learning, main_loss, progress
from unstuck.rules._words import names
from unstuck.verdict import Evidence, Finding

_STEPPED = frozenset({
    "argmax", "argmin", "round", "sign", "floor", "ceil", "trunc", "heaviside", "bucketize", "eq", "ne", "gt",
    "lt", "ge", "le", "__eq__", "__gt__", "__lt__", "__ge__", "__le__",
})  # fmt: skip


def zero_gradient(record: Record, *, samples: float = 0.9, solved: float = 1e-4) -> list[Finding]:
    """The gradient is exactly zero from the first step on, because of how the network or its loss is built.

    A softmax over one unit is always 1, and so has no slope; rounding, comparing and argmax have none anywhere;
    a clamp has none outside its range; a Dice loss of empty masks is constant. No rate, initialisation or
    patience helps.

    Told apart:
        The weights have a gradient of exactly zero at the first step and at almost every one after it, while
        the loss is far from solved; slow learning never gives exact zeros. Where a dead ReLU layer, weights
        that start at zero, or saturated units block the way, those are the cause, and this rule is silent.
        Where layers receive a gradient and only the parameters have none, it was cleared too early
        (gradients-accumulate). Zeros that begin later come from a step too large. Where only some layers get
        nothing, it is said only if the reason is known.

    Wrong when:
        The loss is at its minimum from the start, though it is not near zero.

    Args:
        record: The run.
        samples: Share of the sampled steps at which the gradient must be zero.
        solved: Loss, relative to its chance, below which nothing is left to learn.

    Returns:
        One finding at most.
    """
    learning, call = progress(record), main_loss(record)
    layers = [w for w in weighted(record) if len(gradient(record, w))]
    one_class = call is not None and call.num_classes == 1 and call.name in ("cross_entropy", "nll_loss")
    if not layers or not learning.steps or (not one_class and _is_solved(learning, solved)):
        return []
    still = [w for w in layers if _is_zero(record, w, samples)]
    if not still:
        return []
    blame = _blame(record, still[-1] if len(still) < len(layers) else still[0])
    if one_class and call is not None:
        blame = say("the cross-entropy is taken over a single output"), call.layer
    if len(still) < len(layers):
        return _some(learning, still, blame) if blame is not None else []
    if blame is None and (_receives(record, layers) or _blocked(record, learning, layers)):
        return []
    because = say(": {blame}", blame=blame[0]) if blame else ""
    return finding(
        "zero-gradient",
        learning.weigh(learns="warning", unknown="error"),
        0.97 if blame else 0.8,
        say("every gradient is exactly zero from step 0 on{because}; {words}", because=because, words=learning.words()),
        layers=[blame[1]] if blame else [],
        evidence=[Evidence("grad_rms", layers[-1].weights[0].name, max(0, learning.end - 1), 0.0)],
        treated_by=("output-loss", "smooth-loss", "activation"),
    )


def _some(learning: Learning, still: list[Weighted], blame: tuple[str, str]) -> list[Finding]:
    return finding(
        "zero-gradient",
        learning.weigh(unknown="warning"),
        0.85,
        say(
            "no gradient reaches {layers}: {blame}; {words}",
            layers=names([w.name for w in still]),
            blame=blame[0],
            words=learning.words(),
        ),
        layers=[w.name for w in still],
        evidence=[Evidence("grad_rms", still[-1].weights[0].name, max(0, learning.end - 1), 0.0)],
        treated_by=("activation", "output-loss"),
    )


def _is_zero(record: Record, item: Weighted, samples: float) -> bool:
    values = gradient(record, item).values
    return bool(values[0] == 0) and float(np.mean(values == 0)) >= samples


def _is_solved(learning: Learning, solved: float) -> bool:
    scale = learning.chance if learning.chance > 0 else 1.0
    return learning.well or abs(learning.first) <= solved * scale


def _receives(record: Record, layers: list[Weighted]) -> bool:
    """The last layer receives a gradient, its weights have none: it was cleared, or what they multiply is zero."""
    return record.series("back_rms", layers[-1].name).median() > 0


def _blocked(record: Record, learning: Learning, layers: list[Weighted]) -> bool:
    """Something that is a cause of its own lets no gradient through from the start."""
    constant = any(p.initial.get("std") == 0 for w in layers for p in w.weights)
    flat = any(record.series("act_saturated", layer.name).first > 0.99 for layer in record.program.layers)
    return constant or flat or bool(whole_dead(record, learning, from_start=True))


def _blame(record: Record, after: Weighted) -> tuple[str, str] | None:
    """What has no slope between a layer without gradient and the loss: a sentence, and where."""
    order = list(record.layers)
    for name in order[order.index(after.name) :]:
        layer = record.layers[name]
        if layer.op in ("softmax", "log_softmax") and _over_one(layer):
            return say(
                "{name} is over a single unit, and so always {value}",
                name=name,
                value=1 if layer.op == "softmax" else 0,
            ), name
        label = layer.op if layer.op != "other" else name.rpartition(" ")[2]
        if label in _STEPPED:
            return say("{name} has no slope", name=name), name
    return None


def _over_one(layer: Layer) -> bool:
    dim = layer.settings.get("dim", -1)
    if not isinstance(dim, int) or not -len(layer.out_shape) <= dim < len(layer.out_shape):
        dim = -1
    return bool(layer.out_shape) and layer.out_shape[dim] == 1
