"""What more samples would bring: a power law through the scores by number of training samples."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unstuck._student import quantile
from unstuck.data.learning_curve import SizeCurve
from unstuck.errors import MisuseError

EXPONENTS = np.geomspace(0.02, 3.0, 160)
"""Of the power laws that are tried. Hestness et al. 2017 find 0.07 to 0.35 for large networks, statistics 0.5 to 1; a start is steeper."""
HUBER = 1.345  # deviations from which on a score counts for less; Huber's, for 95% efficiency
ROUNDS = 8
REFINED = 3  # grids of exponents, each twenty times as fine as the one before
SINGULAR = 1e-14  # of its largest possible value, below which a determinant is 0
LEAST_SIZES = 4  # there are three parameters


@dataclass(frozen=True)
class Forecast:
    """What a fitted curve says of another number of training samples.

    Attributes:
        num_samples: That number.
        score: Expected, mean over trainings.
        low, high: Its 95% interval, if the power law holds so far out.
    """

    num_samples: int
    score: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """`error(n) = floor + factor * n ** -exponent`, fitted to a curve.

    Attributes:
        floor: What no number of samples of this kind takes away; at least 0.
        factor, exponent: Of what they do; at least 0, and above 0.
        deviation: Of one training's error around the curve, where errors are as large as they were in the middle.
        freedom: Scores, less three; those far off count as less than one.
        curve: What it was fitted to.
    """

    floor: float
    factor: float
    exponent: float
    deviation: float
    freedom: int
    curve: SizeCurve

    def error(self, num_samples: float) -> float:
        """Expected error."""
        return self.floor + self.factor * num_samples**-self.exponent

    def forecast(self, num_samples: int) -> Forecast:
        """The expected score for another number of samples, with its interval.

        The interval holds all that power laws predict which fit hardly worse than the best one does, so it is wide where sizes are
        too near to each other, or scores too noisy, to tell a floor from a slow fall. It doesn't know whether the power law holds.

        Args:
            num_samples: Where to look.

        Returns:
            Score and interval.

        Source:
            Bates and Watts 1988, "Nonlinear regression analysis and its applications", section 6.1: profile t intervals.
        """
        low, high = _profile(self, num_samples)
        best, sign = self.curve.best, -1.0 if self.curve.higher_is_better else 1.0
        assert best is not None
        ends = sorted((best + sign * low, best + sign * high))
        return Forecast(num_samples, best + sign * self.error(num_samples), *ends)

    def needed(self, score: float) -> float:
        """Number of samples at which a score is expected; infinite where the floor lies above it."""
        assert self.curve.best is not None
        error = abs(self.curve.best - score)
        if error <= self.floor or self.factor == 0:
            return math.inf
        return (self.factor / (error - self.floor)) ** (1 / self.exponent)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, and the curve."""
        about = {name: value for name, value in vars(self).items() if name != "curve"}
        twice = self.forecast(2 * int(self.curve.sizes[-1]))
        return {**about, "curve": self.curve.to_json(), "twice": asdict(twice)}


def fit(curve: SizeCurve) -> PowerLaw:
    """The power law through a learning curve: robust, with floor and factor that can't be negative.

    For each exponent the other two are found exactly; errors count by how large they are where they lie, since larger ones vary more; and
    scores far off count for less (Huber), so that one training that went wrong doesn't bend the curve.

    Args:
        curve: With at least four sizes; sizes that are multiples of each other tell most.

    Returns:
        The fit.

    Raises:
        MisuseError: There are fewer sizes with scores.

    Source:
        Cortes et al. 1993, "Learning curves: asymptotic values and rate of convergence"; Hestness et al. 2017, "Deep learning scaling is
        predictable, empirically", for networks.

    Example:
        >>> sizes = [100, 200, 400, 800, 1600]
        >>> law = fit(SizeCurve(sizes, [1 - (0.05 + 3 * n**-0.5) for n in sizes]))
        >>> round(law.floor, 3), round(law.exponent, 2), round(law.forecast(6400).score, 4)
        (0.05, 0.5, 0.9125)
    """
    sizes, errors, weights = _points(curve)
    if len(set(sizes.tolist())) < LEAST_SIZES:
        raise MisuseError(
            f"scores at {len(set(sizes.tolist()))} sizes of the training set; three parameters need {LEAST_SIZES} at least"
        )
    floor = factor = exponent = 0.0
    for _ in range(ROUNDS):
        exponent = _best_exponent(sizes, errors, weights)
        floor, factor, _ = (float(each[0]) for each in _solved(sizes, errors, weights, np.array([exponent])))
        level = _level(floor + factor * sizes**-exponent)
        off = (errors - floor - factor * sizes**-exponent) / np.sqrt(level)
        spread = max(1.4826 * float(np.median(np.abs(off))), 1e-12)
        weights = np.minimum(1.0, HUBER * spread / np.maximum(np.abs(off), 1e-300)) / level
    squares = float(weights @ (errors - floor - factor * sizes**-exponent) ** 2)
    freedom = max(1, int(weights @ level) - 3)  # scores that count for less are less than one
    return PowerLaw(floor, factor, exponent, math.sqrt(squares / freedom), freedom, curve)


