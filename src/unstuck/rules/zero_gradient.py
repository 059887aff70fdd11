"""Gradients that are zero by construction."""

from __future__ import annotations

import numpy as np

from unstuck.evidence import Layer, Record
from unstuck.rules._dead import whole_dead
from unstuck.rules._depth import Weighted, gradient, weighted
from unstuck.rules._learning import Learning, main_loss, progress
from unstuck.rules._words import names
from unstuck.verdict import Evidence, Finding

_STEPPED = ("argmax", "argmin", "round", "sign", "floor", "ceil", "trunc", "heaviside", "bucketize", "eq", "gt", "lt", "ge", "le", "__gt__", "__lt__")


def zero_gradient(record: Record, *, samples: float = 0.9, solved: float = 1e-4) -> list[Finding]:
    """The gradient is exactly zero from the first step on, because of how the network or its loss is built.

    A softmax over one unit is always 1, and so has no slope; rounding, comparing and argmax have none anywhere; a clamp has none
    outside its range; a Dice loss of empty masks is constant. No rate, initialisation or patience helps.

    Told apart:
        All weights have a gradient of exactly zero, at the first step and at almost every one after it, while the loss is far from
        solved. Slow learning never gives exact zeros. Where a dead ReLU layer, weights that start at zero, or saturated units block the
        way, those are the cause, and this rule is silent. Where layers receive a gradient and only the parameters have none, it was cleared
        too early (see gradients-accumulate). Zeros that begin later come from a step too large.

    Wrong when:
        The loss is at its minimum already, though it is not near zero.

    Args:
        record: The run.
        samples: Share of the sampled steps at which the gradient must be zero.
        solved: Loss, relative to its chance, below which nothing is left to learn.

    Returns:
        One finding at most.
    """
    learning = progress(record)
    call = main_loss(record)
    layers = [w for w in weighted(record) if len(gradient(record, w))]
    if not layers or learning.steps < 1 or _is_solved(record, learning, solved):
        return []
    still = [w for w in layers if _is_zero(record, w, samples)]
    blame = _blame(record, still) if still else None
    if len(still) < len(layers):
        return _part(record, learning, still, blame)
    if call is not None and call.num_classes == 1 and call.name in ("cross_entropy", "nll_loss"):
        blame = ("the cross-entropy is taken over a single output", call.layer)
    if blame is None and (_passes_back(record, layers) or _blocked(record, layers)):
        return []
    says = f"every gradient is exactly zero from step 0 on{f': {blame[0]}' if blame else ''}; {learning.words()}"
    where = (blame[1],) if blame and blame[1] else ()
    series = gradient(record, layers[-1])
    evidence = (Evidence("grad_rms", layers[-1].weights[0].name, int(series.steps[-1]), series.last),)
    severity = learning.weigh(learns="warning", unknown="error")
    return [Finding("zero-gradient", "zero-gradient", severity, 0.97 if blame else 0.8, says, where, evidence, ("output-loss", "activation"))]


def _is_zero(record: Record, item: Weighted, samples: float) -> bool:
    values = gradient(record, item).values
    return bool(values[0] == 0) and float(np.mean(values == 0)) >= samples


def _is_solved(record: Record, learning: Learning, solved: float) -> bool:
    call = main_loss(record)
    if call is not None and call.num_classes == 1:
        return False
    scale = learning.chance if learning.chance > 0 else 1.0
    return learning.well or abs(learning.first) <= solved * scale


def _passes_back(record: Record, layers: list[Weighted]) -> bool:
    """The last layer receives a gradient though its weights have none: they were cleared, or what they multiply is zero."""
    return record.series("back_rms", layers[-1].name).median() > 0


def _blocked(record: Record, layers: list[Weighted]) -> bool:
    dead = bool(whole_dead(record, from_start=True))
    constant = any(p.initial.get("std") == 0 for w in layers for p in w.weights)
    flat = any(record.series("act_saturated", layer.name).first > 0.99 for layer in record.program.layers)
    return dead or constant or flat


def _blame(record: Record, still: list[Weighted]) -> tuple[str, str] | None:
    """What has no slope between the layers without gradient and the loss: a sentence, and where."""
    depth = list(record.layers)
    start = max(depth.index(w.name) for w in still)
    for name in depth[start:]:
        layer = record.layers[name]
        if layer.op in ("softmax", "log_softmax") and layer.role != "loss" and _over_one(layer):
            return f"{name} is a softmax over a single unit, and so always {1 if layer.op == 'softmax' else 0}", name
        label = layer.op if layer.op != "other" else name.rpartition(" ")[2]
        if label in _STEPPED:
            return f"{name} has no slope ({label})", name
    call = main_loss(record)
    if call is not None and call.chain and call.chain[-1] == "softmax" and call.output_shape[-1:] == (1,):
        return "the softmax is over a single unit, and so always 1", call.layer
    return None


def _over_one(layer: Layer) -> bool:
    dim = layer.settings.get("dim", -1)
    if not isinstance(dim, int) or not layer.out_shape or not -len(layer.out_shape) <= dim < len(layer.out_shape):
        dim = -1
    return bool(layer.out_shape) and layer.out_shape[dim] == 1


def _part(record: Record, learning: Learning, still: list[Weighted], blame: tuple[str, str] | None) -> list[Finding]:
    """Some layers have no gradient: worth a word only where it is known why."""
    if not still or blame is None or learning.well:
        return []
    series = gradient(record, still[-1])
    says = f"no gradient reaches {names([w.name for w in still])}: {blame[0]}; {learning.words()}"
    evidence = (Evidence("grad_rms", still[-1].weights[0].name, int(series.steps[-1]), series.last),)
    layers = tuple(w.name for w in still)
    return [Finding("zero-gradient", "zero-gradient", learning.weigh(unknown="warning"), 0.85, says, layers, evidence, ("activation", "output-loss"))]
