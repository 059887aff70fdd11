"""Dropout, weight decay or a penalty that keeps the network from fitting."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._depth import is_weight
from unstuck.rules._finding import finding
from unstuck.rules._learning import progress
from unstuck.rules._probes import number_of, probe
from unstuck.rules._words import names, number, share, then
from unstuck.verdict import Evidence, Finding

FEW_STEPS = 20  # of continuing, below which it tells nothing
_HALF = 0.5  # of the way from chance to perfect: where dropout hardly keeps it from fitting


def over_regularized(
    record: Record,
    *,
    p: float = 0.5,
    layers: int = 2,
    shrunk: float = 0.1,
    passing: float = 0.15,
    hurts: float = 1.15,
    dwarf: float = 0.2,
) -> list[Finding]:
    """Regularisation is so strong that the network can't fit its training data.

    Dropout above one half several times in a row leaves next to nothing of a signal: three times 0.8 lets one
    path in 125 through. Weight decay, or a penalty in the loss, pulls the weights to zero faster than the data
    can pull them up.

    Told apart:
        Dropout by its rate and how many layers have it; decay by what it did: weights that shrank to a fraction
        of their start, while the network is no better than chance. Where the network got half of the way from
        chance to perfect, dropout is a note at most.

    Wrong when:
        Something else keeps it from learning as well. Try without regularisation first: a network must be able
        to fit before it needs to be held back.

    Args:
        record: The run.
        p: Dropout rate above which a layer counts (UMLAUT: 0.5).
        layers: Such layers that are too many; one with a rate above 0.8 is, too.
        shrunk: Size at the end, relative to the start, of the weights that shrank most.
        passing: Share of the paths, over all layers with a dropout of at least `p`, below which dropout is too much where it hurts.
        hurts: Loss after continuing with dropout and decay over that after continuing without, on the batches that were continued
            on, above which they do; where that was not tried, of the same batches in training and in evaluation mode.
        dwarf: Share that the loss functions have of what is minimised at the start, below which penalties dwarf them.

    Returns:
        One finding at most.
    """
    learning = progress(record)
    if learning.well or learning.status in ("unknown", "diverges"):
        return []
    rates = {
        layer.name: float(layer.settings.get("p", 0.0)) for layer in record.program.layers if layer.op == "dropout"
    }
    high = {name: value for name, value in rates.items() if value > p}
    if not (len(high) >= layers or any(value > 0.8 for value in high.values())):
        high = {name: value for name, value in rates.items() if value >= p} if _held_back(record, hurts) else {}
        if not math.prod(1 - value for value in high.values()) < passing:
            high = {}
    if high:
        passed = math.prod(1 - value for value in high.values())
        gap = "" if not _held_back(record, hurts) else say(", and without it the loss is soon far lower")
        says = say(
            "dropout of {p} in {layers} lets {share} of the paths through{gap}",
            p=number(max(high.values())),
            layers=names(list(high)),
            share=share(passed),
            gap=gap,
        )
        return finding(
            "over-regularized",
            learning.weigh(learns="warning" if not learning.skill > _HALF or gap else "note"),
            0.75,
            then(says, learning.words()),
            layers=high,
            evidence=[Evidence("dropout", name, 0, value) for name, value in list(high.items())[:4]],
            treated_by=("dropout",),
        )
    if learning.status != "at chance":
        return []
    left, name = _left(record)
    dwarfed = _part(record) < dwarf
    if not left < (shrunk if not dwarfed else 0.5):
        return []
    if dwarfed:
        says = say(
            "at the start the loss on the data is {share} of what is minimised, the rest are penalties",
            share=share(_part(record)),
        )
        return finding(
            "over-regularized",
            "error",
            0.9,
            say(
                "{says}; the weights of {name} shrink to {share} of their size at the start; {words}",
                says=says,
                name=name,
                share=share(left),
                words=learning.words(),
            ),
            evidence=[
                Evidence("loss_part", "", 0, _part(record)),
                Evidence("weight_left", name, record.steps - 1, left),
            ],
            treated_by=("weight-decay",),
        )
    decay = next((float(o.settings.get("weight_decay") or 0.0) for o in record.program.optimizers), 0.0)
    by = say(" under a weight decay of {decay}", decay=number(decay)) if decay else ""
    return finding(
        "over-regularized",
        "error",
        0.85 if decay else 0.6,
        say(
            "the weights of {name} shrink to {share} of their size at the start{by}; {words}",
            name=name,
            share=share(left),
            by=by,
            words=learning.words(),
        ),
        evidence=[Evidence("weight_left", name, record.steps - 1, left)],
        treated_by=("weight-decay",),
    )


def _held_back(record: Record, hurts: float) -> bool:
    """Whether the loss is much lower without dropout and decay: after continuing both ways, else of the same batches."""
    tried = probe(record, "unregularized")
    if tried is not None and number_of(tried, "steps") >= FEW_STEPS:
        own, held = (number_of(tried, f"{p}kept") / number_of(tried, f"{p}without") for p in ("own_", ""))
        return own > hurts and held > 1.0
    data = probe(record, "modes")
    return number_of(data, "train") > hurts * number_of(data, "eval")


def _left(record: Record) -> tuple[float, str]:
    """Size relative to the start of the weights that shrank most, and their name; NaN when unknown.

    Nothing but decay and penalties makes weights much smaller.
    """
    parts = []
    for parameter in record.program.parameters:
        series = record.series("weight_rms", parameter.name).finite
        if is_weight(parameter) and len(series) > 1 and series.first > 0:
            parts.append((series.last / series.first, parameter.name))
    return min(parts, default=(math.nan, ""))


def _part(record: Record) -> float:
    """Share that the loss functions have of what is minimised, at the first sample; NaN when unknown."""
    first = [record.series("loss_part", place).first for place in record.places("loss_part")]
    return sum(first) if first else math.nan
