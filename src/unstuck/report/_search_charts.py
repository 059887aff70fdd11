"""The pictures of how a search went: the best so far by evaluation, and the best with fresh seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from unstuck._language import _, say, tell
from unstuck.report import _search_facts as facts
from unstuck.report import _words as words
from unstuck.report._search_facts import CONTROL, NAMES, SEARCH, Told
from unstuck.report._search_plots import Axis, Plot, Point, Scale, Shape, is_wide, named, row

ROWS = 12  # of a table that stands for a line
LINE = 1.9  # height of a row of names, in lines of text
_LABELS = {"span": "", "mean": say("mean, and its 95% interval"), "dot": say("one fresh seed")}


@dataclass(frozen=True)
class Scores:
    """How the scores of all children are drawn.

    Attributes:
        name: Of the score.
        scale: Bad ones that are far from most are left beyond its edge.
        lower: The lower the better.
        staged: Some children were trained for a part of their epochs only.
    """

    name: str
    scale: Scale
    lower: bool
    staged: bool

    @classmethod
    def of(cls, told: Told) -> Scores | None:
        """That of a search; None where there is no score."""
        values, lower = (
            [facts.bounded(c["score"]) for c in told["children"] if facts.is_sound(c)],
            bool(told.get("lower_is_better")),
        )
        if not values:
            return None
        scale = Scale.of(values, is_log=lower and is_wide(values), cut="high" if lower else "low")
        return cls(facts.score(told), scale, lower, any(c["epochs"] and not c["whole"] for c in told["children"]))

    @property
    def axis(self) -> Axis:
        """An axis of scores."""
        return Axis(self.name, self.scale.ticks())

    @property
    def best(self) -> Callable[..., float | None]:
        """Picks the best of some scores; `default` where there are none."""
        return min if self.lower else max

    def at(self, child: Told) -> float:
        """Where a score lies, from 0 to 1."""
        return self.scale.share(facts.bounded(child["score"]))

    def points(self, arm: str, children: Sequence[Told], across: Sequence[float]) -> Iterator[Shape]:
        """Children of an arm: those trained in part, those trained whole, and those that failed where scores are worst.

        Args:
            arm: Its name.
            children: Of it.
            across: Where each lies from the left, from 0 to 1.
        """
        early, whole, lost = [], [], []
        for child, x in zip(children, across, strict=True):
            group = lost if not facts.is_sound(child) else early if self.staged and not child["whole"] else whole
            group.append((child, x))
        name = NAMES[arm]
        for kind, label, group in (
            ("early", tell("{name}, trained in part", name=name), early),
            ("dot", tell("{name}, trained whole", name=name) if self.staged else name, whole),
        ):
            yield Shape(
                f"{arm} {kind}", label, tuple((x, self.at(c)) for c, x in group), tuple(c["number"] for c, _ in group)
            )
        worst, way = (1.0, "down") if self.lower else (0.0, "up")
        yield Shape("lost", _("failed"), tuple((x, worst) for _, x in lost), tuple(c["number"] for c, _ in lost), way)


# ---------------------------------------------------------------------- the best so far


def progress(told: Told) -> Plot | None:
    """Best so far by evaluation, and every child."""
    scores = Scores.of(told)
    if scores is None:
        return None
    arms = _arms(told)
    across = Scale.of([1, max(2, *map(len, arms.values()))], whole=True)
    courses = {arm: _best_so_far(children, scores) for arm, children in arms.items()}
    shapes: list[Shape] = []
    for arm, children in reversed(arms.items()):
        shapes += scores.points(arm, children, [across.share(i + 1) for i in range(len(children))])
    shapes += [_line(arm, course, across, scores) for arm, course in courses.items()]
    said = [_course(arm, course, scores) for arm, course in courses.items()]
    beyond = sum(facts.is_sound(c) and scores.scale.is_beyond(facts.bounded(c["score"])) for c in told["children"])
    said += [tell("{scores} so bad as to lie beyond the edge.", scores=words.plural(beyond, "score"))] if beyond else []
    return Plot(
        "progress", tell("Best {score} so far", score=scores.name), Axis(_("evaluation"), across.ticks()), scores.axis,
        tuple(shapes), " ".join(said),
        (_("evaluation"), *(tell("best of the {arm}", arm=NAMES[arm]) for arm in arms)), _milestones(list(courses.values())), 18.0,
    )  # fmt: skip


def _arms(told: Told) -> dict[str, list[Told]]:
    """Children that have ended, by arm, in the order in which they were proposed."""
    arms = {arm: [c for c in told["children"] if c["arm"] == arm and facts.is_over(c)] for arm in (SEARCH, CONTROL)}
    return {arm: children for arm, children in arms.items() if children}


def _best_so_far(children: Sequence[Told], scores: Scores) -> list[float | None]:
    values = [facts.bounded(c["score"]) if facts.is_sound(c) else None for c in children]
    return list(accumulate(values, lambda a, b: scores.best((v for v in (a, b) if v is not None), default=None)))


def _line(arm: str, course: Sequence[float | None], across: Scale, scores: Scores) -> Shape:
    """The best so far, to the last evaluation."""
    known = [(i, v) for i, v in enumerate(course) if v is not None]
    steps = [known[0], *(b for a, b in pairwise(known) if b[1] != a[1]), known[-1]] if known else []
    points = tuple((across.share(i + 1), scores.scale.share(v)) for i, v in steps)
    return Shape(f"{arm} best", tell("best of the {arm} so far", arm=NAMES[arm]), points, join="steps")


def _milestones(courses: Sequence[Sequence[float | None]]) -> tuple[tuple[str, ...], ...]:
    """The best so far, by evaluations that are the further apart the later they are."""
    at = np.unique(np.round(np.geomspace(1, max(map(len, courses)), ROWS)).astype(int)).tolist()
    return tuple((str(i), *(words.number(course[min(i, len(course)) - 1]) for course in courses)) for i in at)


def _course(arm: str, course: Sequence[float | None], scores: Scores) -> str:
    """When the best was found, in words."""
    name, last = _(NAMES[arm]).capitalize(), course[-1]
    if last is None:
        return tell(
            "{arm}: nothing came to an end in {evaluations}.",
            arm=name,
            evaluations=words.plural(len(course), "evaluation"),
        )
    return tell(
        "{arm}: {score} {last}, reached by evaluation {index} of {count}.",
        arm=name,
        score=scores.name,
        last=words.number(last),
        index=course.index(last) + 1,
        count=len(course),
    )


# ---------------------------------------------------------------------- the best with fresh seeds


def fresh(told: Told) -> Plot | None:
    """The best with seeds that nothing was chosen by: scores, mean, interval."""
    finals = _finals(told)
    if not finals:
        return None
    intervals = [facts.interval(sound) for _, sound in finals]
    scale = _seen([v for _, sound in finals for v in sound], intervals)
    first = tell(
        "{who} is first with a mean of {mean}.",
        who=facts.who(finals[0][0]).capitalize(),
        mean=words.number(intervals[0][0]),
    )
    across = Axis(f"{facts.score(told)} ({facts.better(told)})", scale.ticks())
    names = Axis("", named([facts.who(f) for f, _ in finals]), are_names=True)
    rows = tuple(_final_row(found, sound) for found, sound in finals)
    return Plot(
        "fresh", _("The best of each, trained anew with fresh seeds"), across, names, tuple(_spreads(finals, scale)),
        f"{first} {_overlap(told)}".strip(), (_("child"), _("scores"), _("mean"), _("95% interval")), rows, max(5.0, LINE * len(finals)),
    )  # fmt: skip


def _finals(told: Told) -> list[tuple[Told, list[float]]]:
    """The finalists with their scores, the best first, those behind of which a seed failed."""
    known = [(f, [facts.bounded(v) for v in f["scores"].values() if v is not None]) for f in told["finalists"]]
    sign = 1 if told.get("lower_is_better") else -1
    return sorted(
        ((f, sound) for f, sound in known if sound),
        key=lambda item: (len(item[1]) < len(item[0]["scores"]), sign * statistics.fmean(item[1])),
    )


def _seen(values: list[float], intervals: Sequence[tuple[float, float, float]]) -> Scale:
    """Fits all scores, and intervals as far as they aren't much wider."""
    room = 1.5 * (max(values) - min(values)) or 0.05 * abs(values[0]) or 0.5
    ends = [v for _, *both in intervals for v in both if math.isfinite(v)]
    return Scale.of([*values, *(min(max(v, min(values) - room), max(values) + room) for v in ends)])


