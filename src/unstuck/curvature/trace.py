"""The sum of all eigenvalues, and the diagonal, without knowing them all.

What a run of Lanczos knows is taken exactly, and only the rest is estimated by random probes (Hutchinson): where few eigenvalues
are large, as they are in networks, the rest is small, and a few probes tell it to a percent where thousands would be needed
without. Where large eigenvalues of both signs cancel, as in networks before they are trained, no number of products that one would
make tells the sum to a percent; the error says so.
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

FEWEST = 6  # probes: with fewer their own spread is hardly known


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

    After a few probes, the next products go to the run of Lanczos as long as that narrows the interval more than probes would: what the
    run comes to know is taken out of the probes there are, at no product more.

    Args:
        operator: The matrix, or a run of Lanczos to use and go on with.
        tolerance: Relative half-width of the 95% interval at which it stops.
        most: Products in all, those that the run has already made included.
        basis: Part of them up to which the run may go on; 0 leaves it as it is.
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
    if krylov.operator.whole_size <= most:
        while krylov.grow():
            pass
    if krylov.complete:
        return Trace(float(krylov.projected.trace()), 0.0, 0, krylov.products)
    probes = _Probes(krylov, generator_for(krylov.operator, seed))
    probes.draw(FEWEST)
    room, gain, now = basis * most, 0.0, probes.error()
    while krylov.products + probes.count < most and not now <= tolerance * abs(probes.value()):
        left = min(FEWEST, most - krylov.products - probes.count)
        if krylov.products + left <= room and gain <= math.sqrt(probes.count / (probes.count + left)):
            if not _grown(krylov, left):
                break
            before, now = now, probes.error()
            gain = now / before if before > 0 else 0.0
        else:
            probes.draw(left)
            now, gain = probes.error(), 0.97 * gain  # after some probes the run is tried again
    return Trace(probes.value(), probes.error(), probes.count, krylov.products + probes.count)


def _grown(krylov: Krylov, products: int) -> bool:
    return all(krylov.grow() for _ in range(products))


class _Probes:
    """Random vectors and their products; what a run of Lanczos knows by now is taken out of their forms when these are asked for.

    With Q the basis, T the matrix in it and z a probe, the form of what of z is outside is z'Az - 2 (Qz)'(QAz) + (Qz)'T(Qz).
    """

    def __init__(self, krylov: Krylov, generator: torch.Generator) -> None:
        self._krylov, self._generator = krylov, generator
        self._probes: list[Tensor] = []
        self._products: list[Tensor] = []
        self._inner: list[tuple[Tensor, Tensor]] = []  # Qz and QAz, as far as they were computed
        self._forms: list[float] = []

    @property
    def count(self) -> int:
        """Probes drawn, a product each."""
        return len(self._probes)

    def draw(self, probes: int) -> None:
        """Draws some more."""
        operator = self._krylov.operator
        for _ in range(probes):
            probe = sign_vector(self._krylov, self._generator)
            product = operator @ probe
            self._probes.append(probe)
            self._products.append(product)
            self._inner.append((torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)))
            self._forms.append(float(operator.dot(probe, product)))

    def samples(self) -> list[float]:
        """The forms of what of each probe is outside of the basis."""
        krylov, found = self._krylov, []
        for i, (probe, product, form) in enumerate(zip(self._probes, self._products, self._forms, strict=True)):
            new = krylov.basis[len(self._inner[i][0]) :]
            if len(new):
                parts = (krylov.operator.dot(new, v).double().cpu() for v in (probe, product))
                inner = [torch.cat([old, part]) for old, part in zip(self._inner[i], parts, strict=True)]
                self._inner[i] = (inner[0], inner[1])
            inside, image = self._inner[i]
            found.append(form - float(2 * inside @ image - inside @ krylov.projected @ inside))
        return found

    def value(self) -> float:
        """The trace, as far as it is known, and the mean of the rest."""
        return float(self._krylov.projected.trace()) + math.fsum(self.samples()) / self.count

    def error(self) -> float:
        """Half the width of its 95% interval."""
        return half_width(self.samples())


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
