"""A sampler whose controller is spread over replicas and shards, and that loses nothing when one of them is lost."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from unstuck._language import say
from unstuck.errors import ClusterError
from unstuck.search.controller import Growth, Mixture, mutation
from unstuck.search.learner import Learner, Lesson, Recipe
from unstuck.search.policy import Policy
from unstuck.search.replicas import Order, Report, bare
from unstuck.search.sampling import Novelty, Proposal, Setting
from unstuck.search.space import Point

_RECENT = 50  # proposals over which repeats and staleness are told
_PATIENCE = 1.0  # seconds that a mutation is held back for a proposal that is on its way
_LIMIT = 180.0  # seconds without a report, after which replicas are taken for lost for good


class Crew(Protocol):
    """Replicas, wherever they are."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def send(self, index: int, order: Order) -> None:
        """Orders something of a replica that isn't busy, and doesn't wait for it."""
        ...

    def reports(self, seconds: float) -> list[tuple[int, Report]]:
        """What has been reported since, and by which replica.

        Args:
            seconds: The longest to wait for the first.
        """
        ...


@dataclass
class _Member:
    """A replica, as far as who leads knows.

    Attributes:
        index: Its number.
        stock: Proposals of it that weren't handed out yet, and after how many updates they were made.
        waiting: Lessons that it is to learn from.
        outstanding: Of its proposals that are under way.
        batches: That it has learned from.
        seen: Lessons that it has been sent.
        order: What it is about.
        since: When it was told.
        report: Its last.
        restarts: How often it has begun anew.
    """

    index: int
    stock: deque[tuple[dict[str, Any], int]] = field(default_factory=deque)
    waiting: list[Lesson] = field(default_factory=list)
    outstanding: int = 0
    batches: int = 0
    seen: int = 0
    order: Order | None = None
    since: float = 0.0
    report: Report | None = None
    restarts: int = 0


@dataclass(frozen=True)
class _Source:
    """Where a proposal is from: after how many updates it was made, by whom, and whether for want of a replica's."""

    updates: int
    member: _Member | None = None
    stands_in: bool = False


@dataclass(frozen=True)
class _Asked:
    own: bool
    source: _Source