def _points(curve: SizeCurve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, errors and first weights of all scores that are numbers."""
    sizes = np.repeat(curve.sizes[:, None].astype(np.float64), curve.evaluation.shape[1], axis=1)
    good = np.isfinite(curve.errors)
    errors = np.maximum(curve.errors[good], 0.0)
    typical = np.concatenate([np.full(row.sum(), np.median(e[row])) for e, row in zip(curve.errors, good, strict=True)])
    return sizes[good], errors, 1 / _level(typical)


def _level(errors: np.ndarray) -> np.ndarray:
    """How much errors vary, up to a factor: as counts of mistakes do, but never as if they didn't."""
    middle = float(np.median(errors))
    return np.maximum(errors, 0.05 * middle) / middle if middle > 0 else np.ones_like(errors)


def _best_exponent(sizes: np.ndarray, errors: np.ndarray, weights: np.ndarray) -> float:
    """On the grid, then on finer ones around the best."""
    grid = EXPONENTS
    for _ in range(REFINED):
        i = int(np.argmin(_solved(sizes, errors, weights, grid)[2]))
        grid = np.linspace(grid[max(0, i - 1)], grid[min(len(grid) - 1, i + 1)], 41)
    return float(grid[np.argmin(_solved(sizes, errors, weights, grid)[2])])


def _solved(
    sizes: np.ndarray, errors: np.ndarray, weights: np.ndarray, exponents: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Floor and factor, neither negative, of least weighted squares for each exponent, and the sums of those."""
    power = sizes ** -exponents[:, None]
    whole, x, xx = weights.sum(), power @ weights, power**2 @ weights
    y, xy = weights @ errors, power @ (weights * errors)
    determinant = whole * xx - x * x
    inner = np.where(determinant > SINGULAR * whole * xx, determinant, np.inf)
    floors = np.stack([(xx * y - x * xy) / inner, np.full_like(x, y / whole), np.zeros_like(x)])
    factors = np.stack([(whole * xy - x * y) / inner, np.zeros_like(x), xy / xx])
    sums = ((errors - floors[..., None] - factors[..., None] * power) ** 2) @ weights
    sums[0, (floors[0] < 0) | (factors[0] < 0) | np.isinf(inner)] = np.inf
    best = np.argmin(sums, axis=0)[None]
    floor, factor, least = (np.take_along_axis(each, best, 0)[0] for each in (floors, factors, sums))
    return floor, factor, least


def _profile(law: PowerLaw, num_samples: int) -> tuple[float, float]:
    """Least and greatest error that a power law predicts which fits within the limit of a t interval."""
    sizes, errors, _ = _points(law.curve)
    fitted = law.floor + law.factor * sizes**-law.exponent
    level = _level(fitted)
    off = (errors - fitted) / np.sqrt(level)
    spread = max(1.4826 * float(np.median(np.abs(off))), 1e-12)
    weights = np.minimum(1.0, HUBER * spread / np.maximum(np.abs(off), 1e-300)) / level
    squares = float(weights @ (errors - fitted) ** 2)
    limit = squares + quantile(law.freedom) ** 2 * law.deviation**2
    ends = [law.error(num_samples)]
    for exponent in (*EXPONENTS, law.exponent):
        ends += _ends(sizes**-exponent, errors, weights, float(num_samples) ** -exponent, limit)
    return min(ends), max(ends)


def _ends(power: np.ndarray, errors: np.ndarray, weights: np.ndarray, there: float, limit: float) -> list[float]:
    """Extremes of `floor + factor * there` over all that fit within a limit, for one exponent.

    Sums of squares are those of an ellipse in floor and factor: extremes lie on it, or where it is cut off at 0.
    """
    found = []
    for columns, at in (
        (np.stack([np.ones_like(power), power]), np.array([1.0, there])),
        (np.ones_like(power)[None], np.array([1.0])),
        (power[None], np.array([there])),
    ):
        matrix = (columns * weights) @ columns.T
        if np.linalg.det(matrix) <= SINGULAR * np.prod(np.diag(matrix)):
            continue
        centre, towards = np.linalg.solve(matrix, np.stack([(columns * weights) @ errors, at], axis=1)).T
        room = limit - float(weights @ (errors - centre @ columns) ** 2)
        if room < 0:
            continue
        reach = math.sqrt(room / float(at @ towards))
        both = (centre + sign * reach * towards for sign in (-1.0, 1.0))
        found += [float(at @ each) for each in both if each.min() >= -1e-12]
    return found
