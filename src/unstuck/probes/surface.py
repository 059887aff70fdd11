"""The loss in a plane around where a training ended, and the way it came, as far as the plane shows that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unstuck.curvature.directions import Direction, eigen_directions, principal_directions
from unstuck.curvature.objective import Objective
from unstuck.curvature.spectrum import extremes
from unstuck.curvature.surface import Axis, Path, Plane, Span, plane
from unstuck.errors import MisuseError
from unstuck.probes.bench import Bench, Clock
from unstuck.probes.course import in_order
from unstuck.probes.curvature import FEWEST, Ground

NUM = 33  # points along each direction, where there is time
ENOUGH = 17**2  # points that there is to be time for with as many batches as are taken
FEW = 5**2 + 1  # points of the coarsest grid, and the centre
PRODUCTS = 40  # with the Hessian, for its eigenvectors
RISE = 0.5  # of the loss, by which it is to change along an eigenvector
DIGITS = 7  # of a number that is kept


def surface(bench: Bench, clock: Clock, *, num: int = NUM, most: int = 16) -> dict[str, Any]:
    """The loss in the plane that shows most of the path of a training, or in that of two eigenvectors of its Hessian.

    Args:
        bench: The training, with its snapshots; it ends as it was.
        clock: Ends it: with less time batches are fewer, then the grid is coarser.
        num: Points along each direction.
        most: Batches.

    Returns:
        `x` and `y`, coordinates in distance of the weights; `losses`, by row of `y`, and `centre`, the loss at the end; `asked`,
        points along each direction; two `axes`, each with how it was `made`, its `kind` ("path" or "hessian"), `length`, `share` of
        the path, and `eigenvalue`; their `cosine`; `path` with `points`, `steps`, `inside`, `share` and the `losses` at the points
        themselves, which needn't lie in the plane, or None; `batches`, `samples`, `passes`, `stated`, `stopped`; `note`, why it isn't the
        plane of the path. Where there is no plane, `why` alone.
    """
    bench.restore()
    half = bench.batches[-max(1, len(bench.batches) // 2) :]
    batches = bench.some(half, clock, ENOUGH, most=most, samples=1024)
    objective = bench.objective(batches)
    if not bool(torch.isfinite(objective.at()).all()):
        return {"why": "the weights where it ended are not finite"}
    if objective.size < 2:
        return {"why": "there is one number to learn, and a plane takes two"}
    if clock.left < FEW * len(batches) * bench.cost:
        return {"why": "no time was left for it"}
    points = list(_points(bench, objective))
    directions, told, note = _directions(bench, batches, objective, clock, [vector for _, vector, _ in points])
    if note is None:
        shown = plane(objective, *directions, path=[vector for _, vector, _ in points], num=num, seconds=clock.left)
        path = _told_path(shown.path, [step for step, _, _ in points], [loss for _, _, loss in points], bench, shown)
    elif directions:
        spans = tuple(_span(objective, one["eigenvalue"]) for one in told)
        shown = plane(objective, *directions, spans=(spans[0], spans[1]), num=num, seconds=clock.left)
        path = None
    else:
        return {"why": note}
    bench.restore()
    stated = shown.stated.replace("the modes they had", "the modes they were trained in")
    axes = zip((shown.first, shown.second), told, strict=True)
    return {
        "x": rounded(shown.x), "y": rounded(shown.y), "losses": [rounded(row) for row in shown.losses],
        "centre": shown.centre, "asked": num, "axes": [_told_axis(axis, more) for axis, more in axes], "cosine": shown.cosine,
        "path": path, "batches": len(batches), "samples": sum(objective.sizes), "passes": shown.passes,
        "stated": stated, "stopped": shown.stopped, "note": note or "",
    }  # fmt: skip


def rounded(values: Any) -> list[float]:
    """Numbers as a picture needs them: a record keeps a thousand of them."""
    return [float(f"{float(v):.{DIGITS}g}") for v in values]


def _points(bench: Bench, objective: Objective) -> Iterator[tuple[int, Tensor, float]]:
    """Where it has been before its end: step, weights, and the loss there; the bench is put back at the end."""
    known = {id(tensor) for tensor in bench.tensors}
    if not all(id(tensor) in known for tensor in bench.learned):
        return
    for snapshot in sorted(in_order(bench, ()), key=lambda s: s.step):
        bench.put(snapshot.values)
        at = objective.at()
        if bool(torch.isfinite(at).all()):
            yield snapshot.step, at, objective.value()
    bench.restore()


def _directions(
    bench: Bench, batches: range, objective: Objective, clock: Clock, path: Sequence[Tensor]
) -> tuple[list[Direction], list[dict[str, Any]], str | None]:
    """Two directions, what is known of each, and why they aren't of the path; None where they are."""
    if len(path) >= 2:
        try:
            return principal_directions(objective, path), [{"kind": "path"}] * 2, None
        except MisuseError:  # it is a straight line
            note = "the path is a straight line"
    else:
        note = "fewer than three points of the path were kept"
    try:
        ground = Ground(bench, batches, clock.part(0.5))
    except MisuseError as error:
        return [], [], f"{note}, and {error}"
    allowed = max(FEWEST, min(PRODUCTS, ground.affords(clock, 0.5), ground.room))
    ends = extremes(ground.krylov, top=min(2, objective.size), bottom=1, most=allowed, tolerance=0.05)
    tops, bottoms = eigen_directions(ends.top), eigen_directions(ends.bottom)
    other = (bottoms[0], ends.bottom.values[0]) if ends.bottom.values[0] < 0 else (tops[1], ends.top.values[1])
    values = (ends.top.values[0], other[1])
    return [tops[0], other[0]], [{"kind": "hessian", "eigenvalue": value} for value in values], note


def _span(objective: Objective, eigenvalue: float) -> Span:
    """As far as the parabola changes the loss by a visible part of it, and no further than the weights are long."""
    at, loss = objective.at().double(), abs(objective.value())
    farthest = math.sqrt(float(objective.dot(at, at))) or 1.0
    change = RISE * loss if 0 < loss < math.inf else RISE
    far = min(farthest, math.sqrt(2 * change / abs(eigenvalue))) if eigenvalue else farthest
    return -far, far


def _told_path(
    path: Path | None, steps: list[int], losses: list[float], bench: Bench, shown: Plane
) -> dict[str, Any] | None:
    if path is None:
        return None
    added = len(path.points) - len(steps)  # the end, unless the last point lay there
    return {
        "points": [rounded(point) for point in path.points], "steps": [*steps, *[bench.training.steps] * added],
        "inside": rounded(path.inside), "share": path.share, "losses": [*losses, *[shown.centre] * added],
    }  # fmt: skip


def _told_axis(axis: Axis, more: dict[str, Any]) -> dict[str, Any]:
    return {"made": axis.made, "length": axis.length, "share": axis.share, "eigenvalue": None, **more}
