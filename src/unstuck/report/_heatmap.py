"""Maps of one signal by layer and step, as inline SVG made here: no script is needed to see them.

Where there are more layers than can be seen, every so manieth is drawn; the page's script holds all of them for its filter.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from unstuck._language import _, marked, tell
from unstuck.evidence import Record, Series
from unstuck.report._cells import BROKEN, MISSING, ZERO, drawn, encoded, shares
from unstuck.report._changes import changes, table
from unstuck.report._profile import in_order
from unstuck.report._words import Scale, clean, measured, number, percent, place, plural, signal

SIGNALS = ("back_rms", "update_ratio", "dead_share", "act_saturated", "act_std")
MORE = (
    "grad_rms", "weight_rms", "act_max", "act_zero", "act_between", "act_negative", "back_zero", "grad_zero", "stale_rms",
    "act_nonfinite", "back_nonfinite", "grad_nonfinite", "weight_nonfinite",
)  # fmt: skip
"""Signals whose maps are closed at first: they stand behind findings, or say the same in another way."""
_TITLES = {
    "back_rms": marked("Gradient by layer"),
    "act_std": marked("Activation deviation by layer"),
    "update_ratio": marked("Update over weight by parameter"),
    "dead_share": marked("Dead units by layer"),
    "act_saturated": marked("Saturated outputs by layer"),
    "grad_rms": marked("Gradient by parameter"),
    "weight_rms": marked("Weights by parameter"),
    "act_max": marked("Largest activation by layer"),
    "act_zero": marked("Zero outputs by layer"),
    "act_between": marked("Deviation between samples by layer"),
    "act_negative": marked("Negative outputs by layer"),
    "back_zero": marked("Zero gradients by layer"),
    "grad_zero": marked("Zero gradients by parameter"),
    "stale_rms": marked("Gradient left from the step before, by parameter"),
    "act_nonfinite": marked("NaN or Inf in outputs, by layer"),
    "back_nonfinite": marked("NaN or Inf in gradients, by layer"),
    "grad_nonfinite": marked("NaN or Inf in gradients, by parameter"),
    "weight_nonfinite": marked("NaN or Inf in weights, by parameter"),
}
_UNITS = {
    "back_rms": marked("root mean square of the loss's gradient by the layer's output"),
    "grad_rms": marked("root mean square of the loss's gradient by the parameter"),
    "update_ratio": marked("size of the step over size of the parameter"),
    "act_std": marked("standard deviation of the layer's output"),
    "act_max": marked("largest magnitude in the layer's output"),
    "weight_rms": marked("root mean square of the parameter"),
    "dead_share": marked("share of units that gave nothing above zero in a whole window of batches"),
    "act_saturated": marked("share of outputs within 1% of a bound"),
    "act_between": marked("deviation between samples over all deviation: 0% where the output ignores the input"),
    "stale_rms": marked("gradient that was there before the first backward pass, over that after it"),
}
_MOST_ROWS = 320
_LONGEST_LABEL = 28  # letters, as in maps.js
_MOST_CELLS = 4000
_MOST_LISTED = 100  # rows of numbers under a map that is closed
_MOST_COLUMNS = 80
_LONGEST = 120  # letters of a name


@dataclass(frozen=True)
class Heatmap:
    """One map, ready for the page.

    Attributes:
        signal: Its name in the record.
        title: What it shows.
        unit: What the colours stand for.
        kind: "log" or "share": which colours it takes.
        summary: The same in words.
        places: Layers or parameters in forward order, all of them.
        shown: Indices of those that are rows.
        columns: Sampled steps, those of one column together.
        share: Where each cell of each place lies in the span of the colours, from 0 to 1, shape `(places, columns)`; -1 where it is
            exactly zero on a log scale, -2 where it is NaN or Inf, -3 where nothing was measured.
        span: What the colours span, as powers of ten on a log scale.
        svg: Its cells, one unit each, to be stretched.
        changes: The four largest changes, as a table with its header.
        header, rows: All rows as a table.
        note: How rows were put together, "" when each is one layer.
        is_closed: It is closed at first, and then holds no more than is shown, which the page's script draws.
    """

    signal: str
    title: str
    unit: str
    kind: str
    summary: str
    places: tuple[str, ...]
    shown: range
    columns: tuple[np.ndarray, ...]
    share: np.ndarray
    span: tuple[float, float]
    svg: Markup
    changes: tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    is_closed: bool = False

    @property
    def num_rows(self) -> int:
        """Rows of cells."""
        return len(self.shown)

    @property
    def row_height(self) -> float:
        """Pixels a row."""
        return 16.0 if self.num_rows <= 24 else max(3.0, min(16.0, 480 / self.num_rows))

    @property
    def height(self) -> float:
        """Pixels in all."""
        return self.row_height * self.num_rows

    @property
    def labels(self) -> tuple[tuple[int, str, str], ...]:
        """Row, name and short name of the rows that are labelled."""
        every = max(1, math.ceil(13 / self.row_height))
        names = [self.places[i] for i in self.shown]
        return tuple((i, place(names[i], _LONGEST), self._short(names[i])) for i in range(0, len(names), every))

    @functools.cached_property
    def shared(self) -> str:
        """What the most of its long names begin with, up to a dot: labels leave it out, so that what tells them apart has room."""
        long = [name for name in map(clean, self.places) if len(name) > _LONGEST_LABEL]
        starts = Counter(name[: i + 1] for name in long for i, letter in enumerate(name) if letter == ".")
        most = [start for start, count in starts.items() if 2 * count > len(long) and count > 1]
        return max(most, key=len, default="")

    def _short(self, name: str) -> str:
        name = clean(name)
        if len(name) > _LONGEST_LABEL and self.shared and name.startswith(self.shared):
            name = f"…{name[len(self.shared) :]}"
        return place(name, _LONGEST_LABEL)

    @property
    def names_width(self) -> int:
        """Letters of the longest label."""
        return max(len(short) for *_, short in self.labels)

    @property
    def ticks(self) -> tuple[str, ...]:
        """Steps under its columns, evenly spread."""
        steps = self.columns
        where = np.unique(np.linspace(0, len(steps) - 1, min(5, len(steps))).round().astype(int))
        return tuple(str(int(steps[i][0] if i < len(steps) - 1 else steps[i][-1])) for i in where)

    @property
    def legend(self) -> tuple[str, ...]:
        """Numbers under the colours, evenly spread."""
        levels = np.linspace(*self.span, 5)
        return tuple(percent(v) if self.kind == "share" else number(10**v, 2) for v in levels.tolist())

    @property
    def has_zero(self) -> bool:
        """Whether a cell is exactly zero on a log scale."""
        return bool((self.share == ZERO).any())

    @property
    def has_broken(self) -> bool:
        """Whether a cell is NaN or Inf."""
        return bool((self.share == BROKEN).any())

    @property
    def has_missing(self) -> bool:
        """Whether nothing was measured in a cell."""
        return bool((self.share == MISSING).any())

    def cell(self, name: str, step: int) -> tuple[int, int] | None:
        """Index of a place and of the column that a step falls into, or lies nearest to; None where the place isn't there."""
        if name not in self.places:
            return None
        far = [int(np.abs(group - step).min()) for group in self.columns]
        return self.places.index(name), far.index(min(far))

    def to_json(self, index: dict[str, int]) -> dict[str, Any]:
        """What the page's script reads out and filters; `index` is where names stand in the page's list of names."""
        places = self.shown if self.is_closed else range(len(self.places))
        letters = 2 if len(self.places) <= _MOST_ROWS else 1
        return {
            "id": self.signal, "shared": self.shared,
            "words": _(signal(self.signal).words), "scale": self.kind, "low": self.span[0], "high": self.span[1],
            "steps": [_span_of(group) for group in self.columns], "names": spans_of([index[self.places[i]] for i in places]),
            "most": _MOST_ROWS, "letters": letters, "cells": encoded(self.share[list(places)], letters),
        }  # fmt: skip

    def row(self, index: int) -> int:
        """Where the place of an index stands in what `to_json` gives: the nearest that is shown, of a map that is closed."""
        if not self.is_closed:
            return index
        return min(range(self.num_rows), key=lambda row: abs(self.shown[row] - index))


