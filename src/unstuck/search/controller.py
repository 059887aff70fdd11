"""A sampler that is a controller, trained by what it is told."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random

from unstuck.search.learner import Adam, Learner, Lesson, Recipe
from unstuck.search.policy import Policy
from unstuck.search.sampling import Novelty, Proposal, Setting
from unstuck.search.space import Point, Range, Space

_RECENT = 50  # proposals over which repeats are counted
_TRIES = 16  # for a mutation by one decision that is new


@dataclass(frozen=True)
class Mixture:
    """What is proposed beside what the controller draws.

    Attributes:
        first: How many points are drawn at random at first. The controller has learned nothing then, and they count as its own.
        mutations: Share of proposals that are mutations of elites.
        slide: The best elite is the parent, with this probability rather the next, with its square the one after it.
        repeats: Points may be proposed again.
    """

    first: int = 0
    mutations: float = 0.0
    slide: float = 0.5
    repeats: bool = False


@dataclass(frozen=True)
class Growth:
    """How a number of parts grows with the search.

    Attributes:
        step: Parts more at a time.
        every: After as many children.
    """

    step: int
    every: int

    def at(self, decision: Range, told: int) -> float:
        """The number of parts after some children, at most what the space allows."""
        return min(decision.high, decision.low + self.step * (told // self.every))


@dataclass(frozen=True)
class _Asked:
    origin: str
    own: bool
    updates: int  # that the controller had made


class Controller:
    """Proposes what a recurrent network draws, and makes an update after each batch of what it is told.

    Children may end in any order. Points that it was told without having asked for them are like mutations: they may become elites and
    are imitated then, but don't enter the policy gradient, as their probability says nothing about a decision that it took.

    Args:
        setting: What it is made for.
        recipe: How the controller learns.
        mixture: What else is proposed.
        growth: How decisions that grow do so; None lets the controller decide them.
        reward: Of a quality.

    Attributes:
        policy: The controller.
        learner: Its gradients, baseline and elites.
    """

    def __init__(
        self,
        setting: Setting,
        recipe: Recipe,
        mixture: Mixture,
        *,
        growth: Growth | None = None,
        reward: Callable[[float], float] = float,
    ) -> None:
        self.policy = Policy(setting.seed, grown=growth is not None)
        self.learner = Learner(self.policy, recipe)
        self._space, self._rng = setting.space, Random(setting.seed)
        self._novelty = Novelty(setting.space, self._rng)
        self._adam = Adam(recipe.rate)
        self._mixture, self._growth, self._reward = mixture, growth, reward
        self._asked: dict[str, _Asked] = {}
        self._lessons: list[Lesson] = []
        self._updates = self._told = self._made = 0
        self._origins = {"controller": 0, "mutation": 0, "random": 0}
        self._known: deque[bool] = deque(maxlen=_RECENT)
        self._staleness: deque[int] = deque(maxlen=_RECENT)

    def ask(self) -> Proposal | None:
        """A random point at first, then a mutation or what the controller draws."""
        first = self._made < self._mixture.first
        proposal = self._propose() if self._mixture.repeats else self._novelty.take(self._propose)
        if proposal is not None:
            self._made += 1
            self._origins[proposal.origin] += 1
            own = proposal.origin == "controller" or first
            self._asked[proposal.point.key] = _Asked(proposal.origin, own, self._updates)
        return proposal

    def tell(self, point: Point, quality: float) -> None:
        """Takes note of it, and makes an update where a batch is full."""
        self._novelty.note(point)
        self._told += 1
        asked = self._asked.get(point.key)
        if asked is not None:
            self._staleness.append(self._updates - asked.updates)
        reward = self._reward(quality) if math.isfinite(quality) else -math.inf
        lesson = Lesson(point, reward, own=asked is not None and asked.own)
        self.learner.observe(lesson)
        self._lessons.append(lesson)
        if len(self._lessons) >= self.learner.recipe.batch:
            self._adam.step(self.policy.tensors, self.learner.gradient(self._lessons))
            self._lessons = []
            self._updates += 1

    def health(self) -> dict[str, float]:
        """How the controller is doing; what isn't known yet is left out.

        Returns:
            `updates`; `entropy` and `highest`, that of chance, nats; `entropy_share` of the highest; `repeats`, share of known points
            among the latest that the controller drew; `baseline` and `advantage_sd`, in units of the reward, or of its rank;
            `controller`, `mutation` and `random`, shares of all proposals; `failed` children; `staleness`, how many updates there were
            between a proposal and its result, mean of the latest.
        """
        learner, made = self.learner, max(1, self._made)
        found = {
            "updates": self._updates,
            "entropy": learner.entropy,
            "highest": learner.highest,
            "entropy_share": learner.entropy / learner.highest if learner.highest else math.nan,
            "repeats": sum(self._known) / max(1, len(self._known)),
            "baseline": math.nan if learner.baseline.mean is None else learner.baseline.mean,
            "advantage_sd": learner.advantage_sd,
            **{origin: count / made for origin, count in self._origins.items()},
            "failed": learner.failed,
            "staleness": sum(self._staleness) / max(1, len(self._staleness)),
        }
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}

    def _propose(self) -> Proposal:
        if self._made < self._mixture.first:
            return Proposal(self._space.random(self._rng), "random")
        if self.learner.elites and self._rng.random() < self._mixture.mutations:
            elites, slide = self.learner.elites, self._mixture.slide
            return Proposal(mutation(self._space, elites, self._novelty.seen, self._rng, slide=slide), "mutation")
        point = self.policy.propose(self._space, self._rng, depth=self._depth)
        self._known.append(point.key in self._novelty.seen)
        return Proposal(point, "controller")

    def _depth(self, decision: Range) -> float:
        assert self._growth is not None
        return self._growth.at(decision, self._told)


def mutation(space: Space, elites: Sequence[Lesson], seen: Collection[str], rng: Random, *, slide: float) -> Point:
    """One of the elites, rather a better, with one decision made otherwise; where many such are known already, some steps away from it.

    Args:
        space: It is of.
        elites: Best first; at least one.
        seen: Keys of points that are known.
        rng: Draws.
        slide: The best is the parent, with this probability rather the next, with its square the one after it.

    Returns:
        A point that isn't known, if some tries find any.
    """
    i = 0
    while i + 1 < len(elites) and rng.random() < slide:
        i += 1
    parent = elites[i].point
    point = space.mutated(parent, rng)
    for tries in range(1, 2 * _TRIES):
        if point.key not in seen:
            break
        point = space.mutated(parent if tries < _TRIES else point, rng)
    return point
