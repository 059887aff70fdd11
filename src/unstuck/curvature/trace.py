"""The sum of all eigenvalues, and the diagonal, without knowing them all.

What a run of Lanczos knows is taken exactly, and only the rest is estimated by random probes (Hutchinson): where few eigenvalues
are large, as they are in networks, the rest is small, and two or three probes tell it to a percent where thousands would be
needed without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from unstuck._student import half_width
from unstuck.curvature.lanczos import Krylov
from unstuck.curvature.products import Operator, generator_for
from unstuck.errors import MisuseError

FEWEST = 4  # probes: with fewer their own spread is not known


@dataclass(frozen=True)
class Trace:
    """An estimated trace.

    Attributes:
        value: The trace.
        error: Half the width of its 95% interval (Student's t over the probes); 0 where it is exact.
        probes: Random vectors used.
        products: Products in all, with those of the run of Lanczos.
    """

    value: float
    error: float
    probes: int
    products: int


@dataclass(frozen=True)
class Diagonal:
    """An estimated diagonal.

    Attributes:
        values: The diagonal.
        errors: Standard error of each entry.
        products: Products in all.
    """

    values: Tensor = field(repr=False)
    errors: Tensor = field(repr=False)
    products: int


def trace(
    operator: Operator | Krylov, *, tolerance: float = 0.01, most: int = 65, basis: float = 0.75, seed: int = 1
) -> Trace:
    """The trace, by deflated Hutchinson probes.

    Args:
        operator: The matrix, or a run of Lanczos to use and go on with.
        tolerance: Relative half-width of the 95% interval at which it stops.
        most: Products in all, those that the run has already made included.
        basis: Part of them that goes to the run.
        seed: Of the probes.

    Returns:
        The estimate with its error.

    Raises:
        MisuseError: `most` leaves no probe.

    Source:
        Hutchinson 1989; deflation as in Gambhir et al. 2017 and Meyer et al. 2021 (Hutch++), with the basis of Lanczos in place of
        a sketch.

    Example:
        >>> import torch
        >>> from unstuck.curvature.products import Dense
        >>> found = trace(Dense(torch.diag(torch.tensor([3.0, 2.0, -1.0]))))
        >>> round(found.value, 6), found.error, found.products
        (4.0, 0.0, 3)
    """
    krylov = operator if isinstance(operator, Krylov) else Krylov(operator, seed=seed + 1)
    if most < FEWEST + 1:
        raise MisuseError(f"a trace takes {FEWEST + 1} products at least, and {most} were allowed")
    while krylov.products < min(basis * most, most - FEWEST) and krylov.grow():
        pass
    known = float(krylov.projected.trace())
    if krylov.complete:
        return Trace(known, 0.0, 0, krylov.products)
    generator = generator_for(krylov.operator, seed)
    found: list[float] = []
    while len(found) < FEWEST or krylov.products + len(found) < most:
        probe = outside(krylov, sign_vector(krylov, generator))
        found.append(float(krylov.operator.dot(probe, krylov.operator @ probe)))
        value, error = known + math.fsum(found) / len(found), half_width(found)
        if len(found) >= FEWEST and error <= tolerance * abs(value):
            break
    return Trace(known + math.fsum(found) / len(found), half_width(found), len(found), krylov.products + len(found))


def diagonal(operator: Operator | Krylov, *, probes: int = 20, basis: int = 20, seed: int = 1) -> Diagonal:
    """The diagonal, by deflated random probes.

    Args:
        operator: The matrix, or a run of Lanczos to use and go on with.
        probes: Random vectors.
        basis: Products that the run has made at least.
        seed: Of the probes.

    Returns:
        The estimate; exact where the run is complete.

    Raises:
        MisuseError: Fewer than two probes, which have no spread.

    Source:
        Bekas et al. 2007, "An estimator for the diagonal of a matrix"; deflation as in `trace`.
    """
    if probes < 2:
        raise MisuseError("two probes at least, or their spread isn't known")
    krylov = operator if isinstance(operator, Krylov) else Krylov(operator, seed=seed + 1)
    while krylov.products < basis and krylov.grow():
        pass
    known = (krylov.image() * krylov.basis).sum(dim=0)
    if krylov.complete:
        return Diagonal(known, torch.zeros_like(known), krylov.products)
    generator = generator_for(krylov.operator, seed)
    mean, squares = torch.zeros_like(known), torch.zeros_like(known)
    for count in range(1, probes + 1):
        sign = sign_vector(krylov, generator)
        sample = sign * (krylov.operator @ outside(krylov, sign))
        step = sample - mean
        mean += step / count
        squares += step * (sample - mean)
    return Diagonal(known + mean, (squares / (probes - 1) / probes).sqrt(), krylov.products + probes)


def sign_vector(krylov: Krylov, generator: torch.Generator) -> Float[Tensor, " size"]:
    """A vector of random signs."""
    operator = krylov.operator
    signs = torch.randint(0, 2, (operator.size,), generator=generator, dtype=torch.int8)
    return (2 * signs - 1).to(operator.device, operator.dtype)


def outside(krylov: Krylov, vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
    """What of a vector is outside the basis of a run."""
    for _ in range(2):
        vector = vector - krylov.basis.T @ krylov.operator.dot(krylov.basis, vector)
    return vector
