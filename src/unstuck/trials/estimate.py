"""Effects from pairs of runs, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unstuck._student import quantile


@dataclass(frozen=True)
class Effect:
    """What a treatment does to a score, from paired runs.

    Attributes:
        mean: Mean difference.
        low, high: Its interval, 95% of such intervals hold the true one.
        pairs: Number of pairs.
    """

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def helps(self) -> bool:
        """Whether it is above zero beyond noise."""
        return self.low > 0


def paired(without: Sequence[float], treated: Sequence[float], *, least: float = 1e-3) -> Effect:
    """The effect from pairs: Student's interval over the differences.

    A few pairs may agree by chance to the last digit, so their spread counts as at least `least`.

    Args:
        without: Scores without the treatment.
        treated: Scores with it, of the same seeds, in the same order.
        least: Smallest standard deviation of a difference that is believed.

    Returns:
        The effect; infinitely unsure from fewer than two pairs.

    Example:
        >>> effect = paired([0.1, 0.2, 0.1], [0.9, 0.9, 0.8])
        >>> round(effect.mean, 3), effect.helps
        (0.733, True)
    """
    with np.errstate(invalid="ignore"):  # infinity less infinity
        differences = np.asarray(treated, float) - np.asarray(without, float)
        count, mean = len(differences), float(differences.mean()) if len(differences) else math.nan
    if count < 2 or not np.isfinite(differences).all():
        return Effect(mean, -math.inf, math.inf, count)
    spread = max(float(differences.std(ddof=1)), least)
    half = quantile(count - 1) * spread / math.sqrt(count)
    return Effect(mean, mean - half, mean + half, count)


def welch(without: Sequence[float], treated: Sequence[float], *, least: float = 1e-3) -> Effect:
    """The effect from runs that aren't pairs: Welch's interval of the difference of two means.

    Args:
        without: Scores without.
        treated: Scores with.
        least: Smallest standard deviation within a group that is believed.

    Returns:
        The effect; infinitely unsure from a group of fewer than two.

    Source:
        Welch 1947; degrees of freedom by Satterthwaite 1946, rounded down.
    """
    n, m = len(without), len(treated)
    mean = float(np.mean(treated) - np.mean(without)) if n and m else math.nan
    if min(n, m) < 2 or not np.isfinite([*without, *treated]).all():
        return Effect(mean, -math.inf, math.inf, min(n, m))
    a, b = (max(float(np.std(group, ddof=1)), least) ** 2 / len(group) for group in (without, treated))
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
    half = quantile(max(1, int(freedom))) * math.sqrt(a + b)
    return Effect(mean, mean - half, mean + half, min(n, m))
