"""All that curvature tells of where a training ended, part by part: what `unstuck curvature` reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from unstuck.curvature.critical import Point, critical_point, escape
from unstuck.curvature.density import Density, counted, density, eigenvalues
from unstuck.curvature.layers import layers
from unstuck.curvature.sharpness import sharpness
from unstuck.curvature.spectrum import extremes
from unstuck.curvature.trace import trace
from unstuck.errors import MisuseError
from unstuck.probes.bench import Bench, Clock
from unstuck.probes.critical_rate import critical_rate
from unstuck.probes.curvature import FEWEST, SLOPE, Ground, pointed, rated
from unstuck.probes.noise import noise
from unstuck.probes.schedule import said

SHOWN = 5  # eigenvalues at the upper end
DENSE = 1000  # numbers to learn up to which all eigenvalues are computed
PASSES = 1500  # forward passes that the whole of it takes, roughly
STEPS = 80  # products for a random vector of the density
POINTS = 240  # of its curve


def examine(
    bench: Bench,
    clock: Clock,
    *,
    with_density: bool = True,
    with_layers: bool = True,
    brief: bool = False,
    most: int = 16,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measures part by part, the decisive ones first, as far as there is time.

    Args:
        bench: The training.
        clock: Ends it.
        with_density: The density of the spectrum too.
        with_layers: The curvature of each layer too.
        brief: Point and rate alone, and the way out of a saddle.
        most: Batches.

    Yields:
        Name and result of each part: `point` (kind, eigenvalues, gradient, and how it was measured), `rate` (that the curvature
        bears, and that losses along the step do), `escape`, `trace`, `sharpness`, `noise`, `density` (with the counts of signs),
        and for every layer a `layer`. A part that fails has `failed`; `none` says `why` there is none; `skipped` what there was
        no time for.
    """
    bench.restore()
    half = bench.batches[-max(1, len(bench.batches) // 2) :]  # the others are held, to verify by
    batches = bench.some(half, clock, PASSES, most=most, samples=1024)
    try:
        ground = Ground(bench, batches, clock)
    except MisuseError as error:
        yield "none", {"why": str(error)}
        yield from _part("rate", lambda: _along(bench, clock))
        return
    found: list[Point] = []

    def point() -> dict[str, Any]:
        if ground.affords(clock, 0.6) < SLOPE + 2 * FEWEST:
            return ends_alone(ground, clock)
        allowed = max(2 * FEWEST, min(ground.affords(clock, 0.4) - SLOPE, ground.room, 100))
        found.append(critical_point(ground.objective, hessian=ground.hessian, krylov=ground.krylov, most=allowed))
        ends = extremes(ground.krylov, top=min(SHOWN, ground.krylov.products), bottom=1, most=allowed)
        told = {"tops": ends.top.values, "tops_errors": ends.top.errors, "typical": ground.typical()}
        return {**pointed(found[0]), **told, **ground.told()}

    def rate() -> dict[str, Any]:
        along = _along(bench, clock.part(0.3))  # by forward passes, the cheapest of all
        return {**(rated(ground, clock.part(0.3)) if ground.affords(clock) >= FEWEST else {}), **along}

    parts: list[tuple[str, int, Callable[[], dict[str, Any] | None]]] = [
        ("point", 0, point),
        ("rate", 1, rate),
        ("escape", FEWEST, lambda: _way_out(ground, found[0])),
        ("trace", 30, lambda: _trace(ground, clock.part(0.2))),
        ("noise", 10, lambda: noise(bench, clock.part(0.2))),
        ("sharpness", 45, lambda: _sharpness(ground)),
    ]
    skipped = []
    parts = parts[:3] if brief else parts
    for name, needed, make in parts:
        if name == "escape" and not found:
            continue
        if ground.affords(clock) < needed:
            skipped.append(name)
            continue
        yield from _part(name, make)
        bench.restore()
    wanted = (("layer", with_layers, _layers), ("density", with_density, _density))
    for i, (name, asked, make) in enumerate(wanted):
        if asked and ground.affords(clock) >= 30:
            last = not any(asked for _, asked, _ in wanted[i + 1 :])
            for result in _each(make(ground, clock if last else clock.part(0.5))):
                yield name, result
        elif asked:
            skipped.append(name)
    if skipped:
        yield "skipped", {"parts": skipped}
    yield "cost", {"products": ground.hessian.products, "each": ground.each}


def ends_alone(ground: Ground, clock: Clock) -> dict[str, Any]:
    """Both ends of the spectrum as far as there is time, where there is none for the kind of point."""
    needed = SLOPE + 2 * FEWEST
    seconds = (needed * ground.each + needed**2 / 2 * ground.more) / 0.6
    why = f"that takes about {max(seconds, clock.left):.2g} s, and {clock.left:.2g} s are left of the budget"
    found: dict[str, Any] = {"why": why, **ground.told()}
    if ground.affords(clock) >= FEWEST:
        most = max(FEWEST, min(ground.affords(clock, 0.5), ground.room))
        ends = extremes(ground.krylov, most=most, tolerance=0.05)
        found |= {
            "top": ends.top.values[0], "bottom": ends.bottom.values[0], "top_error": ends.top.errors[0],
            "bottom_error": ends.bottom.errors[0], "converged": ends.top.converged and ends.bottom.converged,
            "loss": ground.objective.value(),
        }  # fmt: skip
    return found


def _part(name: str, make: Callable[[], dict[str, Any] | None]) -> Iterator[tuple[str, dict[str, Any]]]:
    for result in _each(one() for one in (make,)):
        yield name, result


def _each(results: Iterator[dict[str, Any] | None]) -> Iterator[dict[str, Any]]:
    """Results one by one; what fails ends them with an error."""
    try:
        for result in results:
            if result is not None:
                yield result
    except Exception as error:  # noqa: BLE001 - a part that fails must not cost the others
        yield {"failed": said(error)}


def _held(ground: Ground) -> range:
    """Batches of which the loss that was measured is no mean; empty where there are none."""
    rest = [b for b in ground.bench.batches if b not in ground.batches]
    return range(rest[0], rest[0] + min(len(rest), len(ground.batches))) if rest else range(0)


def _along(bench: Bench, clock: Clock) -> dict[str, Any]:
    """The rate that losses along the script's own step bear."""
    found = critical_rate(bench, clock) or {}
    return {name: found[name] for name in ("critical", "best", "gain", "start_critical") if name in found}


def _way_out(ground: Ground, point: Point) -> dict[str, Any] | None:
    """A step along negative curvature on the copies, and what it does to batches it wasn't found on."""
    if point.kind not in ("saddle", "maximum", "gradient-flat"):
        return None
    bench, held = ground.bench, _held(ground)
    before = bench.loss(held) if held else math.nan
    try:
        taken = escape(ground.objective, point)
    except MisuseError:
        return None
    after = bench.loss(held) if held else math.nan
    return {
        "eigenvalue": taken.eigenvalue, "length": taken.length, "before": taken.before, "after": taken.after,
        "gain": taken.gain, "predicted": taken.predicted, "taken": taken.taken, "held_before": before, "held_after": after,
        "held_batches": len(held),
    }  # fmt: skip


def _trace(ground: Ground, clock: Clock) -> dict[str, Any]:
    most = max(ground.krylov.products + 5, min(ground.krylov.products + ground.affords(clock), ground.room, 90))
    found = trace(ground.krylov, most=most, tolerance=0.02)
    return {"value": found.value, "error": found.error, "probes": found.probes}


def _sharpness(ground: Ground) -> dict[str, Any]:
    found = sharpness(ground.objective)
    return {
        "sam": found.sam, "adaptive": found.adaptive, "keskar": found.keskar, "radius": found.radius, "epsilon": found.epsilon
    }  # fmt: skip


def _layers(ground: Ground, clock: Clock) -> Iterator[dict[str, Any]]:
    """Each layer by itself, in forward order."""
    bench = ground.bench
    groups = grouped(bench)
    if len(groups) < 2:
        return
    left = len(groups)

    def most() -> int:
        nonlocal left
        share = 1 / max(1, left)
        left -= 1
        return min(60, ground.affords(clock, share))

    measured = 0
    way = ground.hessian.way
    for layer in layers(lambda tensors: bench.objective(ground.batches, tensors), groups, way=way, most=most):
        measured += 1
        yield {
            "layer": layer.name, "size": layer.size, "top": layer.top, "top_error": layer.top_error, "bottom": layer.bottom,
            "bottom_error": layer.bottom_error, "trace": layer.trace, "trace_error": layer.trace_error,
        }  # fmt: skip
    if measured < len(groups):
        yield {"skipped": len(groups) - measured}


def grouped(bench: Bench) -> dict[str, list[Tensor]]:
    """What is learned, by the layer it belongs to."""
    names = {id(t): n for t, n in zip(bench.tensors, bench.training.names, strict=False)}
    groups: dict[str, list[Tensor]] = {}
    for i, tensor in enumerate(bench.learned):
        name = names.get(id(tensor)) or f"tensor {i}"
        groups.setdefault(name.rpartition(".")[0] or name, []).append(tensor)
    return groups


def _density(ground: Ground, clock: Clock, tolerance: float = 1e-3) -> Iterator[dict[str, Any]]:
    """The density of the spectrum, and the counts of signs; from all eigenvalues where there are few."""
    size, exact = ground.objective.size, False
    if size <= DENSE and ground.affords(clock, 0.9) >= size:
        values = eigenvalues(ground.hessian)
        found = Density([values.numpy()], [torch.full_like(values, 1 / size).numpy()], size, size)
        signs, exact = counted(values, tolerance), True
    else:
        steps = min(STEPS, size, ground.room)
        probes = min(10, max(1, ground.affords(clock, 0.9) // max(1, steps)))
        found = density(ground.hessian, probes=probes, steps=steps, krylov=ground.krylov)
        signs = found.counts(tolerance)
    at, height = found.curve(num=POINTS)
    yield {
        "at": at, "height": height, "size": size, "vectors": len(found.points), "exact": exact, "low": found.low, "high": found.high,
        "positive": signs.positive, "zero": signs.zero, "negative": signs.negative, "error": signs.error,
        "tolerance": signs.tolerance,
    }  # fmt: skip
