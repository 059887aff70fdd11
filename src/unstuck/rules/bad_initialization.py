"""Weights that start too large, too small, constant or symmetric."""

from __future__ import annotations

import math

import numpy as np

from unstuck._language import say
from unstuck.evidence import Parameter, Record
from unstuck.rules._depth import NORMS, Weighted, gradient, main_group, weighted
from unstuck.rules._finding import finding
from unstuck.rules._inputs import input_size
from unstuck.rules._learning import Learning, main_loss, progress
from unstuck.rules._words import names, number
from unstuck.verdict import Evidence, Finding

DEEP = 6  # layers with weights
_CLASSIFYING = ("classification", "binary", "multi-label", "tokens")


def bad_initialization(
    record: Record,
    *,
    chance: float = 3.0,
    large: float = 4.0,
    small: float = 0.15,
    growth: float = 100.0,
    inputs: float = 10.0,
    absurd: float = 50.0,
) -> list[Finding]:
    """The weights start too large, too small, constant or symmetric.

    At the start a network should know nothing and let signals pass. A classifier then has the loss of a uniform
    guess, ln 10 = 2.30 for ten classes; one that begins far above is sure of random answers, and spends its
    first steps on unlearning them. Units that start equal and feed equally into what follows stay equal for
    good, and weights of zero before a ReLU never move.

    Told apart:
        The size of a weight is told by its *gain*: standard deviation times the root of the number of its
        inputs; 0.6 by torch's default, 1 by Glorot's and LeCun's, 1.4 by He's. A gain alone is no fault
        (normalisation layers make up for it), so a consequence at step 0 must come with it: a loss well above
        chance, saturated units, outputs that grow or fade along depth. Inputs far from unit size have the same
        consequences, and are the cause where they are. A zero last layer is good practice, as are zero layers
        at the end of a residual branch: constant weights count only in hidden layers, and only where they get
        no gradient, aren't zero, or all others are constant, too.

    Wrong when:
        Weights that come from elsewhere start where they should. The chance of an unusual loss is not known.

    Args:
        record: The run.
        chance: Times chance that the loss may start at. TheDeepChecker takes twice.
        large: Largest gain. He's is 1.4; a unit normal distribution has 4 from 16 inputs on.
        small: Smallest gain, in networks without normalisation that are at chance.
        growth: Times by which deviations may grow, or fade, from the first layer to the last at step 0.
        inputs: Size of the inputs (root mean square) above which they, and not the weights, are to blame.
        absurd: Times chance from which on a loss at the start is a warning even where the network recovers: it does so at
            the cost of weights far from any that generalise.

    Returns:
        One finding at most: constant weights, else too large ones, else too small ones.
    """
    if record.happened("reloaded"):
        return []
    learning, layers = progress(record), main_group(record, weighted(record))
    found = _constant(record, learning, layers)
    if found or input_size(record) > inputs:
        return found
    return _too_large(record, learning, layers, chance, large, growth, absurd) or _too_small(
        record, learning, layers, small, growth
    )


# ---------------------------------------------------------------------- constant


def _constant(record: Record, learning: Learning, layers: list[Weighted]) -> list[Finding]:
    constant = [w for w in _hidden(layers) if any(_is_constant(p) for p in w.weights)]
    if not constant or learning.well:
        return []
    unmoved = [w for w in constant if len(gradient(record, w)) > 1 and not gradient(record, w).values.any()]
    symmetric = not any(_varies(p) for w in layers if w not in constant for p in w.weights)
    valued = any(p.initial.get("max", 0) > 0 for w in constant for p in w.weights if _is_constant(p))
    if unmoved:
        because = say("and get no gradient")
    elif symmetric:
        because = say("as do all others, so that their units stay alike")
    elif valued:
        because = say("so that its units start alike")
    else:
        return []
    where = unmoved or constant
    value = max(p.initial.get("max", 0.0) for p in where[0].weights)
    says = say(
        "the weights of {layers} all start at {value}, {because}; {words}",
        layers=names([w.name for w in where]),
        value=number(value),
        because=because,
        words=learning.words(),
    )
    return finding(
        "bad-initialization",
        learning.weigh(unknown="warning"),
        0.95 if unmoved and learning.stuck else 0.8,
        says,
        layers=[w.name for w in where],
        evidence=[Evidence("weight_std", w.weights[0].name, 0, 0.0) for w in where[:4]],
        treated_by=("initialization",),
    )


def _hidden(layers: list[Weighted]) -> list[Weighted]:
    """All but the last layer, whose weights may start at zero."""
    return [w for w in layers[:-1] if w.layer.role != "output"]


def _is_constant(parameter: Parameter) -> bool:
    several = len(parameter.shape) > 1 and parameter.shape[0] > 1 and math.prod(parameter.shape) > 2
    return several and parameter.initial.get("std", 1.0) <= 1e-12


def _varies(parameter: Parameter) -> bool:
    return not _is_constant(parameter) and parameter.initial.get("identical_rows", 0.0) < 0.99


# ---------------------------------------------------------------------- too large


