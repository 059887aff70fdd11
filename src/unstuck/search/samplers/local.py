"""Local search."""

from __future__ import annotations

import math
from random import Random

from unstuck.search.sampling import Novelty, Proposal, Sampler, Setting
from unstuck.search.space import Point


def local(setting: Setting, *, starts: int = 5) -> Sampler:
    """Local search: the neighbours of the best point, one after the other; a better one is the best from then on.

    A climb begins at the best of a few random points. Neighbours differ by one decision, and come in random order. The first that is
    better is moved to; where none is, the top of a hill is reached, and another climb begins. Simple and hard to beat for up to some
    hundred points where few decisions matter; what is good by luck of its seed stops a climb early.

    Where children are under way while others end, all it has asked for are neighbours of the best as it was then: a point counts if it is
    better than that one too. A climb whose neighbours are all under way isn't waited for, the next one begins.

    Source:
        White, Nolen & Savani 2021, Exploring the loss landscape in neural architecture search (local search as "query until improvement").
        Departs from it in that climbs are repeated, that they begin at the best of several points, and that no point is asked for twice.

    Args:
        setting: What it is made for.
        starts: Random points at the best of which a climb begins.

    Returns:
        The sampler.
    """
    return _Local(setting, starts)


class _Local:
    def __init__(self, setting: Setting, starts: int) -> None:
        self._space = setting.space
        self._rng = Random(setting.seed)
        self._novelty = Novelty(setting.space, self._rng)
        self._starts = starts
        self._climbs = 0
        self._begin()
        self._to_beat: dict[str, float] = {}  # of each point under way: the best of its climb when it was asked for

    def ask(self) -> Proposal | None:
        """A start, or a neighbour of the best."""
        proposal = self._novelty.take(self._propose)
        if proposal is not None:
            self._to_beat[proposal.point.key] = self._quality
        return proposal

    def tell(self, point: Point, quality: float) -> None:
        """Moves there where it is better than the best, and than what was the best when it was asked for."""
        self._novelty.note(point)
        before = self._to_beat.pop(point.key, -math.inf)
        if quality > max(self._quality, before):
            self._best, self._quality = point, quality
            self._near = self._space.neighbours(point, self._rng)

    def health(self) -> dict[str, float]:
        """How many climbs there were."""
        return {"climbs": self._climbs}

    def _propose(self) -> Proposal:
        if self._best is not None and self._left <= 0:
            while self._near:
                point = self._near.pop()
                if point.key not in self._novelty.seen:
                    return Proposal(point, "neighbour")
            self._begin()
        self._left -= 1
        return Proposal(self._space.random(self._rng), "random")

    def _begin(self) -> None:
        self._climbs += 1
        self._left = self._starts
        self._best: Point | None = None
        self._quality = -math.inf
        self._near: list[Point] = []
