"""The pictures of what was tried: what each value of a decision gave, and what a score costs."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unstuck._language import _, many, say, tell
from unstuck.report import _search_facts as facts
from unstuck.report import _words as words
from unstuck.report._search_charts import LINE, Scores
from unstuck.report._search_facts import CONTROL, SEARCH, Told
from unstuck.report._search_plots import Axis, Plot, Scale, Shape, is_wide, named, row

_MOST_DECISIONS = 6
_FEW_DECISIONS = 4  # where none can be told from chance
_MOST_OPTIONS = 12  # that are drawn
_PARTS = 6  # of a range, in the table
_ENOUGH = 3  # scores for a median
_SHORTEST = 0.1  # seconds that are worth a picture
_ASIDE = {"up": "right", "down": "left"}
_GOLDEN = 0.618  # multiples of it spread evenly
_HEADER = (say("children"), say("best"), say("median"), say("failed"))


@dataclass(frozen=True)
class _Group:
    """Children with about the same value.

    Attributes:
        label: The value.
        count: How many.
        scores: Of those that came to one.
    """

    label: str
    count: int
    scores: tuple[float, ...]

    @property
    def median(self) -> float | None:
        return statistics.median(self.scores) if self.scores else None

    def row(self, scores: Scores) -> tuple[str, ...]:
        """As the table tells of it."""
        best, lost = scores.best(self.scores, default=None), self.count - len(self.scores)
        return self.label, str(self.count), words.number(best), words.number(self.median), str(lost)


# ---------------------------------------------------------------------- decisions


def decisions(told: Told) -> list[Plot]:
    """Scores by the values of the decisions that mattered, or of the first ones where none did."""
    scores = Scores.of(told)
    if scores is None:
        return []
    some = [name for name, _ in facts.important(told)][:_MOST_DECISIONS]
    names = some or list(told["children"][0]["values"])[:_FEW_DECISIONS]
    return [
        _decision(f"decision-{i}", name, have, scores) for i, name in enumerate(names) if (have := _having(name, told))
    ]


def _having(name: str, told: Told) -> list[tuple[Told, Any]]:
    """Children that have ended and have a decision, with its value."""
    return [(c, c["values"][name]) for c in told["children"] if facts.is_over(c) and name in c["values"]]


def _decision(id_: str, name: str, have: list[tuple[Told, Any]], scores: Scores) -> Plot:
    title, values = words.clean(name), [v for _, v in have]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return _by_number(id_, title, have, scores)
    if any(isinstance(v, list | tuple) for v in values):
        return _by_number(id_, tell("{title}, how many", title=title), [(c, sum(v)) for c, v in have], scores)
    return _by_option(id_, title, [(c, facts.value(v)) for c, v in have], scores)


def _by_number(id_: str, name: str, have: list[tuple[Told, float]], scores: Scores) -> Plot:
    values = [v for _, v in have]
    across, groups = Scale.of(values, is_log=is_wide(values)), list(_parts(have))
    shapes: list[Shape] = []
    for arm in (CONTROL, SEARCH):
        own = [(c, v) for c, v in have if c["arm"] == arm]
        shapes += scores.points(arm, [c for c, _x in own], [across.share(v) for _, v in own])
    return Plot(
        id_, name, Axis(name, across.ticks()), scores.axis, _unnamed(shapes), _said(groups, scores), (name, *_HEADER),
        tuple(g.row(scores) for g in groups),
    )  # fmt: skip


def _parts(have: list[tuple[Told, float]]) -> Iterator[_Group]:
    """Parts of a range that hold about as many children, or one for each value where these are few."""
    values = sorted({v for _, v in have})
    if len(values) <= _PARTS:
        yield from (_group(facts.value(v), (c for c, own in have if own == v)) for v in values)
        return
    order = sorted(range(len(have)), key=lambda i: have[i][1])
    for part in np.array_split(np.array(order), min(_PARTS, max(1, len(order) // _ENOUGH))):
        low, high = (_brief(have[i][1]) for i in (part[0], part[-1]))
        yield _group(tell("{low} to {high}", low=low, high=high), (have[i][0] for i in part))


def _group(label: str, children: Iterable[Told]) -> _Group:
    several = list(children)
    return _Group(label, len(several), tuple(facts.bounded(c["score"]) for c in several if facts.is_sound(c)))


def _brief(value: float) -> str:
    return str(value) if isinstance(value, int) else words.number(value, 2)


def _said(groups: Sequence[_Group], scores: Scores) -> str:
    """Where the median score is best, of groups that are large enough to have one."""
    known = [g for g in groups if len(g.scores) >= _ENOUGH]
    if len(known) < 2:
        return _("There are too few to compare.")
    best = (min if scores.lower else max)(known, key=lambda g: statistics.median(g.scores))
    of = facts.children(sum(g.count for g in groups))
    return tell(
        "The median {score} is best, {median}, with {label} ({count} of {of}).",
        score=scores.name,
        median=words.number(best.median),
        label=best.label,
        count=best.count,
        of=of,
    )


def _unnamed(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """Shapes without a legend of their own: that of the first picture holds for all."""
    return tuple(dataclasses.replace(s, label="") for s in shapes)


def _by_option(id_: str, name: str, have: list[tuple[Told, str]], scores: Scores) -> Plot:
    groups = [_group(v, (c for c, own in have if own == v)) for v in dict.fromkeys(v for _, v in have)]
    sign = 1 if scores.lower else -1
    groups.sort(key=lambda g: (g.median is None, sign * (g.median or 0.0)))
    shown = [g.label for g in groups[:_MOST_OPTIONS]]
    shapes = [s for arm in (CONTROL, SEARCH) for s in _rows(arm, have, shown, scores)]
    more = (
        tell(" {number} more options are in the table.", number=len(groups) - len(shown))
        if len(groups) > len(shown)
        else ""
    )
    return Plot(
        id_, name, scores.axis, Axis("", named(shown), are_names=True), _unnamed(shapes), _said(groups, scores) + more, (name, *_HEADER),
        tuple(g.row(scores) for g in groups), max(14.0, LINE * len(shown)),
    )  # fmt: skip


def _rows(arm: str, have: list[tuple[Told, str]], shown: list[str], scores: Scores) -> Iterator[Shape]:
    """Children of an arm in rows, a little above and below each other so that they are seen apart."""
    own = [(c, v) for c, v in have if c["arm"] == arm and v in shown]
    spread = 0.55 / len(shown)
    at = {c["number"]: row(shown.index(v), len(shown)) + spread * ((_GOLDEN * c["number"]) % 1 - 0.5) for c, v in own}
    for shape in scores.points(arm, [c for c, _x in own], [0.0] * len(own)):
        points = tuple((x, at[number]) for (_y, x), number in zip(shape.points, shape.of, strict=True))
        yield dataclasses.replace(shape, points=points, join=_ASIDE.get(shape.join, ""))


# ---------------------------------------------------------------------- costs


def costs(told: Told) -> Plot | None:
    """Score against parameters, or against seconds where there are no parameters; and those that no other beats in both."""
    scores, sound = Scores.of(told), [c for c in told["children"] if facts.is_sound(c)]
    label, cost, shown = _cost(sound)
    several = [cost(c) for c in sound]
    if scores is None or len(sound) < _ENOUGH or len(set(several)) < 2 or max(several) < _SHORTEST:
        return None
    across, front = Scale.of(several, is_log=is_wide(several)), _front(sound, cost, scores)
    line, beaten = tuple((across.share(cost(c)), scores.at(c)) for c in front), _("better than all that cost less")
    shapes = [Shape("front", beaten, line, join="steps"), Shape("front mark", "", line)]
    for arm in (CONTROL, SEARCH):
        own = [c for c in sound if c["arm"] == arm]
        shapes += _unnamed(scores.points(arm, own, [across.share(cost(c)) for c in own]))
    rows = tuple((facts.who(c), shown(c), words.number(c["score"])) for c in front)
    ends = _(" to ").join(
        dict.fromkeys(tell("{score} with {cost}", score=r[1], cost=r[2]) for r in (rows[0], rows[-1]))
    )
    summary = many(
        "{number} of {children} is {beaten}: {ends}.",
        "{number} of {children} are {beaten}: {ends}.",
        len(front),
        children=facts.children(len(sound)),
        beaten=beaten,
        ends=ends,
    )
    return Plot(
        "costs", tell("{score} against {cost}", score=scores.name.capitalize(), cost=label), Axis(label, across.ticks()), scores.axis,
        tuple(shapes), summary,
        (_("child"), label, scores.name), rows, 16.0,
    )  # fmt: skip


def _cost(sound: Sequence[Told]) -> tuple[str, Callable[[Told], float], Callable[[Told], str]]:
    """What children cost: its name, how much, and how that is written."""
    if any(c["parameters"] for c in sound):
        return "parameters", lambda c: max(1, c["parameters"]), lambda c: words.count(c["parameters"])
    return "seconds", lambda c: c["seconds"] or 0.0, lambda c: words.duration(c["seconds"])


def _front(sound: list[Told], cost: Callable[[Told], float], scores: Scores) -> list[Told]:
    """Children that are better than all that cost less or the same, the cheapest first."""
    sign, front = (1 if scores.lower else -1), []
    for child in sorted(sound, key=lambda c: (cost(c), sign * c["score"])):
        if not front or sign * child["score"] < sign * front[-1]["score"]:
            front.append(child)
    return front
