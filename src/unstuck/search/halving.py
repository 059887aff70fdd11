"""Which children go on: successive halving.

A child is trained for a few epochs, and goes on from there to some times as many only when it is among the best of those that have come as
far. So most of the time goes to those that may win.

Where it is known how many children there will be, a stage is over when all have come to its end, and then the best of them go on, which
wastes nothing (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification"). Where only time ends a search, nobody waits: a child
goes on as soon as it is among the best of those so far (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning",
algorithm 2), which takes some epochs more, and has an answer at any time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

FIRST = 3  # epochs: after fewer, ranks say little of how they will be at the end
ETA = 3


def stages(epochs: int, *, first: int = FIRST, eta: int = ETA) -> tuple[int, ...]:
    """After how many epochs a training is compared with others.

    Args:
        epochs: That it has.
        first: Of the first stage.
        eta: Each stage has so many times the epochs of the one before; the last, what is left, at least half of that.

    Returns:
        Epochs, the last all of them.

    Example:
        >>> stages(81), stages(10), stages(2)
        ((3, 9, 27, 81), (3, 10), (2,))
    """
    found = []
    while first * (1 + eta) / 2 <= epochs:
        found.append(first)
        first *= eta
    return (*found, epochs)


@dataclass
class Halving:
    """Says who goes on.

    Attributes:
        eta: One of so many goes on.
        reached: Qualities, by stage and child.
        gone: Children that have gone on, by stage.
    """

    eta: int = ETA
    reached: list[dict[int, float]] = field(default_factory=list)
    gone: list[set[int]] = field(default_factory=list)

    def note(self, child: int, stage: int, quality: float) -> None:
        """A child has come to the end of a stage that isn't its last.

        Args:
            child: Its number.
            stage: From 0 on.
            quality: How good it is, the higher the better; minus infinity where it is not to go on in any case.
        """
        while len(self.reached) <= stage:
            self.reached.append({})
            self.gone.append(set())
        self.reached[stage][child] = quality

    def went_on(self, child: int, stage: int) -> None:
        """A child has been let on from a stage."""
        self.gone[stage].add(child)

    def next(self, *, over: float | None = None) -> tuple[int, int] | None:
        """Who may go on, from which stage.

        Args:
            over: So many stages are over, when all that may go on from those before have done so: of these one in `eta` goes on, however
                few there are, and the earliest stage comes first. None where none waits for its end: then the latest does.
        """
        several = range(len(self.reached))
        for stage in reversed(several) if over is None else several:
            if over is not None and stage >= over:
                return None
            places = len(self.reached[stage]) / self.eta
            ranked = sorted(self.reached[stage].items(), key=lambda item: -item[1])
            for child, quality in ranked[: int(places) if over is None else math.ceil(places)]:
                if child not in self.gone[stage] and quality > -math.inf:
                    return child, stage
        return None
