"""Which learning rate a loss bears: from its curvature, and from a few losses along the step itself.

On a parabola of curvature h a method diverges from a certain rate on:

    gradient descent                  2 / h
    heavy-ball momentum b             2 (1 + b) / h                    (dampening d: over 1 - d)
    Nesterov momentum b               2 (1 + b) / ((1 + 2b) h)
    RMSprop, Adagrad                  the same, of the preconditioned Hessian P^-1/2 H P^-1/2
    Adam, beta1 = b                   2 (1 + b) / ((1 - b) h), of the preconditioned Hessian
    NAdam, looking ahead by c         2 (1 + b) / ((1 + b - 2bc) h), of the preconditioned Hessian
    weight decay w                    h + w in place of h, where it is added to the gradient

A network is no parabola: training goes on above this bound at the edge of stability, with a loss that falls in jerks (Cohen et al.
2021, 2022). A rate a few times above it diverges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unstuck.curvature.objective import Objective, local
from unstuck.curvature.products import Hessian, Operator
from unstuck.curvature.spectrum import extremes
from unstuck.errors import MisuseError


@dataclass(frozen=True)
class StableRate:
    """The largest rate that the curvature bears.

    Attributes:
        rate: The learning rate, of the first parameter group where there are several; infinite where nothing curves upwards.
        multiple: By which the present rates can be multiplied.
        sharpness: Largest eigenvalue of the Hessian, preconditioned where the optimizer does that.
        error: Its residual.
        bound: What the rate times the sharpness may be: 2 for gradient descent.
        method: The optimizer, in words.
        products: With the Hessian.
    """

    rate: float
    multiple: float
    sharpness: float
    error: float
    bound: float
    method: str
    products: int


@dataclass(frozen=True)
class CriticalRate:
    """The largest rate by losses along a step.

    Attributes:
        multiple: Least multiple of the step at which the loss is higher than before it; infinite where none was met.
        above: Least multiple tried at which it is higher; not narrowed down any further than the tolerance asks.
        best: Multiple at which it is lowest.
        start: The loss before the step.
        gain: By how much the loss falls at `best`.
        losses: Losses computed.
    """

    multiple: float
    above: float
    best: float
    start: float
    gain: float
    losses: int


class Scaled:
    """A symmetric matrix, and a diagonal one added to it, between two diagonal ones: `D (H + W) D`.

    Args:
        operator: H.
        diagonal: D.
        added: W.
    """

    def __init__(self, operator: Operator, diagonal: Float[Tensor, " size"], added: Float[Tensor, " size"]) -> None:
        self.operator, self.diagonal, self.added = operator, diagonal, added
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device
        self.whole_size, self.rank = operator.whole_size, operator.rank

    def __matmul__(self, vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
        """The product with a vector."""
        scaled = self.diagonal * vector
        return self.diagonal * (self.operator @ scaled + self.added * scaled)

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner product."""
        return self.operator.dot(left, right)


def bound(
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    dampening: float = 0.0,
    averaged: bool = False,
    ahead: float | None = None,
) -> float:
    """What the rate times the curvature may be on a parabola.

    Args:
        momentum: Of the gradients, from 0 to below 1.
        nesterov: Looks ahead.
        dampening: Share by which a gradient is weakened as it enters the momentum.
        averaged: The momentum is a mean of gradients, as in Adam, and not a sum.
        ahead: Of a mean, the share of it in a step, the rest being the gradient, as in NAdam; by default all.

    Returns:
        2 for gradient descent.

    Raises:
        MisuseError: Momentum or dampening isn't from 0 to below 1, or Nesterov momentum is dampened or a mean.

    Source:
        Cohen et al. 2021, "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability", appendix B; Cohen et
        al. 2022, "Adaptive Gradient Methods at the Edge of Stability".

    Example:
        >>> bound(), bound(momentum=0.9), round(bound(momentum=0.9, averaged=True), 6)
        (2.0, 3.8, 38.0)
    """
    if not (0 <= momentum < 1 and 0 <= dampening < 1):
        raise MisuseError(f"momentum and dampening are from 0 to below 1, and these are {momentum:g} and {dampening:g}")
    entering = 1 - (momentum if averaged else dampening)
    if nesterov and entering != 1:
        raise MisuseError("Nesterov momentum is of gradients that enter whole: without dampening, and as a sum")
    if nesterov:
        return 2 * (1 + momentum) / (1 + 2 * momentum)
    if averaged and ahead is not None:
        return 2 * (1 + momentum) / (1 + momentum - 2 * momentum * ahead)
    return 2 * (1 + momentum) / entering


