"""The pictures of how a sampler was doing: where its proposals came from, and what it says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unstuck._language import _, say, tell
from unstuck.report import _words as words
from unstuck.report._search_charts import ROWS
from unstuck.report._search_facts import SEARCH, Told
from unstuck.report._search_plots import Axis, Plot, Point, Scale, Shape

_SPANS = 24  # that a search is cut into, at most
_LEAST = 5  # proposals of a span
_COLOURS = {"random": "a", "controller": "b", "model": "b", "neighbour": "c", "mutation": "c"}
_OTHERS = "de"
_SIGNALS = {
    "entropy_share": (say("entropy, of the highest"), "search best"),
    "repeats": (say("repeats among its proposals"), "control best"),
}
_PERCENTS = tuple((i / 4, f"{25 * i}%") for i in range(5))


def health(told: Told) -> list[Plot]:
    """Where proposals came from over the search, and what the sampler says of itself."""
    return [plot for plot in (_origins(told), _signals(told)) if plot is not None]


def _origins(told: Told) -> Plot | None:
    """Shares by origin, span by span, one above the other."""
    origins = [words.clean(c["origin"]) for c in told["children"] if c["arm"] == SEARCH]
    kinds = sorted(Counter(origins), key=lambda kind: (kind != "random", -origins.count(kind)))
    if len(kinds) < 2:
        return None
    spans = np.array_split(np.arange(len(origins)), min(_SPANS, max(1, len(origins) // _LEAST)))
    shares = {kind: [sum(origins[i] == kind for i in span) / len(span) for span in spans] for kind in kinds}
    rows = tuple(
        (f"{span[0] + 1} – {span[-1] + 1}", *(words.percent(shares[kind][i]) for kind in kinds))
        for i, span in enumerate(spans)
    )
    whole = ", ".join(f"{kind} {words.percent(origins.count(kind) / len(origins))}" for kind in kinds)
    return Plot(
        "origins", _("Where the search's proposals came from"), Axis(_("evaluation"), Scale.of([1, len(origins)], whole=True).ticks()),
        Axis(_("share"), _PERCENTS), tuple(_stacked(shares)), tell("Of all: {whole}.", whole=whole), (_("evaluations"), *kinds), rows, 12.0,
    )  # fmt: skip


def _stacked(shares: Mapping[str, Sequence[float]]) -> list[Shape]:
    """Boxes one above the other, of one colour for each kind."""
    shapes, below = [], [0.0] * len(next(iter(shares.values())))
    for k, (kind, several) in enumerate(shares.items()):
        points = [p for i, share in enumerate(several) if share for p in _box(i, len(several), below[i], share)]
        colour = _COLOURS.get(kind, _OTHERS[k % len(_OTHERS)])
        shapes.append(Shape(f"stack origin-{colour}", kind, tuple(points), join="boxes"))
        below = [b + s for b, s in zip(below, several, strict=True)]
    return shapes


def _box(i: int, count: int, low: float, height: float) -> list[Point]:
    left, right = i / count, (i + 1) / count
    return [(left, low), (left, low + height), (right, low + height), (right, low)]


def _signals(told: Told) -> Plot | None:
    """Entropy and repeats, as shares."""
    history: list[dict[str, Any]] = list(told.get("health") or ())
    found = {key: [(i, float(h[key])) for i, h in enumerate(history) if h.get(key) is not None] for key in _SIGNALS}
    found = {key: known for key, known in found.items() if len(known) > 1}
    if not found:
        return None
    label, places = _places(history)
    across = Scale.of(places, whole=True)
    shapes = tuple(
        Shape(
            _SIGNALS[key][1],
            _SIGNALS[key][0],
            tuple((across.share(places[i]), min(1.0, max(0.0, v))) for i, v in known),
            join="line",
        )
        for key, known in found.items()
    )
    at = np.unique(np.linspace(0, len(history) - 1, min(ROWS, len(history))).astype(int)).tolist()
    rows = tuple((words.exact(places[i]), *(words.percent(history[i].get(key)) for key in found)) for i in at)
    said = [
        tell(
            "{signal}: {first} at first, {last} at last.",
            signal=_(_SIGNALS[key][0]).capitalize(),
            first=words.percent(known[0][1]),
            last=words.percent(known[-1][1]),
        )
        for key, known in found.items()
    ]
    return Plot(
        "sampler", _("What the sampler says of itself"), Axis(label, across.ticks()), Axis(_("share"), _PERCENTS), shapes, " ".join(said),
        (label, *(_SIGNALS[key][0] for key in found)), rows, 12.0,
    )  # fmt: skip


def _places(history: Sequence[Mapping[str, Any]]) -> tuple[str, list[float]]:
    """What runs below: updates, where the sampler counts them, else how often it was asked."""
    updates = [float(u) for h in history if (u := h.get("updates")) is not None]
    if len(updates) == len(history) and updates[-1] > updates[0]:
        return _("updates of the controller"), updates
    return "snapshot", [i + 1.0 for i in range(len(history))]
