"""Optimizers going downhill on surfaces of two numbers, as an animation (a GIF)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unstuck.errors import MisuseError
from unstuck.report.output import check
from unstuck.report.pictures import FAINT, INK, LOOKS, Point, axis_label, contours, styled, within

if TYPE_CHECKING:  # numbers only: a picture needs no torch
    from matplotlib.axes import Axes

    from unstuck.curvature.surface import Plane

PALE = ["#b4c4d6", "#d3dde8", "#eaeff5", "#f4f7fa"]  # what moves on it is seen better
NEARLY_WHITE = 249


@dataclass(frozen=True)
class Race:
    """Some optimizers on one surface.

    Attributes:
        title: Above the picture.
        plane: The surface.
        paths: Of each optimizer by its name, shape `(steps + 1, 2)`.
        targets: Points to be marked, such as minima.
    """

    title: str
    plane: Plane
    paths: Mapping[str, NDArray[np.float64]]
    targets: Sequence[Point] = field(default=())


def animate(
    races: Sequence[Race], file: str | Path, *, frames: int = 60, milliseconds: int = 80, title: str = ""
) -> None:
    """Writes an animation of optimizers on one or more surfaces, as a GIF that repeats.

    Args:
        races: One for each panel.
        file: Where to.
        frames: Pictures, evenly spaced over the steps of the longest path; the last stays for two seconds.
        milliseconds: For each.
        title: Above all panels.

    Raises:
        MisuseError: There is no race, or not two frames.
    """
    if not races or frames < 2:
        raise MisuseError("an animation takes a race and two frames at least")
    target = check(file)
    with styled():
        from PIL import Image

        pictures = [Image.fromarray(p) for p in _frames(races, frames, title)]
    palette = pictures[-1].quantize(128)
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[(colours >= NEARLY_WHITE).all(axis=1)] = 255  # or the page would be grey
    palette.putpalette(colours.flatten().tolist())
    pictures = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    durations = [milliseconds] * (len(pictures) - 1) + [2000]
    pictures[0].save(target, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)


def _frames(races: Sequence[Race], frames: int, title: str) -> Iterator[NDArray[np.uint8]]:
    """Pictures of the paths up to one step after the other, as colours of shape `(height, width, 3)`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = math.ceil(math.sqrt(len(races)))
    rows = math.ceil(len(races) / columns)
    figure = Figure(figsize=(4.1 * columns + 0.2, 3.2 * rows + 0.9), dpi=100)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    looks = dict(zip(dict.fromkeys(name for race in races for name in race.paths), LOOKS * 9, strict=False))
    moving = []
    for axes, race in zip(panels, races, strict=False):
        moving += _prepared(axes, race, looks)
    for axes in list(panels)[len(races) :]:
        axes.set_axis_off()
    handles = [_handle(name, *look) for name, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=11)
    longest = max(len(path) for race in races for path in race.paths.values()) - 1
    figure.suptitle(title or " ", x=0.01, ha="left", fontweight="bold")
    counter = figure.text(0.99, 0.985, "", ha="right", va="top", animated=True)
    canvas.draw()
    ground = canvas.copy_from_bbox(figure.bbox)
    for step in np.linspace(0, longest, frames).round().astype(int):
        canvas.restore_region(ground)
        for axes, trail, head, points in moving:
            seen = points[: step + 1]
            trail.set_data(*seen.T)
            head.set_data(*seen[-1:].T)
            axes.draw_artist(trail)
            axes.draw_artist(head)
        counter.set_text(f"step {step} of {longest}")
        figure.draw_artist(counter)
        yield np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _prepared(axes: Axes, race: Race, looks: Mapping[str, tuple[str, str]]) -> list[tuple[Axes, Any, Any, Any]]:
    """Draws the surface of a race; what moves on it."""
    contours(axes, race.plane, colours=PALE, lines=FAINT)
    axes.set(title=race.title, xlabel=axis_label(race.plane.first), ylabel=axis_label(race.plane.second))
    for target in race.targets:
        axes.plot(*target, "*", color=INK, markersize=11, markeredgecolor="white")
    moving = []
    for name, points in race.paths.items():
        colour, mark = looks[name]
        (trail,) = axes.plot([], [], color=colour, linewidth=1.8, animated=True)
        (head,) = axes.plot([], [], mark, color=colour, markeredgecolor="white", markersize=8, animated=True)
        moving.append((axes, trail, head, within(points, race.plane)))
    start = next(iter(race.paths.values()))[0]
    axes.plot(*start, "o", color="white", markeredgecolor=INK, markersize=6)
    return moving


def _handle(name: str, colour: str, mark: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=mark, linewidth=1.8, markersize=7, markeredgecolor="white", label=name)
