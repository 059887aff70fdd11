"""What came of a search: its children, the best of them with fresh seeds, and the control beside."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unstuck._json import plain
from unstuck._language import say
from unstuck.search.space import Point
from unstuck.trials.estimate import Effect, welch
from unstuck.trials.job import LOWER_IS_BETTER, Outcome

ALPHA = 0.05


@dataclass
class Child:
    """A point that was tried.

    Attributes:
        number: In the order in which they were proposed.
        arm: "search" or "control".
        point: The point.
        origin: How it was proposed.
        values: Scores by stage, -1 for whole trainings; the mean over the splits.
        quality: At the end of the first stage, or of the whole training where there are no stages; the higher the better.
        stage_reached: The last stage it came to the end of.
        best: Quality there.
        whole: It has been trained for all its epochs.
        status: "finished", "failed", "diverged", "stopped"; "" while it is under way.
        cause: Why it was not let on: a cause that unstuck names, or what it complained of.
        seconds: Of the processor it had, all stages together.
        epochs: Trained.
        parameters: Of its model, 0 where that isn't known.
        skill: Share of the way from chance to perfect, NaN where it isn't known.
        records: Of its last training, one for each split.
    """

    number: int
    arm: str
    point: Point
    origin: str
    values: dict[int, float] = field(default_factory=dict)
    quality: float = -math.inf
    stage_reached: int = -1
    best: float = -math.inf
    whole: bool = False
    status: str = ""
    cause: str = ""
    seconds: float = 0.0
    epochs: int = 0
    parameters: int = 0
    skill: float = math.nan
    records: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """In words."""
        if self.arm == "own":
            return say("as it is")
        if self.arm == "control":
            return say("random {number}", number=self.number)
        return say("search {number}", number=self.number)

    def took(self, stage: int, outcomes: Sequence[Outcome], facts: Mapping[str, Any]) -> None:
        """A training of it is over.

        Args:
            stage: To the end of which it was to go.
            outcomes: One for each split.
            facts: What their records tell: epoch, stages, parameters, cause.
        """
        status, value, quality = merged(outcomes)
        self.status, self.values[stage], self.best = status, value, quality
        if stage <= 0:
            self.quality = quality
        self.seconds += sum(o.seconds for o in outcomes)
        self.skill = statistics.fmean(o.skill for o in outcomes)
        self.epochs, self.parameters = int(facts.get("epoch", 0)), int(facts.get("parameters", 0))
        stages = facts.get("stages", [])
        self.whole = stage < 0 or not stages or stage >= len(stages) - 1
        self.stage_reached = len(stages) if self.whole and stage >= 0 else stage
        self.cause = facts.get("cause", "") or next((o.error for o in outcomes if o.error and status != "finished"), "")
        self.records = [o.record for o in outcomes if o.record]


def merged(outcomes: Sequence[Outcome]) -> tuple[str, float, float]:
    """Status, score and quality of an evaluation: the mean over its parts, and failed where one has."""
    status = next((o.status for o in outcomes if o.status != "finished"), "finished")
    value = statistics.fmean(o.value for o in outcomes)
    qualities = [o.quality if o.status in ("finished", "stopped") else -math.inf for o in outcomes]
    return status, value, statistics.fmean(qualities) if all(map(math.isfinite, qualities)) else -math.inf


@dataclass
class Finalist:
    """One of the best, trained whole with fresh seeds.

    Attributes:
        child: It.
        seeds: The seeds.
        values: Scores by seed.
        qualities: The higher the better, by seed.
        records: By seed.
    """

    child: Child
    seeds: tuple[int, ...]
    values: dict[int, float] = field(default_factory=dict)
    qualities: dict[int, float] = field(default_factory=dict)
    records: dict[int, str] = field(default_factory=dict)

    def took(self, seed: int, outcomes: Sequence[Outcome]) -> None:
        """A training is over."""
        _, self.values[seed], self.qualities[seed] = merged(outcomes)
        self.records[seed] = next((o.record for o in outcomes if o.record), "")

    @property
    def mean(self) -> float:
        """Of the scores."""
        return statistics.fmean(self.values.values()) if self.values else math.nan

    @property
    def quality(self) -> float:
        """Mean quality, minus infinity where a seed failed."""
        found = list(self.qualities.values())
        return statistics.fmean(found) if found and all(map(math.isfinite, found)) else -math.inf

    @property
    def best_seed(self) -> int:
        """The seed with which it came out best."""
        return max(self.qualities, key=lambda s: self.qualities[s])


@dataclass(frozen=True)
class Answer:
    """What came of a search.

    Attributes:
        plan: What was to be done, as JSON.
        problem: What was searched, as JSON.
        arms: Children by arm.
        finalists: The best of each arm with fresh seeds.
        best: The best of the search by fresh seeds; where there are none, by the search alone; None where nothing came to an end.
        control: The best of the control in the same way.
        own: The script as it stands with the same fresh seeds, None where there is none.
        effect: By how much the best is better than that of the control, with its interval; None where it can't be said.
        gain: By how much the winner is better than the script as it stands, with its interval; None where it can't be said.
        better_than_random: Chance that children as good as those of the search come of drawing at random (Mann-Whitney); None
            where there is no control.
        health: How the search's sampler was doing, now and then, the oldest first.
        says: Why the sampler was chosen.
        score: Name of the score.
        seconds: Wall time, of all sessions.
    """

    plan: dict[str, Any]
    problem: dict[str, Any]
    arms: dict[str, list[Child]]
    finalists: list[Finalist]
    best: Finalist | None
    control: Finalist | None
    own: Finalist | None
    effect: Effect | None
    gain: Effect | None
    better_than_random: float | None
    health: list[dict[str, float]]
    says: str
    score: str
    seconds: float

    @property
    def winner(self) -> Finalist | None:
        """The best of both arms: what is worth having."""
        return better(self.best, self.control)

    @property
    def lower_is_better(self) -> bool:
        """Of the score."""
        return self.score in LOWER_IS_BETTER

    @property
    def text(self) -> str:
        """In some sentences."""
        if self.best is None:
            return "nothing came to an end: no point of the space could be trained"
        many = len(self.best.values)
        fresh = (
            f"{self.score} {self.best.mean:.4g} over {many} fresh seeds"
            if many
            else f"{self.score} {_last(self.best.child):.4g}"
        )
        words = [f"the best is {self.best.child.name}: {fresh}"]
        if self.control is not None and self.effect is not None:
            beside = f"the best of as many drawn at random has {self.control.mean:.4g}"
            words.append(f"{beside}: {_judged(self.effect)} beyond noise ({self._interval(self.effect)})")
        if self.own is not None and self.gain is not None:
            words.append(
                f"as it stands it has {self.own.mean:.4g}: {_judged(self.gain)} beyond noise ({self._interval(self.gain)})"
            )
        if self.better_than_random is not None:
            is_better = self.better_than_random < ALPHA
            words.append(
                f"its children are {'better' if is_better else 'no better'} than those drawn at random (p = {self.better_than_random:.2g})"
            )
        return "; ".join(words)

    def _interval(self, effect: Effect) -> str:
        """An effect on the score, by the score's own sign."""
        mean, low, high = (
            (-effect.mean, -effect.high, -effect.low)
            if self.lower_is_better
            else (effect.mean, effect.low, effect.high)
        )
        return f"{mean:+.3g}, 95% interval {low:+.3g} to {high:+.3g}"

    def to_json(self) -> dict[str, Any]:
        """As the command writes it; numbers that aren't finite are None."""
        return plain({
            "schema": 1, "text": self.text, "score": self.score, "lower_is_better": self.lower_is_better, "seconds": round(self.seconds, 2),
            "plan": self.plan, "problem": self.problem, "says": self.says, "health": self.health,
            "better_than_random": self.better_than_random, "best": _final(self.best), "control": _final(self.control),
            "own": _final(self.own), "winner": _final(self.winner), "gain": _effect(self.gain), "effect": _effect(self.effect),
            "finalists": [_final(f) for f in self.finalists],
            "children": [_child(c) for children in self.arms.values() for c in children],
        })  # fmt: skip


