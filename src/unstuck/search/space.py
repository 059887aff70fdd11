"""Spaces: what is to be chosen, said by a function that draws one decision after the other.

    def space(draw):
        kind = draw.choice("optimizer", ["SGD", "Adam"])
        momentum = draw.number("momentum", 0.0, 0.99) if kind == "SGD" else None
        return {"kind": kind, "rate": draw.number("rate", 1e-5, 1.0, log=True), "momentum": momentum}

What depends on another decision is drawn only where it matters, so a condition is an `if`. The function must be quick, and draw the same
for the same values: it is called for every proposal, and again where a point is made. All samplers work through it, by handing
out the values: at random, those of a parent but for one, those of a controller.

What it returns describes the program, and tells points apart: two points that give the same are the same (`Point.key`). Where different
values mean the same, as in cells that differ by the order of a sum, the object says so by a method `canonical()`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from unstuck._language import say
from unstuck.errors import MisuseError

_WRITTEN = (str, int, float, bool, type(None))
_LEVELS = 12  # that a range is cut into by samplers that choose among some


class Decision(Protocol):
    """One decision: what may be chosen."""

    @property
    def name(self) -> str:
        """Tells it from all others of a point: "height[3]"."""
        ...

    @property
    def role(self) -> str:
        """What is chosen, wherever it is: "height". What is learned of one is of use for all of its role."""
        ...

    def sample(self, rng: random.Random) -> Any:
        """A value, all alike; of a range with `log`, all ratios alike."""
        ...

    def near(self, value: Any, rng: random.Random) -> list[Any]:
        """Other values, one step away: all there are, of a range some."""
        ...

    def levels(self) -> tuple[Any, ...]:
        """The values; of a range, some at equal steps."""
        ...

    def nearest(self, value: Any) -> int:
        """Which of the levels is nearest to a value."""
        ...

    def admits(self, value: Any) -> bool:
        """Whether it is one of its values."""
        ...


@dataclass(frozen=True)
class Choice:
    """One of some.

    Attributes:
        name: Tells it from all others of a point.
        role: What is chosen, wherever it is.
        options: Text, numbers, true, false or null.
        ordered: Neighbours are alike.
    """

    name: str
    role: str
    options: tuple[Any, ...]
    ordered: bool = False

    def sample(self, rng: random.Random) -> Any:
        """An option."""
        return self.options[rng.randrange(len(self.options))]

    def near(self, value: Any, rng: random.Random) -> list[Any]:
        """All others; where they are ordered, the one before and the one behind."""
        if not self.ordered:
            return [o for o in self.options if o != value]
        i = self.nearest(value)
        return [self.options[j] for j in (i - 1, i + 1) if 0 <= j < len(self.options)]

    def levels(self) -> tuple[Any, ...]:
        """The options."""
        return self.options

    def nearest(self, value: Any) -> int:
        """Which option it is."""
        return next(i for i, o in enumerate(self.options) if same(o, value))

    def admits(self, value: Any) -> bool:
        """Whether it is an option."""
        flag = isinstance(value, bool)
        return any(
            [option == value and isinstance(option, bool) == flag for option in self.options]
        )  # quicker than a generator


@dataclass(frozen=True)
class Range:
    """A number from a range, both ends included.

    Attributes:
        name: Tells it from all others of a point.
        role: What is chosen, wherever it is.
        low, high: The ends.
        log: Steps are ratios.
        whole: Whole numbers only.
        grows: A number of parts, which may grow during a search instead of being chosen.
    """

    name: str
    role: str
    low: float
    high: float
    log: bool = False
    whole: bool = False
    grows: bool = False

    def sample(self, rng: random.Random) -> float:
        """A number."""
        if self.whole and not self.log:
            return rng.randint(int(self.low), int(self.high))
        return self._at(rng.random())

    def near(self, value: float, rng: random.Random) -> list[float]:
        """A step of about a tenth of the range, up and down; whole numbers at least to the next."""
        there, found = self.share(value), []
        for sign in (-1, 1):
            other = self._at(there + sign * abs(rng.gauss(0.1, 0.05)))
            if self.whole and other == value:
                other = int(value) + sign
            if other != value and self.admits(other):
                found.append(other)
        return found

    def levels(self) -> tuple[float, ...]:
        """All numbers where they are few, else some from end to end."""
        if self.whole and self.high - self.low < _LEVELS:
            return tuple(range(int(self.low), int(self.high) + 1))
        return tuple(dict.fromkeys(self._at(i / (_LEVELS - 1)) for i in range(_LEVELS)))

    def nearest(self, value: float) -> int:
        """The level that is nearest, by ratio where steps are ratios."""
        there = self.share(value)
        levels = self.levels()
        return min(range(len(levels)), key=lambda i: abs(self.share(levels[i]) - there))

    def admits(self, value: Any) -> bool:
        """Whether it is in the range."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.whole or value == int(value))

    def share(self, value: float) -> float:
        """Where a number lies, from 0 to 1."""
        if self.high == self.low:
            return 0.0
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def _at(self, share: float) -> float:
        share = min(1.0, max(0.0, share))
        value = self.low * (self.high / self.low) ** share if self.log else self.low + share * (self.high - self.low)
        return self.rounded(value)

    def rounded(self, value: float) -> float:
        """The number of the range next to one, of four digits; a whole one where it is of whole numbers."""
        if self.whole:
            return min(int(self.high), max(int(self.low), round(value)))
        return min(self.high, max(self.low, float(f"{value:.4g}")))


