"""Lanczos: a basis in which a large symmetric matrix is small, and the eigenvalues it shows there.

    matrix · basis = basis · projected + rests · couplings

The basis is grown by one product a vector. What of a product is outside the basis is kept as a `rest`, with how each vector of
the basis is coupled to it; so the residual of every approximate eigenvalue is known exactly and at no cost. Grown from one vector
this is the Lanczos process. A second vector can be brought in (`explore`), to see what the first had no part in, such as a second
equal eigenvalue; from then on the basis grows along the residual of what is wanted.

Each new vector is made orthogonal to all before it, twice, so that no eigenvalue is found again as a ghost of itself: in float32
and without this, seventy products give eight copies of the largest one.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unstuck.curvature.products import Operator, generator_for


class Krylov:
    """A growing orthonormal basis, and the matrix in it.

    Args:
        operator: The matrix.
        seed: Of the random vectors.
        start: The first vector; by default a random one.
        within: Orthonormal vectors, as rows, that the basis stays orthogonal to: what is found is of the rest.

    Attributes:
        projected: The matrix in the basis, float64 on the CPU, shape `(products, products)`.
        couplings: Of the basis to what is outside it, `(rests, products)`.
        explored: Number of products at which each further vector came in.

    Source:
        Lanczos 1950; Parlett 1998, "The Symmetric Eigenvalue Problem", chapter 13; two passes of classical Gram-Schmidt after
        Giraud et al. 2005; growing along the residual of a wanted pair as in Davidson 1975, without a preconditioner.
    """

    def __init__(
        self, operator: Operator, *, seed: int = 0, start: Tensor | None = None, within: Tensor | None = None
    ) -> None:
        self.operator = operator
        self.projected = torch.zeros(0, 0, dtype=torch.float64)
        self.couplings = torch.zeros(0, 0, dtype=torch.float64)
        self.explored: list[int] = []
        self._generator = generator_for(operator, seed)
        self._within = within
        self._rows = torch.empty(0, operator.size, dtype=operator.dtype, device=operator.device)
        self._count = 0
        self._rests: list[Tensor] = []
        self._scale = 0.0  # length of the largest product
        self._add(start)

    @property
    def products(self) -> int:
        """Products made."""
        return self._count

    @property
    def basis(self) -> Float[Tensor, "products size"]:
        """The vectors, as rows."""
        return self._rows[: self._count]

    @property
    def complete(self) -> bool:
        """Whether there is no direction left: all eigenvalues are known."""
        return self._count + (0 if self._within is None else len(self._within)) >= self.operator.whole_size

    @property
    def first_chain(self) -> Float[Tensor, "steps steps"]:
        """The matrix in the basis that the first vector alone made: tridiagonal."""
        end = self.explored[0] if self.explored else self._count
        return self.projected[:end, :end]

    def grow(self, wanted: Float[Tensor, " products"] | None = None) -> bool:
        """Makes one product.

        Args:
            wanted: A vector given in the basis; the basis grows along its residual, by default along the newest rest.

        Returns:
            False where there is no direction left.
        """
        if not self._rests and not self._add(None):
            return False
        vector, toward = self._rests[-1], None
        if wanted is not None and len(self._rests) > 1:
            toward = self.couplings @ wanted
            length = float(toward.norm())
            toward = toward / length if length > 0 else None
        self._rotate(toward)
        vector = self._rests.pop()
        self.couplings = self.couplings[:-1]
        self._append(vector)
        return True

    def explore(self, products: int) -> None:
        """Brings in a new random vector, and makes some products that start from it."""
        self.explored.append(self._count)
        if self._add(None):
            for _ in range(products):
                if not self.grow():
                    break

    def ritz(self) -> tuple[Float[Tensor, " products"], Float[Tensor, " products"], Float[Tensor, "products products"]]:
        """Approximate eigenvalues in ascending order, their residuals `|Hx - ax|`, and their vectors in the basis, as columns."""
        values, vectors = torch.linalg.eigh(self.projected)
        rounding = torch.finfo(self._rows.dtype).eps * self._scale
        return values, (self.couplings @ vectors).norm(dim=0) + rounding, vectors

    def vectors(self, columns: Float[Tensor, "products count"]) -> Float[Tensor, "count size"]:
        """Vectors given in the basis, as rows."""
        return columns.T.to(self._rows) @ self.basis

    def image(self) -> Float[Tensor, "products size"]:
        """Products of the matrix with the vectors of the basis, as rows, from what is known."""
        image = self.projected.T.to(self._rows) @ self.basis
        return image + self.couplings.T.to(self._rows) @ torch.stack(self._rests) if self._rests else image

    def _add(self, vector: Tensor | None) -> bool:
        """Adds a vector, or a random one, to what is outside the basis; False where there is nothing outside."""
        operator = self.operator
        room = operator.whole_size - self._count - len(self._rests) - (0 if self._within is None else len(self._within))
        while room > 0:
            if vector is None:
                vector = torch.randn(operator.size, generator=self._generator, dtype=torch.float32)
            vector = vector.to(operator.device, operator.dtype)
            length = self._length(vector)
            rest, _, _ = self._orthogonal(vector / length if length > 0 else vector)
            left = self._length(rest)
            if left > 0.01 * math.sqrt(room / operator.whole_size):
                self._keep(rest / left, torch.zeros(self._count, dtype=torch.float64))
                return True
            vector = None
        return False

    def _keep(self, rest: Tensor, couplings: Tensor) -> None:
        self._rests.append(rest)
        self.couplings = torch.cat([self.couplings, couplings[None]])

    def _rotate(self, toward: Tensor | None) -> None:
        """Turns the rests among themselves so that the last one is a given combination of them."""
        if toward is None:
            return
        count = len(self._rests)
        turned, _ = torch.linalg.qr(torch.cat([toward[:, None], torch.eye(count, dtype=torch.float64)], dim=1))
        turned = turned[:, :count]
        turned[:, 0] = toward
        turned = turned.flip(1).T
        rests = turned.to(self._rows) @ torch.stack(self._rests)
        self._rests = list(rests)
        self.couplings = turned @ self.couplings

    def _append(self, vector: Tensor) -> None:
        """Takes a vector into the basis, with its product."""
        if self._count == len(self._rows):
            count = min(max(16, 2 * len(self._rows)), self.operator.whole_size)
            rows = self._rows.new_empty(count, self.operator.size)
            rows[: self._count] = self.basis
            self._rows = rows
        self._rows[self._count] = vector
        self._count += 1
        count = self._count
        product = self.operator @ vector
        rest, column, across = self._orthogonal(product)
        length = self._length(rest)
        grown = torch.zeros(count, count, dtype=torch.float64)
        grown[:-1, :-1] = self.projected
        grown[:, -1] = grown[-1, :] = column
        self.projected = grown
        self.couplings = torch.cat([self.couplings, across[:, None]], dim=1)
        self._scale = max(self._scale, math.hypot(length, float(column.norm()), float(across.norm())))
        rounding = 10 * math.sqrt(count) * torch.finfo(vector.dtype).eps * self._scale
        if math.isfinite(length) and length > rounding:
            couplings = torch.zeros(count, dtype=torch.float64)
            couplings[-1] = length
            self._keep(rest / length, couplings)

    def _orthogonal(self, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What of a vector is outside all that is known, its part in the basis, and in the rests."""
        inside = torch.zeros(self._count, dtype=vector.dtype, device=vector.device)
        across = torch.zeros(len(self._rests), dtype=vector.dtype, device=vector.device)
        rests = torch.stack(self._rests) if self._rests else None
        for _ in range(2):
            if self._within is not None:
                vector = vector - self._within.T @ self.operator.dot(self._within, vector)
            if rests is not None:
                part = self.operator.dot(rests, vector)
                vector, across = vector - rests.T @ part, across + part
            if self._count:
                part = self.operator.dot(self.basis, vector)
                vector, inside = vector - self.basis.T @ part, inside + part
        return vector, inside.double().cpu(), across.double().cpu()

    def _length(self, vector: Tensor) -> float:
        return float(self.operator.dot(vector, vector).clamp(min=0)) ** 0.5
