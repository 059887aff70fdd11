"""How sure shares, means and differences of them are: 95% intervals, and exact tests of tables of two by two."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from unstuck._student import half_width

Z = 1.959964  # standard deviations that hold 95% of a normal distribution
RESAMPLES = 2000
SAME = 1e-7  # tables this near in probability, relative, count as equally likely: what rounding makes of equal ones


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95% interval of a share that was found in so many samples.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def newcombe(first: float, num_first: int | None, second: float, num_second: int | None) -> tuple[float, float]:
    """The 95% interval of `first - second`, shares of independent samples; one whose count is None is known exactly.

    Source:
        Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
    """
    low_first, high_first = (first, first) if num_first is None else wilson(first, num_first)
    low_second, high_second = (second, second) if num_second is None else wilson(second, num_second)
    apart = first - second
    return (
        apart - math.hypot(first - low_first, high_second - second),
        apart + math.hypot(high_first - first, second - low_second),
    )


def student(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The 95% interval of a mean, infinitely wide for fewer than two values."""
    numbers = [float(v) for v in values]
    half, mean = half_width(numbers), math.fsum(numbers) / len(numbers)
    return mean - half, mean + half


def bootstrapped(first: np.ndarray, second: np.ndarray | float, seed: int) -> tuple[float, float]:
    """The 95% interval of the difference of two means, `first - second`: quantiles over resamples of both.

    Source:
        Efron and Tibshirani 1993, "An introduction to the bootstrap", section 13.3 (percentiles).
    """
    generator = np.random.default_rng(seed)
    means = [_resampled(each, generator) if isinstance(each, np.ndarray) else each for each in (first, second)]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(low), float(high)


def _resampled(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Means of resamples, which are drawn some at a time, so that many values need no memory of their own."""
    return np.array([values[generator.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)])


def fisher(wrong: int, count: int, wrong_rest: int, count_rest: int) -> float:
    """Two-sided probability of shares as far apart as these, or further, if both groups were alike.

    Args:
        wrong: Of a group.
        count: Samples in it.
        wrong_rest: Of the other group.
        count_rest: Samples in that.

    Returns:
        From 0 to 1.

    Source:
        Fisher's exact test; tables that are no likelier than the one found are summed.
    """
    all_wrong, total = wrong + wrong_rest, count + count_rest
    possible = range(max(0, all_wrong - count_rest), min(count, all_wrong) + 1)
    logs = np.array([_choose(count, k) + _choose(count_rest, all_wrong - k) for k in possible])
    chances = np.exp(logs - _choose(total, all_wrong))
    return min(1.0, float(chances[chances <= chances[wrong - possible[0]] * (1 + SAME)].sum()))


def _choose(count: int, taken: int) -> float:
    """Logarithm of the number of ways."""
    return math.lgamma(count + 1) - math.lgamma(taken + 1) - math.lgamma(count - taken + 1)


def permuted(group: np.ndarray, rest: np.ndarray, seed: int) -> float:
    """Two-sided probability of means as far apart as these if both groups were alike: by exchanging members at random.

    Source:
        Phipson and Smyth 2010, "Permutation p-values should never be zero": one is added to both counts.
    """
    both, generator = np.concatenate([group, rest]), np.random.default_rng(seed)
    total, size = both.sum(), len(group)

    def apart(chosen: float) -> float:
        return abs(chosen / size - (total - chosen) / (len(both) - size))

    found = apart(float(group.sum()))
    times = sum(
        apart(float(both[generator.permutation(len(both))[:size]].sum())) >= found * (1 - 1e-12)
        for _ in range(RESAMPLES)
    )
    return float((times + 1) / (RESAMPLES + 1))


def holm(chances: Sequence[float]) -> list[float]:
    """Probabilities, corrected for how many there are: below 0.05 none at all is wrong in 95% of cases.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    corrected, least = [0.0] * len(chances), 0.0
    for rank, i in enumerate(sorted(range(len(chances)), key=lambda i: chances[i])):
        least = max(least, min(1.0, (len(chances) - rank) * chances[i]))
        corrected[i] = least
    return corrected