@dataclass(frozen=True)
class Links:
    """Which of the parts before lead to this one: as many yes or no as there are.

    Attributes:
        name: Tells it from all others of a point.
        role: What is chosen, wherever it is.
        count: Parts before.
        density: Share of yes where they are drawn at random.
    """

    name: str
    role: str
    count: int
    density: float = 0.4

    def sample(self, rng: random.Random) -> list[int]:
        """Each by itself."""
        return [int(rng.random() < self.density) for _ in range(self.count)]

    def near(self, value: Sequence[int], rng: random.Random) -> list[list[int]]:
        """One of them the other way."""
        return [[int(v) ^ (i == j) for j, v in enumerate(value)] for i in range(self.count)]

    def levels(self) -> tuple[Any, ...]:
        """None: there are too many to be listed, a sampler decides each link."""
        return ()

    def nearest(self, value: Any) -> int:
        """Has none.

        Raises:
            MisuseError: In any case.
        """
        raise MisuseError(say("{name} has no levels", name=self.name))

    def admits(self, value: Any) -> bool:
        """Whether it has as many links."""
        return isinstance(value, list | tuple) and len(value) == self.count and all(v in (0, 1) for v in value)


AnyDecision = Choice | Range | Links
Choose = Callable[[AnyDecision], Any]