def _too_large(
    record: Record,
    learning: Learning,
    layers: list[Weighted],
    chance: float,
    large: float,
    growth: float,
    absurd: float,
) -> list[Finding]:
    gains = {w.name: _gain(w) for w in layers}
    big = [name for name, gain in gains.items() if gain > large]
    start = record.series("loss").finite.first
    above = start / learning.chance if record.program.task.kind in _CLASSIFYING else math.nan
    grown = 1.0 if _normalised(record) else _growth(record, layers)
    flat = [
        w for w in record.layers if record.series("act_saturated", w).first > 0.5 and record.layers[w].role == "hidden"
    ]
    consequences = []
    if above > chance and (big or _outputs(record) > large):
        consequences.append(
            say(
                "the loss starts at {start}, {above} times that of a uniform guess",
                start=number(start),
                above=number(above),
            )
        )
    if grown > growth:
        consequences.append(say("outputs grow {grown} times along depth", grown=number(grown)))
    if flat and big:
        consequences.append(say("{layers} starts saturated", layers=names(flat)))
    if not consequences or not (big or above > 2 * chance):
        return []
    worst = max(big, key=lambda name: gains[name]) if big else ""
    cause = (
        say(
            "the weights of {worst} start with a gain of {gain} where 1 is usual",
            worst=worst,
            gain=number(gains[worst]),
        )
        if big
        else say("the network starts sure of random answers")
    )
    return finding(
        "bad-initialization",
        learning.weigh(well="warning" if big and above > absurd else "note"),
        min(0.9, 0.5 + 0.15 * len(consequences) + 0.15 * bool(big)),
        say("{cause}: {consequence}; {words}", cause=cause, consequence=consequences[0], words=learning.words()),
        layers=big,
        evidence=[Evidence("loss", "", 0, start), *(Evidence("gain", name, 0, gains[name]) for name in big[:3])],
        treated_by=("initialization", "normalization"),
    )


def _outputs(record: Record) -> float:
    """Deviation of the network's outputs at step 0; where it is small, a penalty makes the loss large, not they."""
    call = main_loss(record)
    return record.series("act_std", call.layer).first if call is not None else math.nan


def _gain(item: Weighted) -> float:
    """Standard deviation of the weights times the root of the number of inputs; NaN when unknown."""
    gains = [
        p.initial["std"] * math.sqrt(p.initial["fan_in"])
        for p in item.weights
        if p.initial.get("fan_in", 0) > 1 and "std" in p.initial
    ]
    return max(gains, default=math.nan)


def _growth(record: Record, layers: list[Weighted]) -> float:
    """Deviation of the last layer's output over that of the first, at step 0; NaN when there are not two."""
    stds = [record.series("act_std", w.name).first for w in layers]
    known = [s for s in stds if math.isfinite(s) and s > 0]
    return known[-1] / known[0] if len(known) > 1 else math.nan


def _bounded(record: Record) -> bool:
    """Whether hidden layers squash their outputs, which makes signals fade whatever the weights."""
    return any(
        layer.op in ("sigmoid", "tanh", "softsign", "hardsigmoid")
        for layer in record.program.layers
        if layer.role == "hidden"
    )


def _normalised(record: Record) -> bool:
    return any(layer.op in NORMS for layer in record.program.layers)


# ---------------------------------------------------------------------- too small


def _too_small(
    record: Record, learning: Learning, layers: list[Weighted], small: float, growth: float
) -> list[Finding]:
    if learning.status not in ("at chance", "learns") or _normalised(record):
        return []
    fades = 1 / _growth(record, layers)
    if fades > growth and len(layers) >= DEEP and not _bounded(record):
        says = say(
            "outputs fade {fades} times along the {count} layers at the start, and gradients with them: "
            "these weights are too small for so deep a network; {words}",
            fades=number(fades),
            count=len(layers),
            words=learning.words(),
        )
        return finding(
            "bad-initialization", "warning", 0.65, says, layers=[w.name for w in layers],
            evidence=[Evidence("act_std", w.name, 0, record.series("act_std", w.name).first) for w in (layers[0], layers[-1])],
            treated_by=("initialization", "normalization", "residual"),
        )  # fmt: skip
    if learning.status != "at chance":
        return []
    gains = {w.name: _gain(w) for w in _hidden(layers)}
    tiny = [name for name, gain in gains.items() if gain < small]
    between = [record.series("act_between", w.name).median() for w in layers]
    call = main_loss(record)
    constant = call is not None and call.output.get("constant", 0.0) > 0.9
    faded = fades > growth or float(np.nanmin([*between, 1.0])) < 1e-3
    if not tiny or not (faded or constant):
        return []
    worst = min(tiny, key=lambda name: gains[name])
    says = say(
        "the weights of {layers} start so small (a gain of {gain} where 1 is usual) that the output "
        "hardly depends on the input; {words}",
        layers=names(tiny),
        gain=number(gains[worst]),
        words=learning.words(),
    )
    return finding(
        "bad-initialization",
        "warning",
        0.55,
        says,
        layers=tiny,
        evidence=[Evidence("gain", name, 0, gains[name]) for name in tiny[:4]],
        treated_by=("initialization", "normalization"),
    )
