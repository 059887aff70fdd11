"""What kind of point a loss rests at, with the proof; the way out of a saddle, taken and verified.

A point is critical where the gradient vanishes: where it is rounding, or so small that going to where it would be zero gains
nothing that counts; and, where the batches are a sample of more data, where it is no more than their scatter explains. Only then do
the signs of the Hessian's eigenvalues tell a minimum from a saddle. Most searches for critical points end elsewhere, where the
gradient is all but in the kernel of the Hessian (Frye et al. 2021); such a point is called gradient-flat, and nothing is said
of its type.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from unstuck.curvature.density import Counts, counts
from unstuck.curvature.lanczos import Krylov
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Hessian
from unstuck.curvature.spectrum import Eigen, extremes
from unstuck.errors import MisuseError, NotFiniteError

Kind = Literal["minimum", "saddle", "maximum", "flat", "gradient-flat", "not critical"]


@dataclass(frozen=True)
class Gradient:
    """A gradient against its noise.

    Attributes:
        norm: Of the gradient of the whole loss.
        noise: Standard error of it, from how the gradients of batches differ; NaN for a single batch.
        rounding: What rounding alone may make.
        vector: It.
    """

    norm: float
    noise: float
    rounding: float
    vector: Tensor = field(repr=False, compare=False)

    def vanishes(self, *, sampled: bool = False) -> bool:
        """Whether nothing of it is certain: of this loss, or of that over all data, of which the batches are a sample."""
        return self.norm <= self.rounding or (sampled and self.norm <= self.noise)


@dataclass(frozen=True)
class Point:
    """What a loss is like around where its tensors stand.

    Attributes:
        kind: The verdict.
        loss: There.
        gradient: And its noise.
        gain: By how much the loss would fall, or change, on the way to where the gradient vanishes, as the Hessian has it.
        flatness: `|Hg| / (|g| |H|)`: near 0 the gradient is in the kernel of the Hessian.
        top, bottom: The largest and the smallest eigenvalue, with residuals and vectors.
        counts: Shares of positive, vanishing and negative eigenvalues; None where they weren't asked for.
        tolerance: Relative to the largest eigenvalue by size, within which an eigenvalue counts as zero.
        products: With the Hessian, in all.
        stated: How modules were run.
    """

    kind: Kind
    loss: float
    gradient: Gradient
    gain: float
    flatness: float
    top: Eigen
    bottom: Eigen
    counts: Counts | None
    tolerance: float
    products: int
    stated: str

    @property
    def is_critical(self) -> bool:
        """Whether the gradient vanishes there."""
        return self.kind not in ("gradient-flat", "not critical")

    @property
    def says(self) -> str:
        """The verdict and its proof, in a sentence."""
        top, bottom = self.top.values[0], self.bottom.values[0]
        ends = (
            f"eigenvalues from {bottom:.3g} (± {self.bottom.errors[0]:.1g}) to {top:.3g} (± {self.top.errors[0]:.1g})"
        )
        noise = f", its noise {self.gradient.noise:.3g}" if math.isfinite(self.gradient.noise) else ""
        slope = f"gradient {self.gradient.norm:.3g}{noise}"
        return {
            "minimum": f"a minimum: no eigenvalue is below zero by more than {self.tolerance:g} of the largest; {ends}, {slope}",
            "saddle": f"a saddle: an eigenvalue is below zero beyond its error; {ends}, {slope}",
            "maximum": f"a maximum: no eigenvalue is above zero by more than {self.tolerance:g} of the largest; {ends}, {slope}",
            "flat": f"flat: neither slope nor curvature; {ends}, {slope}",
            "gradient-flat": f"not critical, but gradient-flat: the gradient is all but in the kernel of the Hessian "
            f"(|Hg|/|g||H| = {self.flatness:.1g}); {ends}, {slope}",
            "not critical": f"not a critical point: the gradient is {self.gradient.norm:.3g}{noise}, and takes the loss down by "
            f"{self.gain:.3g} from {self.loss:.4g}; {ends}",
        }[self.kind]


@dataclass(frozen=True)
class Escape:
    """A step along negative curvature.

    Attributes:
        before: Loss at the saddle.
        after: Loss after the step.
        length: Of the step, with the sign of the direction.
        eigenvalue: Curvature along it.
        direction: Of unit length.
        predicted: What the parabola alone says the loss falls by; the loss falls further where its slope helps.
        taken: Whether the loss is lower, beyond rounding, and the tensors were moved.
    """

    before: float
    after: float
    length: float
    eigenvalue: float
    predicted: float
    taken: bool
    direction: Tensor = field(repr=False, compare=False)

    @property
    def gain(self) -> float:
        """By how much the loss fell."""
        return self.before - self.after


def gradient(objective: Objective) -> Gradient:
    """The gradient of a loss, and how sure it is.

    Args:
        objective: The loss.

    Returns:
        The gradient; its noise is the standard error of the mean over batches, from their scatter.

    Raises:
        NotFiniteError: It isn't finite.
    """
    weights = objective.gradient_weights
    mean = torch.zeros(objective.size, dtype=objective.dtype, device=objective.device)
    lengths, squares = 0.0, 0.0
    for weight, one in zip(weights, objective.gradients(), strict=True):
        square = float(objective.dot(one, one))
        lengths += weight * math.sqrt(square)
        squares += weight**2 * square
        mean.add_(one, alpha=weight)
    shares = math.fsum(w * w for w in weights)
    if objective.distributed and not objective.sharded:
        mean = objective.summed(mean)
        lengths, squares, shares = objective.summed(
            torch.tensor([lengths, squares, shares], dtype=torch.float64, device=objective.device)
        ).tolist()
    norm = math.sqrt(float(objective.dot(mean, mean)))
    if not math.isfinite(norm):
        raise NotFiniteError("the gradient isn't finite here: there is nothing to tell of its curvature")
    # Variance of a weighted mean: sum w^2 |g_b - g|^2, with |g_b|^2 in place of |g_b - g|^2 + |g|^2, unbiased by 1 - sum w^2.
    noise = math.sqrt(max(0.0, squares - shares * norm**2) / (1 - shares)) if shares < 1 - 1e-9 else math.nan
    at = objective.at()
    eps = torch.finfo(objective.dtype).eps
    return Gradient(norm, noise, 10 * eps * max(lengths, math.sqrt(float(objective.dot(at, at))) * norm), mean)


def critical_point(
    objective: Objective,
    *,
    hessian: Hessian | None = None,
    krylov: Krylov | None = None,
    tolerance: float = 1e-3,
    negligible: float = 1e-4,
    most: int = 100,
    sampled: bool = False,
    count: bool = False,
    seed: int = 0,
) -> Point:
    """What kind of point the loss is at.

    Args:
        objective: The loss.
        hessian: Its Hessian, where there is one already.
        krylov: A run of Lanczos with that Hessian, to go on with.
        tolerance: Relative to the largest eigenvalue by size: within it an eigenvalue counts as zero.
        negligible: Change of the loss, relative to it, that makes the gradient negligible.
        most: Products with the Hessian for its ends.
        sampled: The batches are a sample, and the question is of the loss over all data: a gradient within the noise vanishes.
        count: Count the eigenvalues of each sign too, at some hundred products more.
        seed: Of the random vectors.

    Returns:
        The verdict with its proof.

    Raises:
        NotFiniteError: The loss or its gradient isn't finite.

    Source:
        Frye et al. 2021, "Critical Point-Finding Methods Reveal Gradient-Flat Regions of Deep Network Losses".

    Example:
        >>> import torch
        >>> w = torch.zeros(2, dtype=torch.float64)
        >>> critical_point(Objective(lambda: (1 - w[0] * w[1]) ** 2, [w])).kind
        'saddle'
    """
    hessian = hessian if hessian is not None else Hessian(objective)
    began = hessian.products
    loss = objective.value()
    if not math.isfinite(loss):
        raise NotFiniteError(f"the loss is {loss} here: there is nothing to tell of its curvature")
    slope = gradient(objective)
    ends = extremes(hessian if krylov is None else krylov, top=1, bottom=1, most=most, seed=seed)
    top, bottom = ends.top.values[0], ends.bottom.values[0]
    scale = max(abs(top), abs(bottom))
    at = objective.at()
    reach = max(1.0, float(objective.dot(at, at)))
    rounding = max(slope.rounding, 10 * torch.finfo(objective.dtype).eps * scale * math.sqrt(reach))
    slope = Gradient(slope.norm, slope.noise, rounding, slope.vector)
    gain, flatness = _newton(hessian, slope, scale, tolerance)
    flat = scale * reach <= 1e-6 * max(abs(loss), slope.norm, torch.finfo(objective.dtype).tiny) or scale == 0
    kind = _kind(
        slope,
        ends.top,
        ends.bottom,
        scale,
        tolerance,
        flatness,
        flat=flat,
        moves=not slope.vanishes(sampled=sampled) and gain > negligible * abs(loss),
    )
    counted = counts(hessian, tolerance=tolerance, seed=seed) if count else None
    return Point(
        kind, loss, slope, gain, flatness, ends.top, ends.bottom, counted, tolerance, hessian.products - began, objective.stated
    )  # fmt: skip


def _kind(
    slope: Gradient,
    top: Eigen,
    bottom: Eigen,
    scale: float,
    tolerance: float,
    flatness: float,
    *,
    flat: bool,
    moves: bool,
) -> Kind:
    exact = slope.norm <= slope.rounding
    if not exact and flatness < tolerance:
        return "gradient-flat"
    if moves:
        return "not critical"
    if flat:
        return "flat"
    up = top.values[0] - top.errors[0] > tolerance * scale
    down = bottom.values[0] + bottom.errors[0] < -tolerance * scale
    return "saddle" if up and down else "maximum" if down else "minimum" if up else "flat"


def _newton(
    hessian: Hessian, slope: Gradient, scale: float, tolerance: float, products: int = 20
) -> tuple[float, float]:
    """What going to where the gradient vanishes changes in the loss, in the space that the gradient spans; and the flatness."""
    if slope.norm == 0 or scale == 0:
        return (0.0, 1.0) if slope.norm == 0 else (math.inf, 0.0)
    krylov = Krylov(hessian, start=slope.vector)
    while krylov.products < products and krylov.grow():
        pass
    values, vectors = torch.linalg.eigh(krylov.projected)
    parts = (slope.norm * vectors[0]) ** 2
    curved = values.abs().clamp(min=tolerance * scale)
    image = torch.cat([krylov.projected[:, 0], krylov.couplings[:, 0]])
    return float((parts / curved).sum()) / 2, float(image.norm()) / scale


def escape(objective: Objective, point: Point, *, longest: float = 1e3, shortest: float = 1e-6) -> Escape:
    """Leaves a saddle along its most negative curvature; the tensors move only if the loss is found to be lower.

    The step is doubled as long as the loss goes on falling, in the direction in which it falls further.

    Args:
        objective: The loss; its tensors are moved.
        point: Where it is.
        longest: Length of a step that isn't exceeded.
        shortest: Length of the first step, relative to that of the tensors.

    Returns:
        The step, and what came of it.

    Raises:
        MisuseError: The point has no negative curvature beyond its error.

    Source:
        Dauphin et al. 2014, "Identifying and attacking the saddle point problem".
    """
    value, error = point.bottom.values[0], point.bottom.errors[0]
    if not value + error < 0:
        raise MisuseError(
            f"no curvature is negative here beyond its error ({value:.3g} ± {error:.1g}): there is no way out along it"
        )
    direction = point.bottom.vectors[0]
    direction = direction / math.sqrt(float(objective.dot(direction, direction)))
    at = objective.at()
    first = shortest * max(1.0, math.sqrt(float(objective.dot(at, at))))
    before = objective.value()
    with objective.moved() as move:

        def loss(length: float) -> float:
            move(length * direction)
            found = objective.value()
            return found if math.isfinite(found) else math.inf

        length, after = min(
            (_down(loss, sign, first, longest, before) for sign in (1.0, -1.0)), key=lambda found: found[1]
        )
    rounding = 10 * torch.finfo(objective.dtype).eps * max(abs(before), abs(after))
    taken = after < before - rounding
    if taken:
        objective.move(length * direction)
    return Escape(before, objective.value(), length if taken else 0.0, value, -value * length**2 / 2, taken, direction)


def _down(loss, sign: float, first: float, longest: float, before: float) -> tuple[float, float]:
    """How far the loss falls in one direction: the length, and the loss there."""
    best, length = (0.0, before), first
    while length <= longest:
        found = loss(sign * length)
        if found > best[1] and best[1] < before:
            break
        if found < best[1]:
            best = (sign * length, found)
        length *= 2
    return best
