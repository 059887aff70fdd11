"""The picture of the loss in a plane, with the path that led there: cells, contour lines and the path as inline SVG made here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from unstuck._language import _, marked, tell
from unstuck.report._cells import BROKEN, LEVELS, drawn, shares
from unstuck.report._search_plots import SIZE, Axis, Scale, is_wide
from unstuck.report._words import count, number, percent, reason

_HUGE = 1e300  # beyond which differences overflow
_CONTOURS = tuple(level / LEVELS for level in (1, *range(2, LEVELS, 2)))
_APART = 0.21  # of the picture, between two labels on the path
_MOST_STEPS = 3  # labels between the ends of the path
_MOST_LISTED = 9  # columns and rows of the table of a grid
_WHYS = (
    marked("the weights where it ended are not finite"),
    marked("there is one number to learn, and a plane takes two"),
    marked("no time was left for it"),
    marked("the path is a straight line"),
    marked("fewer than three points of the path were kept"),
)
"""What is written into a record where there is no plane of the path, in sentences."""
Point = tuple[float, float]
Table = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Label:
    """A word on the path.

    Attributes:
        left, top: Where, in percent of the picture.
        text: The word.
        kind: "start", "end" or "step".
    """

    left: float
    top: float
    text: str
    kind: str

    @property
    def side(self) -> str:
        """Where the word goes, so that it stays in the picture."""
        across = "leftwards" if self.left > 85 else "rightwards" if self.left < 15 else ""
        return f"{across} {'under' if self.top < 12 else ''}".strip()


@dataclass(frozen=True)
class Surface:
    """One picture, ready for the page.

    Attributes:
        title: What it shows.
        kind: "log" or "share": which scale the colours have.
        summary: The same in words.
        warning: What a plane can't tell.
        note: Why it isn't another plane or a finer grid, "" where nothing is to be said.
        cells: The losses as SVG, each a cell around its point.
        lines: Contour lines and path as SVG, to be laid over the cells.
        labels: Words on the path.
        x, y: The axes.
        legend: Numbers under the colours, evenly spread.
        unit: What the colours stand for.
        has_broken: Whether a loss is NaN or Inf.
        header, rows: The path, or the grid, as a table.
    """

    title: str
    kind: str
    summary: str
    warning: str
    note: str
    cells: Markup
    lines: Markup
    labels: tuple[Label, ...]
    x: Axis
    y: Axis
    legend: tuple[str, ...]
    unit: str
    has_broken: bool
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@np.errstate(all="ignore")  # what is broken is shown as it is
def surface(part: Mapping[str, Any], size: int = 0) -> Surface | None:
    """The picture of what `probes.surface` measured.

    Args:
        part: Its numbers; None among them stands for NaN or Inf.
        size: Numbers that are learned; 0 where that isn't known.

    Returns:
        The picture; None where there is no plane.
    """
    if not part.get("losses"):
        return None
    x, y = _numbers(part["x"]), _numbers(part["y"])
    given = _numbers(part["losses"])
    losses = np.where(np.isfinite(given), np.clip(given, -_HUGE, _HUGE), np.inf)
    finite = losses[np.isfinite(losses)]
    is_log = bool(len(finite)) and is_wide(finite.tolist())
    low, high = span_of(finite, is_log=is_log)
    across, up = _scale(x), _scale(y)
    share = shares(losses, (low, high), "log" if is_log else "share")
    path = part.get("path") or {}
    points = [(across.share(a), 1 - up.share(b)) for a, b in path.get("points") or [(0.0, 0.0)]]
    title = _("Loss in the plane of the path") if path else _("Loss in the plane of two eigenvectors")
    told = _summary(part, losses, x, y)
    axes = zip(part["axes"], (across, up), strict=True)
    x_axis, y_axis = (Axis(label(axis, i), scale.ticks()) for i, (axis, scale) in enumerate(axes))
    header, rows = _path_table(path) if path else _grid_table(x, y, losses)
    return Surface(
        title=title,
        kind="log" if is_log else "share",
        summary=told,
        warning=warning(size, of_path=bool(path)),
        note=_note(part, losses.size),
        cells=drawn(f"{title}. {told}", share[::-1]),
        lines=_lines(share[::-1], points),
        labels=tuple(_labels(points, path.get("steps", ()))),
        x=x_axis,
        y=y_axis,
        legend=_legend(low, high, finite, is_log=is_log),
        unit=_unit(part, is_log=is_log),
        has_broken=bool((share == BROKEN).any()),
        header=header,
        rows=rows,
    )


def span_of(finite: NDArray[np.float64], *, is_log: bool) -> tuple[float, float]:
    """What the colours span, as powers of ten on a log scale: all losses, but for walls far above most of them."""
    if not len(finite):
        return 0.0, 1.0
    values = np.log10(finite) if is_log else finite
    low, high = float(values.min()), float(values.max())
    first, last = (float(v) for v in np.quantile(values, [0.1, 0.9]))
    if last > first:
        high = min(high, last + 3 * (last - first))
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # they are all the same
        free = 0.1 * max(abs(low), abs(high)) or 0.5
        return low - free, high + free
    return low, high


def contours(values: NDArray[np.float64], level: float) -> list[tuple[Point, Point]]:
    """Where values on a grid cross a level, by marching squares.

    Args:
        values: Shape `(rows, columns)`; where a corner is NaN there is no line.
        level: The level; a value that is equal to it counts as above.

    Returns:
        Straight pieces, each from a point to another, as `(column, row)` between the values, linearly.

    Source:
        Lorensen and Cline 1987, in two dimensions; at a saddle the mean of the corners decides which of them belong together.
    """
    found: list[tuple[Point, Point]] = []
    rows, columns = values.shape
    for row, column in itertools.product(range(rows - 1), range(columns - 1)):
        corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
        heights = [float(values[r, c]) for c, r in corners]
        if not all(map(math.isfinite, heights)):
            continue
        edges = [_crossing(corners, heights, i, level) for i in range(4)]
        ends = [end for end in edges if end is not None]
        if len(ends) == 4:  # the lines go around the corners that don't belong together
            around_second = (heights[0] >= level) == (math.fsum(heights) / 4 >= level)
            ends = ends if around_second else [ends[3], *ends[:3]]
        found += zip(ends[::2], ends[1::2], strict=True)
    return found


def label(axis: Mapping[str, Any], index: int) -> str:
    """What runs along a side."""
    if axis.get("kind") == "hessian":
        return tell("eigenvector of {value}, in units of distance of the weights", value=number(axis.get("eigenvalue")))
    told = percent(axis.get("share"))
    if index == 0:
        return tell("first principal component, in units of distance of the weights ({share} of the path)", share=told)
    return tell("second principal component, in units of distance of the weights ({share} of the path)", share=told)


def warning(size: int, *, of_path: bool) -> str:
    """What a plane can't tell."""
    told = [
        tell("A plane is two of {size} directions.", size=count(size))
        if size
        else _("A plane is two directions of many."),
        _("What looks like a basin here may be a saddle in others."),
    ]
    if of_path:
        told.append(_("Two principal components show most of any path, even of a random walk's."))
    return " ".join(told)