def stable_rate(
    objective: Objective,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    hessian: Hessian | None = None,
    tolerance: float = 0.01,
    most: int = 60,
    seed: int = 0,
) -> StableRate:
    """The largest learning rate at which steps don't grow on the parabola that the loss is like here.

    Args:
        objective: The loss.
        optimizer: Makes the steps: SGD with its momentum, Nesterov, Adam, AdamW, NAdam, Adamax, RMSprop or Adagrad, with the state that
            it has; before its first step the square of the gradient stands in for it. By default plain gradient descent.
        hessian: The Hessian, where there is one already.
        tolerance: Relative error of the sharpness.
        most: Products.
        seed: Of the random vector.

    Returns:
        The rate; infinite where nothing curves upwards. An optimizer that isn't one of these, or doesn't hold all tensors of the
        loss, is a `MisuseError`.
    """
    hessian = hessian if hessian is not None else Hessian(objective)
    began = hessian.products
    method = _method(objective, optimizer)
    first = method.rates[0]
    diagonal = _spread(objective, [r / first for r in method.rates])
    if method.divisor is not None:
        diagonal = diagonal / method.divisor
    added = _spread(objective, method.decays)
    matrix = Scaled(hessian, diagonal.sqrt(), added)
    found = extremes(matrix, top=1, bottom=0, tolerance=tolerance, most=most, seed=seed)
    sharpness, error = found.top.values[0], found.top.errors[0]
    rate = method.bound / sharpness if sharpness > 0 else math.inf
    multiple = rate / first if optimizer is not None else math.nan
    return StableRate(rate, multiple, sharpness, error, method.bound, method.name, hessian.products - began)


def critical_rate(
    objective: Objective, step: Float[Tensor, " size"], *, reach: int = 24, tolerance: float = 0.1
) -> CriticalRate:
    """How far one can go along a step before the loss is higher than where it began, by losses alone.

    Args:
        objective: The loss.
        step: What an optimizer would add to the tensors.
        reach: Doublings or halvings that are tried.
        tolerance: Relative width to which the crossing is narrowed down; from 1/2 on not at all.

    Returns:
        Multiples of the step. Where the loss is a parabola the critical one is twice the best.

    Source:
        Roulet et al. 2024; critical sharpness, 2 over the critical rate of gradient descent, after Kalra et al. 2025.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0], dtype=torch.float64)
        >>> along = critical_rate(
        ...     Objective(lambda: (x**2).sum(), [x]), -0.1 * 2 * x
        ... )  # gradient descent at a rate of 0.1
        >>> round(along.multiple, 0)  # diverges from a rate of 1 on: 2 / h with h = 2
        10.0
    """
    with objective.moved() as move:

        def loss(multiple: float) -> float:
            move(multiple * step)
            found = objective.value()
            return found if math.isfinite(found) else math.inf

        return searched(loss, reach=reach, tolerance=tolerance)


def searched(loss: Callable[[float], float], *, reach: int = 24, tolerance: float = 0.1) -> CriticalRate:
    """The same for any function of a multiple, the loss at 0 first."""
    here = loss(0.0)
    known = {0.0: here, 1.0: loss(1.0)}
    rises = not known[1.0] <= here
    multiple, low, high = 1.0, 0.0, math.inf
    for _ in range(reach):
        following = multiple / 2 if rises else multiple * 2
        known[following] = loss(following)
        if (known[following] <= here) == rises:  # it crosses where it began
            low, high = sorted((multiple, following))
            break
        multiple = following
    else:
        high = 0.0 if rises else math.inf
    while math.isfinite(high) and high > 0 and high - low > tolerance * high:
        middle = (low + high) / 2
        known[middle] = loss(middle)
        low, high = (middle, high) if known[middle] <= here else (low, middle)
    best = min((m for m in known if known[m] <= here), key=lambda m: (known[m], m))
    while best > 0 and best / 2 not in known and len(known) < 2 * reach:  # just below the crossing little is gained
        known[best / 2] = loss(best / 2)
        best = best / 2 if known[best / 2] < known[best] else best
    crossing = (low + high) / 2 if math.isfinite(high) else high
    return CriticalRate(crossing, high, best, here, here - known[best], len(known))


@dataclass(frozen=True)
class _Method:
    name: str
    bound: float
    rates: list[float]  # of each tensor
    decays: list[float]  # of each, added to its gradient
    divisor: Tensor | None = None  # of each number's step


