"""How large the steps are: rate, and updates relative to the weights."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from unstuck.evidence import Parameter, Record
from unstuck.rules._depth import is_weight
from unstuck.rules._learning import Learning, late
from unstuck.rules._medians import stretches

SCALE_FREE = frozenset({
    "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "SparseAdam", "RMSprop", "Adagrad", "Adadelta", "Rprop",
    "Lion", "LAMB", "Lamb", "Adafactor", "Muon", "LBFGS",
})  # fmt: skip
"""Optimizers whose steps are as long whatever the gradient is multiplied by."""


def rate(record: Record) -> float:
    """The learning rate, its median over the run; NaN when unknown."""
    return record.series("lr").median()


def swiftest(record: Record) -> tuple[int, float]:
    """Of several optimizers the one that changes its weights most, and its rate; the first and its rate where there is one."""
    largest = {}
    for i in range(len(record.program.optimizers)):
        held = {p.name for p in record.program.parameters if i in p.optimizers}
        largest[i] = max(
            (
                float(s.values.max())
                for p in _weights(record)
                if p.name in held and len(s := record.series("update_ratio", p.name).finite)
            ),
            default=0.0,
        )
    if len(largest) < 2:
        return 0, rate(record)
    index = max(largest, key=lambda i: largest[i])
    known = record.series("lr", f"{index}.0").median()
    return index, known if math.isfinite(known) else rate(record)


def struck_at(record: Record, *, jump: float = 20.0, calm: int = 10, few: int = 20) -> int | None:
    """The step whose batch broke a training that went well: None when there is none.

    Its loss, which is measured before its update, stands far above all before, though nothing led up to it: neither the losses
    nor the gradients of the steps before were unusual. Steps that are too long build up over several of them.

    Args:
        record: The run.
        jump: The loss relative to the largest of the calm steps before.
        calm: Steps before it that nothing is to be seen of.
        few: Steps before which no training goes well or badly.
    """
    loss, norms = record.series("loss"), record.series("grad_norm").finite
    values, i = loss.values, _first_jump(loss.values, jump, calm, few)
    if i is None:
        return None
    before, after = values[i - calm : i], values[i + 1 : i + 1 + calm]
    step, usual = int(loss.steps[i]), norms.until(int(loss.steps[i]))
    broke = len(after) > 0 and (not np.isfinite(after).all() or np.median(after) > 2 * np.median(before))
    learned = np.median(before) < 0.5 * values[0]
    quiet = len(usual) < calm or usual.last <= 3 * float(np.median(usual.values[-calm * 3 :]))
    return step if broke and learned and quiet else None


def _first_jump(values: np.ndarray, jump: float, calm: int, few: int) -> int | None:
    """The first value far above the calm ones before it, and above all before."""
    if len(values) <= few:
        return None
    highest = np.fmax.accumulate(values)[few - 1 : -1]
    at = few + np.flatnonzero(values[few:] > 2 * highest)
    before = stretches(values, at - calm, calm)
    at = at[np.isfinite(before).all(axis=1) & (values[at] > jump * np.abs(before).max(axis=1))]
    return int(at[0]) if len(at) else None


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


def farthest(record: Record, among: Collection[str] | None = None) -> tuple[str, float]:
    """The weight that can have moved most, and how far: its update ratios added up; ("", NaN) when unknown.

    A vanishing gradient makes most weights slow whatever the rate; the one that moves most tells of the rate.

    Args:
        record: The run.
        among: Names of the parameters to choose from, by default all.
    """
    ways = {p.name: _way(record, p) for p in _weights(record) if among is None or p.name in among}
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