def why(part: Mapping[str, Any]) -> str:
    """Why there is no plane, or none of the path; "" where nothing is said."""
    text = str(part.get("why") or part.get("note") or "")
    return _(text) if text in _WHYS else reason(text)


def _numbers(values: Any) -> NDArray[np.float64]:
    found = np.asarray(values, object)
    return np.where(found == None, np.inf, found).astype(float)  # noqa: E711 - of each element


def _scale(values: NDArray[np.float64]) -> Scale:
    """From edge to edge of the cells, whose middles are the values."""
    half = float(values[-1] - values[0]) / (len(values) - 1) / 2
    return Scale(float(values[0]) - half, float(values[-1]) + half)


def _crossing(corners: Sequence[tuple[int, int]], heights: Sequence[float], i: int, level: float) -> Point | None:
    """Where the edge from a corner to the next crosses a level, if it does."""
    (c, r), (to_c, to_r), start, end = corners[i], corners[i - 3], heights[i], heights[i - 3]
    if (start >= level) == (end >= level):
        return None
    part = (level - start) / (end - start)
    return c + part * (to_c - c), r + part * (to_r - r)


def _lines(share: NDArray[np.float64], points: Sequence[Point]) -> Markup:
    """Contours, and the path with its points or the end alone, in units of a thousandth of the picture."""
    rows, columns = share.shape
    levels = np.where(share < 0, np.nan, share)
    pieces = (piece for level in _CONTOURS for piece in contours(levels, level))
    contour = "".join(
        f"M{_unit_of(a, columns)} {_unit_of(b, rows)}L{_unit_of(c, columns)} {_unit_of(d, rows)}"
        for (a, b), (c, d) in pieces
    )
    at = [f"{x * SIZE:.4g} {y * SIZE:.4g}" for x, y in points]
    way = f"M{'L'.join(at)}" if len(at) > 1 else ""
    dots, end = "".join(f"M{one}h0" for one in at), f"M{at[-1]}h0"
    paths = [
        ("contour", contour),
        ("way under", way),
        ("dots under", dots),
        ("way", way),
        ("dots", dots),
        ("ring", end),
        ("heart", end),
    ]
    shapes = Markup("").join(Markup('<path class="{}" d="{}"/>').format(kind, d) for kind, d in paths if d)
    return Markup(
        '<svg class="over" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(SIZE, SIZE, shapes)


def _unit_of(index: float, num: int) -> str:
    return f"{(index + 0.5) / num * SIZE:.4g}"


def _labels(points: Sequence[Point], steps: Sequence[int]) -> Iterator[Label]:
    """Start, end, and the steps of some points between that lie apart from the others; of no path the end alone."""
    last = 100 * points[-1][0], 100 * points[-1][1]
    if not steps:
        yield Label(*last, _("end"), "end")
        return
    placed = [points[0], points[-1]]
    start = _("start") if not steps[0] else tell("step {step}", step=int(steps[0]))
    yield Label(100 * points[0][0], 100 * points[0][1], start, "start")
    for point, step in zip(points[1:-1], steps[1:-1], strict=False):
        if len(placed) < 2 + _MOST_STEPS and all(math.dist(point, one) > _APART for one in placed):
            placed.append(point)
            yield Label(100 * point[0], 100 * point[1], str(int(step)), "step")
    yield Label(*last, tell("end, step {step}", step=int(steps[-1])), "end")


def _legend(low: float, high: float, finite: NDArray[np.float64], *, is_log: bool) -> tuple[str, ...]:
    levels = [float(v) for v in np.linspace(low, high, 5)]
    values = [10.0**v for v in levels] if is_log else levels
    told = [_loss(v, levels if not is_log else None) for v in values]
    is_cut = bool(len(finite)) and float(finite.max()) > values[-1] * (1 + 1e-9 * math.copysign(1, values[-1]))
    return (*told[:-1], f"≥ {told[-1]}" if is_cut else told[-1])


def _loss(value: float, among: Sequence[float] | None = None) -> str:
    """A loss, with so many digits that it is told from the others."""
    if among is None or not math.isfinite(value) or among[-1] <= among[0]:
        return number(value)
    size = max(abs(among[0]), abs(among[-1])) / (among[-1] - among[0])
    return number(value, min(6, max(3, math.ceil(math.log10(max(1.0, size))) + 2)))


def _unit(part: Mapping[str, Any], *, is_log: bool) -> str:
    given = {"samples": f"{float(part.get('samples') or 0):g}"}
    if is_log:
        return tell("mean loss over {samples} samples, log scale", **given)
    return tell("mean loss over {samples} samples", **given)


def _summary(
    part: Mapping[str, Any], losses: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> str:
    """Start, end, the lowest loss and where it is, and how much of the path is seen."""
    path, finite = part.get("path") or {}, losses[np.isfinite(losses)]
    if not len(finite):
        return _("The loss is finite nowhere on this grid.")
    centre = math.nan if part.get("centre") is None else float(part["centre"])
    known = sorted([float(finite.min()), float(finite.max())])
    row, column = np.unravel_index(int(np.argmin(losses)), losses.shape)
    given = {
        "start": _loss(_first(path), known), "end": _loss(centre, known), "lowest": _loss(known[0], known),
        "x": number(float(x[column]), 2), "y": number(float(y[row]), 2),
        "distance": number(math.hypot(float(x[column]), float(y[row])), 2),
    }  # fmt: skip
    if path and not (path.get("steps") or [1])[0]:
        ends = tell("The loss is {start} at the start and {end} at the end.", **given)
    else:
        ends = tell("The loss is {end} at the end.", **given)
    if centre <= known[0]:
        lowest = _("Nowhere else on this grid is it lower.")
    else:
        lowest = tell("In this plane it is lowest, {lowest}, at ({x}, {y}), {distance} from the end.", **given)
    told = [ends, lowest]
    told += [tell("The plane shows {share} of the path.", share=percent(path["share"]))] if path else []
    return " ".join(told)


def _first(path: Mapping[str, Any]) -> float:
    first = (path.get("losses") or [None])[0]
    return math.nan if first is None else float(first)


def _note(part: Mapping[str, Any], num: int) -> str:
    told = [tell("Not the plane of the path: {why}.", why=why(part))] if part.get("note") else []
    if part.get("stopped"):
        told.append(
            tell(
                "The grid has {num} of {all} points, for want of time: a longer --budget makes it finer.",
                num=num,
                all=int(part.get("asked") or 0) ** 2,
            )
        )
    return " ".join(told)


def _path_table(path: Mapping[str, Any]) -> Table:
    """The points of the path, with the loss at each of them and not at its shadow in the plane."""
    columns = zip(path["steps"], path["points"], path["losses"], path["inside"], strict=True)
    rows = tuple(
        (str(int(step)), number(x), number(y), number(loss, 4), percent(inside))
        for step, (x, y), loss, inside in columns
    )
    return (
        _("step"),
        _("along the first"),
        _("along the second"),
        _("loss at the point itself"),
        _("of its distance in the plane"),
    ), rows


def _grid_table(x: NDArray[np.float64], y: NDArray[np.float64], losses: NDArray[np.float64]) -> Table:
    """Every so manieth row and column of the grid."""
    columns, rows = (range(0, len(axis), max(1, math.ceil((len(axis) - 1) / (_MOST_LISTED - 1)))) for axis in (x, y))
    header = (_("along the second, by the first"), *(number(float(x[i]), 2) for i in columns))
    return header, tuple(
        (number(float(y[j]), 2), *(number(float(losses[j, i])) for i in columns)) for j in reversed(rows)
    )
