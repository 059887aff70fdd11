"""The loss along directions: a line, a plane, and the path of a training in it, with how much of the path the plane leaves out.

    objective, trajectory -> Direction (a vector, and how it was made) -> Line, Plane (numbers only) -> report.pictures

A plane is two directions of millions. What is flat in it may be steep in another one, so each carries how its directions were
made, their lengths, and for a path the share of it that lies in the plane.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unstuck.curvature.directions import Direction, Trajectory, points_of
from unstuck.curvature.objective import Objective
from unstuck.errors import MisuseError

Span = tuple[float, float]
MARGIN = 0.15  # of its extent, that a plane shows around a path


@dataclass(frozen=True)
class Axis:
    """What is known of a direction without its vector.

    Attributes:
        made: How, in a few words.
        length: Euclidean length of the direction, which is the unit of its coordinates; NaN where a coordinate is a parameter.
        share: Of the path that it explains, for a principal component; NaN for others.
    """

    made: str
    length: float = math.nan
    share: float = math.nan


@dataclass(frozen=True)
class Path:
    """A path seen in a plane: the least-squares coordinates of each point.

    Attributes:
        points: In units of the two directions, shape `(count, 2)`; the last is where the parameters stand, at zero.
        steps: Number of each point in the training.
        inside: Share of the squared distance from each point to the last one that lies in the plane, from 0 to 1.
        share: The same of all points together: what the picture shows of the path. The rest is left out.
    """

    points: NDArray[np.float64]
    steps: NDArray[np.int64]
    inside: NDArray[np.float64]
    share: float


@dataclass(frozen=True)
class Line:
    """The loss along one direction.

    Attributes:
        coordinates: In units of the direction, ascending; 0 is where the parameters stand.
        losses: There; NaN and infinite ones as they are.
        centre: The loss where the parameters stand.
        along: The direction.
        passes: Losses of a batch that were computed.
        stated: In which modes modules were.
        stopped: Why there are fewer points than were asked for; "" where there aren't.
    """

    coordinates: NDArray[np.float64]
    losses: NDArray[np.float64]
    centre: float
    along: Axis
    passes: int = 0
    stated: str = ""
    stopped: str = ""


@dataclass(frozen=True)
class Plane:
    """The loss on a grid along two directions.

    Attributes:
        x: Coordinates along the first direction, ascending.
        y: Coordinates along the second.
        losses: Shape `(len(y), len(x))`; NaN and infinite ones as they are.
        centre: The loss where the parameters stand, at `(0, 0)`.
        first: The first direction.
        second: The second.
        cosine: Of the angle between them.
        path: Of a training, seen in this plane.
        passes: Losses of a batch that were computed.
        stated: In which modes modules were.
        stopped: Why there are fewer points than were asked for; "" where there aren't.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    losses: NDArray[np.float64]
    centre: float
    first: Axis
    second: Axis
    cosine: float = 0.0
    path: Path | None = None
    passes: int = 0
    stated: str = ""
    stopped: str = ""


def project(
    objective: Objective, path: Trajectory | Sequence[Tensor], first: Direction | Tensor, second: Direction | Tensor
) -> Path:
    """A path in the plane of two directions, relative to where the parameters stand, which is added as its last point.

    Args:
        objective: Its tensors stand at the end of the path.
        path: Points of it.
        first: One direction.
        second: Another; they needn't be orthogonal.

    Returns:
        The coordinates that come nearest to each point, and how near that is.

    Raises:
        MisuseError: The directions are parallel, or not ones of this objective.
    """  # noqa: DOC502
    one, two = (_direction(objective, d).vector.double() for d in (first, second))
    gram = _gram(objective, one, two)
    here = objective.at().double()
    points, lengths, insides = [], [], []
    for vector in points_of(path):
        away = vector.to(here) - here
        parts = np.array([float(objective.dot(away, one)), float(objective.dot(away, two))])
        points.append(np.linalg.solve(gram, parts))
        lengths.append(float(objective.dot(away, away)))
        insides.append(min(float(points[-1] @ parts), lengths[-1]))
    steps = path.steps if isinstance(path, Trajectory) else list(range(len(points)))
    last = path.num_seen - 1 if isinstance(path, Trajectory) else len(points)
    if lengths[-1] > 0:  # else the last point is where the parameters stand
        points, lengths, insides, steps = [*points, np.zeros(2)], [*lengths, 0.0], [*insides, 0.0], [*steps, last]
    inside = np.array([i / t if t > 0 else 1.0 for i, t in zip(insides, lengths, strict=True)])
    share = math.fsum(insides) / math.fsum(lengths) if math.fsum(lengths) > 0 else 1.0
    return Path(np.array(points), np.array(steps), inside, share)


