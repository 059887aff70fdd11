"""How large the steps are: rate, and updates relative to the weights."""

from __future__ import annotations

import math

import numpy as np

from unstuck.evidence import Record
from unstuck.rules._depth import is_weight


def rate(record: Record) -> float:
    """The learning rate, its median over the run; NaN when unknown."""
    return record.series("lr").median()


def update_size(record: Record) -> float:
    """Size of an update relative to the weights: the median over steps, then over weights; NaN when unknown.

    Biases and scales are left out: those that start at zero have ratios without meaning.
    """
    ratios = [r for r in _ratios(record).values() if math.isfinite(r)]
    return float(np.median(ratios)) if ratios else math.nan


def fastest(record: Record) -> tuple[str, float]:
    """The weight that moves most, and its median update ratio; ("", NaN) when unknown.

    A vanishing gradient makes most weights slow whatever the rate; the fastest one tells of the rate.
    """
    ratios = {name: r for name, r in _ratios(record).items() if math.isfinite(r)}
    if not ratios:
        return "", math.nan
    name = max(ratios, key=lambda name: ratios[name])
    return name, ratios[name]


def _ratios(record: Record) -> dict[str, float]:
    found = {}
    for parameter in record.program.parameters:
        if is_weight(parameter) and parameter.initial.get("zero_share", 0.0) < 0.5:
            found[parameter.name] = record.series("update_ratio", parameter.name).median()
    return found
