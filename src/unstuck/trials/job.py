"""One training of a trial: a script with changes and a seed, run in a child process, and what came of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from unstuck._language import say
from unstuck.errors import UnstuckError
from unstuck.evidence import Record
from unstuck.rules._learning import progress, skill
from unstuck.source import Edit
from unstuck.trials.nursery import Child, Nursery
from unstuck.watcher.launch import command_line, environment, told

SAVES = "UNSTUCK_SAVES"  # in the environment of a job, where it saves itself
NO_TORCH = "the script never imported torch"
LOWER_IS_BETTER = frozenset({"loss", "perplexity"})


@dataclass(frozen=True)
class Job:
    """A training that is to be made.

    Attributes:
        command: The script and its arguments, or "-m", a module and its arguments.
        edits: Changes to the script.
        seed: Shift of all seeds.
        survey: Note where the script makes what.
        probe_budget: Share of its time for experiments when it has ended.
        limit: Seconds after which it is stopped; 0 for none.
        threads: Of the processor that it may use.
        file: The user's file, where the command doesn't begin with it: it must be there as well.
        saves: Folder in which it saves itself; where that is makes no other job of it.
    """

    command: tuple[str, ...]
    edits: tuple[Edit, ...] = ()
    seed: int = 0
    survey: bool = False
    probe_budget: float = 0.0
    limit: float = 0.0
    threads: int = 1
    file: str = ""
    saves: str = ""

    @property
    def key(self) -> str:
        """Names what would come out the same."""
        told = json.dumps(
            [self.command, [asdict(e) for e in self.edits], self.seed, self.survey, self.probe_budget > 0]
        )
        return hashlib.sha256(told.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        status: "finished", "failed" (it crashed), "stopped" (by us), "diverged" (its loss is not finite).
        score: Name of the score, "loss" where there is none.
        value: It, on evaluation data where the script has any; NaN where it could not be measured.
        skill: Share of the way from chance to perfect, NaN where that isn't known.
        seconds: Wall time.
        steps: Updates made.
        record: Its record.
        error: Last line of what it complained of where it crashed, or why it was stopped.
    """

    status: str
    score: str = ""
    value: float = math.nan
    skill: float = math.nan
    seconds: float = 0.0
    steps: int = 0
    record: str = ""
    error: str = ""

    @property
    def quality(self) -> float:
        """The score, the higher the better; minus infinity where it diverged or crashed."""
        if self.status in ("failed", "diverged") or not math.isfinite(self.value):
            return -math.inf
        return -self.value if self.score in LOWER_IS_BETTER else self.value


def was_killed(job: Job, outcome: Outcome) -> bool:
    """Whether a job that goes on where it was, when it is made again, was ended by somebody else: by hand, or for want of memory."""
    return bool(job.file) and outcome.status == "failed" and outcome.error == "ended by SIGKILL"


class Running:
    """A child process that makes a job.

    Args:
        job: What to make.
        folder: For its record and what it prints.
        nursery: Where it begins with all imported that takes long; by default in a new interpreter.

    Raises:
        UnstuckError: The child can't be started.
    """

    process: Child

    def __init__(self, job: Job, folder: Path, nursery: Nursery | None = None) -> None:
        self.job, self.folder, self.began = job, folder, time.perf_counter()
        self.stopped = ""
        shutil.rmtree(folder, ignore_errors=True)  # what is left of one that was broken off
        folder.mkdir(parents=True)
        edits = folder / "edits.json"
        edits.write_text(json.dumps([astuple(e) for e in job.edits]), encoding="utf-8")
        settings = told(
            job.command, folder, budget=0.02, probe_budget=job.probe_budget, seed=job.seed, survey=job.survey, edits=str(edits.absolute())
        )  # fmt: skip
        given = environment(
            settings, threads=job.threads, MPLBACKEND="Agg", **({SAVES: job.saves} if job.saves else {})
        )
        output = folder / "output.txt"
        self.process = (nursery.begin if nursery else _begin)(job.command, given, output, job.threads)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.began

    def poll(self) -> bool:
        """Whether it has ended; stops it when it has had its time."""
        if self.process.poll() is not None:
            return True
        if self.job.limit and self.seconds > self.job.limit and not self.stopped:
            self.stop("it took too long")
        return False

    def stop(self, why: str) -> None:
        """Ends it, and all that it started; one that has ended by itself has not been stopped."""
        if self.process.poll() is not None:
            return
        self.stopped = why
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended
            os.killpg(self.process.pid, signal.SIGKILL)

    def outcome(self) -> Outcome:
        """What came of it, once it has ended."""
        code = self.process.wait()
        status = "stopped" if self.stopped else "failed" if code else "finished"
        killed = f"ended by {signal.Signals(-code).name}" if code < 0 else ""
        return measured(self.folder, status, self.seconds, why=self.stopped or killed)


def _begin(command: Sequence[str], given: dict[str, str], output: Path, threads: int) -> Child:
    """Begins a child in a new interpreter.

    Raises:
        UnstuckError: It can't be started.
    """
    with output.open("wb") as file:
        try:
            return subprocess.Popen(
                command_line(command, {"edits": ""}),
                env=given, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise UnstuckError(say("the script can't be started: {error}", error=str(error))) from None


def measured(folder: Path, status: str, seconds: float, *, why: str = "") -> Outcome:
    """The outcome of a run that has ended, from its record.

    Args:
        folder: With its record and what it printed.
        status: How it ended, as far as its exit code tells.
        seconds: Wall time.
        why: Why it ended so, where it didn't end by itself; else the last line that it printed is the reason.
    """
    path = folder / "record.sqlite"
    error = why
    if status == "failed" and not why:
        lines = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        error = lines[-1][:300] if lines else ""
    try:
        record = Record.read(path)
    except UnstuckError as missing:
        return Outcome(
            "stopped" if status == "stopped" else "failed", seconds=seconds, error=error or _unrecorded(folder, missing)
        )
    name, value, share = score_of(record)
    if status == "finished" and progress(record).broke_at is not None:
        status = "diverged"
    return Outcome(status, name, value, share, seconds, record.steps, str(path), error)


def _unrecorded(folder: Path, missing: UnstuckError) -> str:
    return str(missing) if (folder / "record.sqlite").exists() else NO_TORCH


def score_of(record: Record) -> tuple[str, float, float]:
    """What runs are compared by: name, value, and share of the way from chance to perfect.

    It is the score of the last evaluation, else that of the training at its end, else the loss.
    """
    learning = progress(record)
    name = record.program.task.score
    for value in (learning.eval_score, learning.score_last):
        if name and math.isfinite(value):
            return name, value, skill(record, value)
    losses = record.series("eval_loss").finite
    return "loss", losses.last if len(losses) else learning.last, math.nan