def _method(objective: Objective, optimizer: torch.optim.Optimizer | None) -> _Method:
    """How an optimizer makes steps.

    Raises:
        MisuseError: It isn't known, doesn't hold all tensors of the loss, goes uphill, or one of its rates is 0.
    """
    count = len(objective.params)
    if optimizer is None:
        return _Method("gradient descent", 2.0, [1.0] * count, [0.0] * count)
    groups = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    missing = sum(id(p) not in groups for p in objective.params)
    if missing:
        raise MisuseError(f"the optimizer doesn't hold {missing} of the {count} tensors that the loss is a function of")
    chosen = [groups[id(p)] for p in objective.params]
    rates = [float(g["lr"]) for g in chosen]
    if not all(r > 0 for r in rates):
        raise MisuseError("a learning rate is 0: nothing can be said of its multiples")
    name, group = type(optimizer).__name__, chosen[0]
    if any(g.get("maximize") for g in chosen):
        raise MisuseError("the optimizer goes uphill (maximize); give the negated loss, and one that goes down")
    if name != "SGD" and name not in _DIVISORS:
        raise MisuseError(f"the bound of {name} isn't known; it is of SGD, {', '.join(_DIVISORS)}")
    decoupled = name == "AdamW" or group.get("decoupled_weight_decay", False)
    decays = [0.0 if decoupled else float(g["weight_decay"]) for g in chosen]
    if name == "SGD":
        momentum, nesterov = float(group["momentum"]), group["nesterov"]
        limit = bound(momentum=momentum, nesterov=nesterov, dampening=float(group["dampening"]) if momentum else 0.0)
        kind = "Nesterov momentum" if nesterov else "momentum"
        return _Method(f"SGD with {kind} {momentum:g}" if momentum else "gradient descent", limit, rates, decays)
    averaged = name not in ("RMSprop", "Adagrad")
    ahead = _ahead(objective, optimizer, group) if name == "NAdam" else None
    limit = bound(
        momentum=float(group["betas"][0] if averaged else group.get("momentum", 0.0)), averaged=averaged, ahead=ahead
    )
    return _Method(name, limit, rates, decays, _divisor(objective, optimizer, chosen))


def _ahead(objective: Objective, optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> float:
    """How far NAdam looks ahead by now, see Dozat 2016."""
    step = float(optimizer.state.get(objective.params[0], {}).get("step", 0)) + 1
    return group["betas"][0] * (1 - 0.5 * 0.96 ** (step * group["momentum_decay"]))


def _divisor(objective: Objective, optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> Tensor:
    """What each number's step is divided by; the size of its gradient before the first step."""
    states = [optimizer.state.get(p, {}) for p in objective.params]
    begun = [float(state.get("step", 0)) > 0 for state in states]
    grads = objective.split(objective.gradient()) if not all(begun) else []
    of = _DIVISORS[type(optimizer).__name__]
    return objective.flatten([
        of(states[i], group) if begun[i] else grads[i].abs() + group["eps"] for i, group in enumerate(groups)
    ])  # fmt: skip


def _spread(objective: Objective, numbers: list[float]) -> Float[Tensor, " size"]:
    """A vector with one number for each tensor."""
    pairs = zip(objective.params, numbers, strict=True)
    return objective.flatten([torch.full_like(local(p.detach()), number) for p, number in pairs])


def _adam(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    squares = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    correction = 1 - group["betas"][1] ** float(state["step"])
    return (squares / correction).sqrt() + group["eps"]


def _rmsprop(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    squares = state["square_avg"]
    if group.get("centered"):
        squares = squares - state["grad_avg"] ** 2
    return squares.clamp(min=0).sqrt() + group["eps"]


_DIVISORS: dict[str, Callable[[dict[str, Any], dict[str, Any]], Tensor]] = {
    "Adam": _adam,
    "AdamW": _adam,
    "NAdam": _adam,
    "Adamax": lambda state, group: state["exp_inf"] + group["eps"],
    "RMSprop": _rmsprop,
    "Adagrad": lambda state, group: state["sum"].sqrt() + group["eps"],
}


def edge(sharpness: Sequence[float], rates: Sequence[float], *, limit: float = 2.0) -> list[float]:
    """How near to the edge of stability each moment of a run was: rate times sharpness over the bound, 1 at the edge.

    Args:
        sharpness: Largest eigenvalues, preconditioned where the optimizer does that.
        rates: Learning rates at the same steps.
        limit: See `bound`.
    """
    return [s * r / limit for s, r in zip(sharpness, rates, strict=True)]