class Distributed:
    """Proposes what replicas of a controller draw, and lets each learn from a batch of its own children, asynchronously.

    What must be known of all children is known here: which points have been proposed, so that no replica's proposal is made twice; the
    best, which are mutated; and all lessons, which are given to every replica together with its next batch, so that elites and ranks are
    those of the whole search. Proposals at random and mutations are made here at once. What a replica draws is kept in stock, so that who
    asks rarely waits, but for the first replica to begin; one that has learned replaces its stock. Where all have been busy for a second,
    as a shard that they wait for was lost, a mutation stands in, if the mixture has any.

    With replicas the same seed doesn't give the same proposals again, as that depends on who answers first. So a search that is gone on
    with says what it had asked for (`again`), and then what became of it: these are lessons like others.

    Args:
        setting: What it is made for.
        recipe: How the controller learns; a batch is of the children of one replica.
        mixture: What else is proposed.
        crew: The replicas.
        growth: How decisions that grow do so; None lets the controller decide them.
        reward: Of a quality.

    Source:
        Zoph & Le 2017, section 3.2 and figure 3: there each replica waits for all of its children, and is told of no others.
    """

    def __init__(
        self, setting: Setting, recipe: Recipe, mixture: Mixture, crew: Crew,
        *, growth: Growth | None = None, reward: Callable[[float], float] = float,
    ) -> None:  # fmt: skip
        self._seed, self._space, self._rng = setting.seed, setting.space, Random(setting.seed)
        self._novelty = Novelty(setting.space, self._rng)
        self._best = Learner(Policy(setting.seed, grown=growth is not None), recipe)  # keeps the elites; others learn
        self._recipe, self._mixture, self._reward, self._crew = recipe, mixture, reward, crew
        self._members = [_Member(i) for i in range(crew.size)]
        self._history: list[Lesson] = []
        self._asked: dict[str, _Asked] = {}
        self._source = _Source(0)  # of the latest proposal
        self._updates = self._made = self._orders = self._stand_ins = 0
        self._origins = Counter(controller=0, mutation=0, random=0)
        self._fates = Counter[str]()
        self._push_staleness: list[int] = []
        self._lag: deque[int] = deque(maxlen=_RECENT)
        self._known: deque[bool] = deque(maxlen=_RECENT)
        for member in self._members:
            self._order(member)

    def ask(self) -> Proposal | None:
        """A random point at first, then a mutation or what one of the replicas has drawn.

        Raises:
            ClusterError: No replica has reported for three minutes.
        """  # noqa: DOC502
        self._hear(0.0)
        proposal = self._propose() if self._mixture.repeats else self._novelty.take(self._propose)
        if proposal is not None:
            self._note(proposal, self._source if proposal.origin != "random" else _Source(self._updates))
        return proposal

    def again(self, proposal: Proposal) -> None:
        """Takes note of what was asked for before the search was broken off."""
        self._novelty.note(proposal.point)
        self._note(proposal, _Source(self._updates))

    def tell(self, point: Point, quality: float) -> None:
        """Takes note of it, and gives it to the replica that has proposed it, which learns from it when it has a batch."""
        self._novelty.note(point)
        asked = self._asked.get(point.key)
        reward = self._reward(quality) if math.isfinite(quality) else -math.inf
        lesson = Lesson(point, reward, own=asked is not None and asked.own)
        self._best.observe(lesson)
        lesson = Lesson(bare(point), reward, own=lesson.own)
        self._history.append(lesson)
        member = asked.source.member if asked is not None else None
        if member is not None:
            member.outstanding -= 1
        if asked is not None:
            self._lag.append(self._updates - asked.source.updates)
        member = member or max(self._members, key=lambda m: (len(m.waiting) < self._recipe.batch, len(m.waiting)))
        member.waiting.append(lesson)
        self._hear(0.0)
        if member.order is None and len(member.waiting) >= self._recipe.batch:
            self._order(member)

    def health(self) -> dict[str, float]:
        """How the controller and its replicas and shards are doing; what isn't known yet is left out.

        Returns:
            As of a controller in one process (`Controller.health`), the replicas' latest numbers averaged, and `updates` those of all; and
            `push_staleness` and `push_staleness_max`, how many updates a shard had made between the weights a gradient was made with and
            applying it; how many gradients it has `scaled` or `dropped` as too stale, `repeated` ones that it has left out, and `lost` with
            a checkpoint; `replica_restarts`, `shard_restarts`; `stand_ins`, mutations for want of a replica's proposal.
        """
        self._hear(0.0)
        reports = [m.report for m in self._members if m.report is not None]
        learned = [r for r in reports if math.isfinite(r.entropy)]  # not since they began anew, or all children failed
        entropy, highest = _mean([r.entropy for r in learned]), _mean([r.highest for r in learned])
        latest = max(reports, key=lambda r: sum(r.versions), default=None)
        found = {
            "updates": self._updates,
            "entropy": entropy,
            "highest": highest,
            "entropy_share": entropy / highest if highest else math.nan,
            "repeats": sum(self._known) / max(1, len(self._known)),
            "baseline": _mean([r.baseline[0] for r in learned if r.baseline]),
            "advantage_sd": _mean([r.advantage_sd for r in learned]),
            **{origin: count / max(1, self._made) for origin, count in self._origins.items()},
            "failed": self._best.failed,
            "staleness": _mean(list(self._lag)),
            "push_staleness": _mean(self._push_staleness),
            "push_staleness_max": max(self._push_staleness, default=math.nan),
            **{fate: self._fates[fate] for fate in ("scaled", "dropped", "repeated")},
            "lost": sum(latest.lost) if latest else 0,
            "shard_restarts": max((sum(r.restarts) for r in reports), default=0),
            "replica_restarts": sum(m.restarts for m in self._members),
            "stand_ins": self._stand_ins,
        }
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}

    # ------------------------------------------------------------------ what is proposed

    def _note(self, proposal: Proposal, source: _Source) -> None:
        own = proposal.origin == "controller" or self._made < self._mixture.first
        self._made += 1
        self._origins[proposal.origin] += 1
        self._stand_ins += source.stands_in
        if source.member is not None:
            source.member.outstanding += 1
        self._asked[proposal.point.key] = _Asked(own, source)

    def _propose(self) -> Proposal:
        self._source = _Source(self._updates)
        if self._made < self._mixture.first:
            return Proposal(self._space.random(self._rng), "random")
        if self._best.elites and self._rng.random() < self._mixture.mutations:
            return self._mutation()
        return self._draw()

    def _mutation(self) -> Proposal:
        elites, slide = self._best.elites, self._mixture.slide
        return Proposal(mutation(self._space, elites, self._novelty.seen, self._rng, slide=slide), "mutation")

    def _draw(self) -> Proposal:
        """What a replica has drawn.

        Raises:
            ClusterError: None has reported for too long.
        """
        began = time.perf_counter()
        while (member := self._stocked()) is None:
            for idle in (m for m in self._members if m.order is None):
                self._order(idle)
            now = time.perf_counter()
            waited = now - began
            busy = min(now - m.since if m.order is not None else 0.0 for m in self._members)
            if waited > _LIMIT:
                raise ClusterError(
                    say(
                        "no replica of the controller has answered for {waited:.0f} s: look after the Ray cluster, then "
                        "resume",
                        waited=waited,
                    )
                )
            begun = any(m.report is not None for m in self._members)
            if begun and self._mixture.mutations and self._best.elites and max(waited, busy) > _PATIENCE:
                self._source = _Source(self._updates, stands_in=True)
                return self._mutation()
            self._hear(_PATIENCE)
        values, updates = member.stock.popleft()
        if not member.stock and member.order is None:
            self._order(member)
        point = self._space.at(values)
        self._known.append(point.key in self._novelty.seen)
        self._source = _Source(updates, member)
        return Proposal(point, "controller")

    def _stocked(self) -> _Member | None:
        """A replica that has proposals, but no batches to learn from first: the one with the fewest children, then the latest weights."""
        able = [m for m in self._members if m.stock and len(m.waiting) < 2 * self._recipe.batch]
        return max(able, key=lambda m: (-m.outstanding, m.stock[0][1], -m.index), default=None)

    # ------------------------------------------------------------------ replicas

    def _order(self, member: _Member) -> None:
        size = self._recipe.batch
        batch = member.waiting[:size] if len(member.waiting) >= size else []
        behind = len(member.waiting) - len(batch) >= size  # it learns from all before it proposes
        self._orders += 1
        member.since = time.perf_counter()
        member.order = Order(
            member.seen, self._history[member.seen :], batch, member.batches + 1 if batch else 0, 0 if behind else self._wanted(),
            len(self._history), f"{self._seed}/{self._orders}/{len(self._history)}", member.report and member.report.baseline,
        )  # fmt: skip
        self._crew.send(member.index, member.order)

    def _wanted(self) -> int:
        """Proposals: a batch of new ones, as far as the latest tell."""
        new = 1.0 - sum(self._known) / max(1, len(self._known))
        return math.ceil(self._recipe.batch / max(0.125, new))

    def _hear(self, seconds: float) -> None:
        """Takes in what has been reported, and orders what follows from it."""
        for index, report in self._crew.reports(seconds):
            member = self._members[index]
            self._take(member, report)
            if member.order is None and len(member.waiting) >= self._recipe.batch:
                self._order(member)

    def _take(self, member: _Member, report: Report) -> None:
        order, before = member.order, member.report
        assert order is not None
        member.order, member.seen = None, report.seen
        if report.refused:
            self._order(member)
            return
        member.restarts += before is not None and before.born != report.born
        member.report = report
        if order.batch:
            del member.waiting[: len(order.batch)]
            member.batches += 1
            self._updates += 1
        for pushed in report.pushed:
            self._fates[pushed.fate] += 1
            if pushed.fate != "repeated":
                self._push_staleness.append(pushed.staleness)
        if order.wanted:
            member.stock = deque((values, self._updates) for values in report.proposals)


def _mean(values: list[float] | list[int]) -> float:
    return sum(values) / len(values) if values else math.nan