def answered(
    plan: Any, problem: Any, arms: dict[str, list[Child]], finalists: list[Finalist], *,
    health: list[dict[str, float]], says: str, score: str, seconds: float,
) -> Answer:  # fmt: skip
    """The answer of a search that has ended.

    Args:
        plan: What was to be done.
        problem: What was searched.
        arms: Children by arm.
        finalists: The best with fresh seeds.
        health: How the search's sampler was doing, the oldest first.
        says: Why the sampler was chosen.
        score: Name of the score.
        seconds: Wall time.
    """
    best, control, own = (_best(arm, arms.get(arm, []), finalists) for arm in ("search", "control", "own"))
    return Answer(
        {**plan.told(), "evaluations": plan.evaluations, "seconds": plan.seconds, "top": plan.top, "seeds": plan.seeds},
        problem.told, arms, finalists, best, control, own, _difference(control, best, finalists),
        _difference(own, better(best, control), finalists),
        _chance(arms), health, says, score, seconds,
    )  # fmt: skip


def better(one: Finalist | None, other: Finalist | None) -> Finalist | None:
    """The better of two, the one where they are alike; None where there is none."""
    if one is None or other is None:
        return one or other
    judged = all(f.qualities for f in (one, other))
    qualities = [f.quality if judged else f.child.best for f in (one, other)]
    return other if qualities[1] > qualities[0] else one


