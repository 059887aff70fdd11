"""Pictures of points: scales, ticks, and the shapes as inline SVG.

As the other pictures in SVG, these hold shapes alone and stretch to any width; a dot is a line of no length with round ends, and so stays
round. The numbers and names around them are HTML. The page's script reads the points back from the shapes, and says whose they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from unstuck.report._words import clean

SIZE = 1000  # units of a picture, either way
WIDE = 30.0  # ratio from which on numbers are drawn by ratios
_MOST_TICKS = 6
_MOST_DECADES = 307  # that numbers have
_MANY = 500  # points
_ROUNDING = 1e-6  # of a step between ticks
_EDGE = 0.04  # of a picture, that is left free at either end
_STROKES = {"": "h0", "up": "v-30", "down": "v30", "left": "h-12", "right": "h12"}
Tick = tuple[float, str]
Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Where numbers lie.

    Attributes:
        low, high: The ends; of a scale by ratios their logarithms to 10.
        is_log: By ratios.
    """

    low: float
    high: float
    is_log: bool = False

    @classmethod
    def of(cls, values: Sequence[float], *, is_log: bool = False, cut: str = "", whole: bool = False) -> Scale:
        """The scale that some numbers need.

        Args:
            values: They; at least one.
            is_log: By ratios; all are above 0 then.
            cut: "low" or "high": at that end numbers far from most others are left beyond the edge.
            whole: From end to end, with nothing left free.
        """
        found = np.log10(values) if is_log else np.asarray(values, float)
        low, high = float(found.min()), float(found.max())
        first, last = (float(v) for v in np.quantile(found, [0.1, 0.9]))
        if cut == "low" and last > first:
            low = max(low, first - 3 * (last - first))
        if cut == "high" and last > first:
            high = min(high, last + 3 * (last - first))
        free = 0.0 if whole and high > low else _EDGE * (high - low) or 0.1 * abs(high) or 0.5
        low, high = low - free, high + free
        return cls(max(low, -_MOST_DECADES), min(high, _MOST_DECADES), True) if is_log else cls(low, high)

    def share(self, value: float) -> float:
        """Where a number lies, from 0 to 1; one beyond the edge lies on it."""
        if self.is_log:
            value = math.log10(value) if value > 0 else -math.inf
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def is_beyond(self, value: float) -> bool:
        """Whether a number isn't between the ends."""
        return self.share(value) in (0.0, 1.0)

    def ticks(self) -> tuple[Tick, ...]:
        """Round numbers between the ends, and where they lie."""
        found = powers(self.low, self.high) if self.is_log and self.high - self.low > 1 else self._even()
        return tuple((self.share(v), short(v)) for v in found)

    def _even(self) -> list[float]:
        return rounds(10.0**self.low, 10.0**self.high) if self.is_log else rounds(self.low, self.high)


def powers(low: float, high: float) -> list[float]:
    """Powers of ten between two of these; every second or third where they are many, twice and five times them where they are few."""
    every = math.ceil((high - low) / _MOST_TICKS)
    leads = (1, 2, 5) if high - low < 2.2 else (1,)
    found = [lead * 10.0**p for p in range(math.floor(low), math.floor(high) + 1) if p % every == 0 for lead in leads]
    return [v for v in found if low <= math.log10(v) <= high]


def rounds(low: float, high: float) -> list[float]:
    """Round numbers between two."""
    step = 10.0 ** math.floor(math.log10((high - low) / _MOST_TICKS))
    step = next(step * times for times in (1, 2, 5, 10) if (high - low) / (step * times) <= _MOST_TICKS + _ROUNDING)
    first, last = math.ceil(low / step - _ROUNDING), math.floor(high / step + _ROUNDING)
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]


