"""A replica of the controller: draws proposals, and makes gradients of what became of them.

Whoever leads the search sends orders, one after the other, and has a report of each. An order tells how many lessons the replica ought to
have seen; one that has seen fewer, as its process was lost and began anew, refuses it and says so, and gets them all. So nothing that a
replica knows is lost with it: the weights are with the shards (`shards`), the lessons with who leads (`distributed`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from unstuck.search.controller import Growth
from unstuck.search.learner import Learner, Lesson, Recipe
from unstuck.search.policy import Policy
from unstuck.search.shards import Exchanged, Pushed, Shards
from unstuck.search.space import Point, Range, Space


@dataclass(frozen=True)
class Order:
    """What a replica is to do: to learn from a batch, if there is one, and then to propose.

    Attributes:
        after: Lessons that it has been sent before.
        lessons: Those since then, of all replicas.
        batch: Of these and earlier ones, those that it makes a gradient of; none, or as many as the recipe says.
        number: Of this replica's batches, from 1; a batch that is ordered again keeps its number.
        wanted: Proposals.
        told: Children that have ended, by which parts grow.
        seed: Of the proposals.
        baseline: Mean and variance that it goes on with when it has none: those it reported last.
    """

    after: int
    lessons: Sequence[Lesson] = ()
    batch: Sequence[Lesson] = ()
    number: int = 0
    wanted: int = 0
    told: int = 0
    seed: str = ""
    baseline: tuple[float, float] | None = None


@dataclass(frozen=True)
class Report:
    """What came of an order.

    Attributes:
        born: Another after the replica has begun anew.
        seen: Lessons that it has been sent.
        refused: That was another number than the order said, and nothing was done.
        proposals: Values of the points by name.
        pushed: What became of the gradient, by shard.
        versions, restarts, lost: Of the shards.
        baseline: Mean and variance, None before the first batch.
        advantage_sd, entropy, highest: See `Learner`.
    """

    born: str
    seen: int
    refused: bool = False
    proposals: list[dict[str, Any]] = field(default_factory=list)
    pushed: list[Pushed] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    baseline: tuple[float, float] | None = None
    advantage_sd: float = 0.0
    entropy: float = 0.0
    highest: float = 0.0


class Replica:
    """A copy of the controller.

    Its gradients are made with the weights that it drew its latest proposals with, also when others have changed them since.

    Args:
        index: Which of the replicas it is.
        space: That proposals are of.
        seed: Of the controller's weights.
        recipe: How it learns.
        growth: How decisions that grow do so; None lets the controller decide them.
        shards: Where the weights are.
    """

    def __init__(
        self, index: int, space: Space, seed: int, recipe: Recipe, growth: Growth | None, shards: Shards
    ) -> None:
        self.index = index
        self.policy = Policy(seed, grown=growth is not None)
        self.learner = Learner(self.policy, recipe)
        self._space, self._growth, self._shards = space, growth, shards
        self._born, self._seen = uuid.uuid4().hex, 0
        self._exchange()

    def work(self, order: Order) -> Report:
        """Does what is ordered."""
        if order.after != self._seen:
            return Report(self._born, self._seen, refused=True)
        self._observe(order)
        gradient = self.learner.gradient(order.batch) if order.batch else {}
        exchanged = self._exchange(gradient, order.number)
        learner, baseline = self.learner, self.learner.baseline
        return Report(
            self._born, self._seen, False, self._proposals(order), exchanged.pushed,
            exchanged.versions, exchanged.restarts, exchanged.lost,
            None if baseline.mean is None else (baseline.mean, baseline.variance),
            learner.advantage_sd, learner.entropy, learner.highest,
        )  # fmt: skip

    def _observe(self, order: Order) -> None:
        for lesson in order.lessons:
            self.learner.observe(lesson)
        self._seen += len(order.lessons)
        baseline = self.learner.baseline
        if baseline.mean is None and order.baseline is not None:
            baseline.mean, baseline.variance = order.baseline

    def _exchange(self, gradient: dict[str, Any] | None = None, number: int = 0) -> Exchanged:
        shapes = {name: tuple(tensor.shape) for name, tensor in self.policy.tensors.items()}
        exchanged = self._shards.exchange(shapes, gradient, replica=self.index, number=number)
        self.policy.load(exchanged.weights)
        return exchanged

    def _proposals(self, order: Order) -> list[dict[str, Any]]:
        rng = Random(order.seed)

        def depth(decision: Range) -> float:
            assert self._growth is not None
            return self._growth.at(decision, order.told)

        return [self.policy.propose(self._space, rng, depth=depth).values for _ in range(order.wanted)]


def bare(point: Point) -> Point:
    """A point without what the space made of it, which another process may not be able to take."""
    return Point(point.values, point.decisions, None, point.key)
