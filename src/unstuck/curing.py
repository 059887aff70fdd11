"""Curing a training in your own process, without the command line.

import unstuck

cure = unstuck.cure(unstuck.Training(model, loss, optimizer, loader, evaluation=held_out, epochs=5))
cure.prescription.training.run()
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from unstuck._language import say, translated
from unstuck.errors import MisuseError

if TYPE_CHECKING:
    from unstuck.training import Training
    from unstuck.trials.visit import Cure


def cure(
    training: Training | Callable[[], Training],
    *,
    seeds: int = 3,
    budget: float = 120.0,
    quiet: bool = False,
    runs: str | Path | None = None,
) -> Cure:
    """Tries what may help a training in this process, and prescribes what is measured to.

    What is given stays as it is: copies are treated and trained, one after the other. Random numbers go on where they were.

    Args:
        training: The training; all runs begin with its weights, and differ by batches and noise alone. Or a function without arguments
            that makes one, which is called anew for each run, so that the weights differ as well and the effect is that on any start.
        seeds: Pairs of fresh seeds that confirm, at least 2.
        budget: Seconds that tries may take before the confirmation.
        quiet: Tell nothing of what goes on; else it is told on stderr.
        runs: Folder for the records; a temporary one by default.

    Returns:
        What came of it; `prescription.training` is a training with what helps, not yet trained.

    Raises:
        MisuseError: The training can't be copied or run, or a number is out of range.
        RecordError: A record can't be made.
    """  # noqa: DOC502
    from unstuck._training_patient import TrainingPatient
    from unstuck.store import new_run
    from unstuck.treating import Doctor
    from unstuck.trials.executor import Log
    from unstuck.trials.inline import Inline

    if seeds < 2:
        raise MisuseError(f"seeds is {seeds}, but must be 2 or more: an effect and how sure it is take several pairs")
    if not budget > 0:
        raise MisuseError(f"budget is {budget}, but must be a number of seconds above 0")
    patient = TrainingPatient(training)
    folder = Path(runs) if runs is not None else Path(tempfile.mkdtemp(prefix="unstuck-"))
    began = time.perf_counter()

    def tell(line: str) -> None:
        if not quiet:
            sys.stderr.write(f"unstuck: {time.perf_counter() - began:6.1f} s  {translated(line)}\n")

    executor = Inline(Log(new_run(folder, "cure")))
    try:
        found = Doctor(patient, executor, seeds=seeds, budget=budget, tell=tell).visit()
    finally:
        executor.close()
    if found.baseline.status == "failed" and found.prescription is None:
        return dataclasses.replace(found, why=say("it fails as it stands: {error}", error=found.baseline.error))
    return found