def short(value: float) -> str:
    """A round number, as short as it can be."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def is_wide(values: Sequence[float]) -> bool:
    """Whether numbers are so far apart that they are drawn by ratios."""
    return min(values) > 0 and max(values) >= WIDE * min(values)


@dataclass(frozen=True)
class Axis:
    """What runs along one side.

    Attributes:
        label: What it is.
        ticks: What is written along it, and where.
        are_names: These are names, not numbers.
    """

    label: str
    ticks: tuple[Tick, ...]
    are_names: bool = False

    @property
    def width(self) -> int:
        """Letters of the longest tick."""
        return max((len(text) for _, text in self.ticks), default=1)


@dataclass(frozen=True)
class Shape:
    """Some points that look alike.

    Attributes:
        kind: How they look, a class of the page's style: "search dot", "control best".
        label: What they are, for the legend; "" where it has them already.
        points: Where they lie, both from 0 to 1, from the left and from below.
        of: Whose they are: numbers of children, for the pointer; none where it isn't to find them.
        join: What is drawn: "" for dots, "line", "steps", "pairs" for a line from each second one to the next, "boxes" where each four
            are the corners of one, "up", "down", "left" and "right" for short strokes that way.
    """

    kind: str
    label: str
    points: tuple[Point, ...]
    of: tuple[int, ...] = ()
    join: str = ""

    def path(self) -> str:
        """As SVG has it."""
        at = [(round(SIZE * x), round(SIZE * (1 - y))) for x, y in self.points]
        if self.join == "steps":
            return "".join(f"M{x} {y}" if i == 0 else f"H{x}V{y}" for i, (x, y) in enumerate(at))
        if self.join in _STROKES:
            return "".join(f"M{x} {y}{_STROKES[self.join]}" for x, y in at)
        each = {"line": len(at), "pairs": 2, "boxes": 4}[self.join]
        return "".join(f"{'L' if i % each else 'M'}{x} {y}" for i, (x, y) in enumerate(at))


@dataclass(frozen=True)
class Plot:
    """One picture of the page.

    Attributes:
        id: Short name, unique on the page.
        title: What it shows.
        x, y: What runs along below and at the left.
        shapes: What is drawn, the last on top.
        summary: The same in words.
        header, rows: The same as a table.
        rise: Its height, in lines of text.
    """

    id: str
    title: str
    x: Axis
    y: Axis
    shapes: tuple[Shape, ...]
    summary: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    rise: float = 14.0

    @property
    def legend(self) -> list[Shape]:
        """Shapes that have a name, each name once, those of the search first; none where there is only one."""
        labels = {s.label: s for s in self.shapes if s.label and s.points}
        return (
            sorted(labels.values(), key=lambda s: (s.kind == "lost", not s.kind.startswith("search")))
            if len(labels) > 1
            else []
        )

    @property
    def is_dense(self) -> bool:
        """Whether there are so many points that they must be small."""
        return sum(len(s.of) for s in self.shapes) > _MANY

    def svg(self) -> Markup:
        """The shapes, with a grid behind."""
        grid = "".join(f"M0 {round(SIZE * (1 - at))}H{SIZE}" for at, _ in self.y.ticks)
        grid += "" if self.y.are_names else "".join(f"M{round(SIZE * at)} 0V{SIZE}" for at, _ in self.x.ticks)
        paths = [Markup('<path class="grid" d="{}"/>').format(grid)]
        for shape in self.shapes:
            whose = Markup(' data-of="{}"').format(" ".join(map(str, shape.of))) if shape.of else ""
            if shape.points:
                paths.append(Markup('<path class="{}"{} d="{}"/>').format(shape.kind, whose, shape.path()))
        return Markup(
            '<svg class="plot-shapes" viewBox="0 0 {0} {0}" preserveAspectRatio="none" aria-hidden="true">{1}</svg>'
        ).format(SIZE, Markup("").join(paths))


def named(names: Sequence[str], longest: int = 22) -> tuple[Tick, ...]:
    """Names one below the other, the first at the top."""
    texts = [clean(name) for name in names]
    return tuple(
        (row(i, len(texts)), text if len(text) <= longest else f"{text[: longest - 1]}…")
        for i, text in enumerate(texts)
    )


def row(i: int, count: int) -> float:
    """Where a row lies, from 0 at the bottom to 1 at the top."""
    return 1 - (i + 0.5) / count
