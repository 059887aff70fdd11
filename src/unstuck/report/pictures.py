"""Pictures of what lies under a loss, drawn by matplotlib: a line, a plane with a path, a spectrum.

Matplotlib is imported when something is drawn and needn't be installed for anything else. The functions give a
`matplotlib.figure.Figure`, which a notebook shows and `save` writes; no window is opened and no setting of matplotlib changed.
Colours are told apart with any kind of colour vision (viridis; Okabe & Ito 2008), and so are the shapes of marks.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unstuck._language import say
from unstuck.errors import MissingError
from unstuck.report.output import check

if TYPE_CHECKING:  # numbers only: a picture needs no torch
    from matplotlib.axes import Axes
    from matplotlib.contour import ContourSet
    from matplotlib.figure import Figure

    from unstuck.curvature.density import Density
    from unstuck.curvature.spectrum import Eigen, Extremes
    from unstuck.curvature.surface import Axis, Line, Path, Plane

Point = tuple[float, float]
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7"
INK, FAINT, BLANK = "#22282f", "#8a939d", "#d5d8dc"
LOOKS = [(VERMILION, "o"), (BLUE, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "P")]
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
DECADES = 20.0  # a highest loss that many times the tenth percentile is drawn on a logarithmic scale
MOST_LEVELS = 18
ROUND = [(1, 1.5, 2, 3, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)]  # contours in a decade


def draw_line(line: Line, *, title: str = "", axes: Axes | None = None) -> Figure:
    """The loss along a direction. Where it isn't finite the ground is grey.

    Args:
        line: What `curvature.surface.line` gave.
        title: Above the picture.
        axes: Where to draw; by default in a new figure.

    Returns:
        The figure.
    """
    with _drawing(axes, (6.4, 3.8)) as axes:
        finite = np.isfinite(line.losses)
        axes.plot(line.coordinates, np.where(finite, line.losses, np.nan), color=BLUE, linewidth=2)
        for low, high in _gaps(line.coordinates, ~finite):
            axes.axvspan(low, high, color=BLANK, linewidth=0, label="NaN or infinite")
        if math.isfinite(line.centre):
            label = f"where the parameters stand: {line.centre:.4g}"
            axes.plot(0, line.centre, "o", color=VERMILION, markersize=8, label=label, zorder=3)
        log = _is_log(line.losses)
        if log:
            axes.set_yscale("log")
        axes.set(xlabel=axis_label(line.along), ylabel="loss (log scale)" if log else "loss", title=title)
        axes.grid(axis="y", color=BLANK, linewidth=0.6)
        axes.margins(x=0)
        _legend(axes)
        return _figure(axes, line.stopped)


def draw_plane(
    plane: Plane,
    *,
    title: str = "",
    paths: Mapping[str, NDArray[np.float64]] | None = None,
    marks: Mapping[str, Sequence[Point]] | None = None,
    axes: Axes | None = None,
) -> Figure:
    """The loss in a plane as contours, with the path of the training. Where the loss isn't finite the ground is grey.

    Args:
        plane: What `curvature.surface.plane` gave.
        title: Above the picture.
        paths: More paths by their names, in coordinates of the plane, shape `(count, 2)`.
        marks: Points by what they are.
        axes: Where to draw; by default in a new figure.

    Returns:
        The figure.
    """
    with _drawing(axes, (6.8, 5.2)) as axes:
        shades, log = contours(axes, plane)
        levels = np.array(shades.levels)
        ticks = levels[:: math.ceil(len(levels) / 10)]
        label = "loss (log scale)" if log else "loss"
        axes.figure.colorbar(shades, ax=axes, label=label, ticks=ticks, format="%.3g")
        if plane.path is not None:
            _path(axes, plane.path)
        for (name, points), (colour, mark) in zip((paths or {}).items(), LOOKS, strict=False):
            _named(axes, within(points, plane), name, colour, mark)
        for (name, points), mark in zip((marks or {}).items(), "*XPD", strict=False):
            axes.plot(
                *np.array(points).T, mark, color="white", markeredgecolor=INK, markersize=15, label=name, zorder=5
            )
        axes.set(xlabel=axis_label(plane.first), ylabel=axis_label(plane.second), title=title)
        _legend(axes, below=True)
        return _figure(axes, plane.stopped)


def draw_spectrum(
    density: Density, extremes: Extremes | None = None, *, title: str = "", axes: Axes | None = None
) -> Figure:
    """The density of eigenvalues on a logarithmic scale, with the outermost ones marked.

    The scale goes down to a fiftieth of what one eigenvalue alone gives. The height of a lone eigenvalue is random, as the estimate is.

    Args:
        density: What `curvature.density.density` gave.
        extremes: Eigenvalues at the ends, to be marked.
        title: Above the picture.
        axes: Where to draw; by default in a new figure.

    Returns:
        The figure.
    """
    with _drawing(axes, (7.2, 3.8)) as axes:
        values, shares = density.curve(num=1000)
        width = (density.low - values[0]) / 5
        single = 1 / (density.size * width * math.sqrt(2 * math.pi))
        floor = 0.02 * min(single, float(shares.max()))
        axes.fill_between(values, floor, np.maximum(shares, floor), color=SKY, alpha=0.45, linewidth=0)
        axes.plot(values, np.maximum(shares, floor), color=BLUE, linewidth=1.2)
        axes.set_yscale("log")
        axes.set_ylim(floor, 3 * float(shares.max()))
        axes.axvline(0, color=FAINT, linewidth=0.8, linestyle=":")
        if extremes is not None:
            _outliers(axes, extremes.top, "largest", VERMILION, "v", 0.95)
            _outliers(axes, extremes.bottom, "smallest", PURPLE, "D", 0.88)
        axes.set(
            xlabel="eigenvalue of the Hessian (loss per squared distance)",
            ylabel=f"share of {density.size:,} eigenvalues\nper unit (log scale)",
            title=title,
        )
        _legend(axes, below=True)
        return _figure(axes, "")


def save(figure: Figure, file: str | FilePath, *, dpi: int = 130) -> None:
    """Writes a figure; the ending of the name tells the format (png, svg, pdf).

    Args:
        figure: What was drawn.
        file: Where to.
        dpi: Dots per inch.
    """
    figure.savefig(check(file), dpi=dpi)


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Within it what is made with matplotlib looks like the rest of our pictures.

    Raises:
        MissingError: Matplotlib isn't installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise MissingError(
            say(
                "pictures are drawn by matplotlib, which can't be imported ({error}): pip install 'unstuck[pictures]'",
                error=str(error),
            )
        ) from None
    with matplotlib.rc_context(STYLE):
        yield


@contextlib.contextmanager
def _drawing(axes: Axes | None, size: tuple[float, float]) -> Iterator[Axes]:
    """Where to draw, in our style."""
    with styled():
        if axes is None:
            from matplotlib.figure import Figure

            axes = Figure(figsize=size).subplots()
        yield axes


def _figure(axes: Axes, note: str) -> Figure:
    """The figure, with a note in its lower corner."""
    if note:
        axes.annotate(note, (1, 1), xycoords="axes fraction", ha="right", va="bottom", fontsize=8, color=FAINT)
    return axes.get_figure(root=True)  # pyright: ignore[reportReturnType]


def _legend(axes: Axes, *, below: bool = False) -> None:
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if not once:
        return
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.16), "borderaxespad": 0} if below else {}
    axes.legend(once.values(), once.keys(), fontsize=9, **place)


def axis_label(axis: Axis) -> str:
    """What stands at an axis: how the direction was made, what it explains, and the unit."""
    parts = [axis.made]
    if math.isfinite(axis.share):
        parts.append(f"{axis.share:.0%} of it")
    if math.isfinite(axis.length):
        parts.append("in distance" if abs(axis.length - 1) < 1e-4 else f"1 is a distance of {axis.length:.3g}")
    return ", ".join(parts)


def _is_log(losses: NDArray[np.float64]) -> bool:
    """Whether a logarithmic scale pays: no loss is negative, and they are spread over decades."""
    finite = losses[np.isfinite(losses)]
    return bool(len(finite)) and finite.min() >= 0 and finite.max() > DECADES * np.quantile(finite, 0.1) > 0


def _levels(losses: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    """Heights of contours, ascending and round, without what only a few points in a hundred are beyond."""
    from matplotlib.ticker import MaxNLocator

    finite = losses[np.isfinite(losses)]
    if not len(finite) or finite.min() == finite.max():
        middle = float(finite[0]) if len(finite) else 0.0
        return np.array([middle - 0.5, middle + 0.5])
    low, high = float(finite.min()), float(finite.max())
    if log:
        low = max(low, float(np.quantile(finite, 0.02)))
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        stride = math.ceil((last - first) / MOST_LEVELS)
        decades = range(first, last, stride)
        steps = next((s for s in ROUND if len(s) * len(decades) <= MOST_LEVELS), ROUND[-1])
        levels = np.array([step * 10.0**decade for decade in decades for step in steps] + [10.0**decades.stop])
        return levels[np.searchsorted(levels, low, "right") - 1 : np.searchsorted(levels, high) + 1]
    top = float(np.quantile(finite, 0.98)) if high - low > 10 * (np.quantile(finite, 0.9) - low) else high
    return np.array(MaxNLocator(MOST_LEVELS).tick_values(low, max(top, low + 1e-9 * (high - low))))


def contours(axes: Axes, plane: Plane, *, colours: Sequence[str] = (), lines: str = "white") -> tuple[ContourSet, bool]:
    """Draws a surface.

    Args:
        axes: Where.
        plane: What.
        colours: From the lowest to the highest loss; by default viridis.
        lines: Colour of contours.

    Returns:
        What was drawn, and whether its scale is logarithmic.
    """
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap

    log = _is_log(plane.losses)
    levels = _levels(plane.losses, log)
    ramp = LinearSegmentedColormap.from_list("given", list(colours)) if colours else colormaps["viridis"]
    shown = np.ma.masked_invalid(plane.losses)
    below, above = bool((shown < levels[0]).any()), bool((shown > levels[-1]).any())
    extend = ("neither", "min", "max", "both")[below + 2 * above]
    axes.set_facecolor(BLANK)
    norm = BoundaryNorm(levels, ramp.N, extend=extend)
    shades = axes.contourf(plane.x, plane.y, shown, levels, cmap=ramp, norm=norm, extend=extend)
    axes.contour(plane.x, plane.y, shown, levels, colors=lines, linewidths=0.5, alpha=0.6, linestyles="solid")
    if np.ma.getmaskarray(shown).any():
        axes.plot([], [], "s", color=BLANK, markeredgecolor=FAINT, label="NaN or infinite")
    axes.set(xlim=(plane.x[0], plane.x[-1]), ylim=(plane.y[0], plane.y[-1]))
    return shades, log


def _path(axes: Axes, path: Path) -> None:
    """Draws the path of a training with its first and last point."""
    axes.plot(*path.points.T, color="white", linewidth=3.4, **_edge())
    axes.plot(*path.points.T, "o", color=INK, markersize=2, markeredgewidth=0)
    start, end = path.points[0], path.points[-1]
    axes.plot(*start, "o", color="white", markeredgecolor=INK, markersize=9, label=f"step {path.steps[0]}")
    label = f"step {path.steps[-1]}; {path.share:.0%} of the path lies in this plane"
    axes.plot(*end, "*", color=ORANGE, markeredgecolor=INK, markersize=15, label=label)


def _named(axes: Axes, points: NDArray[np.float64], name: str, colour: str, mark: str) -> None:
    """Draws a path with a dot for each step and a mark at its end."""
    axes.plot(*points.T, color=colour, linewidth=3.4, **_edge())
    axes.plot(*points.T, "o", color="white", markersize=1.6, markeredgewidth=0)
    axes.plot([], [], mark, linestyle="-", color=colour, markeredgecolor=INK, label=name)
    axes.plot(*points[-1], mark, color=colour, markeredgecolor=INK, markersize=9, zorder=4)


def _edge() -> dict[str, Any]:
    """A dark edge around a line, so that it is seen on any ground."""
    from matplotlib.patheffects import Normal, Stroke

    return {"path_effects": [Stroke(linewidth=4.8, foreground=INK), Normal()]}


def within(points: NDArray[np.float64], plane: Plane) -> NDArray[np.float64]:
    """Points of a path that can be drawn: far ones are brought to where they are just out of sight, NaN is left out."""
    low, high = np.array([plane.x[0], plane.y[0]]), np.array([plane.x[-1], plane.y[-1]])
    return np.clip(points, low - 10 * (high - low), high + 10 * (high - low))


def _gaps(coordinates: NDArray[np.float64], missing: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Stretches around points that are missing, up to half-way to their neighbours."""
    middles = np.concatenate([coordinates[:1], (coordinates[1:] + coordinates[:-1]) / 2, coordinates[-1:]])
    return [(float(middles[i]), float(middles[i + 1])) for i in np.flatnonzero(missing)]


def _outliers(axes: Axes, eigen: Eigen, which: str, colour: str, mark: str, height: float) -> None:
    """Marks eigenvalues, and lists them."""
    if not eigen.values:
        return
    listed = ", ".join(f"{v:.3g}" for v in eigen.values[:6]) + (", …" if len(eigen.values) > 6 else "")
    label = f"{which}: {listed}" + ("" if eigen.converged else " (not converged)")
    for value in eigen.values:
        axes.axvline(value, 0, height, color=colour, linewidth=0.8, alpha=0.6)
    heights = [height] * len(eigen.values)
    axes.plot(eigen.values, heights, mark, color=colour, transform=axes.get_xaxis_transform(), label=label)
