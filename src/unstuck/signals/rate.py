"""The learning rate of updates that no optimizer makes: fitted to parameters before and after, and the gradient between."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unstuck.signals.numbers import as_array, quiet, row
from unstuck.signals.updates import Snapshot

LIMIT = 8192  # numbers of all parameters that the rate is fitted to


@torch.no_grad()
def hand_rate(before: Snapshot, after: Snapshot, grads: Snapshot) -> Float[Tensor, "2"]:
    """The rate of a plain gradient step, and how badly that explains the update.

    With dp = after - before, the rate is the least-squares fit of dp = -rate * g, so -(dp . g) / (g . g), and the residual
    |dp + rate * g| / |dp|: 0 when the update was a plain gradient step, 1 when it had nothing to do with the gradient, and
    in between with momentum, weight decay, or rounding, which shows when rate * g is near the last digit of the parameters.

    Args:
        before: Snapshot of the parameters before the update.
        after: Snapshot of them after it.
        grads: Snapshot, with the same limit, of the gradients the update used.

    Returns:
        Rate and residual, on the parameters' device. The rate is NaN where there was no gradient, the residual where there was
        no update; both are when the snapshots don't hold the same places.

    Example:
        >>> import torch
        >>> from unstuck.signals.updates import snapshot
        >>> w, g = torch.tensor([1.0, 2.0]), torch.tensor([4.0, -2.0])
        >>> hand_rate(snapshot([w]), snapshot([w - 0.25 * g]), snapshot([g])).tolist()
        [0.25, 0.0]
    """
    groups = list(zip(before.groups, after.groups, grads.groups, strict=False))
    if not groups or not all(old.fits(new) and old.fits(grad) for old, new, grad in groups):
        home = before.groups[0].numbers.device if before.groups else torch.device("cpu")
        return torch.full((2,), math.nan, dtype=torch.float32, device=home)
    old, new, grad = max(
        groups, key=lambda group: sum(group[0].sizes)
    )  # one rate for all: that of most numbers will do
    arrays = [as_array(group.numbers) for group in (old, new, grad)]
    if any(array is None for array in arrays):
        return _on_device(old.numbers, new.numbers, grad.numbers)
    every = -(-old.numbers.numel() // LIMIT)
    return _on_host(*(array[::every] for array in arrays if array is not None))


@quiet
def _on_host(old: np.ndarray, new: np.ndarray, grad: np.ndarray) -> Tensor:
    change, slope = new.astype(np.float64) - old, grad.astype(np.float64)
    bad = ~(np.isfinite(change) & np.isfinite(slope))
    change[bad] = slope[bad] = 0
    size, steepness = float(change.dot(change)), float(slope.dot(slope))
    if steepness == 0:
        return row((math.nan, math.nan))
    rate = -float(change.dot(slope)) / steepness
    rest = change + rate * slope
    return row((rate, math.sqrt(float(rest.dot(rest)) / size) if size > 0 else math.nan))


def _on_device(old: Tensor, new: Tensor, grad: Tensor) -> Tensor:
    change = new - old
    good = (change.abs() < math.inf) & (grad.abs() < math.inf)
    change, slope = torch.where(good, change, 0.0), torch.where(good, grad, 0.0)
    top = slope.abs().amax()
    slope = slope / torch.where(top > 0, top, 1.0)  # squares of small gradients would underflow
    scaled = -(change * slope).sum() / slope.square().sum()
    size = change.square().sum()
    residual = (torch.addcmul(change, scaled, slope).square().sum() / size).sqrt()
    return torch.stack([scaled / top, residual]).float()
