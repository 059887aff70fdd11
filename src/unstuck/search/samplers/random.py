"""Random search."""

from __future__ import annotations

from random import Random

from unstuck.search.sampling import Novelty, Proposal, Sampler, Setting
from unstuck.search.space import Point


def random(setting: Setting) -> Sampler:
    """Random search: every decision by itself at random, and no point twice.

    It learns nothing from what it is told, so it is what every other method must beat, and it needs no order: any number of children may
    be under way. Where the best of a few hundred points is good enough, few methods are much better.

    Source:
        Bergstra & Bengio 2012, Random search for hyper-parameter optimization. Departs from it in that no point is drawn twice.

    Args:
        setting: What it is made for.

    Returns:
        The sampler.
    """
    return _Random(setting)


class _Random:
    def __init__(self, setting: Setting) -> None:
        self._space = setting.space
        self._novelty = Novelty(setting.space, Random(setting.seed))

    def ask(self) -> Proposal | None:
        """A point at random."""
        return self._novelty.take(self._propose)

    def tell(self, point: Point, quality: float) -> None:
        """Takes note that the point is known."""
        self._novelty.note(point)

    def health(self) -> dict[str, float]:
        """Nothing can go wrong."""
        return {}

    def _propose(self) -> Proposal:
        return Proposal(self._space.random(self._novelty.rng), "random")