class Draw:
    """Hands out the values of decisions, one after the other; what a space is given.

    Args:
        choose: Gives the value of a decision.
        checked: What it gives is one of the decision's values in any case.

    Attributes:
        values: What was given, by name, in order.
        decisions: In order.
    """

    def __init__(self, choose: Choose, *, checked: bool = False) -> None:
        self._choose, self._checked = choose, checked
        self.values: dict[str, Any] = {}
        self.decisions: list[AnyDecision] = []

    def choice(
        self,
        name: str,
        options: Sequence[Any] | Mapping[str, Any],
        *,
        of: int | str | None = None,
        ordered: bool = False,
    ) -> Any:
        """One of some.

        Args:
            name: What is chosen.
            options: Text, numbers, true, false or None; or anything, by labels.
            of: Which part it is chosen for, where it is chosen for several.
            ordered: Neighbours are alike.

        Returns:
            The option; where there are labels, what is behind the label.

        Raises:
            MisuseError: There are no options, or they can't be written down and have no labels.
        """
        labels = tuple(options)
        if len(labels) == 1:  # nothing to decide
            return options[labels[0]] if isinstance(options, Mapping) else labels[0]
        try:
            can_be_written = bool(labels) and _can_be_written(labels)
        except TypeError:  # a list, say
            can_be_written = False
        if not can_be_written:
            raise MisuseError(
                say(
                    "the options of {name!r} must be some texts, numbers, true, false or None; other things have "
                    "labels: {example}",
                    name=name,
                    example="draw.choice('activation', {'relu': nn.ReLU, 'tanh': nn.Tanh})",
                )
            )
        chosen = self._draw(Choice(_named(name, of), name, labels, ordered))
        return options[chosen] if isinstance(options, Mapping) else chosen

    def flag(self, name: str, *, of: int | str | None = None) -> bool:
        """Yes or no."""
        return bool(self.choice(name, (False, True), of=of))

    def number(self, name: str, low: float, high: float, *, log: bool = False, of: int | str | None = None) -> float:
        """A number, both ends included.

        Args:
            name: What is chosen.
            low: The least.
            high: The most.
            log: Ratios are alike; needs a least above 0.
            of: Which part it is chosen for.

        Returns:
            It, of four digits.
        """
        return float(self._draw(_range(Range(_named(name, of), name, float(low), float(high), log))))

    def integer(self, name: str, low: int, high: int, *, log: bool = False, of: int | str | None = None) -> int:
        """A whole number, both ends included, see `number`."""
        return int(self._draw(_range(Range(_named(name, of), name, low, high, log, whole=True))))

    def depth(self, name: str, low: int, high: int) -> int:
        """A number of parts; a controller may let it grow as the search goes on instead of choosing it."""
        return int(self._draw(_range(Range(name, name, low, high, whole=True, grows=True))))

    def links(self, name: str, count: int, *, of: int | str | None = None) -> list[bool]:
        """Which of the parts before lead to this one.

        Args:
            name: What is chosen.
            count: Parts before.
            of: Which part it is.

        Returns:
            Yes or no for each.
        """
        return [bool(v) for v in self._draw(Links(_named(name, of), name, count))] if count else []

    def _draw(self, decision: AnyDecision) -> Any:
        known = self.values.get(decision.name, self)
        if known is not self:
            before = next(d for d in self.decisions if d.name == decision.name)
            if before != decision:
                raise MisuseError(
                    say(
                        "{name!r} is drawn twice, from different values: give one of them another name, or say `of=` "
                        "which part it is",
                        name=decision.name,
                    )
                )
            return known
        if isinstance(decision, Range) and decision.low == decision.high:  # nothing to decide
            return decision.low
        value = self._choose(decision)
        if not self._checked and not decision.admits(value):
            raise MisuseError(
                say("{name} is {value!r}, which is not one of its values", name=decision.name, value=value)
            )
        self.decisions.append(decision)
        self.values[decision.name] = value
        return value


@dataclass(frozen=True, eq=False)
class Point:
    """A point of a space.

    Attributes:
        values: By name, in the order in which they were drawn.
        decisions: What they are values of.
        chosen: What the space made of them.
        key: The same for points that mean the same.
    """

    values: dict[str, Any]
    decisions: tuple[AnyDecision, ...] = field(repr=False)
    chosen: Any = field(repr=False)
    key: str = field(repr=False)


class Space:
    """What can be searched.

    Args:
        define: Draws, and returns what describes the program.
    """

    def __init__(self, define: Callable[[Draw], Any]) -> None:
        self.define = define

    def point(self, choose: Choose, *, checked: bool = False) -> Point:
        """A point, its values from a function.

        Args:
            choose: Gives the value of each decision.
            checked: What it gives is one of the decision's values in any case.

        Raises:
            MisuseError: A value isn't one of the decision's.
        """  # noqa: DOC502
        draw = Draw(choose, checked=checked)
        chosen = self.define(draw)
        return Point(draw.values, tuple(draw.decisions), chosen, _key(chosen, draw.values))

    def random(self, rng: random.Random) -> Point:
        """A point, each decision by itself at random."""
        return self.point(lambda decision: decision.sample(rng), checked=True)

    def at(self, values: Mapping[str, Any], rng: random.Random | None = None) -> Point:
        """The point of some values.

        Args:
            values: By name; those that aren't drawn are left out.
            rng: Draws what has no value, or one that isn't the decision's; by default that is an error.

        Raises:
            MisuseError: A value is missing.
        """  # noqa: DOC502

        def choose(decision: AnyDecision) -> Any:
            if decision.name in values and decision.admits(values[decision.name]):
                return values[decision.name]
            if rng is None:
                given = repr(values[decision.name]) if decision.name in values else "missing"
                raise MisuseError(
                    say("the point is not of this space: {name} is {given}", name=decision.name, given=given)
                )
            return decision.sample(rng)

        return self.point(choose, checked=True)

    def mutated(self, parent: Point, rng: random.Random) -> Point:
        """A point that differs from another by one decision, and by what depends on it."""
        if not parent.decisions:
            return parent
        decision = parent.decisions[rng.randrange(len(parent.decisions))]
        near = decision.near(parent.values[decision.name], rng)
        value = near[rng.randrange(len(near))] if near else decision.sample(rng)
        return self.at({**parent.values, decision.name: value}, rng)

    def all(self) -> Iterator[Point]:
        """Every point, each once; of ranges of real numbers those at their levels."""
        met: set[str] = set()
        path: list[tuple[int, int]] = []  # of each decision, which of its values, and of how many
        while True:
            before, path = path, []

            def choose(
                decision: AnyDecision, before: list[tuple[int, int]] = before, path: list[tuple[int, int]] = path
            ) -> Any:
                i = before[len(path)][0] if len(path) < len(before) else 0
                path.append((i, _count(decision)))
                return _nth(decision, i)

            point = self.point(choose)
            if point.key not in met:
                met.add(point.key)
                yield point
            while path and path[-1][0] + 1 == path[-1][1]:
                path.pop()
            if not path:
                return
            path[-1] = (path[-1][0] + 1, path[-1][1])

    def neighbours(self, parent: Point, rng: random.Random) -> list[Point]:
        """All that differ from a point by one decision, of ranges some, in random order; points that mean the same only once."""
        found: dict[str, Point] = {}
        for decision in parent.decisions:
            for value in decision.near(parent.values[decision.name], rng):
                point = self.at({**parent.values, decision.name: value}, rng)
                found.setdefault(point.key, point)
        found.pop(parent.key, None)
        several = list(found.values())
        rng.shuffle(several)
        return several


