"""How large the steps are: rate, and updates relative to the weights."""

from __future__ import annotations

import math

import numpy as np

from unstuck.evidence import Parameter, Record
from unstuck.rules._depth import is_weight
from unstuck.rules._learning import Learning, late


def rate(record: Record) -> float:
    """The learning rate, its median over the run; NaN when unknown."""
    return record.series("lr").median()


def update_size(record: Record, learning: Learning) -> float:
    """Size of an update relative to the weights in the second half of the run, a median; NaN when unknown.

    Biases and scales are left out, and so are weights that start at zero, whose ratios have no meaning.
    """
    ratios = [late(record.series("update_ratio", p.name), learning).median() for p in _weights(record)]
    known = [r for r in ratios if math.isfinite(r)]
    return float(np.median(known)) if known else math.nan


def first_update(record: Record) -> float:
    """Size of the first update relative to the weights, the median over weights; NaN when unknown."""
    series = [record.series("update_ratio", p.name) for p in _weights(record)]
    first = [s.first for s in series if len(s) and s.steps[0] == 0 and math.isfinite(s.first)]
    return float(np.median(first)) if first else math.nan


def largest_update(record: Record) -> float:
    """Size of the largest update relative to the weights, the median over weights; NaN when unknown."""
    largest = [s.values.max() for p in _weights(record) if len(s := record.series("update_ratio", p.name).finite)]
    return float(np.median(largest)) if largest else math.nan


def farthest(record: Record) -> tuple[str, float]:
    """The weight that can have moved most, and how far: its update ratios added up; ("", NaN) when unknown.

    A vanishing gradient makes most weights slow whatever the rate; the one that moves most tells of the rate.
    """
    ways = {p.name: _way(record, p) for p in _weights(record)}
    known = {name: way for name, way in ways.items() if math.isfinite(way)}
    if not known:
        return "", math.nan
    name = max(known, key=lambda name: known[name])
    return name, known[name]


def _way(record: Record, parameter: Parameter) -> float:
    """Update ratios summed over the run, linear between samples."""
    series = record.series("update_ratio", parameter.name).finite
    if not len(series):
        return math.nan
    before, after = series.steps[0], max(0, record.steps - series.steps[-1])
    between = float(np.trapezoid(series.values, series.steps))
    return float(series.first * before + between + series.last * after)


def _weights(record: Record) -> list[Parameter]:
    return [p for p in record.program.parameters if is_weight(p) and p.initial.get("zero_share", 0.0) < 0.5]
