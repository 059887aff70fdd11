"""What trackers are sent of a record: which series, under which names, and how many of their numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from unstuck.evidence import Program, Series

Key = tuple[str, str]
Points = list[tuple[int, dict[str, float]]]

_WHOLE = {
    "loss": "loss", "eval_loss": "evaluation_loss", "score": "score", "eval_score": "evaluation_score", "lr": "learning_rate",
    "grad_norm": "gradient_norm", "sharpness": "sharpness",
}  # fmt: skip
_OF_LAYERS = {"back_rms": "gradient", "dead_share": "dead", "act_saturated": "saturated"}
_OF_WEIGHTS = {"update_ratio": "update"}
_FIRST_RATE = ("lr", "0.0")  # the series of the whole program has it already
_MOST_LAYERS = 64


class Names:
    """Names of series as trackers group them: `unstuck/loss`, `unstuck/gradient/net.0`.

    Of layers it is those with weights whose gradient and update is sent, and at most 64 of them, evenly spread over the depth.

    Args:
        program: What was learned of the script.
    """

    def __init__(self, program: Program) -> None:
        weights = [p for p in program.parameters if len(p.shape) > 1 and p.layers]
        users = [p.layers[0] for p in weights]
        self._weights = {p.name: p.layers[0] if users.count(p.layers[0]) == 1 else p.name for p in weights}
        chosen = _spread([layer.name for layer in program.layers if layer.name in set(users)])
        rest = [layer.name for layer in program.layers if layer.name not in set(users)]
        self._layers = {"back_rms": set(chosen), "dead_share": set(_spread([*chosen, *rest]))}
        self._layers["act_saturated"] = self._layers["dead_share"]
        self._updated = {name for p in weights if p.layers[0] in set(chosen) for name in [p.name]}

    def of(self, key: Key) -> str:
        """The name of a series; "" for one that is not sent."""
        signal, place = key
        if signal in _WHOLE:
            if key == _FIRST_RATE:
                return ""
            return _path(_WHOLE[signal], place)
        if signal in _OF_LAYERS:
            return _path(_OF_LAYERS[signal], place) if place in self._layers[signal] else ""
        if signal in _OF_WEIGHTS:
            return _path(_OF_WEIGHTS[signal], self._weights[place]) if place in self._updated else ""
        return ""


def points(series: Mapping[Key, Series], names: Names, most: int) -> Points:
    """The numbers to send, by step.

    Args:
        series: Series by signal and place, without NaN and Inf.
        names: Names them.
        most: Most numbers of each, see `thinned`.

    Returns:
        Steps in ascending order, each with its numbers by name.
    """
    found: dict[int, dict[str, float]] = {}
    for key, numbers in series.items():
        name = names.of(key)
        if name:
            thin = thinned(numbers, most)
            for step, value in zip(thin.steps.tolist(), thin.values.tolist(), strict=True):
                found.setdefault(step, {})[name] = float(f"{value:.7g}")  # records hold single precision
    return sorted(found.items())


def thinned(series: Series, most: int) -> Series:
    """The smallest and the largest number of each of `most / 2` stretches of equally many steps, at their own steps.

    So spikes stay, and a noisy curve keeps its breadth.

    Example:
        >>> thinned(Series.of([1.0, 2.0, 9.0, 2.0, 1.0, 0.0, 1.0, 1.0]), 4).values.tolist()
        [1.0, 9.0, 1.0, 0.0]
    """
    if len(series) <= most:
        return series
    borders = np.linspace(series.steps[0], series.steps[-1] + 1, max(1, most // 2) + 1)
    edges = np.searchsorted(series.steps, borders).tolist()
    kept: set[int] = set()
    for start, end in itertools.pairwise(edges):
        if end > start:
            part = series.values[start:end]
            kept |= {start + int(part.argmin()), start + int(part.argmax())}
    where = sorted(kept)
    return Series(series.steps[where], series.values[where])


def _spread(names: Sequence[str]) -> list[str]:
    if len(names) <= _MOST_LAYERS:
        return list(names)
    return [names[round(i * (len(names) - 1) / (_MOST_LAYERS - 1))] for i in range(_MOST_LAYERS)]


def _path(name: str, place: str) -> str:
    return f"unstuck/{name}/{place}" if place else f"unstuck/{name}"
