"""From what a sampled step left at the layers to the record's columns."""

from __future__ import annotations

import numpy as np
import torch

from unstuck.signals.lag import by_call
from unstuck.signals.moments import DESCRIBE
from unstuck.watcher import ops
from unstuck.watcher.recorder import Columns, Sample
from unstuck.watcher.registry import Registry
from unstuck.watcher.trace import LayerState, Reach

_BACK = ("back_rms", "back_max", "back_zero", "back_nonfinite")
_LARGEST = frozenset({"act_max", "act_nonfinite", "back_max", "back_nonfinite"})


def layer_columns(registry: Registry, sample: Sample) -> None:
    """Adds what the layers hold to a sample, and frees it."""
    acts, backs, dead = [], [], []
    for layer in registry.ordered:
        rows = layer.acts[: layer.acts_done]
        if rows:
            acts.append((layer, rows))
            if layer.window is not None:
                dead.append((layer, layer.window))
        if layer.backs:
            backs.append((layer, layer.backs))
    if acts:
        flat = [row for _, rows in acts for row in rows]
        owners = [(layer, len(rows)) for layer, rows in acts]
        sample.put("acts", torch.stack(flat), lambda columns, numbers: _acts(columns, numbers, owners))
    if backs:
        flat = [row for _, rows in backs for _, row in rows]
        calls = [(layer, [which for which, _ in rows]) for layer, rows in backs]
        fed_back = {layer.index for layer, which in calls if _timed(which) and _feeds_itself(layer, registry)}
        sample.put("backs", torch.stack(flat), lambda columns, numbers: _backs(columns, numbers, calls, fed_back))
    if dead:
        layers = [layer for layer, _ in dead]
        counts = [len(window) for _, window in dead]
        shares = torch.stack([window.dead_share() for _, window in dead])
        sample.put("dead", shares, lambda columns, numbers: _dead(columns, numbers, layers, counts))
    for layer in registry.ordered:
        layer.forget_step()


def recurrent_lags(calls: list[tuple[LayerState, Reach]], sample: Sample) -> None:
    """Measures how far back recurrent layers reach, with their weights as they are, on what they were given."""
    for layer, reach in calls:
        ratios = reach()
        if ratios is not None:

            def means(columns: Columns, numbers: np.ndarray, place: str = layer.name) -> None:
                columns.vectors.append(("lag_grad", place, numbers.copy()))

            sample.put(("lags", layer.index), ratios, means)


def _acts(columns: Columns, numbers: np.ndarray, owners: list[tuple[LayerState, int]]) -> None:
    start = 0
    for layer, count in owners:
        rows = numbers[start : start + count]
        start += count
        for i, signal in enumerate(DESCRIBE):
            value = _over_calls(signal, rows[:, i])
            if signal == "act_saturated" and layer.op not in ops.BOUNDS:
                continue
            columns.put(signal, layer.name, value)


def _timed(calls: list[int]) -> bool:
    """Whether a layer's calls, each of which got one gradient, can be steps in time."""
    return len(calls) > 8 and len(set(calls)) == len(calls)


def _feeds_itself(layer: LayerState, registry: Registry) -> bool:
    """Whether a layer's output comes back to it, so that its calls follow from one another; an agent's, for one, don't."""
    by_index = {known.index: known for known in registry.ordered}
    seen: set[int] = set()
    todo = list(layer.inputs)
    while todo:
        index = todo.pop()
        if index == layer.index:
            return True
        if index not in seen and index in by_index:
            seen.add(index)
            todo.extend(by_index[index].inputs)
    return False


def _backs(
    columns: Columns, numbers: np.ndarray, owners: list[tuple[LayerState, list[int]]], fed_back: set[int]
) -> None:
    start = 0
    for layer, calls in owners:
        rows = numbers[start : start + len(calls)]
        start += len(calls)
        for i, signal in enumerate(_BACK):
            columns.put(signal, layer.name, _over_calls(signal, rows[:, i]))
        if layer.index in fed_back:
            lags = by_call(dict(zip(calls, rows[:, 0].tolist(), strict=True)))
            if len(lags):
                columns.vectors.append(("lag_grad", layer.name, lags))


def _dead(columns: Columns, numbers: np.ndarray, layers: list[LayerState], counts: list[int]) -> None:
    for layer, share, count in zip(layers, numbers.tolist(), counts, strict=True):
        columns.put("dead_share", layer.name, share)
        columns.put("dead_window", layer.name, count)


def _over_calls(signal: str, values: np.ndarray) -> float:
    if len(values) == 1:
        return float(values[0])
    good = values[~np.isnan(values)]
    if len(good) == 0:
        return float("nan")
    return float(good.max() if signal in _LARGEST else good.mean())
