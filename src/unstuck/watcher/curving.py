"""Curvature of what was trained, when the script has ended: along the run, and where it ended, or why nothing can be measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from unstuck._json import plain
from unstuck.evidence import Series
from unstuck.probes.bench import Bench, Clock, no_trace
from unstuck.probes.course import course, stalls
from unstuck.probes.examination import examine
from unstuck.probes.schedule import is_small, said
from unstuck.probes.surface import surface
from unstuck.watcher.probing import why_not

COURSE = 0.35  # of the time, for the course of the run, where the end is examined too
SURFACE = 0.25  # of the time at most, for a picture of the surface, out of what the rest has left


def measure(
    session: Any, seconds: float, wanted: Mapping[str, Any], loss: Series
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Measures curvature.

    Args:
        session: The session that watched.
        seconds: It may take.
        wanted: `full` for all that can be told of the end, and not of `density`, `layers` or `surface` where those are false.
        loss: Of the run, which shows where it stalls.

    Yields:
        "part", the step and the numbers of one part of the examination; "step", a step and the curvature there; where nothing
        can be measured, "part" with the reason under the name "none".
    """
    why = why_not(session)
    training = None if why else session.capture.training(session)
    if training is None:
        yield "part", session.step, {"part": "none", "why": why or session.capture.why_not}
        return
    small = is_small(training)
    clock = Clock(seconds, processor=small)
    with contextlib.suppress(KeyboardInterrupt), no_trace(threads=1 if small else torch.get_num_threads()):
        try:
            bench = Bench(training)
        except Exception as error:  # noqa: BLE001 - what can't be copied is the script's own
            yield "part", session.step, {"part": "none", "why": said(error)}
            return
        told: list[str] = []
        if session.snapshots.note:
            yield "part", session.step, {"part": "snapshots", "note": session.snapshots.note}
        if wanted.get("full"):
            asked = {f"with_{name}": wanted.get(name, True) for name in ("density", "layers")}
        else:
            asked = {"with_density": False, "with_layers": False, "brief": True}
        for name, found in examine(bench, clock.part(1 - COURSE if wanted.get("full") else 0.5), **asked):
            told.append(name)
            yield "part", session.step, {"part": name, **plain(found)}
        if "none" in told:
            return
        stalled = stalls(loss)
        if stalled:
            yield "part", session.step, {"part": "stalls", "spans": plain(stalled)}
        try:
            for step, found in course(bench, clock, stalled):
                yield "step", step, found
        except Exception as error:  # noqa: BLE001 - no failure of ours reaches the script
            yield "part", session.step, {"part": "course", "failed": said(error)}
        if wanted.get("full") and wanted.get("surface", True):
            yield "part", session.step, {"part": "surface", **_surface(bench, clock, SURFACE * seconds)}


def _surface(bench: Bench, clock: Clock, seconds: float) -> dict[str, Any]:
    """The loss around the end, last of all, so that no other part has less time for it."""
    try:
        return plain(surface(bench, clock.part(min(1.0, seconds / max(clock.left, 1e-9)))))
    except Exception as error:  # noqa: BLE001 - no failure of ours reaches the script
        return {"failed": said(error)}
