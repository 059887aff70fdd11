"""Test surfaces: losses of two numbers whose minima and saddles are known on paper, and optimizers going down on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unstuck.curvature.surface import Axis, Path, Plane, Span
from unstuck.errors import MisuseError, NotFoundError

Kind = Literal["minimum", "valley", "saddle"]


@dataclass(frozen=True)
class CriticalPoint:
    """A point where the gradient vanishes.

    Attributes:
        x: First number.
        y: Second number.
        kind: "minimum" where both eigenvalues of the Hessian are positive, "valley" where one is zero and the point is one of a
            curve of lowest points, "saddle" where one is negative.
    """

    x: float
    y: float
    kind: Kind


@dataclass(frozen=True)
class Landscape:
    """A loss of two numbers.

    Attributes:
        name: What it is called.
        formula: As one writes it.
        function: The loss of x and y, element by element.
        domain: Lowest and highest x and y that a picture shows.
        start: Where optimizers usually begin.
        critical: Points where the gradient vanishes, as known on paper.
        axes: What the two numbers are called.
    """

    name: str
    formula: str
    function: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    domain: tuple[Span, Span]
    start: tuple[float, float]
    critical: tuple[CriticalPoint, ...]
    axes: tuple[str, str] = ("x", "y")

    def loss(self, point: Tensor) -> Tensor:
        """The loss at a point of shape `(2,)`."""
        return self.function(point[0], point[1])

    @property
    def minima(self) -> tuple[CriticalPoint, ...]:
        """The lowest points, and those named of a curve of lowest points."""
        return tuple(c for c in self.critical if c.kind != "saddle")

    def plane(self, *, num: int = 201, path: NDArray[np.float64] | None = None) -> Plane:
        """The loss over the domain, to be drawn.

        Args:
            num: Points along each direction.
            path: Points that an optimizer has been at, shape `(count, 2)`.

        Returns:
            The grid, whose coordinates are x and y.
        """
        x, y = (np.linspace(*span, num) for span in self.domain)
        losses = self.function(torch.from_numpy(x)[None, :], torch.from_numpy(y)[:, None]).numpy()
        centre = float(self.loss(torch.zeros(2, dtype=torch.float64)))
        seen = None if path is None else Path(path, np.arange(len(path)), np.ones(len(path)), 1.0)
        return Plane(x, y, losses, centre, Axis(self.axes[0]), Axis(self.axes[1]), path=seen)


SADDLE = Landscape(
    "saddle",
    "x² − y² + y⁴/4",
    lambda x, y: x**2 - y**2 + y**4 / 4,
    ((-1.8, 1.8), (-2.0, 2.0)),
    (-1.5, 1e-3),
    (
        CriticalPoint(0.0, 0.0, "saddle"),
        CriticalPoint(0.0, 2**0.5, "minimum"),
        CriticalPoint(0.0, -(2**0.5), "minimum"),
    ),
)
"""x² − y² near the origin, held from below by y⁴/4, so that what escapes from the saddle comes to rest."""

RAVINE = Landscape(
    "ravine",
    "(x² + 100 y²)/2",
    lambda x, y: (x**2 + 100 * y**2) / 2,
    ((-2.2, 0.8), (-0.6, 0.6)),
    (-2.0, 0.4),
    (CriticalPoint(0.0, 0.0, "minimum"),),
)
"""A quadratic with condition number 100: gradient descent bears no learning rate above 2/100 and crawls along x with that."""

BEALE = Landscape(
    "Beale",
    "(1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)²",
    lambda x, y: (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2,
    ((-1.0, 4.5), (-2.0, 2.0)),
    (1.0, 1.5),
    (CriticalPoint(3.0, 0.5, "minimum"), CriticalPoint(0.0, 1.0, "saddle")),
)
"""A flat valley behind a plateau with a saddle at (0, 1), and steep walls at the corners. There is one more saddle, near (0.101, -2.645).

Source:
    Beale 1958, "On an iterative method for finding a local minimum of a function of more than one variable".
"""

ROSENBROCK = Landscape(
    "Rosenbrock",
    "(1 − x)² + 100 (y − x²)²",
    lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
    ((-2.0, 2.0), (-1.0, 3.0)),
    (-1.5, 2.0),
    (CriticalPoint(1.0, 1.0, "minimum"),),
)
"""A bent valley whose floor falls gently to (1, 1).

Source:
    Rosenbrock 1960, "An automatic method for finding the greatest or least value of a function".
"""

PRODUCT = Landscape(
    "product",
    "(1 − w₁w₂)²/2",
    lambda x, y: (1 - x * y) ** 2 / 2,
    ((-2.0, 2.0), (-2.0, 2.0)),
    (1.5, -1.4),
    (CriticalPoint(0.0, 0.0, "saddle"), CriticalPoint(1.0, 1.0, "valley"), CriticalPoint(-1.0, -1.0, "valley")),
    ("w₁", "w₂"),
)
"""The smallest network with two layers: y = w₁w₂x fitted to y = x, with mean x² = 1. Its lowest points are the hyperbola w₁w₂ = 1."""

LANDSCAPES = {landscape.name.lower(): landscape for landscape in (SADDLE, RAVINE, BEALE, ROSENBROCK, PRODUCT)}


def landscape(name: str) -> Landscape:
    """The test surface of a name.

    Raises:
        NotFoundError: There is none.

    Example:
        >>> landscape("rosenbrock").minima
        (CriticalPoint(x=1.0, y=1.0, kind='minimum'),)
    """
    if name.lower() not in LANDSCAPES:
        raise NotFoundError(f"no test surface '{name}'; there are {', '.join(LANDSCAPES)}")
    return LANDSCAPES[name.lower()]


def descend(
    landscape: Landscape,
    optimizer_factory: Callable[[list[Tensor]], torch.optim.Optimizer],
    start: tuple[float, float] | None = None,
    steps: int = 100,
) -> NDArray[np.float64]:
    """The path of an optimizer on a test surface, in float64.

    Args:
        landscape: The surface.
        optimizer_factory: Makes the optimizer of a list of tensors, here one of shape `(2,)`.
        start: Where it begins; by default the surface's own start.
        steps: It makes.

    Returns:
        Points, the start included, shape `(steps + 1, 2)`; not finite where the optimizer diverged.

    Raises:
        MisuseError: A negative number of steps.

    Example:
        >>> path = descend(RAVINE, lambda params: torch.optim.SGD(params, lr=0.005), (1.0, 1.0), steps=1)
        >>> path.round(4).tolist()  # x shrinks by 1 - 0.005, y by 1 - 0.005 * 100
        [[1.0, 1.0], [0.995, 0.5]]
    """
    if steps < 0:
        raise MisuseError(f"a number of steps isn't negative, as {steps} is")
    point = torch.tensor(start or landscape.start, dtype=torch.float64, requires_grad=True)
    optimizer = optimizer_factory([point])
    path = [point.detach().clone()]
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            landscape.loss(point).backward()
            optimizer.step()
            path.append(point.detach().clone())
    return torch.stack(path).numpy()
