"""Weights that start too large, too small, constant or symmetric."""

from __future__ import annotations

import math

import numpy as np

from unstuck.evidence import Parameter, Record
from unstuck.rules._depth import NORMS, Weighted, gradient, main_group, weighted
from unstuck.rules._inputs import input_size
from unstuck.rules._learning import Learning, main_loss, progress
from unstuck.rules._words import names, number
from unstuck.verdict import Evidence, Finding, Severity

_CLASSIFYING = ("classification", "binary", "multi-label", "tokens")


def bad_initialization(
    record: Record, *, chance: float = 3.0, large: float = 4.0, small: float = 0.15, growth: float = 100.0, inputs: float = 10.0
) -> list[Finding]:
    """The weights start too large, too small, constant or symmetric.

    At the start a network should know nothing and let signals pass. A classifier then has the loss of a uniform guess, ln 10 = 2.30
    for ten classes; one that begins far above is sure of random answers, and spends its first steps on unlearning them. Units that start
    equal and feed equally into what follows stay equal for good, and weights of zero before a ReLU never move.

    Told apart:
        The size of a weight is told by its *gain*: standard deviation times the root of the number of its inputs, 0.6 by torch's
        default, 1 by Glorot's and LeCun's, 1.4 by He's. A gain alone is no fault (normalisation layers make up for it), so a
        consequence at step 0 must come with it: a loss well above chance, saturated units, outputs that grow or fade along depth. Inputs
        far from unit size have the same consequences and are looked at first. A zero last layer is good practice, as are zero layers
        at the end of a residual branch; constant weights count only in hidden layers, and only where they get no gradient or all
        others are constant, too.

    Wrong when:
        Weights that come from elsewhere start where they should. The chance of an unusual loss is not known.

    Args:
        record: The run.
        chance: Times chance that the loss may start at. TheDeepChecker takes twice.
        large: Largest gain. He's is 1.4; a unit normal distribution has 4 from 16 inputs on.
        small: Smallest gain, in networks without normalisation that are at chance.
        growth: Times by which deviations may grow, or fade, from the first to the last hidden layer at step 0.
        inputs: Size of the inputs (root mean square) above which the inputs, and not the weights, are to blame.

    Returns:
        One finding at most: constant weights, else too large ones, else too small ones.
    """
    learning = progress(record)
    if record.happened("reloaded"):
        return []
    layers = weighted(record)
    found = _constant(record, learning, layers) or (
        None
        if input_size(record) > inputs
        else _large(record, learning, layers, chance, large, growth) or _small(record, learning, layers, small, growth)
    )
    return [found] if found is not None else []


# ---------------------------------------------------------------------- constant


def _constant(record: Record, learning: Learning, layers: list[Weighted]) -> Finding | None:
    hidden = [w for w in main_group(record, layers) if w.layer.role != "output"]
    if hidden and not any(w.layer.role == "output" for w in layers):
        hidden = hidden[:-1]
    constant = [w for w in hidden if any(_is_constant(p) for p in w.weights)]
    if not constant or learning.well:
        return None
    unmoved = [w for w in constant if len(gradient(record, w)) > 1 and not gradient(record, w).values.any()]
    others = [w for w in layers if w not in constant]
    symmetric = not any(_varies(p) for w in others for p in w.weights)
    nonzero = [w for w in constant if any(p.initial.get("max", 0) > 0 for p in w.weights if _is_constant(p))]
    if not (unmoved or symmetric or nonzero):
        return None
    where = unmoved or constant
    value = max(p.initial.get("max", 0.0) for p in where[0].weights)
    because = "and get no gradient" if unmoved else "as do all others, so that their units stay alike" if symmetric else "so that its units start alike"
    says = f"the weights of {names([w.name for w in where])} all start at {number(value)}, {because}; {learning.words()}"
    severity: Severity = learning.weigh(unknown="warning")
    confidence = 0.95 if unmoved and learning.stuck else 0.8
    evidence = tuple(Evidence("weight_std", w.weights[0].name, 0, 0.0) for w in where[:4])
    return Finding(
        "bad-initialization", "bad-initialization", severity, confidence, says, tuple(w.name for w in where), evidence, ("initialization",)
    )  # fmt: skip


def _is_constant(parameter: Parameter) -> bool:
    return parameter.initial.get("std", 1.0) <= 1e-12 and len(parameter.shape) > 1 and parameter.shape[0] > 1 and math.prod(parameter.shape) > 2