def _difference(without: Finalist | None, treated: Finalist | None, finalists: Sequence[Finalist]) -> Effect | None:
    """By how much one is better than the other; None where they haven't several seeds each.

    Two or three seeds may agree by chance, so their spread counts as at least half of what all finalists' seeds have on average.
    """
    if without is None or treated is None or min(len(without.qualities), len(treated.qualities)) < 2:
        return None
    several = [list(f.qualities.values()) for f in finalists if len(f.qualities) > 1 and math.isfinite(f.quality)]
    usual = math.sqrt(statistics.fmean(statistics.variance(values) for values in several)) if several else 0.0
    return welch(list(without.qualities.values()), list(treated.qualities.values()), least=max(1e-3, usual / 2))


def _judged(effect: Effect) -> str:
    return "better" if effect.helps else "worse" if effect.high < 0 else "no better"


def _effect(effect: Effect | None) -> dict[str, float] | None:
    return None if effect is None else {"mean": effect.mean, "low": effect.low, "high": effect.high}


def _best(arm: str, children: list[Child], finalists: list[Finalist]) -> Finalist | None:
    own = [f for f in finalists if f.child.arm == arm and math.isfinite(f.quality)]
    if own:
        return max(own, key=lambda f: f.quality)
    first = ranked(children)[:1]
    return Finalist(first[0], ()) if first else None


def ranked(children: Iterable[Child]) -> list[Child]:
    """Children that came to a score: those that came furthest first, and of these the best there."""
    sound = [c for c in children if math.isfinite(c.best)]
    return sorted(sound, key=lambda c: (-c.stage_reached, -c.best, c.number))


def _chance(arms: dict[str, list[Child]]) -> float | None:
    """Chance of children as good as those of the search's later half, were they drawn at random: one-sided Mann-Whitney.

    Source:
        Mann and Whitney 1947, the normal approximation with ties.
    """
    theirs = [c.quality for c in arms.get("control", []) if c.status]
    children = [c for c in arms.get("search", []) if c.status]
    own = [c.quality for c in children[len(children) // 2 :]]
    n, m = len(own), len(theirs)
    if n < 4 or m < 4:
        return None
    u = sum((a > b) + 0.5 * (a == b) for a in own for b in theirs)
    both = own + theirs
    ties = sum(k**3 - k for k in (both.count(v) for v in set(both)))
    variance = n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1)))
    return 1.0 if variance == 0 else 0.5 * math.erfc((u - n * m / 2) / math.sqrt(2 * variance))


def _last(child: Child) -> float:
    """The score of its last training."""
    return list(child.values.values())[-1] if child.values else math.nan


def _child(child: Child) -> dict[str, Any]:
    return {
        "number": child.number, "arm": child.arm, "origin": child.origin, "values": child.point.values, "chosen": str(child.point.chosen),
        "scores": {str(k): v for k, v in child.values.items()}, "score": _last(child), "quality": child.quality,
        "stage": child.stage_reached,
        "whole": child.whole, "status": child.status, "cause": child.cause or None, "seconds": child.seconds, "epochs": child.epochs,
        "parameters": child.parameters, "records": child.records,
    }  # fmt: skip


def _final(finalist: Finalist | None) -> dict[str, Any] | None:
    if finalist is None:
        return None
    return {
        "number": finalist.child.number, "arm": finalist.child.arm, "values": finalist.child.point.values,
        "chosen": str(finalist.child.point.chosen), "scores": {str(k): v for k, v in finalist.values.items()}, "mean": finalist.mean,
    }  # fmt: skip
