"""Where jobs are made: in processes of this machine, a few at a time; what has finished is kept."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from unstuck._json import plain
from unstuck.trials.job import NO_TORCH, Job, Outcome, Running
from unstuck.trials.nursery import Nursery, imported

LOOK = 1.0  # seconds between looks at what is under way


class Executor(Protocol):
    """What makes jobs."""

    def run(
        self,
        jobs: Iterable[Job],
        *,
        enough: Callable[[Job, Outcome], bool] | None = None,
        hopeless: Callable[[Job, Path], str] | None = None,
    ) -> Iterator[tuple[Job, Outcome]]:
        """Makes jobs.

        Args:
            jobs: In the order in which they are begun.
            enough: Asked of each that has finished: whether no more are wanted. What is under way is stopped then.
            hopeless: Asked now and then of each that is under way, with its record: why it need not end, "" while it may.

        Yields:
            Each with its outcome, in the order in which they finish.
        """
        ...

    def later(self, jobs: Iterable[Job]) -> None:
        """Notes jobs that will be wanted: they may be made when there is nothing else to do.

        Args:
            jobs: In the order in which they are begun.
        """
        ...

    def close(self) -> None:
        """Ends what is under way, and what helps it."""
        ...


class Log:
    """What has finished, one line each, in a file that a kill can't spoil: `trials.jsonl`.

    What crashed is made again when it is asked for in another visit: it may have been for want of a file that is there now.

    Args:
        folder: Where it lies, and the runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "trials.jsonl"
        self.known: dict[str, Outcome] = {}
        if self.path.exists():
            text = self.path.read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                self._read(line)
            if text and not text.endswith("\n"):  # else the next line is spoilt as well
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("\n")

    def _read(self, line: str) -> None:
        try:
            told = json.loads(line)
            values: dict[str, Any] = {k: math.nan if v is None else v for k, v in told["outcome"].items()}
            outcome = Outcome(**values)
        except (ValueError, KeyError, TypeError):  # the last line, cut off
            return
        crashed = outcome.status == "failed" and outcome.error != NO_TORCH
        if not crashed and (not outcome.record or Path(outcome.record).exists()):
            self.known[told["key"]] = outcome

    def add(self, job: Job, outcome: Outcome) -> None:
        """Notes an outcome, on the disk before it is used."""
        self.known[job.key] = outcome
        told: dict[str, Any] = {
            "key": job.key,
            "seed": job.seed,
            "edits": [asdict(e) for e in job.edits],
            "outcome": plain(asdict(outcome)),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
            file.flush()
            os.fsync(file.fileno())


class Processes:
    """Jobs in processes of this machine, each on one core.

    Args:
        log: Keeps what has finished; a job that is in it is not made again.
        workers: At a time; by default one a core.
        nursery: Whether each begins as a copy of a process that has imported torch, where that can be; else each is a new interpreter.
    """

    def __init__(self, log: Log, *, workers: int | None = None, nursery: bool = True) -> None:
        self.log = log
        self.nursery: Nursery | None = None
        self._running: list[Running] = []
        self._later: deque[Job] = deque()
        self._copies = nursery and Nursery.possible()
        self.workers = workers or max(
            1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )

    def run(
        self,
        jobs: Iterable[Job],
        *,
        enough: Callable[[Job, Outcome], bool] | None = None,
        hopeless: Callable[[Job, Path], str] | None = None,
    ) -> Iterator[tuple[Job, Outcome]]:
        """Makes jobs, see `Executor`."""
        waiting = deque[Job]()
        for job in jobs:
            outcome = self.log.known.get(job.key)
            if outcome is None:
                waiting.append(job)
                continue
            yield job, outcome
            if enough is not None and enough(job, outcome):
                return
        wanted = {job.key: job for job in waiting}
        self._later = deque(job for job in self._later if job.key not in wanted)
        looked = time.perf_counter()
        try:
            while wanted:
                self._begin(waiting)
                if hopeless is not None and time.perf_counter() - looked > LOOK:
                    looked = time.perf_counter()
                    for one in self._running:
                        if (
                            one.job.key in wanted
                            and not one.stopped
                            and (why := hopeless(one.job, one.folder / "record.sqlite"))
                        ):
                            one.stop(why)
                ended = self._ended()
                for job, outcome in ended:
                    if wanted.pop(job.key, None) is not None:
                        yield job, outcome
                        if enough is not None and enough(job, outcome):
                            return
                if not ended:
                    time.sleep(0.02)
        finally:
            self._stop(one for one in self._running if one.job.key in wanted)

    def later(self, jobs: Iterable[Job]) -> None:
        """Notes jobs that will be wanted, see `Executor`."""
        self._later.extend(job for job in jobs if job.key not in self.log.known)

    def _begin(self, waiting: deque[Job]) -> None:
        """Begins what is wanted first, then what will be."""
        going = {one.job.key: one for one in self._running}
        while waiting and (waiting[0].key in going or len(self._running) < self.workers):
            job = waiting.popleft()
            if job.key in going:
                going[job.key].job = job
            else:
                self._start(job)
        while self._later and len(self._running) < self.workers:
            self._start(self._later.popleft())

    def _start(self, job: Job) -> None:
        self._running.append(Running(job, self.log.folder / job.key, self._nursery(job)))

    def _ended(self) -> list[tuple[Job, Outcome]]:
        """What has ended since."""
        found: list[tuple[Job, Outcome]] = []
        for one in [r for r in self._running if r.poll()]:
            self._running.remove(one)
            outcome = one.outcome()
            self.log.add(one.job, outcome)
            found.append((one.job, outcome))
        return found

    def _stop(self, several: Iterable[Running]) -> None:
        stopped = list(several)
        for one in stopped:
            one.stop("no more are wanted")
        for one in stopped:
            one.process.wait()
            self._running.remove(one)

    def _nursery(self, job: Job) -> Nursery | None:
        if self._copies and self.nursery is None:
            self.nursery = Nursery(imported(job.command[0]))
        return self.nursery

    def close(self) -> None:
        """Ends what is under way, and what helps it."""
        self._later.clear()
        self._stop(self._running)
        if self.nursery is not None:
            self.nursery.close()
            self.nursery = None
