"""Where jobs are made: in processes of this machine, a few at a time; what has finished is kept."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from unstuck._json import plain
from unstuck.trials.connection import cores
from unstuck.trials.job import NO_TORCH, Job, Outcome, Running, was_killed
from unstuck.trials.nursery import Nursery, imported

LOOK = 1.0  # seconds between looks at what is under way


class Executor(Protocol):
    """What makes jobs."""

    def run(
        self,
        jobs: Iterable[Job | None],
        *,
        enough: Callable[[Job, Outcome], bool] | None = None,
        hopeless: Callable[[Job, Path], str] | None = None,
    ) -> Iterator[tuple[Job, Outcome]]:
        """Makes jobs.

        Args:
            jobs: In the order in which they are begun. Of an iterator, each is taken only when there is room for it, so that it may
                go by what has finished; None says that there is nothing to begin before something more has finished.
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
        crashes: Whether what crashed is known as well, and not made again.

    Attributes:
        lines: All that is in the file, notes as well.
    """

    def __init__(self, folder: Path, *, crashes: bool = False) -> None:
        self.folder, self._crashes = folder, crashes
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "trials.jsonl"
        self.known: dict[str, Outcome] = {}
        self.lines: list[dict[str, Any]] = []
        if self.path.exists():
            text = self.path.read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                self._read(line)
            if text and not text.endswith("\n"):  # else the next line is spoilt as well
                self._write("\n")

    def _read(self, line: str) -> None:
        try:
            told = json.loads(line)
            if "outcome" in told:
                record = self.folder / told["key"] / "record.sqlite"
                if told["outcome"].get("record") and record.exists():  # also where the folder was moved
                    told["outcome"]["record"] = str(record)
                self._know(told["key"], outcome_of(told))
            self.lines.append(told)
        except (ValueError, KeyError, TypeError):  # the last line, cut off
            return

    def _know(self, key: str, outcome: Outcome) -> None:
        crashed = outcome.status == "failed" and outcome.error != NO_TORCH
        if self._crashes or (not crashed and (not outcome.record or Path(outcome.record).exists())):
            self.known[key] = outcome

    def add(self, job: Job, outcome: Outcome) -> None:
        """Notes an outcome, on the disk before it is used."""
        self.known[job.key] = outcome
        told: dict[str, Any] = {
            "key": job.key,
            "seed": job.seed,
            "edits": [asdict(e) for e in job.edits],
            "outcome": plain(asdict(outcome)),
        }
        self._write(json.dumps(told) + "\n", lasting=True)

    def note(self, **told: Any) -> None:
        """Notes something else in a line of its own; it lasts when the next outcome does."""
        self._write(json.dumps(plain(told)) + "\n")

    def _write(self, text: str, *, lasting: bool = False) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
            if lasting:
                file.flush()
                os.fsync(file.fileno())


def outcome_of(told: dict[str, Any]) -> Outcome:
    """The outcome in a line of a log.

    Raises:
        KeyError: There is none.
        TypeError: It isn't one.
    """  # noqa: DOC502
    values: dict[str, Any] = {k: math.nan if v is None else v for k, v in told["outcome"].items()}
    return Outcome(**values)


class Feed:
    """Hands over jobs: of a collection all at once, what is known first; of an iterator one whenever there is room.

    Args:
        jobs: The jobs.
        log: Knows what has finished.

    Attributes:
        goes_on: There may be more.
        rests: The iterator had none to give before something has finished.
    """

    def __init__(self, jobs: Iterable[Job | None], log: Log) -> None:
        self._log, self.at_once = log, not isinstance(jobs, Iterator)
        self.goes_on, self.rests = True, False
        self._jobs = iter(jobs)
        if self.at_once:
            self._jobs = iter(sorted(jobs, key=lambda job: job is not None and job.key not in log.known))

    def taken(self, room: Callable[[], bool]) -> Iterator[tuple[Job, Outcome | None]]:
        """Jobs, with their outcomes where these are known.

        Args:
            room: Whether there is room for one more.
        """
        self.rests = False
        while self.goes_on and (self.at_once or room()):
            try:
                job = next(self._jobs)
            except StopIteration:
                self.goes_on = False
                return
            if job is None:
                self.rests = True
                return
            yield job, self._log.known.get(job.key)


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
        self._killed: set[str] = set()
        self._copies = nursery and Nursery.possible()
        self.workers = workers or cores()

    def run(
        self,
        jobs: Iterable[Job | None],
        *,
        enough: Callable[[Job, Outcome], bool] | None = None,
        hopeless: Callable[[Job, Path], str] | None = None,
    ) -> Iterator[tuple[Job, Outcome]]:
        """Makes jobs, see `Executor`."""
        feed, waiting, wanted = Feed(jobs, self.log), deque[Job](), dict[str, Job]()
        looked = time.perf_counter()
        try:
            while feed.goes_on or wanted:
                for job, outcome in feed.taken(lambda: not waiting and len(self._running) < self.workers):
                    if outcome is None:
                        wanted[job.key] = job
                        waiting.append(job)
                        self._later = deque(other for other in self._later if other.key != job.key)
                        self._begin(waiting, later=False)
                        continue
                    yield job, outcome
                    if enough is not None and enough(job, outcome):
                        return
                if feed.rests and not wanted:
                    return
                self._begin(waiting)
                if hopeless is not None and time.perf_counter() - looked > LOOK:
                    looked = time.perf_counter()
                    self._look(hopeless, wanted)
                ended = [(j, o) for j, o in self._ended() if wanted.pop(j.key, None) is not None]
                for job, outcome in ended:
                    yield job, outcome
                    if enough is not None and enough(job, outcome):
                        return
                if not ended:
                    time.sleep(0.02)
        finally:
            self._stop(one for one in self._running if one.job.key in wanted)

    def _look(self, hopeless: Callable[[Job, Path], str], wanted: Mapping[str, Job]) -> None:
        """Stops what is under way, wanted, and hopeless."""
        for one in self._running:
            if one.job.key in wanted and not one.stopped and (why := hopeless(one.job, one.folder / "record.sqlite")):
                one.stop(why)

    def later(self, jobs: Iterable[Job]) -> None:
        """Notes jobs that will be wanted, see `Executor`."""
        self._later.extend(job for job in jobs if job.key not in self.log.known)

    def _begin(self, waiting: deque[Job], *, later: bool = True) -> None:
        """Begins what is wanted first, then what will be, unless more may be wanted."""
        going = {one.job.key: one for one in self._running}
        while waiting and (waiting[0].key in going or len(self._running) < self.workers):
            job = waiting.popleft()
            if job.key in going:
                going[job.key].job = job
            else:
                self._start(job)
        while later and self._later and len(self._running) < self.workers:
            self._start(self._later.popleft())

    def _start(self, job: Job) -> None:
        self._running.append(Running(job, self.log.folder / job.key, self._nursery(job)))

    def _ended(self) -> list[tuple[Job, Outcome]]:
        """What has ended since."""
        found: list[tuple[Job, Outcome]] = []
        for one in [r for r in self._running if r.poll()]:
            self._running.remove(one)
            outcome = one.outcome()
            if was_killed(one.job, outcome) and one.job.key not in self._killed:
                self._killed.add(one.job.key)  # once more; then it is a result
                self._start(one.job)
                continue
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
            self.nursery = Nursery(imported(job.file or job.command[0]))
        return self.nursery

    def close(self) -> None:
        """Ends what is under way, and what helps it."""
        self._later.clear()
        self._stop(self._running)
        if self.nursery is not None:
            self.nursery.close()
            self.nursery = None
