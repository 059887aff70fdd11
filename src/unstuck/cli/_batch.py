"""`unstuck batch`: what was measured, written and printed; and proved by training with and without it."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unstuck._language import _, marked, say
from unstuck.cli._child import announce
from unstuck.cli._cure import end_as_by_ctrl_c
from unstuck.cli._teller import Teller

_FRESH = 1000  # where the seeds begin that the script itself doesn't run with
_LATE = 0.1  # of a run, whose mean loss is where it got
_SAME = 1.25  # times a loss, up to which it is the same
_LIMIT = 3.0  # times what a run is predicted to take, after which it is stopped


def report(record: Any, json_file: Path | None, html_file: Path | None, *, quiet: bool) -> None:
    """Writes the files that were asked for, and prints which batch size is recommended.

    Args:
        record: Of the run.
        json_file: For the JSON.
        html_file: For the page.
        quiet: Print nothing.
    """
    from unstuck.report import batch

    if json_file is not None:
        batch.write(record, json_file)
    if html_file is not None:
        from unstuck.report import batch_page

        batch_page.write(record, html_file)
    if not quiet:
        from unstuck.cli._formats import print_page

        print_page(batch.render(record), to_stderr=True)


def with_reason(record: Any, verdict: Any, name: str) -> Any:
    """The record, with why nothing was recorded where that is so.

    Args:
        record: Of the run.
        verdict: Over it.
        name: Of the script or module.
    """
    from unstuck.evidence import Event

    if record.path is not None:
        return record
    event = Event(0, "batch", "", {"part": "none", "why": verdict.why_unknown})
    return replace(record, meta={**record.meta, "script": name}, events=(event,))


def proved(record: Any, command: Sequence[str], folder: Path, *, seeds: int, quiet: bool) -> Any:
    """The record with a proof of what is recommended: pairs of runs of the script, as it is and changed, with the same fresh seeds.

    Runs are made one at a time, since they are timed.

    Args:
        record: Of the run.
        command: The script and its arguments.
        folder: Of the run; the pairs lie in it.
        seeds: Pairs.
        quiet: Tell nothing of what goes on.

    Returns:
        The record with one event more, where another size is recommended.
    """
    from unstuck.evidence import Event
    from unstuck.report._batch import gathered

    found = gathered(record)
    if found.verdict != "change":
        return record
    if not quiet:
        announce(say("proving batches of {size} by {seeds} pairs of runs", size=found.chosen["size"], seeds=seeds))
    end_as_by_ctrl_c()
    try:
        told = _pairs(found, list(command), folder / "proof", seeds, quiet=quiet)
    except KeyboardInterrupt:
        told = {"why": "it was stopped"}
    event = Event(record.steps, "batch", "", {"part": "proof", **told})
    return replace(record, events=(*record.events, event))


def _pairs(found: Any, command: list[str], folder: Path, seeds: int, *, quiet: bool) -> dict[str, Any]:
    """What came of the pairs; why there are none where the script can't be changed, or a run failed."""
    from unstuck.evidence import Record
    from unstuck.patients import ScriptPatient
    from unstuck.report._batch import num_batches
    from unstuck.source import EditError
    from unstuck.trials.executor import Log, Processes

    if found.own.get("by_hand"):
        return {"why": "its updates are written by hand, so that it isn't known where the learning rate is set"}
    if found.adds_up and num_batches(found.chosen) != num_batches(found.own):
        return {"why": marked("it isn't known where the script sets how many batches go into an update")}
    patient = ScriptPatient(command)
    done = 0
    with (
        Teller(sys.stderr, quiet=quiet, doing=_("running the pairs"), share=lambda: done / (1 + 2 * seeds)),
        contextlib.closing(Processes(Log(folder), workers=1)) as executor,
    ):

        def run(job: Any) -> Any:
            nonlocal done
            outcome = next(outcome for _job, outcome in executor.run([job]))
            done += 1
            return outcome

        first = run(patient.job(survey=True))
        if first.status != "finished" or not first.record:
            return {"why": f"the script failed: {first.error}"}
        patient.see(Record.read(first.record))
        treatment = treatment_of(found)
        try:
            patient.check(treatment)
        except EditError as error:
            return {"why": str(error)}
        limit = 20 + _LIMIT * max(1.0, found.chosen["samples"]) * first.seconds
        outcomes = [
            (run(patient.job(seed=seed, limit=limit)), run(patient.job(treatment, seed=seed, limit=limit)))
            for seed in range(_FRESH, _FRESH + seeds)
        ]
    broke = next((o for pair in outcomes for o in pair if o.status != "finished" or not o.record), None)
    if broke is not None:
        return {"why": f"a run {broke.status}: {broke.error}"}
    return compared([(_got(a), _got(b)) for a, b in outcomes])


def treatment_of(found: Any) -> tuple[Any, ...]:
    """What is changed in the script: batch size and rate, and passes over the data."""
    from unstuck.report._batch import num_batches
    from unstuck.trials.visit import Dose

    size = {"size": found.chosen["size"] // num_batches(found.chosen), "rate": float(f"{found.new_rate:.4g}")}
    return Dose("batch-size", size), Dose("train-longer", {"times": round(found.chosen["samples"], 3)})


def _got(outcome: Any) -> dict[str, float]:
    """Where a run got, and how long its steps took."""
    from unstuck.evidence import Record

    record = Record.read(outcome.record)
    loss = record.series("loss").finite
    late = loss.after(int((1 - _LATE) * record.steps))
    seconds = float(record.series("step_seconds").finite.values.sum())
    return {"loss": float((late if len(late) else loss).values.mean()), "seconds": seconds, "score": outcome.value}


def compared(pairs: Sequence[tuple[dict[str, float], dict[str, float]]]) -> dict[str, Any]:
    """What pairs of runs tell, without and with the change.

    Args:
        pairs: Loss, seconds and score of each.

    Returns:
        Ratios of time and of loss with their 95% intervals, means of all three, and whether it `holds`: true where it is faster beyond
        noise, and its loss surely at most a quarter higher; false where it isn't, or its loss is higher; None where that is open.
    """
    from unstuck.trials.estimate import paired

    told: dict[str, Any] = {"pairs": len(pairs)}
    for name in ("seconds", "loss"):
        before, after = ([math.log(max(run[name], 1e-12)) for run in side] for side in zip(*pairs, strict=True))
        found = paired(before, after)
        told[name] = {"ratio": math.exp(found.mean), "low": math.exp(found.low), "high": math.exp(found.high)}
    for name in ("seconds", "loss", "score"):
        values = [[run[name] for run in side] for side in zip(*pairs, strict=True)]
        told[f"{name}_without"], told[f"{name}_with"] = (sum(v) / len(v) for v in values)
    worse = told["seconds"]["low"] >= 1 or told["loss"]["low"] > 1
    better = told["seconds"]["high"] < 1 and told["loss"]["high"] <= _SAME
    told["holds"] = False if worse else True if better else None
    return told


def refuse_module(module: str | None) -> None:
    """Makes sure that what is to be changed is a script.

    Raises:
        MisuseError: It is a module.
    """
    from unstuck.errors import MisuseError

    if module is not None:
        raise MisuseError(say("--prove changes a script and runs it: name the script, not a module"))
