"""Small pictures as inline SVG that need no script: a line over the run, and bars by depth.

They hold shapes alone and stretch to any width; the words around them are HTML, so that they stay readable on a phone.
"""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from unstuck.report._curves import Course, by_step, levels
from unstuck.report._profile import Profile
from unstuck.report._words import Scale, measured, number, place

_MOST_BARS = 100


def line(course: Course, *, broken: bool) -> Markup:
    """A course as a line, 100 x 24 units stretched to the place it stands in."""
    values = by_step(course.series, 100, broken=broken)
    heights, _, _ = _heights(values, course.scale)
    points, path = np.linspace(0, 100, max(2, len(values))), []
    for i, height in enumerate(heights):
        if not math.isnan(height):
            start = i == 0 or math.isnan(heights[i - 1])
            path.append(f"{'M' if start else 'L'}{points[i]:.4g} {23 - 22 * height:.4g}")
    if len(path) == 1:
        path.append("h100")
    return Markup(
        '<svg class="unstuck-line" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path d="{}" fill="none" vector-effect="non-scaling-stroke"/></svg>'
    ).format(str(course), "".join(path))


def bars(profile: Profile) -> Markup:
    """A profile as bars, with a line under those the finding sits in, and the value of each as its tooltip."""
    values = profile.squeezed(_MOST_BARS)
    heights, _, _ = _heights(values, profile.scale)
    names = [group[0] for group in np.array_split(np.array(profile.names, object), len(values))]
    marked = [bool(profile.marked & set(g)) for g in np.array_split(np.array(profile.names, object), len(values))]
    shapes = [
        _bar(i, float(height), value, is_marked, f"{place(name, 40)}: {measured(profile.signal, float(value))}")
        for i, (height, value, is_marked, name) in enumerate(zip(heights, values, marked, names, strict=True))
    ]
    return Markup(
        '<svg class="unstuck-bars" viewBox="0 0 {} 104" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(len(values), profile.caption, Markup("").join(shapes))


def ticks(profile: Profile) -> list[str]:
    """Numbers for the bars' height: the top, the middle, the bottom."""
    _, low, high = _heights(profile.squeezed(_MOST_BARS), profile.scale)
    if profile.scale == "log":
        return [number(10.0**level, 2) for level in (high, (low + high) / 2, low)]
    return [measured(profile.signal, level) for level in (high, (low + high) / 2, low)]


def _bar(index: int, height: float, value: float, marked: bool, title: str) -> Markup:
    kind = "zero" if value == 0 else "broken" if math.isnan(height) else "marked" if marked else "bar"
    tall = 100.0 if kind == "broken" else 2.0 if math.isnan(height) else max(2.0, 100 * height)
    under = Markup('<path class="under" d="M{} 101.5h1v2.5h-1z"/>').format(index) if marked else ""
    return Markup('<rect class="{}" x="{:g}" y="{:.4g}" width=".8" height="{:.4g}"><title>{}</title></rect>{}').format(
        kind, index + 0.1, 100 - tall, tall, title, under
    )


def _heights(values: np.ndarray, scale: Scale) -> tuple[np.ndarray, float, float]:
    """Heights from 0 to 1, NaN where there is none, and the range they stand for (as powers of ten on a log scale)."""
    level, low, high = levels(values, scale)
    if scale == "log":
        low, high = math.floor(low), math.ceil(high)
    return np.clip((level - low) / (high - low), 0, 1), low, high
