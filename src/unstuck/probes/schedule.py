"""Which experiments are made, in which order, and how the time is shared out among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from unstuck._json import plain
from unstuck.probes.answers import answers
from unstuck.probes.bench import SMALL, Bench, Clock, Training, no_trace, tensors_of
from unstuck.probes.critical_rate import critical_rate
from unstuck.probes.curvature import curvature
from unstuck.probes.go_on import go_on
from unstuck.probes.larger_batch import larger_batch
from unstuck.probes.modes import modes
from unstuck.probes.noise import noise
from unstuck.probes.overfit_batch import overfit_batch
from unstuck.probes.permuted_labels import permuted_labels
from unstuck.probes.reference import reference
from unstuck.probes.step_sizes import from_start, step_sizes
from unstuck.probes.unregularized import unregularized
from unstuck.probes.worst import worst
from unstuck.probes.zero_input import zero_input

Probe = Callable[[Bench, Clock], dict[str, Any] | None]

ORDER: tuple[tuple[str, Probe, float], ...] = (
    ("modes", modes, 0.1),
    ("zero-input", zero_input, 0.1),
    ("answers", answers, 0.1),
    ("worst", worst, 0.02),
    ("critical-rate", critical_rate, 0.15),
    ("unregularized", unregularized, 0.3),
    ("from-start", from_start, 0.35),
    ("step-sizes", step_sizes, 0.35),
    ("go-on", go_on, 0.35),
    ("larger-batch", larger_batch, 0.3),
    ("reference", reference, 0.5),
    ("permuted-labels", permuted_labels, 0.4),
    ("overfit-batch", overfit_batch, 0.5),
    ("noise", noise, 0.5),
    ("curvature", curvature, 1.0),
)
"""Names, experiments, and the share of the time left that each may take; cheap and decisive ones first."""

PATIENCE = 5.0
"""How many times their time the experiments may take by the wall: a machine with some times as much to do as it has cores for finds
what an idle one finds. Where nothing else runs it makes no difference."""


def experiments(training: Training, seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Makes the experiments that there is time for.

    Args:
        training: What the watcher kept.
        seconds: That all may take together; a forward pass under way is not broken off.

    Yields:
        Name and result of each, in plain numbers; a number that is not finite is None. One that fails gives its `error`;
        where none can be made, the reason comes under the name "none".
    """
    small = is_small(training)
    clock = Clock(seconds, processor=small, patience=PATIENCE)
    with no_trace(threads=1 if small else torch.get_num_threads()):
        try:
            bench = Bench(training)
        except Exception as error:  # noqa: BLE001 - what can't be copied is the script's own
            yield "none", {"why": said(error)}
            return
        for name, probe, share in ORDER:
            if not clock.left:
                return
            start = time.perf_counter()
            try:
                bench.restore()
                found = probe(bench, clock.part(share))
            except Exception as error:  # noqa: BLE001 - one experiment that fails must not cost the others
                found = {"error": said(error)}
            if found is not None:
                yield name, {**plain(found), "seconds": round(time.perf_counter() - start, 4)}


def is_small(training: Training) -> bool:
    """Whether one thread of the processor is as fast as several, so that its time can be counted."""
    last = training.tapes[-1]
    tensors = tensors_of(last.modules, last.trained)
    return all(t.device.type == "cpu" for t in tensors) and sum(t.numel() for t in tensors) <= SMALL


def said(error: Exception) -> str:
    """What an error says, short."""
    return (str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}")[:300]
