"""The curvature of each layer by itself: the block of the Hessian that is its own, its largest eigenvalue and its trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from unstuck.curvature.lanczos import Krylov
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Hessian, Way
from unstuck.curvature.spectrum import extremes
from unstuck.curvature.trace import FEWEST, trace
from unstuck.errors import MisuseError


@dataclass(frozen=True)
class Layer:
    """The curvature along the tensors of one layer, all others held.

    Attributes:
        name: Of the layer.
        size: Numbers in it.
        top: Largest eigenvalue of its block; never above that of the whole Hessian.
        top_error: Its residual.
        bottom: Smallest eigenvalue; never below that of the whole.
        bottom_error: Its residual.
        trace: Sum of the eigenvalues; those of all layers add up to the trace of the whole.
        trace_error: Half the width of its 95% interval.
        products: Made.
    """

    name: str
    size: int
    top: float
    top_error: float
    bottom: float
    bottom_error: float
    trace: float
    trace_error: float
    products: int


def layers(
    objective_of: Callable[[Sequence[Tensor]], Objective],
    groups: Mapping[str, Sequence[Tensor]],
    *,
    way: Way | Literal["auto"] = "auto",
    most: int | Callable[[], int] = 40,
    tolerance: float = 0.02,
    seed: int = 0,
) -> Iterator[Layer]:
    """The curvature of each layer by itself.

    Args:
        objective_of: Gives the loss as a function of some tensors.
        groups: Tensors by layer.
        way: How products are made, see `Hessian`.
        most: Products for a layer; a function is asked anew before each, and a number below 12 ends it.
        tolerance: Relative error of eigenvalues and traces at which a layer is done.
        seed: Of the random vectors.

    Yields:
        One layer after the other, in the order given.

    Raises:
        MisuseError: There are no groups, or one without tensors.

    Example:
        >>> import torch
        >>> w, v = (torch.tensor([float(i)], dtype=torch.float64) for i in (1, 2))
        >>> found = layers(lambda tensors: Objective(lambda: (w**2 * v).sum(), tensors), {"w": [w], "v": [v]})
        >>> [(layer.name, layer.top, layer.trace) for layer in found]
        [('w', 4.0, 4.0), ('v', 0.0, 0.0)]
    """
    if not groups or not all(groups.values()):
        raise MisuseError("give at least one layer, each with its tensors")
    for name, tensors in groups.items():
        limit = most() if callable(most) else most
        if limit < 2 * (FEWEST + 2):
            return
        objective = objective_of(tensors)
        krylov = Krylov(Hessian(objective, way=way, check=False), seed=seed)
        ends = extremes(krylov, top=1, bottom=1, tolerance=tolerance, most=limit - FEWEST)
        total = trace(krylov, tolerance=tolerance, most=max(limit, krylov.products + FEWEST), basis=0.0)
        yield Layer(
            name, objective.size, ends.top.values[0], ends.top.errors[0], ends.bottom.values[0], ends.bottom.errors[0],
            total.value, total.error, total.products,
        )  # fmt: skip