def _count(decision: AnyDecision) -> int:
    """How many values it has; of a range of real numbers, levels."""
    if isinstance(decision, Links):
        return 2**decision.count
    if isinstance(decision, Range) and decision.whole:
        return int(decision.high) - int(decision.low) + 1
    return len(decision.levels())


def _nth(decision: AnyDecision, i: int) -> Any:
    """One of its values."""
    if isinstance(decision, Links):
        return [i >> j & 1 for j in range(decision.count)]
    if isinstance(decision, Range) and decision.whole:
        return int(decision.low) + i
    return decision.levels()[i]


@functools.lru_cache(maxsize=4096)
def _can_be_written(labels: tuple[Any, ...]) -> bool:
    """Whether all are something that JSON knows."""
    return all(isinstance(label, _WRITTEN) for label in labels)


def same(a: Any, b: Any) -> bool:
    """Whether two options are one: True isn't 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _named(name: str, of: int | str | None) -> str:
    return name if of is None else f"{name}[{of}]"


def _range(decision: Range) -> Range:
    low, high = decision.low, decision.high
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise MisuseError(
            say(
                "{name!r} is drawn from {low:g} to {high:g}, but the least must come first, and both be finite",
                name=decision.name,
                low=low,
                high=high,
            )
        )
    if decision.log and low <= 0:
        raise MisuseError(
            say("{name!r} is drawn by ratios from {low:g} on, but that must be above 0", name=decision.name, low=low)
        )
    return decision


def _key(chosen: Any, values: Mapping[str, Any]) -> str:
    """Names what points mean: by what the space made of them, where that can be told, else by their values."""
    try:
        told = json.dumps(_canonical(chosen), sort_keys=True)
    except _Untold:
        told = json.dumps(values, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:20]


class _Untold(Exception):  # noqa: N818 - no error
    """An object doesn't tell what it is."""


def _canonical(chosen: Any) -> Any:
    """What JSON can tell of an object, so that the same means the same.

    Raises:
        _Untold: It doesn't tell.
    """
    if hasattr(chosen, "canonical"):
        return [type(chosen).__name__, _canonical(chosen.canonical())]
    if chosen is None or isinstance(chosen, str | int | float | bool):
        return chosen
    if isinstance(chosen, Mapping):
        return [
            ["", "mapping"],
            *([str(k), _canonical(v)] for k, v in sorted(chosen.items(), key=lambda kv: str(kv[0]))),
        ]
    if isinstance(chosen, list | tuple):
        return [_canonical(v) for v in chosen]
    if dataclasses.is_dataclass(chosen) and not isinstance(chosen, type):
        return _canonical({f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen)})
    name = getattr(chosen, "__qualname__", "<")
    if "<" not in name:  # a class or a function that has a name of its own
        return [chosen.__module__, name]
    raise _Untold
