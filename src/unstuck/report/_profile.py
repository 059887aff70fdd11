"""One number by depth, or by time lag: the picture behind a finding that says where in the network something happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unstuck._language import _, marked, tell
from unstuck.evidence import Record
from unstuck.report._words import Scale, number, percent, signal
from unstuck.verdict import Finding

_BY_CAUSE = {
    "vanishing-gradient": "back_rms",
    "exploding-gradient": "back_rms",
    "zero-gradient": "back_rms",
    "saturated-activation": "act_saturated",
    "dead-units": "dead_share",
    "bad-initialization": "act_std",
}
_TITLES = {"layer": marked("{signal} by layer"), "parameter": marked("{signal} by parameter")}
_BY_DEPTH = ("back_", "act_", "dead_share", "grad_rms", "update_ratio", "weight_rms")


@dataclass(frozen=True)
class Profile:
    """One signal at one step, by layer in forward order or by time lag.

    Attributes:
        signal: Its name in the record.
        axis: "layer", "parameter" or "lag".
        step: When it was measured.
        names: Layers, parameters, or lags as text.
        values: The numbers, shape `(names,)`.
        marked: Names the finding sits in.
    """

    signal: str
    axis: str
    step: int
    names: tuple[str, ...]
    values: np.ndarray
    marked: frozenset[str] = frozenset()

    @property
    def scale(self) -> Scale:
        """How it is drawn."""
        return signal(self.signal).scale

    @property
    def title(self) -> str:
        """What it shows, as a title."""
        words = signal(self.signal).words
        return _(words) if self.axis == "lag" else tell(_TITLES[self.axis], signal=words)

    @property
    def caption(self) -> str:
        """What it shows, with its smallest and largest value."""
        words = signal(self.signal).words
        finite = self.values[np.isfinite(self.values)]
        if not len(finite):
            return tell("{signal}, NaN or Inf everywhere, step {step}", signal=words, step=self.step)
        low, high = float(finite.min()), float(finite.max())
        written = (percent(low), percent(high)) if self.scale == "share" else (number(low, 2), number(high, 2))
        told = {"signal": words, "low": written[0], "high": written[1], "step": self.step}
        if self.scale == "log":
            return tell("{signal} {low} … {high}, log scale, step {step}", **told)
        return tell("{signal} {low} … {high}, step {step}", **told)

    def squeezed(self, width: int) -> np.ndarray:
        """At most `width` numbers: medians over neighbours where there are more."""
        if len(self.values) <= width:
            return self.values
        parts = np.array_split(self.values, width)
        middle = [part[np.isfinite(part)] for part in parts]
        return np.array([np.median(part) if len(part) else np.nan for part in middle])


def profile(finding: Finding, record: Record, least: int = 3) -> Profile | None:
    """The picture of a finding.

    Args:
        finding: Any finding.
        record: The record it was found in.
        least: Places a picture needs.

    Returns:
        The first signal of its evidence that was measured at enough places, else what its cause is usually seen in;
        None when neither was.
    """
    wanted = [(e.signal, e.layer, e.step) for e in finding.evidence]
    if finding.cause in _BY_CAUSE:
        wanted.append((_BY_CAUSE[finding.cause], "", wanted[0][2] if wanted else 0))
    for name, place, step in wanted:
        found = _by_lag(record, place, step) if name == "lag_grad" else _by_depth(record, finding, name, step)
        if found is not None and len(found.names) >= least:
            return found
    return None


def _by_lag(record: Record, place: str, step: int) -> Profile | None:
    vectors = record.vectors("lag_grad", place)
    if not vectors:
        return None
    nearest = min(vectors, key=lambda v: abs(v.step - step))
    names = tuple(str(lag) for lag in range(len(nearest.values)))
    return Profile("lag_grad", "lag", nearest.step, names, nearest.values)


def _by_depth(record: Record, finding: Finding, name: str, step: int) -> Profile | None:
    if not name.startswith(_BY_DEPTH):
        return None
    names = [place for place in in_order(record, name) if len(record.series(name, place))]
    names = list(filter(_same_model(record, finding), names))
    if not names:
        return None
    when, values = zip(*(_at(record, name, place, step) for place in names), strict=True)
    axis = "layer" if any(place in record.layers for place in names) else "parameter"
    steps, counts = np.unique(when, return_counts=True)
    return Profile(name, axis, int(steps[counts.argmax()]), tuple(names), np.array(values), _sits_in(record, finding))


def _sits_in(record: Record, finding: Finding) -> frozenset[str]:
    """The layers a finding names, and their parameters."""
    parameters = (record.layers[name].parameters for name in finding.layers if name in record.layers)
    return frozenset({*finding.layers, *(name for names in parameters for name in names)})


def in_order(record: Record, name: str) -> list[str]:
    """Places of a signal in forward order: layers but those of the loss; of parameters the matrices, where there are any."""
    places = record.places(name)
    if any(place in record.layers for place in places):
        return [p for p in places if p not in record.layers or record.layers[p].role != "loss"]
    rank = {parameter: i for i, parameter in enumerate(record.parameters)}
    places.sort(key=lambda place: rank.get(place, len(rank)))
    matrices = [p for p in places if p in record.parameters and len(record.parameters[p].shape) > 1]
    return matrices or places


def _same_model(record: Record, finding: Finding) -> Callable[[str], bool]:
    models = {record.layers[name].model for name in finding.layers if name in record.layers}
    return lambda place: not models or place not in record.layers or record.layers[place].model in models


def _at(record: Record, name: str, place: str, step: int) -> tuple[int, float]:
    series = record.series(name, place)
    nearest = int(np.abs(series.steps - step).argmin())
    return int(series.steps[nearest]), float(series.values[nearest])