def heatmaps(record: Record, asked: Collection[str] = ()) -> tuple[list[Heatmap], list[Heatmap]]:
    """The maps there is something to show for.

    Args:
        record: The run.
        asked: Signals that findings rest on.

    Returns:
        Those that are open, and those that are closed at first.
    """
    is_open = {name: name in asked or _is_telling(record, name) for name in (*SIGNALS, *MORE)}
    first = [heatmap(record, name) for name in (*SIGNALS, *(name for name in MORE if name in asked)) if is_open[name]]
    more = [heatmap(record, name, is_closed=True) for name in SIGNALS if not is_open[name]]
    more += [heatmap(record, name, is_closed=True) for name in MORE if name not in asked and is_open[name]]
    return [m for m in first if m is not None], [m for m in more if m is not None]


def _is_telling(record: Record, name: str) -> bool:
    """Whether there is anything to see; shares of what shouldn't be are mostly zero throughout."""
    if signal(name).scale == "log":
        return True
    return any(bool((record.series(name, p).values > 0).any()) for p in in_order(record, name))


def heatmap(record: Record, name: str, *, is_closed: bool = False) -> Heatmap | None:
    """The map of one signal, or None when it was measured nowhere, or once only in one place."""
    names = [p for p in in_order(record, name) if len(record.series(name, p))]
    series = [record.series(name, p) for p in names]
    if not names or max(len(s) for s in series) < 2:
        return None
    every = math.ceil(len(names) / _MOST_ROWS)
    shown = range(every // 2 if every > 1 else 0, len(names), every)
    steps = _columns(series, len(shown))
    cells = _cells(series, steps)
    scale: Scale = "share" if signal(name).scale == "share" else "log"
    span = _span(cells, scale)
    share = shares(cells, span, scale)
    rows = [(names[i], series[i]) for i in shown]
    title = _(_TITLES.get(name, signal(name).words))
    found = changes(name, list(zip(names, series, strict=True)))
    return Heatmap(
        signal=name,
        title=title,
        unit=_unit(name, scale),
        kind=scale,
        summary=" ".join(filter(None, (_summary(name, names, cells, steps), found.says))),
        places=tuple(names),
        shown=shown,
        columns=tuple(steps),
        share=share,
        span=span,
        svg=drawn(title, share[:0] if is_closed else share[list(shown)]),
        is_closed=is_closed,
        changes=table(found, _of_what(record, names)),
        header=(_of_what(record, names), _("first"), _("smallest"), _("largest"), _("last")),
        rows=tuple(_row(name, place(n, 60), s) for n, s in _listed(rows, is_closed)),
        note=_note(len(names), every, is_closed),
    )


def _note(number: int, every: int, is_closed: bool) -> str:
    told = {"number": number, "every": every}
    if every == 1:
        return ""
    if is_closed:
        return tell("{number} places in forward order, one of every {every} is shown.", **told)
    return tell(
        "{number} places in forward order, one of every {every} is shown; the filter shows any of them.", **told
    )


def _listed(rows: list[tuple[str, Series]], is_closed: bool) -> list[tuple[str, Series]]:
    return rows[:: math.ceil(len(rows) / _MOST_LISTED)] if is_closed else rows


def _of_what(record: Record, names: list[str]) -> str:
    return _("layer") if any(name in record.layers for name in names) else _("parameter")


def _unit(name: str, scale: Scale) -> str:
    unit = _(_UNITS.get(name, signal(name).words))
    return unit if scale == "share" else tell("{unit}, on a log scale", unit=unit)


def _columns(series: list[Series], num_rows: int) -> list[np.ndarray]:
    """The sampled steps, in so many groups as there is room for."""
    shared = {id(s.steps): s.steps for s in series}  # as a rule all have the same
    steps = np.unique(np.concatenate(list(shared.values())))
    room = max(12, min(_MOST_COLUMNS, _MOST_CELLS // num_rows))
    return np.array_split(steps, min(room, len(steps)))


def _cells(series: list[Series], steps: list[np.ndarray]) -> np.ndarray:
    """Shape `(rows, columns)`: the median of what was measured there; Inf when any was NaN or Inf, NaN when nothing was."""
    every = np.concatenate(steps)
    measured_at = np.full((len(series), len(every)), np.nan)
    for row, one in zip(measured_at, series, strict=True):
        row[np.searchsorted(every, one.steps)] = np.where(np.isfinite(one.values), one.values, np.inf)
    cells = np.full((len(series), len(steps)), np.nan)
    for column, part in enumerate(np.split(measured_at, np.cumsum([len(group) for group in steps])[:-1], axis=1)):
        cells[:, column] = _middle(part)
        cells[np.isinf(part).any(axis=1), column] = np.inf
    return cells


def _middle(part: np.ndarray) -> np.ndarray:
    """Medians of rows, NaN left out; of many short rows far faster than `np.nanmedian`."""
    ordered, counts = np.sort(part, axis=1), (~np.isnan(part)).sum(axis=1, keepdims=True)
    low, high = (np.take_along_axis(ordered, at, axis=1) for at in (np.maximum(counts - 1, 0) // 2, counts // 2))
    return (0.5 * (low + high))[:, 0]


def _span(cells: np.ndarray, scale: Scale) -> tuple[float, float]:
    """What the colours span: 0 to 1 for shares; else powers of ten, without the outermost hundredth."""
    if scale == "share":
        return 0.0, 1.0
    shown = cells[np.isfinite(cells) & (cells > 0)]
    if not len(shown):
        return -1.0, 0.0
    low, high = (float(v) for v in np.percentile(np.log10(shown), [0.5, 99.5]))
    pad = max(0.0, 1.0 - (high - low)) / 2
    return low - pad, high + pad


def spans_of(numbers: list[int]) -> list[list[int]]:
    """Ascending numbers as spans: where one starts, and how many follow each other."""
    found: list[list[int]] = []
    for one in numbers:
        if found and sum(found[-1]) == one:
            found[-1][1] += 1
        else:
            found.append([one, 1])
    return found


def _span_of(group: np.ndarray) -> str:
    return str(group[0]) if len(group) == 1 else f"{group[0]}–{group[-1]}"


def _row(name: str, label: str, series: Series) -> tuple[str, ...]:
    finite = series.finite
    if not len(finite):
        return label, measured(name, series.first), "–", "–", measured(name, series.last)
    ends = (series.first, float(finite.values.min()), float(finite.values.max()), series.last)
    return label, *(measured(name, value) for value in ends)


def _summary(name: str, names: list[str], cells: np.ndarray, steps: list[np.ndarray]) -> str:
    """Where it lay at the start and at the end, and how much of it was NaN or Inf."""
    parts = []
    for column in dict.fromkeys((0, len(steps) - 1)):
        values = np.where(np.isfinite(cells[:, column]), cells[:, column], np.nan)
        if np.isnan(values).all():
            continue
        low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
        least, most = (measured(name, float(values[i])) for i in (low, high))
        told = {"step": int(steps[column][0]), "signal": signal(name).words, "least": least}
        if least == most:
            parts.append(tell("Around step {step}, {signal} is {least} everywhere.", **told))
        else:
            told |= {"most": most, "low": place(names[low]), "high": place(names[high])}
            parts.append(tell("Around step {step}, {signal} lies between {least} ({low}) and {most} ({high}).", **told))
    broken = int(np.isinf(cells).any(axis=1).sum())
    parts += [tell("NaN or Inf was seen in {rows}.", rows=plural(broken, "row"))] if broken else []
    return " ".join(parts)
