"""How many eigenvalues lie where: the density of a spectrum, and the counts of its signs, with their error.

From one random vector Lanczos gives a few points with weights that have the same moments as the whole spectrum seen by that vector
(Gauss quadrature). The share of eigenvalues below a number is then known within the weights of the two points next to it,
strictly (Chebyshev, Markov and Stieltjes); what the vectors differ by is the rest of the error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from unstuck._student import half_width
from unstuck.curvature.lanczos import Krylov
from unstuck.curvature.products import Dense, Operator
from unstuck.errors import MisuseError


@dataclass(frozen=True)
class Counts:
    """Shares of eigenvalues above, around and below zero.

    Attributes:
        positive: Share above `tolerance` times the largest by size.
        zero: Share within it.
        negative: Share below it; of a critical point, its index, and one less the minimum ratio's complement.
        error: How far each may be off: 0 where all eigenvalues are known.
        tolerance: Relative to the eigenvalue that is largest by size. No sign is told within it: most eigenvalues of a network
            lie there, and which side of zero they are on is noise.
        size: Eigenvalues in all.
        products: Made.
    """

    positive: float
    zero: float
    negative: float
    error: float
    tolerance: float
    size: int
    products: int

    @property
    def minimum_ratio(self) -> float:
        """Share of eigenvalues that aren't negative, by the tolerance; 1 at a minimum."""
        return 1 - self.negative


@dataclass(frozen=True)
class Density:
    """The density of a spectrum, by stochastic Lanczos quadrature.

    Attributes:
        points: For each random vector, where its points are, ascending.
        weights: For each random vector, their weights, which add to 1.
        size: Eigenvalues in all.
        products: Made.
    """

    points: list[NDArray[np.float64]] = field(repr=False)
    weights: list[NDArray[np.float64]] = field(repr=False)
    size: int
    products: int

    @property
    def low(self) -> float:
        """The smallest point."""
        return float(min(p[0] for p in self.points))

    @property
    def high(self) -> float:
        """The largest point."""
        return float(max(p[-1] for p in self.points))

    def below(self, value: float) -> tuple[float, float]:
        """Share of eigenvalues below a number, and how far it may be off.

        Source:
            Chebyshev-Markov-Stieltjes inequalities: Szegő 1939, "Orthogonal Polynomials", section 3.41.
        """
        middles, widths = [], []
        for points, weights in zip(self.points, self.weights, strict=True):
            at = int(np.searchsorted(points, value))
            sums = np.concatenate([[0.0], np.cumsum(weights)])
            least = sums[max(at - 1, 0)] if at else 0.0
            greatest = sums[min(at + 1, len(weights))] if at < len(weights) else 1.0
            middles.append(float(sums[at]))
            widths.append(float(max(greatest - sums[at], sums[at] - least)))
        spread = half_width(middles) if len(middles) > 1 else math.sqrt(2 / self.size)
        return math.fsum(middles) / len(middles), math.fsum(widths) / len(widths) + spread

    def counts(self, tolerance: float = 1e-3) -> Counts:
        """The shares of positive, vanishing and negative eigenvalues, and their error."""
        threshold = tolerance * max(abs(self.low), abs(self.high))
        (negative, error), (rest, other) = self.below(-threshold), self.below(threshold)
        return Counts(1 - rest, rest - negative, negative, max(error, other), tolerance, self.size, self.products)

    def curve(self, *, num: int = 400, width: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The density as a curve: each point spread as a normal distribution.

        Args:
            num: Points of the curve.
            width: Standard deviation; by default a hundredth of the range.

        Returns:
            Values, and the density there, whose integral is 1.
        """
        span = self.high - self.low or max(abs(self.high), 1.0)
        width = width or span / 100
        grid = np.linspace(self.low - 5 * width, self.high + 5 * width, num)
        density = np.zeros(num)
        for points, weights in zip(self.points, self.weights, strict=True):
            bells = np.exp(-((grid[:, None] - points) ** 2) / (2 * width**2)) / (width * math.sqrt(2 * math.pi))
            density += bells @ weights / len(self.points)
        return grid, density


def density(
    operator: Operator, *, probes: int = 10, steps: int = 80, seed: int = 0, krylov: Krylov | None = None
) -> Density:
    """The density of the eigenvalues of a matrix.

    Args:
        operator: The matrix.
        probes: Random vectors.
        steps: Products for each.
        seed: Of the vectors.
        krylov: A run of Lanczos from a random vector that has been made: it counts as the first.

    Returns:
        The density.

    Raises:
        MisuseError: No vector, or no product.

    Source:
        Ghorbani et al. 2019, "An Investigation into Neural Net Optimization via Hessian Eigenvalue Density".
    """
    if probes < 1 or steps < 1:
        raise MisuseError("a density takes one vector and one product at least")
    points, weights, products = [], [], 0
    for probe in range(probes):
        if probe == 0 and krylov is not None:
            run = krylov
        else:
            run = Krylov(operator, seed=seed + 1000 + probe)
            while run.products < min(steps, operator.whole_size) and run.grow():
                pass
            products += run.products
        values, vectors = torch.linalg.eigh(run.first_chain)
        points.append(values.numpy())
        weights.append((vectors[0] ** 2).numpy())
    return Density(points, weights, operator.whole_size, products)


def counts(
    operator: Operator, *, tolerance: float = 1e-3, dense: int = 2000, probes: int = 10, steps: int = 80, seed: int = 0
) -> Counts:
    """The shares of positive, vanishing and negative eigenvalues.

    Args:
        operator: The matrix.
        tolerance: Relative to the eigenvalue largest by size, below which one counts as zero.
        dense: Largest size for which all eigenvalues are computed, by as many products.
        probes: Random vectors above it.
        steps: Products for each.
        seed: Of the vectors.

    Returns:
        The shares and their error.
    """
    if operator.whole_size <= dense and operator.size == operator.whole_size:
        return counted(eigenvalues(operator), tolerance)
    return density(operator, probes=probes, steps=steps, seed=seed).counts(tolerance)


def counted(values: Float[torch.Tensor, " size"], tolerance: float = 1e-3) -> Counts:
    """The shares where all eigenvalues are known."""
    threshold = tolerance * float(values.abs().max())
    size = len(values)
    positive, negative = (int((s * values > threshold).sum()) / size for s in (1, -1))
    return Counts(positive, 1 - positive - negative, negative, 0.0, tolerance, size, size)


def eigenvalues(operator: Operator) -> Float[torch.Tensor, " size"]:
    """All eigenvalues, ascending, in float64, by as many products as there are."""
    return torch.linalg.eigvalsh(matrix(operator))


def matrix(operator: Operator) -> Float[torch.Tensor, "size size"]:
    """The whole matrix, in float64 on the CPU, made symmetric."""
    if isinstance(operator, Dense):
        whole = operator.matrix.double().cpu()
    else:
        whole = torch.empty(operator.size, operator.size, dtype=torch.float64)
        unit = torch.zeros(operator.size, dtype=operator.dtype, device=operator.device)
        for i in range(operator.size):
            unit[i] = 1
            whole[i] = (operator @ unit).double().cpu()
            unit[i] = 0
    return (whole + whole.T) / 2