def _spreads(finals: Sequence[tuple[Told, list[float]]], scale: Scale) -> Iterator[Shape]:
    """Scores, means and intervals, by arm."""
    shapes: dict[str, dict[str, list[Point]]] = {}
    for i, (found, sound) in enumerate(finals):
        y, (mean, low, high) = row(i, len(finals)), facts.interval(sound)
        kinds = shapes.setdefault(found["arm"], {kind: [] for kind in _LABELS})
        kinds["span"] += [(scale.share(low), y), (scale.share(high), y)] if math.isfinite(low) else []
        kinds["mean"] += [(scale.share(mean), y)]
        kinds["dot"] += [(scale.share(v), y) for v in sound]
    for arm, kinds in shapes.items():
        for kind, points in kinds.items():
            label = tell("{arm}: {what}", arm=NAMES.get(arm, arm), what=_LABELS[kind]) if _LABELS[kind] else ""
            yield Shape(f"{arm} {kind}", label, tuple(points), join="pairs" if kind == "span" else "")


def _final_row(found: Told, sound: list[float]) -> tuple[str, ...]:
    mean, low, high = facts.interval(sound)
    scores = ", ".join(_("failed") if v is None else words.number(v) for v in found["scores"].values())
    interval = tell("{low} to {high}", low=words.number(low), high=words.number(high)) if math.isfinite(low) else "–"
    return facts.who(found), scores, words.number(mean), interval


def _overlap(told: Told) -> str:
    """What the comparison of the arms' best says, in short."""
    effect = told.get("effect")
    if effect is None or effect["low"] is None or effect["high"] is None:
        return ""
    if effect["low"] <= 0 <= effect["high"]:
        return _("The difference of the two best is within noise.")
    if effect["low"] > 0:
        return _("The search's best is ahead of the best at random beyond noise.")
    return _("The search's best is behind the best at random beyond noise.")