def line(
    objective: Objective,
    direction: Direction | Tensor,
    *,
    span: Span = (-1.0, 1.0),
    num: int = 65,
    most: int | None = None,
    seconds: float | None = None,
) -> Line:
    """The loss along a direction. The parameters have the very values they had afterwards.

    Where a limit doesn't allow all points, the grid is coarser: points are taken in rounds, each twice as fine as the one before,
    and a round that isn't expected to fit isn't begun. One more than a multiple of a power of two (33, 65) makes many rounds.

    Args:
        objective: The loss.
        direction: Any vector of its size; `other - objective.at()` with the span `(0, 1)` leads to another point.
        span: Lowest and highest coordinate, in units of the direction.
        num: Points, 3 at least.
        most: Losses of a batch that may be computed.
        seconds: That it may take. The first round is always made; a round that isn't done in time is dropped.

    Returns:
        Losses, with how they were made.

    Raises:
        MisuseError: The direction has another size or no length, the span is empty, there are too few points, or `most` doesn't
            allow the first round.

    Example:
        >>> x = torch.tensor([1.0, 2.0])
        >>> line(Objective(lambda: (x**2).sum(), [x]), torch.tensor([1.0, 0.0]), num=3).losses.tolist()
        [4.0, 5.0, 8.0]
    """  # noqa: DOC502
    along = _direction(objective, direction)
    walk = _Walk(objective, [along.vector], [_axis(span, num)], most, seconds)
    (coordinates,), losses = walk.run()
    return Line(coordinates, losses, walk.centre, _bare(objective, along), walk.passes, objective.stated, walk.stopped)


def plane(
    objective: Objective,
    first: Direction | Tensor,
    second: Direction | Tensor,
    *,
    path: Trajectory | Sequence[Tensor] | None = None,
    spans: tuple[Span, Span] | None = None,
    num: int = 33,
    most: int | None = None,
    seconds: float | None = None,
) -> Plane:
    """The loss in the plane of two directions, and a path seen in it. The parameters have the very values they had afterwards.

    Args:
        objective: The loss.
        first: Any vector of its size.
        second: Another that isn't parallel to it.
        path: Points that the training has been at.
        spans: Lowest and highest coordinate along each direction; by default what shows the path, or -1 to 1.
        num: Points along each direction, 3 at least.
        most: Losses of a batch that may be computed; with fewer the grid is coarser, as in `line`.
        seconds: That it may take, as in `line`.

    Returns:
        Losses, with how they were made.

    Raises:
        MisuseError: As in `line`, or the directions are parallel.
    """  # noqa: DOC502
    one, two = _direction(objective, first), _direction(objective, second)
    gram = _gram(objective, one.vector, two.vector)
    seen = project(objective, path, one, two) if path is not None else None
    spans = spans or (_around(seen.points) if seen is not None else ((-1.0, 1.0), (-1.0, 1.0)))
    walk = _Walk(objective, [two.vector, one.vector], [_axis(spans[1], num), _axis(spans[0], num)], most, seconds)
    (y, x), losses = walk.run()
    return Plane(
        x,
        y,
        losses,
        walk.centre,
        _bare(objective, one),
        _bare(objective, two),
        cosine=float(gram[0, 1] / math.sqrt(gram[0, 0] * gram[1, 1])),
        path=seen,
        passes=walk.passes,
        stated=objective.stated,
        stopped=walk.stopped,
    )


