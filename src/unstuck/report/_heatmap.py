"""Maps of one signal by layer and step, as inline SVG made here: no script is needed to see them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from unstuck.evidence import Record, Series
from unstuck.report._profile import in_order
from unstuck.report._words import Scale, measured, number, percent, place, plural, signal

LEVELS = 16
SIGNALS = ("back_rms", "act_std", "update_ratio", "dead_share", "act_saturated")
_TITLES = {
    "back_rms": "Gradient by layer",
    "act_std": "Activation deviation by layer",
    "update_ratio": "Update over weight by parameter",
    "dead_share": "Dead units by layer",
    "act_saturated": "Saturated outputs by layer",
}
# Viridis (van der Walt and Smith 2015), which keeps its order without colour; oranges that start at the page's own ground.
_VIRIDIS = ("440154", "482878", "3e4a89", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725")
_LIGHT = ("f4f1ee", "fddcbc", "fda762", "e5651b", "993608", "5c1f03")
_DARK = ("262422", "55351b", "945119", "db7a26", "fdbb80", "fff0e0")
_MOST_ROWS = 320
_MOST_CELLS = 5000
_MOST_COLUMNS = 80
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_STEPS_OF_CODE = len(_ALPHABET) ** 2 - 4  # the last codes stand for zero, broken, and not measured
_ZERO, _BROKEN, _MISSING = (_STEPS_OF_CODE + i for i in (1, 2, 3))


@dataclass(frozen=True)
class Heatmap:
    """One map, ready for the page.

    Attributes:
        signal: Its name in the record.
        title: What it shows.
        kind: "log" or "share": which colours it takes.
        summary: The same in words.
        svg: Its cells, one unit each, to be stretched.
        row_height: Pixels a row.
        labels: Row index and name of the rows that are labelled.
        ticks: Steps under its columns, evenly spread.
        legend: Numbers under the colours, evenly spread.
        has_zero, has_broken: Whether cells that are exactly zero on a log scale, or NaN or Inf, occur.
        header, rows: The same as a table.
        note: How rows were put together, "" when each is one layer.
    """

    signal: str
    title: str
    kind: str
    summary: str
    svg: Markup
    row_height: float
    labels: tuple[tuple[int, str], ...]
    ticks: tuple[str, ...]
    legend: tuple[str, ...]
    has_zero: bool
    has_broken: bool
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str

    @property
    def height(self) -> float:
        """Pixels in all."""
        return self.row_height * self.num_rows

    @property
    def names_width(self) -> int:
        """Letters of the longest label."""
        return max(len(name) for _, name in self.labels)

    @property
    def num_rows(self) -> int:
        """Rows of cells."""
        return len(self.rows)


def style() -> str:
    """The colours as CSS: `.k0` to `.k15`, for fills and for strokes, in light and in dark."""
    light = _colours(".log", _VIRIDIS) + _colours(".share", _LIGHT)
    dark = _colours(":root:not(.printing) .share", _DARK)
    return f"{light}@media screen and (prefers-color-scheme:dark){{{dark}}}"


def _colours(selector: str, anchors: tuple[str, ...]) -> str:
    known = np.array([[int(anchor[i : i + 2], 16) for i in (0, 2, 4)] for anchor in anchors])
    where = np.linspace(0, len(anchors) - 1, LEVELS)
    mixed = np.stack([np.interp(where, np.arange(len(anchors)), known[:, i]) for i in range(3)], 1).round().astype(int)
    rules = [
        f"{selector} .k{i}{{background:#{r:02x}{g:02x}{b:02x};stroke:#{r:02x}{g:02x}{b:02x}}}"
        for i, (r, g, b) in enumerate(mixed.tolist())
    ]
    return "".join(rules)


def heatmaps(record: Record) -> list[Heatmap]:
    """The maps there is something to show for."""
    return [made for made in (heatmap(record, name) for name in SIGNALS) if made is not None]


def heatmap(record: Record, name: str) -> Heatmap | None:
    """The map of one signal, or None when it was measured nowhere, or once only in one place."""
    names = [p for p in in_order(record, name) if len(record.series(name, p))]
    series = [record.series(name, p) for p in names]
    if not names or max(len(s) for s in series) < 2:
        return None
    names, series, note = _together(names, series)
    steps = _columns(series)
    cells = _cells(series, steps)
    scale: Scale = signal(name).scale
    low, high = _range(cells, scale)
    return Heatmap(
        signal=name,
        title=_TITLES.get(name, signal(name).words),
        kind="share" if scale == "share" else "log",
        summary=_summary(name, names, cells, steps),
        svg=_svg(name, names, series, cells, steps, (low, high)),
        row_height=_row_height(len(names)),
        labels=_labels(names),
        ticks=_ticks(steps),
        legend=_legend(low, high, scale),
        has_zero=scale == "log" and bool((cells == 0).any()),
        has_broken=bool(np.isinf(cells).any()),
        header=("layer" if name != "update_ratio" else "parameter", "first", "smallest", "largest", "last"),
        rows=tuple(_row(name, place(n, 60), s) for n, s in zip(names, series, strict=True)),
        note=note,
    )


def _together(names: list[str], series: list[Series]) -> tuple[list[str], list[Series], str]:
    """At most so many rows as can be seen: of neighbours the one in their middle stands for all."""
    if len(names) <= _MOST_ROWS:
        return names, series, ""
    every = math.ceil(len(names) / _MOST_ROWS)
    keep = range(every // 2, len(names), every)
    note = f"{len(names)} places in forward order, every {every}th is shown."
    return [names[i] for i in keep], [series[i] for i in keep], note


def _columns(series: list[Series]) -> list[np.ndarray]:
    """The sampled steps, in so many groups as there is room for."""
    steps = np.unique(np.concatenate([s.steps for s in series]))
    room = max(12, min(_MOST_COLUMNS, _MOST_CELLS // len(series)))
    return np.array_split(steps, min(room, len(steps)))


def _cells(series: list[Series], steps: list[np.ndarray]) -> np.ndarray:
    """Shape `(rows, columns)`: the median of what was measured there; Inf when any was NaN or Inf, NaN when nothing was."""
    every = np.concatenate(steps)
    measured_at = np.full((len(series), len(every)), np.nan)
    for row, one in zip(measured_at, series, strict=True):
        row[np.searchsorted(every, one.steps)] = np.where(np.isfinite(one.values), one.values, np.inf)
    cells = np.full((len(series), len(steps)), np.nan)
    for column, part in enumerate(np.split(measured_at, np.cumsum([len(group) for group in steps])[:-1], axis=1)):
        seen = ~np.isnan(part).all(axis=1)
        cells[seen, column] = np.nanmedian(part[seen], axis=1)
        cells[np.isinf(part).any(axis=1), column] = np.inf
    return cells


def _range(cells: np.ndarray, scale: Scale) -> tuple[float, float]:
    """What the colours span: 0 to 1 for shares; else powers of ten, without the outermost hundredth."""
    if scale == "share":
        return 0.0, 1.0
    shown = cells[np.isfinite(cells) & (cells > 0)]
    if not len(shown):
        return -1.0, 0.0
    low, high = (float(v) for v in np.percentile(np.log10(shown), [0.5, 99.5]))
    pad = max(0.0, 1.0 - (high - low)) / 2
    return low - pad, high + pad


def _svg(
    name: str,
    names: list[str],
    series: list[Series],
    cells: np.ndarray,
    steps: list[np.ndarray],
    span: tuple[float, float],
) -> Markup:
    share = _share(cells, span, signal(name).scale)
    kinds = np.where(np.isnan(share), -1, np.minimum(LEVELS - 1, share * LEVELS)).astype(int)
    kinds[np.isinf(cells)] = LEVELS
    kinds[(cells == 0) & np.isnan(share)] = LEVELS + 1
    rows, columns = cells.shape
    marks = [*(f"k{i}" for i in range(LEVELS)), "broken", "zero"]
    paths = Markup("").join(
        Markup('<path class="{}" d="{}"/>').format(mark, _runs(kinds == i))
        for i, mark in enumerate(marks)
        if (kinds == i).any()
    )
    titles = Markup("").join(
        Markup('<rect y="{}" width="{}" height="1"><title>{}</title></rect>').format(i, columns, _title(name, n, s))
        for i, (n, s) in enumerate(zip(names, series, strict=True))
    )
    return Markup(
        '<svg viewBox="0 0 {c} {r}" preserveAspectRatio="none" role="img" aria-label="{label}" data-cells="{cells}" '
        'data-steps="{steps}" data-low="{low:.6g}" data-high="{high:.6g}" data-scale="{scale}">'
        '<g transform="translate(0 .5)">{paths}</g><g class="titles">{titles}</g></svg>'
    ).format(
        c=columns, r=rows, label=_TITLES.get(name, name), cells=_encoded(share, cells), paths=paths, titles=titles,
        steps=" ".join(_span_of(group) for group in steps), low=span[0], high=span[1],
        scale="share" if signal(name).scale == "share" else "log",
    )  # fmt: skip


def _share(cells: np.ndarray, span: tuple[float, float], scale: Scale) -> np.ndarray:
    """Where cells lie within the span, from 0 to 1; NaN where a cell has no place in it."""
    shown = np.isfinite(cells) & ((cells > 0) | (scale == "share"))
    level = np.full(cells.shape, np.nan)
    level[shown] = cells[shown] if scale == "share" else np.log10(cells[shown])
    return np.clip((level - span[0]) / (span[1] - span[0]), 0, 1)


def _runs(cells: np.ndarray) -> str:
    """Cells as horizontal strokes, neighbours in one."""
    parts = []
    for row, line in enumerate(cells):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        parts += [f"M{start} {row}h{stop - start}" for start, stop in edges.reshape(-1, 2)]
    return "".join(parts)


def _encoded(share: np.ndarray, cells: np.ndarray) -> str:
    """Two letters a cell, which the page's script reads back for the cell under the pointer."""
    codes = np.where(np.isnan(share), _MISSING, np.round(np.nan_to_num(share) * _STEPS_OF_CODE)).astype(int)
    codes[np.isinf(cells)] = _BROKEN
    codes[(cells == 0) & np.isnan(share)] = _ZERO
    return "".join(_ALPHABET[code // 64] + _ALPHABET[code % 64] for code in codes.ravel().tolist())


def _span_of(group: np.ndarray) -> str:
    return str(group[0]) if len(group) == 1 else f"{group[0]}–{group[-1]}"


def _row_height(rows: int) -> float:
    return 16.0 if rows <= 24 else max(3.0, min(16.0, 480 / rows))


def _labels(names: list[str]) -> tuple[tuple[int, str], ...]:
    every = max(1, math.ceil(13 / _row_height(len(names))))
    return tuple((i, place(names[i], 24)) for i in range(0, len(names), every))


def _ticks(steps: list[np.ndarray]) -> tuple[str, ...]:
    where = np.unique(np.linspace(0, len(steps) - 1, min(5, len(steps))).round().astype(int))
    return tuple(str(int(steps[i][0] if i < len(steps) - 1 else steps[i][-1])) for i in where)


def _legend(low: float, high: float, scale: Scale) -> tuple[str, ...]:
    levels = np.linspace(low, high, 5)
    return tuple(percent(v) if scale == "share" else number(10**v, 2) for v in levels.tolist())


def _row(name: str, label: str, series: Series) -> tuple[str, ...]:
    finite = series.finite
    if not len(finite):
        return label, measured(name, series.first), "–", "–", measured(name, series.last)
    ends = (series.first, float(finite.values.min()), float(finite.values.max()), series.last)
    return label, *(measured(name, value) for value in ends)


def _title(name: str, label: str, series: Series) -> str:
    _, first, low, high, last = _row(name, label, series)
    return (
        f"{place(label, 80)}: {first} at step {series.steps[0]}, {last} at step {series.steps[-1]}; "
        f"from {low} to {high} in between"
    )


def _summary(name: str, names: list[str], cells: np.ndarray, steps: list[np.ndarray]) -> str:
    words = signal(name).words
    parts = []
    for column in dict.fromkeys((0, len(steps) - 1)):
        values = np.where(np.isfinite(cells[:, column]), cells[:, column], np.nan)
        if np.isnan(values).all():
            continue
        when = f"{'at' if len(steps[column]) == 1 else 'around'} step {steps[column][0]}, {words}"
        low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
        least, most = (measured(name, float(values[i])) for i in (low, high))
        spread = f"lies between {least} ({place(names[low])}) and {most} ({place(names[high])})"
        parts.append(f"{when} is {least} everywhere" if least == most else f"{when} {spread}")
    broken = int(np.isinf(cells).any(axis=1).sum())
    parts += [f"NaN or Inf was seen in {plural(broken, 'row')}"] if broken else []
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
