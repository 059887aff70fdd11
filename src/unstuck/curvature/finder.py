"""Going to a critical point, of whatever kind: a minimum of the gradient's length, or of the loss past its saddles.

gradient-norm    down the length of the gradient, by its gradient Hg; slow, needs no solve
newton-mr        steps that make |Hp + g| least, in the space that Lanczos grows from g; accepted by the length of the gradient
saddle-free      steps along |H|^-1 g in that space, accepted by the loss: it leaves saddles and ends in minima

A step that doesn't help is damped more, as Levenberg and Marquardt do it, rather than shortened: along flat directions it is too long
when along steep ones it is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from unstuck.curvature.lanczos import Krylov
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Hessian
from unstuck.errors import MisuseError

Method = Literal["newton-mr", "gradient-norm", "saddle-free"]
BOLDER, TRIES = 4.0, 40  # by which the caution of a step is raised until it helps, and lowered after


@dataclass(frozen=True)
class Search:
    """What came of a search.

    Attributes:
        norms: Length of the gradient before each step, and at the end.
        losses: The loss there.
        ended: Why: "gradient vanishes", "no step helps" or "out of steps".
        products: With the Hessian.
    """

    norms: list[float]
    losses: list[float]
    ended: str
    products: int


def find(
    objective: Objective,
    *,
    method: Method = "newton-mr",
    steps: int = 100,
    tolerance: float = 1e-8,
    products: int = 50,
    damping: float = 1e-4,
) -> Search:
    """Moves the tensors to a critical point near by.

    Args:
        objective: The loss; its tensors are moved.
        method: See above.
        steps: At most.
        tolerance: Length of the gradient, relative to that at the start, at which it ends.
        products: With the Hessian in a step.
        damping: Added to the size of eigenvalues before they are divided by, relative to the largest met, in the first step; then as
            much as helps.

    Returns:
        How the search went; ask `critical_point` what it found.

    Raises:
        MisuseError: No such method.

    Source:
        Frye et al. 2021; Roosta et al. 2018, "Newton-MR"; Dauphin et al. 2014, "saddle-free Newton".
    """
    if method not in get_args(Method):
        raise MisuseError(f"no method '{method}'; there are {', '.join(get_args(Method))}")
    hessian = Hessian(objective, check=False)
    by_loss, scale = method == "saddle-free", 1.0
    norms, losses, ended = [], [], "out of steps"
    for _ in range(steps):
        slope = hessian.gradient()
        norms.append(_norm(objective, slope))
        losses.append(objective.value())
        if not norms[-1] > tolerance * norms[0]:
            ended = "gradient vanishes"
            break
        step = _stepper(hessian, slope, norms[-1], method, products, damping)
        now = losses[-1] if by_loss else norms[-1]
        taken = _taken(objective, step, now, scale=scale, by_loss=by_loss)
        if taken is None:
            ended = "no step helps"
            break
        scale = taken / BOLDER
    else:
        norms.append(_norm(objective, objective.gradient()))
        losses.append(objective.value())
    return Search(norms, losses, ended, hessian.products)


def _stepper(
    hessian: Hessian, slope: Tensor, norm: float, method: Method, products: int, damping: float
) -> Callable[[float], Float[Tensor, " size"]]:
    """Gives the step for a scale of caution: 1 is as bold as the method is, and the larger the scale the shorter the step."""
    if method == "gradient-norm":
        image = hessian @ slope
        curvature = float(hessian.dot(image, image)) / max(norm**2, 1e-300)
        return lambda scale: -image / max(scale * curvature, 1e-300)
    krylov = Krylov(hessian, start=slope)
    while krylov.products < products and krylov.grow():
        pass
    values, vectors = torch.linalg.eigh(krylov.projected)
    least = max(damping * float(values.abs().max()), 1e-300)
    right = torch.zeros(krylov.products, dtype=torch.float64)
    right[0] = norm
    if method == "saddle-free":
        parts = vectors.T @ right
        return lambda scale: krylov.vectors((-vectors @ (parts / (values.abs() + scale * least)))[:, None])[0]
    tall = torch.cat([krylov.projected, krylov.couplings])
    target = torch.cat([-right, torch.zeros(len(krylov.couplings), dtype=torch.float64)])
    u, singular, v = torch.linalg.svd(tall, full_matrices=False)
    aim = u.T @ target
    return lambda scale: krylov.vectors((v.T @ (aim * singular / (singular**2 + (scale * least) ** 2)))[:, None])[0]


def _taken(
    objective: Objective, step: Callable[[float], Tensor], now: float, *, scale: float, by_loss: bool
) -> float | None:
    """Takes the boldest step that helps, from a scale of caution on; its scale, None where none does."""
    with objective.moved() as move:
        for _ in range(TRIES):
            move(step(scale))
            after = objective.value() if by_loss else _norm(objective, objective.gradient())
            if after < now:
                break
            scale *= BOLDER
        else:
            return None
    objective.move(step(scale))
    return scale


def _norm(objective: Objective, vector: Tensor) -> float:
    return math.sqrt(float(objective.dot(vector, vector)))
