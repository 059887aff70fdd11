"""Which batch size is best for what was trained, when the script has ended; or why it can't be told."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch

from unstuck._json import plain
from unstuck._language import marked
from unstuck.errors import UnstuckError
from unstuck.evidence import Series
from unstuck.probes.batch import Script, batch
from unstuck.probes.bench import Bench, Clock, no_trace
from unstuck.probes.schedule import said
from unstuck.watcher.probing import why_not

_FIRST = 3  # steps, which take longer than all others


def measure(session: Any, seconds: float, steps: Series) -> Iterator[dict[str, Any]]:
    """Measures what a batch size is chosen by.

    Args:
        session: The session that watched.
        seconds: It may take.
        steps: Seconds of the run's steps.

    Yields:
        The numbers of each part, with its name as `part`; where nothing can be measured, the reason under the name "none".
    """
    why = why_not(session) or _why_not_sized(session.optimizers.lead)
    training = None if why else session.capture.training(session)
    if training is None:
        yield {"part": "none", "why": why or session.capture.why_not}
        return
    alone = torch.get_num_threads() == 1 and all(p.device.type == "cpu" for p in _tensors(training))
    script = Script(
        session.data.facts().num_samples,
        _step_seconds(session, steps, alone=alone),
        type(training.optimizer).__name__ if training.optimizer is not None else "",
        _num_batches(session.optimizers),
    )
    with contextlib.suppress(KeyboardInterrupt), no_trace(threads=torch.get_num_threads()):
        try:
            bench = Bench(training)
            if session.snapshots.note:
                yield {"part": "snapshots", "note": session.snapshots.note}
            for name, found in batch(bench, Clock(seconds, processor=alone), script):
                yield {"part": name, **plain(found)}
        except Exception as error:  # noqa: BLE001 - what can't be copied or resized is the script's own
            yield {"part": "none", "why": str(error) if isinstance(error, UnstuckError) else said(error)}


def _step_seconds(session: Any, steps: Series, *, alone: bool) -> float:
    """Median seconds of a step, NaN when unknown; of processor time where all is done by one thread, so that others don't count."""
    loader = session.data.training_loader
    waits = bool(getattr(loader.ref() if loader is not None else None, "num_workers", 0))
    if alone and not waits:
        return _of_processor([mark for mark in session.marks if mark[0] > _FIRST])
    return steps.after(_FIRST).median() if len(steps) > 2 * _FIRST else math.nan


def _of_processor(marks: Sequence[tuple[int, float]]) -> float:
    """Median processor time of a step, each span of steps weighed by their number."""
    spans = sorted(((b[1] - a[1]) / (b[0] - a[0]), b[0] - a[0]) for a, b in pairwise(marks) if b[0] > a[0])
    half, seen = sum(count for _, count in spans) / 2, 0
    for seconds, count in spans:
        seen += count
        if seen >= half:
            return seconds
    return math.nan


def _why_not_sized(lead: Any) -> str:
    """Why it isn't known how many batches go into an update; "" where it is."""
    return marked("its optimizer asks for the loss several times a step") if lead is not None and lead.closure else ""


def _num_batches(optimizers: Any) -> int:
    """How many batches go into an update, as a rule."""
    lead = optimizers.lead
    backwards = sorted(lead.backwards if lead is not None else optimizers.hand_backwards)
    return max(1, backwards[len(backwards) // 2]) if backwards else 1


def _tensors(training: Any) -> Iterator[torch.Tensor]:
    for tape in training.tapes[-1:]:
        yield from tape.trained
        for module in tape.modules:
            yield from module.parameters()
