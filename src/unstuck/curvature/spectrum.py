"""Eigenvalues of a matrix known by its products: the largest, the most negative, their sum, their density, and their signs.

All of it grows from one run of Lanczos (`Krylov`), which is handed from one question to the next, so that nothing is paid for twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from unstuck.curvature.lanczos import Krylov
from unstuck.curvature.products import Operator
from unstuck.errors import MisuseError, NotFiniteError

# Measured on fifty problems, from networks' spectra to dense ends with equal eigenvalues, asked in six ways with six seeds each
# (tests/curvature/test_spectrum.py): 2 of 1800 answers were off by more than the 1% asked for, by 1.02%. With a residual alone to
# go by, 4% were. What this costs is a fifth to a third of the products.
EXPLORED = 3  # products from a new random vector, before what was found counts as all there is
SHARE = 0.25  # of the products so far: where the end of the spectrum is dense, a few show nothing
STRICT = 0.3  # part of the tolerance that a residual may have; the square of it over the gap tells less surely
REACH_TOP, REACH_BOTTOM = 2.0, 1.0  # residuals by which a value may still move outwards
FLOOR = 1e-3  # of the largest eigenvalue: an eigenvalue nearer to zero than this is known as well as one of this size


@dataclass(frozen=True)
class Eigen:
    """Some eigenvalues at one end of a spectrum.

    Attributes:
        values: The outermost first.
        errors: Residuals `|Hx - ax|`: an eigenvalue lies within this of each value.
        converged: Whether each is known to the tolerance asked for, and none further out was missed as far as that can be seen.
        vectors: As rows.
    """

    values: list[float]
    errors: list[float]
    converged: bool
    vectors: Tensor = field(repr=False, compare=False)


@dataclass(frozen=True)
class Extremes:
    """Both ends of a spectrum.

    Attributes:
        top: The largest eigenvalues, descending.
        bottom: The smallest, ascending.
        products: Products made in all.
        krylov: The run they come from, to ask more of.
    """

    top: Eigen
    bottom: Eigen
    products: int
    krylov: Krylov = field(repr=False, compare=False)


def extremes(
    operator: Operator | Krylov,
    *,
    top: int = 1,
    bottom: int = 1,
    tolerance: float = 0.01,
    most: int = 100,
    seed: int = 0,
) -> Extremes:
    """The largest and the smallest eigenvalues, by Lanczos.

    It stops when the residual of each is below a part of the tolerance, no value beyond these could still come to lie among them
    as its residual tells, and a new random vector shows nothing that was missed. A residual alone says only that there is an
    eigenvalue, not that it is the k-th.

    Args:
        operator: The matrix, or a run to go on with.
        top: How many of the largest.
        bottom: How many of the smallest.
        tolerance: Relative error of each; for eigenvalues within a thousandth of the largest, relative to that thousandth.
        most: Products after which it ends all the same.
        seed: Of the random vectors.

    Returns:
        What was found; `converged` tells whether the tolerance was reached.

    Raises:
        MisuseError: None or more than all eigenvalues were asked for.
        NotFiniteError: A product isn't finite.

    Example:
        >>> import torch
        >>> from unstuck.curvature.products import Dense
        >>> found = extremes(Dense(torch.diag(torch.tensor([5.0, 1.0, 0.5, -2.0]))), top=2)
        >>> [round(v, 4) for v in (*found.top.values, *found.bottom.values)]
        [5.0, 1.0, -2.0]
    """
    krylov = operator if isinstance(operator, Krylov) else Krylov(operator, seed=seed)
    size = krylov.operator.whole_size
    if not (top >= 0 and bottom >= 0 and top + bottom >= 1):
        raise MisuseError("ask for at least one eigenvalue")
    if max(top, bottom) > size:
        raise MisuseError(f"{max(top, bottom)} eigenvalues were asked for, and there are {size}")
    known: _State | None = None
    explored, state = False, None
    while not krylov.complete and krylov.products < most:
        if not krylov.grow(state.wanted if state is not None else None):
            break
        if not math.isfinite(float(krylov.projected[-1, -1])):
            raise NotFiniteError("a product with the matrix isn't finite: neither is the loss, or its gradient")
        if krylov.products < min(max(top, bottom) + 1, size):
            continue
        state = _State(krylov, top, bottom, tolerance)
        if state.settled and known is not None and state.near(known, [tolerance * abs(v) for v in known.values]):
            if explored:
                break
            krylov.explore(min(max(EXPLORED, math.ceil(SHARE * krylov.products)), most - krylov.products))
            before, state = state, _State(krylov, top, bottom, tolerance)
            explored = state.near(before, before.errors)
            if explored and state.settled:
                break
        known = state
    state = _State(krylov, top, bottom, tolerance)
    done = krylov.complete or (explored and state.settled)
    return Extremes(state.eigen(top, done), state.eigen(-bottom, done), krylov.products, krylov)


class _State:
    """What a run shows at one time of the eigenvalues wanted."""

    def __init__(self, krylov: Krylov, top: int, bottom: int, tolerance: float) -> None:
        values, errors, vectors = krylov.ritz()
        count = len(values)
        top, bottom = min(top, count), min(bottom, count)
        wanted = list(range(count - 1, count - 1 - top, -1)) + list(range(bottom))
        inner = range(bottom, count - top)
        floor = FLOOR * float(values.abs().max())
        allowed = [tolerance * max(abs(float(values[i])), floor) for i in wanted]
        self._krylov, self._vectors = krylov, vectors
        self._order = wanted
        self.values = [float(values[i]) for i in wanted]
        self.errors = [float(errors[i]) for i in wanted]
        late = [
            e / (STRICT * a) if a > 0 else (math.inf if e else 0.0) for e, a in zip(self.errors, allowed, strict=True)
        ]
        # How far each of the rest may come to lie among those wanted, at the end it is nearer to.
        rising = {}
        for i in inner:
            value, error = float(values[i]), float(errors[i])
            over = [value + REACH_TOP * error - self.values[top - 1] - allowed[top - 1]] if top else []
            under = [self.values[-1] - allowed[-1] - (value - REACH_BOTTOM * error)] if bottom else []
            rising[i] = max(over + under)
        worst = max(rising, key=rising.__getitem__, default=None)
        self.settled = max(late) <= 1 and (worst is None or rising[worst] <= 0)
        latest = wanted[max(range(len(late)), key=late.__getitem__)]
        column = latest if max(late) > 1 or worst is None else worst
        self.wanted: Tensor = vectors[:, column]

    def near(self, other: _State, errors: list[float]) -> bool:
        """Whether nothing has changed by more than was to be expected."""
        if len(other.values) != len(self.values):
            return False
        rounding = 1e-6 * max(map(abs, self.values))
        pairs = zip(self.values, other.values, errors, strict=True)
        return all(abs(a - b) <= error + rounding for a, b, error in pairs)

    def eigen(self, count: int, converged: bool) -> Eigen:
        """Those at one end: the first so many, or from the end if negative."""
        chosen = slice(0, count) if count > 0 else slice(len(self.values) + count, None)
        if count == 0:
            chosen = slice(0, 0)
        columns = self._vectors[:, self._order[chosen]]
        return Eigen(self.values[chosen], self.errors[chosen], converged, self._krylov.vectors(columns))
