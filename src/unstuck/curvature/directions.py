"""Directions of parameters to look along, and the path that a training took.

The directions are random ones, steps of gradient descent, eigenvectors, and the principal components of a path. Any vector of the
right size is one too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from unstuck.curvature.objective import Objective, local
from unstuck.curvature.spectrum import Eigen
from unstuck.errors import MisuseError

Others = Literal["zero", "scaled"]
CHUNK = 2**20  # parameters at a time, when many vectors are taken in float64


@dataclass(frozen=True)
class Direction:
    """A direction of parameters.

    Attributes:
        vector: What a coordinate of 1 adds to the parameters.
        made: How, in a few words that can stand at an axis.
        share: Of the path that it explains, for a principal component; NaN for others.
    """

    vector: Float[Tensor, " size"] = field(repr=False, compare=False)
    made: str
    share: float = math.nan


class Trajectory:
    """Where the parameters of a run have been: call `record` before the first step and after each.

    It keeps every `stride`-th vector. When it is full the stride is doubled and every second one dropped, so that between half of
    `most` and `most` are there however long the run, evenly spaced from its start.

    Args:
        objective: Whose tensors; it needn't stand still, only be made of the same tensors.
        most: Vectors it keeps at most. Each takes as much memory as the parameters.
        device: Where they are kept; by default where the parameters are. Elsewhere each kept step waits for a copy.

    Attributes:
        vectors: The ones kept.
        steps: Number of each, from 0.
        stride: Between them.
        num_seen: Calls of `record`.

    Raises:
        MisuseError: Fewer than two are to be kept.

    Example:
        >>> x = torch.zeros(1)
        >>> trajectory = Trajectory(Objective(lambda: (x**2).sum(), [x]), most=4)
        >>> for step in range(10):
        ...     trajectory.record()
        >>> trajectory.steps
        [0, 4, 8]
    """

    def __init__(self, objective: Objective, *, most: int = 64, device: torch.device | str | None = None) -> None:
        if most < 2:
            raise MisuseError(f"a trajectory keeps two points at least, not {most}")
        self.objective, self.most, self.device = objective, most, device
        self.vectors: list[Tensor] = []
        self.steps: list[int] = []
        self.stride, self.num_seen = 1, 0

    def record(self) -> None:
        """Keeps where the parameters stand now, if it is this step's turn."""
        if len(self.vectors) == self.most and self.num_seen % self.stride == 0:
            self.stride *= 2
            kept = [i for i, step in enumerate(self.steps) if step % self.stride == 0]
            self.vectors, self.steps = [self.vectors[i] for i in kept], [self.steps[i] for i in kept]
        if self.num_seen % self.stride == 0:
            self.vectors.append(self.objective.at().to(self.device or self.objective.device))
            self.steps.append(self.num_seen)
        self.num_seen += 1


def random_direction(objective: Objective, *, seed: int = 0, others: Others | str = "zero") -> Direction:
    """A random direction, filter-normalised: each filter as long as that of the weights, so that scale doesn't pass for sharpness.

    A filter is what a tensor of two or more axes holds at one place of its first axis: the weights into one unit.

    Args:
        objective: Where it starts.
        seed: Of the normally distributed numbers.
        others: What is done with tensors of one axis or none (biases, scales and shifts of norms): "zero" leaves them where they
            are, "scaled" makes the part as long as the whole tensor.

    Returns:
        The direction, as long as the weights it moves.

    Raises:
        MisuseError: `others` is neither of these.

    Source:
        Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 4. Where their code doesn't leave out vectors it
        takes the weights themselves for a direction; here these are random too.
    """
    if others not in get_args(Others):
        raise MisuseError(f"no way '{others}' to treat biases; there are {', '.join(get_args(Others))}")
    rank = dist.get_rank() if objective.sharded else 0
    generator = torch.Generator("cpu").manual_seed(seed + rank)
    parts = []
    for param in objective.params:
        weights = local(param.detach()).to(objective.device, objective.dtype)
        noise = torch.randn(weights.shape, generator=generator, dtype=torch.float32).to(weights)
        if weights.dim() >= 2:
            parts.append(_as_long(noise.flatten(1), weights.flatten(1)).view_as(weights))
        else:
            parts.append(torch.zeros_like(weights) if others == "zero" else _as_long(noise, weights))
    kind = "" if others == "zero" else ", biases too"
    return Direction(objective.flatten(parts), f"random, filter-normalised{kind} (seed {seed})")


def descent_direction(objective: Objective) -> Direction:
    """Minus the gradient: the coordinate is the learning rate of one step of gradient descent."""
    return Direction(-objective.gradient(), "step of gradient descent, by learning rate")


def eigen_directions(eigen: Eigen) -> list[Direction]:
    """The eigenvectors at one end of a spectrum, of length 1."""
    pairs = zip(eigen.vectors, eigen.values, strict=True)
    return [Direction(vector, f"eigenvector of {value:.3g}") for vector, value in pairs]


def principal_directions(
    objective: Objective, path: Trajectory | Sequence[Tensor], *, count: int = 2
) -> list[Direction]:
    """The principal components of a path relative to its end, which is where the parameters stand; of length 1.

    `share` is the part of the squared distances to the end that lies along each. High shares are no sign of a simple path: of a
    random walk without drift in many dimensions the first two have 81% and 9% (8/π² and 8/9π²).

    Args:
        objective: Its tensors stand at the end of the path.
        path: Points of it.
        count: How many components.

    Returns:
        Directions, the one that explains most first, each pointing to the side that the path began on.

    Raises:
        MisuseError: The path has fewer dimensions than that.

    Source:
        Li et al. 2018, section 7; but through the end and not through the mean of the points, since the plane that is drawn goes
        through the end. Random walks: Antognini & Sohl-Dickstein 2018.
    """
    vectors, here = points_of(path), objective.at()
    gram = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for start in range(0, objective.size, CHUNK):
        part = slice(start, start + CHUNK)
        rows = torch.stack([v[part].to(here.device, torch.float64) for v in vectors]) - here[part].double()
        gram += (rows @ rows.T).cpu()
    gram = objective.summed(gram.to(here.device)).cpu() if objective.sharded else gram
    values, columns = torch.linalg.eigh(gram)
    found = []
    for i in range(len(values) - 1, len(values) - 1 - count, -1):
        if i < 0 or not float(values[i]) > 1e-10 * float(values[-1]):  # not so where it isn't a number either
            raise MisuseError(f"the path has {len(found)} dimensions, and {count} principal components were asked for")
        first = next(c for c in columns[:, i].tolist() if abs(c) > 1e-12)
        weights = (columns[:, i] * math.copysign(1, first) / values[i].sqrt()).tolist()
        total = torch.zeros_like(here)
        for weight, vector in zip(weights, vectors, strict=True):
            total.add_(vector.to(here) - here, alpha=weight)
        share = float(values[i] / values.sum())
        found.append(Direction(total, f"principal component {len(found) + 1} of the path", share))
    return found


def points_of(path: Trajectory | Sequence[Tensor]) -> list[Tensor]:
    """The vectors of a path.

    Raises:
        MisuseError: There are none.
    """
    vectors = path.vectors if isinstance(path, Trajectory) else list(path)
    if not vectors:
        raise MisuseError("the path has no points")
    return vectors


def _as_long(noise: Tensor, weights: Tensor) -> Tensor:
    """Noise whose last axis is as long as that of the weights."""
    lengths = noise.norm(dim=-1, keepdim=True) if noise.dim() else noise.abs()
    wanted = weights.norm(dim=-1, keepdim=True) if weights.dim() else weights.abs()
    return noise * (wanted / lengths)