class _Walk:
    """The losses on a grid, from coarse to fine, within limits."""

    def __init__(
        self,
        objective: Objective,
        vectors: list[Tensor],
        axes: list[NDArray[np.float64]],
        most: int | None,
        seconds: float | None,
    ) -> None:
        self._objective, self._vectors, self._axes = objective, vectors, axes
        self._most, self._seconds = math.inf if most is None else most, math.inf if seconds is None else seconds
        self._losses = np.full([len(a) for a in axes], np.nan)
        self._strides = _strides(len(axes[0]))
        self._made = 0
        self.stopped = ""
        first = len(range(0, len(axes[0]), self._strides[0])) ** len(axes)
        if self._agreed(self._passes_of(first + 1) > self._most):
            raise MisuseError(
                f"a grid of {first} points and the centre take {self._passes_of(first + 1)} losses of a batch, and {most} were"
                " allowed; give fewer batches or allow more"
            )
        self._begun = time.monotonic()
        self.centre = objective.value()
        self._second = time.monotonic()  # the first loss may have to warm up; it says nothing of the others

    @property
    def passes(self) -> int:
        """Losses of a batch computed so far."""
        return self._passes_of(self._made + 1)

    def run(self) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
        """The axes and the losses of the finest grid that the limits allow."""
        done, finest = set(), None
        with self._objective.moved() as move:
            for stride in self._strides:
                indices = [range(0, len(a), stride) for a in self._axes]
                todo = [at for at in itertools.product(*indices) if at not in done]
                if finest is not None and self._too_many(len(todo)):
                    break
                if not self._round(move, todo, finest is None):
                    break
                done.update(todo)
                finest = stride
        if finest != 1:
            total = math.prod(len(a) for a in self._axes)
            why = "losses" if self._passes_of(total + 1) > self._most else "seconds"
            limit = f"{self._most if why == 'losses' else self._seconds:g} {why}"
            self.stopped = f"{len(done)} of {total} points, since {limit} were allowed"
        step = slice(None, None, finest)
        return [a[step] for a in self._axes], self._losses[(step,) * len(self._axes)]

    def _round(self, move: Callable[[Tensor], None], todo: list[tuple[int, ...]], is_first: bool) -> bool:
        """Computes the losses at some points; False where time was up before."""
        for at in todo:
            if not is_first and self._agreed(time.monotonic() - self._begun > self._seconds):
                return False
            coordinates = [float(a[i]) for a, i in zip(self._axes, at, strict=True)]
            by = torch.zeros_like(self._vectors[0])
            for coordinate, vector in zip(coordinates, self._vectors, strict=True):
                by.add_(vector, alpha=coordinate)
            move(by)
            self._losses[at] = self._objective.value()
            self._made += 1
        return True

    def _too_many(self, count: int) -> bool:
        """Whether so many more points are against a limit, as far as can be told."""
        now = time.monotonic()
        late = now - self._begun + (now - self._second) / self._made * count > self._seconds
        return self._agreed(late or self._passes_of(self._made + 1 + count) > self._most)

    def _passes_of(self, points: int) -> int:
        return points * len(self._objective.batches)

    def _agreed(self, is_over: bool) -> bool:
        """The same on all ranks, or they would wait for each other: whether it is over a limit on any."""
        if min(self._most, self._seconds) == math.inf or not self._objective.distributed:
            return is_over
        return bool(self._objective.summed(torch.tensor(float(is_over), device=self._objective.device)) > 0)


def _strides(num: int) -> list[int]:
    """From coarse to fine, so that each grid holds the one before; the coarsest has five points at least, if there are so many."""
    strides = [1]
    while (num - 1) % (2 * strides[-1]) == 0 and (num - 1) // (2 * strides[-1]) >= 4:
        strides.append(2 * strides[-1])
    return strides[::-1]


def _axis(span: Span, num: int) -> NDArray[np.float64]:
    low, high = span
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise MisuseError(f"a span goes from a lower to a higher number, not from {low} to {high}")
    if num < 3:
        raise MisuseError(f"a grid takes three points at least, not {num}")
    return np.linspace(low, high, num)


def _around(points: NDArray[np.float64]) -> tuple[Span, Span]:
    """Spans that show some points with a margin."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.where(high > low, high - low, max(float((high - low).max()), 1e-12))
    (a, b), (c, d) = zip(low - MARGIN * extent, high + MARGIN * extent, strict=True)
    return (float(a), float(b)), (float(c), float(d))


def _direction(objective: Objective, given: Direction | Tensor) -> Direction:
    """One whose vector is where the objective's are.

    Raises:
        MisuseError: It has another size, or no length.
    """
    given = given if isinstance(given, Direction) else Direction(given, "direction given")
    vector = given.vector.detach().to(objective.device, objective.dtype)
    if vector.shape != (objective.size,):
        raise MisuseError(f"a direction has shape ({objective.size},), and this has {tuple(vector.shape)}")
    if not 0 < float(objective.dot(vector.double(), vector.double())) < math.inf:
        raise MisuseError(f"a direction has a length above zero, and this has not: {given.made}")
    return Direction(vector, given.made, given.share)


def _bare(objective: Objective, direction: Direction) -> Axis:
    vector = direction.vector.double()
    return Axis(direction.made, math.sqrt(float(objective.dot(vector, vector))), direction.share)


def _gram(objective: Objective, one: Tensor, two: Tensor) -> NDArray[np.float64]:
    """Inner products of two directions.

    Raises:
        MisuseError: They are parallel.
    """
    pair = one.double(), two.double()
    gram = np.array([[float(objective.dot(a, b)) for b in pair] for a in pair])
    if np.linalg.det(gram) <= 1e-10 * gram[0, 0] * gram[1, 1]:
        raise MisuseError("the two directions are parallel: they span no plane")
    return gram
