"""How sharp a minimum is, by three measures in use. None of them promises that it generalises well or badly.

All depend on how the tensors are scaled, which a network's function need not (Dinh et al. 2017); and over many networks they correlate
little with the gap between training and evaluation (Andriushchenko et al. 2023). They are for comparing runs of one
network with one scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.curvature.objective import Objective
from unstuck.errors import MisuseError


@dataclass(frozen=True)
class Sharpness:
    """By how much a loss rises nearby.

    Attributes:
        sam: Rise after a step of length `radius` along the gradient.
        adaptive: The same, the step measured relative to the size of each number.
        keskar: Largest rise in a box of relative half-width `epsilon`, in percent of 1 + loss.
        radius: Of the first two.
        epsilon: Of the third.
        loss: At the centre.
    """

    sam: float
    adaptive: float
    keskar: float
    radius: float
    epsilon: float
    loss: float


def sharpness(objective: Objective, *, radius: float = 0.05, epsilon: float = 1e-3, steps: int = 20) -> Sharpness:
    """How far a loss rises near where its tensors stand.

    Args:
        objective: The loss.
        radius: Of the step along the gradient.
        epsilon: Half-width of the box, relative to the size of each number and 1.
        steps: Of projected gradient ascent in the box, a gradient each.

    Returns:
        The three measures.

    Raises:
        MisuseError: A radius, a half-width or a number of steps isn't above zero.

    Source:
        Foret et al. 2021, "Sharpness-Aware Minimization"; Kwon et al. 2021, "ASAM"; Keskar et al. 2017, "On Large-Batch Training for
        Deep Learning", equation 3, solved here by signed gradient ascent in place of L-BFGS-B.
    """
    if not (radius > 0 and epsilon > 0 and steps > 0):
        raise MisuseError("radius, epsilon and steps are above zero")
    at, here = objective.at(), objective.value()
    slope = objective.gradient()
    with objective.moved() as move:

        def rise(by: Tensor) -> float:
            move(by)
            return objective.value() - here

        size = math.sqrt(float(objective.dot(slope, slope)))
        sam = rise(radius * slope / size) if size > 0 else 0.0
        scaled = at.abs() * slope
        length = math.sqrt(float(objective.dot(scaled, scaled)))
        adaptive = rise(radius * at.abs() * scaled / length) if length > 0 else 0.0
        box = epsilon * (at.abs() + 1)
        generator = torch.Generator("cpu").manual_seed(0)
        noise = torch.rand(objective.size, generator=generator, dtype=torch.float32).to(at)
        highest, where = 0.0, 0.01 * box * (2 * noise - 1)
        for step in range(steps):
            move(where)
            ascent = objective.gradient()
            where = (where + box * ascent.sign() / (1 + step / 4)).clamp(min=-box, max=box)
            highest = max(highest, rise(where))
    return Sharpness(sam, adaptive, 100 * highest / (1 + here), radius, epsilon, here)
