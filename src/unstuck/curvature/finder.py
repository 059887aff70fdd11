"""Going to a critical point, of whatever kind: a minimum of the gradient's length, or of the loss past its saddles.

gradient-norm    down the length of the gradient, by its gradient Hg; slow, needs no solve
newton-mr        steps that make |Hp + g| least, in the space that Lanczos grows from g; accepted by the length of the gradient
saddle-free      steps along |H|^-1 g in that space, accepted by the loss: it leaves saddles and ends in minima
"""

from __future__ import annotations

import math
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
        damping: Relative to the largest eigenvalue met, below which an eigenvalue isn't divided by.

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
    norms, losses, ended, length = [], [], "out of steps", 1.0
    for _ in range(steps):
        slope = hessian.gradient()
        norms.append(_norm(objective, slope))
        losses.append(objective.value())
        if not norms[-1] > tolerance * norms[0]:
            ended = "gradient vanishes"
            break
        step = _step(hessian, slope, norms[-1], method, products, damping)
        by_loss = method == "saddle-free"
        now = losses[-1] if by_loss else norms[-1]
        length = _taken(objective, step, now, length=1.0 if method != "gradient-norm" else 2 * length, by_loss=by_loss)
        if length == 0:
            ended = "no step helps"
            break
    else:
        norms.append(_norm(objective, objective.gradient()))
        losses.append(objective.value())
    return Search(norms, losses, ended, hessian.products)


def _step(
    hessian: Hessian, slope: Tensor, norm: float, method: Method, products: int, damping: float
) -> Float[Tensor, " size"]:
    if method == "gradient-norm":
        image = hessian @ slope
        curvature = float(hessian.dot(image, image)) / max(norm**2, 1e-300)
        return -image / max(curvature, 1e-300)
    krylov = Krylov(hessian, start=slope)
    while krylov.products < products and krylov.grow():
        pass
    values, vectors = torch.linalg.eigh(krylov.projected)
    least = damping * float(values.abs().max())
    right = torch.zeros(krylov.products, dtype=torch.float64)
    right[0] = norm
    if method == "saddle-free":
        inside = -vectors @ ((vectors.T @ right) / values.abs().clamp(min=max(least, 1e-300)))
    else:
        tall = torch.cat([krylov.projected, krylov.couplings])
        target = torch.cat([-right, torch.zeros(len(krylov.couplings), dtype=torch.float64)])
        u, singular, v = torch.linalg.svd(tall, full_matrices=False)
        kept = singular > damping * damping * float(singular[0])
        inside = v.T @ torch.where(kept, (u.T @ target) / singular.clamp(min=1e-300), torch.zeros_like(singular))
    return krylov.vectors(inside[:, None])[0]


def _taken(objective: Objective, step: Tensor, now: float, *, length: float, by_loss: bool) -> float:
    """Halves a step until it helps, and takes it; its length, 0 where none does."""
    found = 0.0
    with objective.moved() as move:
        for _ in range(40):
            move(length * step)
            after = objective.value() if by_loss else _norm(objective, objective.gradient())
            if math.isfinite(after) and after < now * (1 - 1e-4 * min(length, 1.0)) if not by_loss else after < now:
                found = length
                break
            length /= 2
    if found:
        objective.move(found * step)
    return found


def _norm(objective: Objective, vector: Tensor) -> float:
    return math.sqrt(float(objective.dot(vector, vector)))
