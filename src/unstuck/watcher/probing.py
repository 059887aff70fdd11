"""Experiments on what was trained, when the script has ended: what is left to do, or why nothing can be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from unstuck._language import marked
from unstuck.probes.schedule import experiments


def probe(session: Any, seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Makes the experiments.

    Args:
        session: The session that watched.
        seconds: They may take.

    Yields:
        Name and result of each; where none can be made, the reason under the name "none".
    """
    why = why_not(session) or (marked("the network is too large to be copied") if session.capture.large else "")
    training = None if why else session.capture.training(session)
    if training is None:
        yield "none", {"why": why or session.capture.why_not}
        return
    with contextlib.suppress(KeyboardInterrupt):  # whoever doesn't want to wait gets what there is
        yield from experiments(training, seconds)


def why_not(session: Any) -> str:
    """Why nothing can be done with copies of what was trained; "" where something can."""
    updating = [s for s in session.optimizers.states if s.steps]
    in_turn = session.optimizers.beside_lead > 2 * len(updating)  # else one after another: the last is what was trained
    if in_turn or (len(updating) == 1 and len(session.series.sites) > 1):
        return marked("several losses or optimizers take turns")
    wrappers = {w for m in session.registry.models for w in m.wrapped_by} - {"OptimizedModule", "AveragedModel"}
    if wrappers:
        return f"the network is wrapped by {', '.join(sorted(wrappers))}"
    return ""
