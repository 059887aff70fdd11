"""What proposes points of a space, and is told how good they were.

A sampler is asked for a point whenever there is room for a child, also while others are under way, and told of each that has ended, in the
order in which they end. Given the same seed and the same asking and telling it proposes the same: so a search that was broken off is gone
on with by asking and telling anew what its journal says.
One that can't, as it is spread over processes that don't wait for each other, has a method `again(proposal)` besides: it is called
instead of `ask` with what the journal says was asked for.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from unstuck.search.space import Point, Space

TRIES = 64  # for a point that hasn't been proposed before


@dataclass(frozen=True)
class Setting:
    """What a sampler is made for.

    Attributes:
        space: To be searched.
        seed: Of its random numbers.
        evaluations: How many there will be, None where only time ends the search.
        workers: Children at a time.
        score: Name of what is told: "accuracy", "perplexity", "" where it isn't known.
        folder: Of the search, None where it has none.
    """

    space: Space
    seed: int = 0
    evaluations: int | None = None
    workers: int = 1
    score: str = ""
    folder: Path | None = None


@dataclass(frozen=True)
class Proposal:
    """A point that is proposed.

    Attributes:
        point: It.
        origin: How it came about: "random", "neighbour", "mutation", "model", "controller".
    """

    point: Point
    origin: str


class Sampler(Protocol):
    """Proposes points."""

    def ask(self) -> Proposal | None:
        """A point that hasn't been asked for or told before; None where there is none left."""
        ...

    def tell(self, point: Point, quality: float) -> None:
        """How good a point was.

        Args:
            point: It; also one that was never asked for.
            quality: The higher the better; minus infinity where it failed.
        """
        ...

    def health(self) -> dict[str, float]:
        """Numbers that say how the sampler is doing, by name; none where there is nothing to say."""
        ...


@dataclass
class Novelty:
    """Keeps a sampler from proposing a point twice.

    Attributes:
        space: It is of.
        rng: Draws points where those proposed are all known.
        seen: Keys of what has been proposed or told.
        repeats: How many proposals were dropped, as they had been made before.
        proposals: How many were made, dropped ones included.
    """

    space: Space
    rng: random.Random
    seen: set[str] = field(default_factory=set)
    repeats: int = 0
    proposals: int = 0
    _rest: Iterator[Point] | None = None

    def take(self, propose: Callable[[], Proposal | None], *, tries: int = TRIES) -> Proposal | None:
        """The first new point of several tries, else a random one, else any that is left.

        Args:
            propose: Makes a proposal; None where it has none to make.
            tries: Of it.
        """
        for _ in range(tries):
            proposal = propose()
            if proposal is None:
                break
            self.proposals += 1
            if self._new(proposal.point):
                return proposal
            self.repeats += 1
        for _ in range(TRIES):
            point = self.space.random(self.rng)
            if self._new(point):
                return Proposal(point, "random")
        self._rest = self._rest or self.space.all()
        point = next((p for p in self._rest if self._new(p)), None)
        return None if point is None else Proposal(point, "random")

    def note(self, point: Point) -> None:
        """Takes note of a point that somebody else proposed."""
        self.seen.add(point.key)

    def _new(self, point: Point) -> bool:
        if point.key in self.seen:
            return False
        self.seen.add(point.key)
        return True


def finite(quality: float, worst: float) -> float:
    """A quality to go on with: that of what failed is as bad as the worst there was."""
    return quality if math.isfinite(quality) else worst