def _varies(parameter: Parameter) -> bool:
    return not _is_constant(parameter) and parameter.initial.get("identical_rows", 0.0) < 0.99


# ---------------------------------------------------------------------- too large


def _large(
    record: Record, learning: Learning, layers: list[Weighted], chance: float, large: float, growth: float
) -> Finding | None:
    gains = {w.name: max((gain(p) for p in w.weights), default=math.nan) for w in layers}
    big = [name for name, value in gains.items() if value > large]
    start = record.series("loss").finite.first
    above = start / learning.chance if record.program.task.kind in _CLASSIFYING and learning.chance > 0 else math.nan
    grown = _growth(record, layers)
    flat = [layer.name for layer in record.program.layers if layer.role != "loss" and record.series("act_saturated", layer.name).first > 0.5]
    consequences = []
    if above > chance:
        consequences.append(f"the loss starts at {number(start)}, {number(above)} times that of a uniform guess")
    if grown > growth and not _normalised(record):
        consequences.append(f"outputs grow by {number(grown)} along depth")
    if flat and big:
        consequences.append(f"{names(flat)} start saturated")
    if not consequences or (not big and not above > 2 * chance):
        return None
    worst = max(big, key=lambda name: gains[name]) if big else ""
    cause = f"the weights of {worst} start {number(gains[worst])} times too large for their number of inputs" if big else "the network starts sure of random answers"
    says = f"{cause}: {consequences[0]}; {learning.words()}"
    evidence = (Evidence("loss", "", 0, start),) + tuple(Evidence("gain", name, 0, gains[name]) for name in big[:3])
    severity = learning.weigh(stuck="error", unknown="note")
    confidence = min(0.9, 0.5 + 0.15 * len(consequences) + 0.15 * bool(big))
    return Finding(
        "bad-initialization", "bad-initialization", severity, confidence, says, tuple(big), evidence, ("initialization", "normalization")
    )  # fmt: skip


def gain(parameter: Parameter) -> float:
    """Standard deviation times the root of the number of inputs: 1 keeps the size of a signal; NaN when unknown."""
    std, fan_in = parameter.initial.get("std", math.nan), parameter.initial.get("fan_in", 0)
    if len(parameter.shape) == 2 and parameter.layers and " matmul" in f" {parameter.layers[0]}":
        fan_in = parameter.shape[0]  # x @ w: inputs come first
    return std * math.sqrt(fan_in) if fan_in > 1 else math.nan


def _growth(record: Record, layers: list[Weighted]) -> float:
    """Deviation of the last hidden layer's output over that of the first, at step 0; NaN when there are not two."""
    stds = [record.series("act_std", w.name).first for w in main_group(record, layers)]
    stds = [s for s in stds if math.isfinite(s) and s > 0]
    return stds[-1] / stds[0] if len(stds) > 1 else math.nan


def _normalised(record: Record) -> bool:
    return any(layer.op in NORMS for layer in record.program.layers)


# ---------------------------------------------------------------------- too small


def _small(record: Record, learning: Learning, layers: list[Weighted], small: float, growth: float) -> Finding | None:
    if learning.status != "at chance" or _normalised(record):
        return None
    hidden = [w for w in main_group(record, layers) if w.layer.role != "output" and w.layer.op != "embedding"]
    gains = {w.name: max((gain(p) for p in w.weights), default=math.nan) for w in hidden}
    tiny = [name for name, value in gains.items() if value < small]
    between = [record.series("act_between", w.name).median() for w in layers]
    faded = 1 / _growth(record, layers)
    call = main_loss(record)
    constant = call is not None and call.output.get("constant", 0.0) > 0.9
    if not tiny or not (faded > growth or constant or (between and np.nanmin([*between, 1.0]) < 1e-3)):
        return None
    worst = min(tiny, key=lambda name: gains[name])
    says = f"the weights of {names(tiny)} start so small (gain {number(gains[worst])}, 1 keeps a signal) that the output hardly depends on the input; {learning.words()}"
    evidence = tuple(Evidence("gain", name, 0, gains[name]) for name in tiny[:4])
    return Finding("bad-initialization", "bad-initialization", "warning", 0.55, says, tuple(tiny), evidence, ("initialization", "normalization"))
