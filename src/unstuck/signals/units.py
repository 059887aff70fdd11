"""Which units of a layer are alive: give an output above zero on some sample of a batch, or of the last batches."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from unstuck.signals.numbers import as_float, measurable, quiet, shared
from unstuck.signals.sample import thin_units

LIMIT = 16384  # outputs that are looked at


def alive(x: Shaped[Tensor, "..."], unit_axis: int = -1) -> Bool[Tensor, " unit"]:
    """Which units have an output above zero anywhere in the batch.

    Of a large activation some samples and positions are looked at, the same number for every unit; so a unit that is rarely
    active may be missed in one batch, and is judged over many (`UnitWindow`).

    Args:
        x: The output of a ReLU-like layer.
        unit_axis: The axis of its units, or channels.

    Returns:
        One value a unit, on the same device; none where the output can't be measured.

    Example:
        >>> import torch
        >>> alive(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])).tolist()
        [False, True, True]
    """
    if not measurable(x) or x.dim() == 0:
        return torch.zeros(0, dtype=torch.bool, device=x.device)
    few = thin_units(x.detach() if x.requires_grad else x, unit_axis, LIMIT)
    numbers = shared(few)
    if numbers is None:
        return _alive_on_device(few)
    return torch.from_numpy(_alive(numbers))


@quiet
def _alive(x: np.ndarray) -> np.ndarray:
    largest = np.fmax.reduce(x, 0)  # of two numbers the one that isn't NaN
    return (largest[:, 0] if x.shape[2] == 1 else np.fmax.reduce(largest, 1)) > 0


@torch.no_grad()
def _alive_on_device(x: Tensor) -> Tensor:
    return (as_float(x) > 0).any(2).any(0)


class UnitWindow:
    """The units alive in each of the last batches; a unit that was alive in none of them is dead.

    Args:
        num_batches: Batches it reaches back.

    Example:
        >>> import torch
        >>> window = UnitWindow(num_batches=2)
        >>> for units in ([True, False], [False, False], [False, False]):
        ...     window.add(torch.tensor(units))
        >>> len(window), window.dead_share().item()
        (2, 1.0)
    """

    def __init__(self, num_batches: int = 16) -> None:
        self.num_batches = num_batches
        self._added = 0
        self._last: Tensor | None = None  # the batch, counted from 1, in which each unit was last alive

    def __len__(self) -> int:
        return min(self._added, self.num_batches)

    def add(self, units: Bool[Tensor, " unit"]) -> None:
        """Takes in one batch; the window starts anew when the number of units, or their device, is another than before."""
        last = self._last
        if last is None or last.shape != units.shape or last.device != units.device:
            last = self._last = torch.zeros(units.shape, dtype=torch.int32, device=units.device)
            self._added = 0
        self._added += 1
        last.masked_fill_(units, self._added)

    def dead(self) -> Bool[Tensor, " unit"]:
        """Which units were alive in no batch of the window."""
        if self._last is None:
            return torch.zeros(0, dtype=torch.bool, device="cpu")
        return self._last <= max(0, self._added - self.num_batches)

    def dead_share(self) -> Float[Tensor, ""]:
        """Share of units that were alive in no batch of the window, NaN before the first."""
        return self.dead().float().mean()
