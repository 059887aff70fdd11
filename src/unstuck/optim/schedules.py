"""Learning rates by step: each schedule is a function from the number of updates made to a factor of the rate.

    scheduler(optimizer, WarmUp(500, then=Cosine(10_000)))

Schedules know no optimizer: they are small frozen dataclasses that can be called, plotted, compared and pickled. Any function of the step
will do in their place. `unstuck.optim.scheduler` makes torch's kind of schedule of one.

| | factor at step t |
|---|---|
| `Constant` | always the same |
| `Step`, `Steps` | lower by a factor every so many steps, or at given ones |
| `Exponential` | factorᵗ |
| `InverseTime` | 1 / (1 + t/steps)ᵖ; with p = 1/2 the inverse square root |
| `Polynomial` | falls as (1 - t/steps)ᵖ; linearly with p = 1 |
| `Cosine`, `CosineRestarts` | falls along half a cosine, once or again and again |
| `OneCycle` | rises to 1 and falls far below where it began; momentum goes the other way |
| `WarmUp`, `Hold` | rises to, or stays at, where another schedule begins, which follows |

Those that come to an end hold their last value. What goes by how the training fares is `scheduler.WarmUpPlateau`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

from unstuck.errors import MisuseError

Schedule = Callable[[int], float]
Shape = Literal["linear", "exponential"]


@dataclass(frozen=True)
class Constant:
    """The same factor at every step.

    Args:
        factor: Of the rate.
    """

    factor: float = 1.0

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return self.factor


@dataclass(frozen=True)
class Step:
    """Lower by a factor every so many steps, as torch's `StepLR`.

    Args:
        every: Steps from one fall to the next.
        factor: What is left of the rate at each.

    Raises:
        MisuseError: `every` isn't a whole number from 1 on.

    Example:
        >>> [Step(2, 0.5)(t) for t in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check_count("every", self.every)

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return self.factor ** (step // self.every)


@dataclass(frozen=True)
class Steps:
    """Lower by a factor at each of some steps, as torch's `MultiStepLR`.

    Args:
        at: Numbers of steps, ascending.
        factor: What is left of the rate at each.

    Raises:
        MisuseError: `at` doesn't ascend.
    """

    at: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        if list(self.at) != sorted(self.at):
            raise MisuseError(f"at is {self.at}, but must ascend")

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return self.factor ** bisect_right(self.at, step)


@dataclass(frozen=True)
class Exponential:
    """Lower by the same factor at every step, as torch's `ExponentialLR`.

    Args:
        factor: What is left of the rate at each step.
        floor: It falls no further than to this.
    """

    factor: float
    floor: float = 0.0

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return max(self.factor**step, self.floor)


@dataclass(frozen=True)
class InverseTime:
    """Falls as 1 / (1 + t/steps)ᵖ.

    With p above 1/2 and up to 1 the rates sum to infinity and their squares don't: that is what it takes for SGD to settle in spite of
    the noise of its gradients (Robbins & Monro 1951). With p = 1 the variance then falls as 1/t if `learning_rate * steps` is above
    1/(2h), where h is the least curvature, and slower if not (Bottou et al. 2018, theorem 4.7, asks for 1/h).

    Args:
        steps: After these it has fallen to a half, where p is 1.
        power: p.

    Raises:
        MisuseError: `steps` isn't a whole number from 1 on.

    Example:
        >>> [InverseTime(10)(t) for t in (0, 10, 30)]
        [1.0, 0.5, 0.25]
    """

    steps: int
    power: float = 1.0

    def __post_init__(self) -> None:
        _check_count("steps", self.steps)

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return (1 + step / self.steps) ** -self.power


@dataclass(frozen=True)
class Polynomial:
    """Falls from 1 to the floor as (1 - t/steps)ᵖ; in a straight line with a power of 1. As torch's `PolynomialLR` and `LinearLR`.

    Args:
        steps: After these it is at the floor.
        power: p.
        floor: What it falls to.

    Raises:
        MisuseError: `steps` isn't a whole number from 1 on.

    Example:
        >>> [Polynomial(4, floor=0.5)(t) for t in (0, 2, 4, 5)]
        [1.0, 0.75, 0.5, 0.5]
    """

    steps: int
    power: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_count("steps", self.steps)

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return self.floor + (1 - self.floor) * (1 - min(step / self.steps, 1.0)) ** self.power


@dataclass(frozen=True)
class Cosine:
    """Falls from 1 to the floor along half a cosine, as torch's `CosineAnnealingLR`, and stays there, which that doesn't.

    Args:
        steps: After these it is at the floor.
        floor: What it falls to.

    Raises:
        MisuseError: `steps` isn't a whole number from 1 on.

    Source: Loshchilov & Hutter 2017, eq. 5, without restarts.

    Example:
        >>> [round(Cosine(100, floor=0.1)(t), 3) for t in (0, 50, 100, 200)]
        [1.0, 0.55, 0.1, 0.1]
    """

    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_count("steps", self.steps)

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return _between(1.0, self.floor, min(step / self.steps, 1.0))


@dataclass(frozen=True)
class CosineRestarts:
    """Falls along half a cosine and jumps back up, again and again, as torch's `CosineAnnealingWarmRestarts`.

    Args:
        steps: Length of the first fall.
        growth: How many times as long each fall is as the one before, a whole number.
        floor: What it falls towards.
        peak: What is left of the height, above the floor, at each restart; 1 in the paper.

    Raises:
        MisuseError: `steps` or `growth` isn't a whole number from 1 on.

    Source: Loshchilov & Hutter 2017, eq. 5.
    """

    steps: int
    growth: int = 1
    floor: float = 0.0
    peak: float = 1.0

    def __post_init__(self) -> None:
        _check_count("steps", self.steps)
        _check_count("growth", self.growth)

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        restarts, length = 0, self.steps
        if self.growth == 1:
            restarts, step = divmod(step, length)
        else:
            while step >= length:
                restarts, step, length = restarts + 1, step - length, length * self.growth
        top = self.floor + (1 - self.floor) * self.peak**restarts
        return _between(top, self.floor, step / length)


@dataclass(frozen=True)
class OneCycle:
    """Rises to 1 and then falls far below where it began, as torch's `OneCycleLR`: the optimizer's rate is the highest.

    The first of `steps` updates is made with the factor `start` and the last with `end`, which it stays at.

    Args:
        steps: Updates of the whole cycle, at least 2.
        rise: Share of them in which it rises.
        start: Factor of the first.
        end: Factor of the last.
        shape: Along half a "cosine", or "linear".

    Raises:
        MisuseError: Fewer than 2 steps, a rise of no more than one step or of all, or another shape.

    Source: Smith 2018, section 5; the cosine is from fast.ai, and so are 0.3, 1/25 and 1e-4 times that.
    """

    steps: int
    rise: float = 0.3
    start: float = 1 / 25
    end: float = 1 / 25 * 1e-4
    shape: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        _check_count("steps", self.steps, least=2)
        if not 1 < self.rise * self.steps < self.steps:
            raise MisuseError(
                f"rise is {self.rise}, but must be a share of the {self.steps} steps: more than one of them, and less than all"
            )
        if self.shape not in ("cosine", "linear"):
            raise MisuseError(f'shape is {self.shape!r}, but must be "cosine" or "linear"')

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return self.value(step, self.start, 1.0, self.end)

    def value(self, step: int, first: float, middle: float, last: float) -> float:
        """What goes with the cycle from a first value to another at the top and a last one.

        Args:
            step: Updates made.
            first: Before the first.
            middle: At the highest rate.
            last: At the last update and behind it.

        Returns:
            The value.
        """
        top, bottom = self.rise * self.steps - 1, self.steps - 1
        way = _between if self.shape == "cosine" else _straight
        if step <= top:
            return way(first, middle, step / top)
        return way(middle, last, (min(step, bottom) - top) / (bottom - top))

    def momentum(self, low: float = 0.85, high: float = 0.95) -> CycledMomentum:
        """The momentum that goes with it: low where the rate is high, as `scheduler(…, momentum=…)` takes it.

        Args:
            low: At the highest rate.
            high: At the lowest rates.

        Returns:
            Momentum by step.
        """
        return CycledMomentum(self, low, high)


@dataclass(frozen=True)
class CycledMomentum:
    """Momentum by step, against the rate of a cycle: high, low, high.

    Args:
        cycle: The cycle.
        low: At its highest rate.
        high: At its lowest rates.
    """

    cycle: OneCycle
    low: float
    high: float

    def __call__(self, step: int) -> float:
        """The momentum at a step."""
        return self.cycle.value(step, self.high, self.low, self.high)


@dataclass(frozen=True)
class WarmUp:
    """Rises to where another schedule begins, which follows then, counted from there.

    Args:
        steps: Updates until the other begins; 0 for none.
        then: What follows.
        start: Factor of the first update, above 0: an update at no rate would be a lost one.
        shape: "linear", or "exponential": by the same factor at each step.

    Raises:
        MisuseError: Fewer than 0 steps, `start` isn't above 0 and up to 1, or the shape is another.

    Source: Goyal et al. 2017, section 2.2 ("gradual warmup").

    Example:
        >>> [round(WarmUp(4, start=0.2, then=Step(2, 0.5))(t), 3) for t in range(7)]
        [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.5]
    """

    steps: int
    then: Schedule = Constant()
    start: float = 0.01
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        _check_count("steps", self.steps, least=0)
        if not 0 < self.start <= 1:
            raise MisuseError(f"start is {self.start}, but must be above 0 and at most 1")
        if self.shape not in ("linear", "exponential"):
            raise MisuseError(f'shape is {self.shape!r}, but must be "linear" or "exponential"')

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        if step >= self.steps:
            return self.then(step - self.steps)
        way = step / self.steps
        rising = _straight(self.start, 1.0, way) if self.shape == "linear" else self.start ** (1 - way)
        return rising * self.then(0)


@dataclass(frozen=True)
class Hold:
    """Stays where another schedule begins, which follows then: `WarmUp(500, then=Hold(8000, then=Polynomial(1500)))` is a trapezoid.

    Args:
        steps: Updates until the other begins.
        then: What follows.

    Raises:
        MisuseError: Fewer than 0 steps.
    """

    steps: int
    then: Schedule = Constant()

    def __post_init__(self) -> None:
        _check_count("steps", self.steps, least=0)

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return self.then(max(step - self.steps, 0))


def _between(high: float, low: float, way: float) -> float:
    """Along half a cosine from one to the other."""
    return low + (high - low) * (1 + math.cos(math.pi * way)) / 2


def _straight(first: float, last: float, way: float) -> float:
    return first + (last - first) * way


def _check_count(name: str, count: Any, *, least: int = 1) -> None:
    if not isinstance(count, Integral) or count < least:
        raise MisuseError(f"{name} is {count!r}, but must be a whole number from {least} on")
