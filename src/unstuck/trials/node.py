"""What makes one job at a time on a machine of a cluster: starts it, follows it, and hands over what it has recorded."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from unstuck import __version__
from unstuck._store_file import opened, patiently, settle
from unstuck._store_image import ChangedError
from unstuck._store_rows import TornError
from unstuck.errors import RecordError
from unstuck.trials.guard import Guard
from unstuck.trials.job import Job, Outcome, Running
from unstuck.trials.nursery import Nursery, imported
from unstuck.trials.parcel import Place, moved, moved_back, unpack

_RAYS_OWN = frozenset({"RAY_JOB_ID", "RAY_RAYLET_PID", "SPT_NOENV", "PYTHONBREAKPOINT"})  # set for its workers
_PRINTED = 2**20  # bytes of what a script printed that are handed over


@dataclass(frozen=True)
class News:
    """How a job is getting on.

    Attributes:
        outcome: What came of it, None while it is under way.
        record: Its record as one file, None where there is none, or nothing new in it.
        printed: The end of what it printed, once it has ended.
    """

    outcome: Outcome | None = None
    record: bytes | None = None
    printed: bytes = b""


class Node:
    """Makes jobs, one at a time, in a folder of its own, which goes when this process goes, as does what is under way.

    Its methods may be called from several threads.

    Args:
        nursery: Whether jobs begin as copies of a process that has imported torch, where that can be.
    """

    def __init__(self, *, nursery: bool = True) -> None:
        self._nursery: Nursery | None = None
        self._copies = nursery and Nursery.possible()
        self.folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="unstuck-")))
        self._guard = Guard(self.folder)
        self._place: Place | None = None  # what the copy is of
        self._one: _Followed | None = None

    def about(self) -> tuple[str, str]:
        """The version of unstuck, and the machine."""
        return __version__, machine()

    def take(self, place: Place, parcel: bytes) -> None:
        """Takes the files of a script."""
        shutil.rmtree(self._copy, ignore_errors=True)
        unpack(parcel, self._copy)
        self._place = place

    def begin(self, job: Job, place: Place, environment: Mapping[str, str] | None) -> bool:
        """Begins a job, where its script is here; else nothing is done.

        Args:
            job: The job.
            place: Where its script lies.
            environment: Variables that it has; None for those of this process.

        Returns:
            Whether it has begun.
        """
        here, copy = place, None
        if not place.here():
            if self._place is None or (self._place.root, self._place.cwd) != (place.root, place.cwd):
                return False
            here, copy = place.moved(self._copy), self._copy
            if not here.here():  # it has changed since
                return False
        os.chdir(here.cwd)
        _take_on(environment)
        made = moved(job, place, copy) if copy else job
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK, {signal.SIGINT}
        )  # Ray blocks it, and the script would have it from us
        if self._copies and self._nursery is None:
            self._nursery = Nursery(imported(made.file or made.command[0]))
        running = Running(made, self.folder / job.key, self._nursery)
        self._one = _Followed(running, self._guard, place if copy else None, self._copy)
        return True

    def follow(self, seconds: float, *, look: bool) -> News:
        """What is new of the job that has begun.

        Args:
            seconds: The longest to wait for its end.
            look: Hand over its record as well while it is under way, where there is something new in it.
        """
        assert self._one is not None
        return self._one.news(seconds, look=look)

    def stop(self, why: str) -> None:
        """Ends the job that is under way, if there is one."""
        if self._one is not None:
            self._one.stop(why)

    @property
    def _copy(self) -> Path:
        return self.folder / "files"


def machine() -> str:
    """Names this machine, or container: its name, and when it was started."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()} {boot.read_text().strip() if boot.exists() else ''}".strip()


def _take_on(environment: Mapping[str, str] | None) -> None:
    """Makes this process's variables those that its children are to have."""
    if environment is None:
        environment = {k: v for k, v in os.environ.items() if k not in _RAYS_OWN}
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


class _Followed:
    """A job under way, with a thread that stops it when it has had its time, whether somebody asks or not."""

    def __init__(self, running: Running, guard: Guard, place: Place | None, copy: Path) -> None:
        self._running, self._place, self._copy, self._guard = running, place, copy, guard
        guard.watch(running.process.pid)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._seen: tuple[object, ...] = ()
        self._outcome: Outcome | Exception = Outcome("failed")
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        while True:
            with self._lock:
                if self._running.poll():
                    break
            time.sleep(0.02)
        self._guard.release(self._running.process.pid)
        try:
            self._outcome = self._running.outcome()
        except Exception as error:  # noqa: BLE001 - whoever asks gets it
            self._outcome = error
        self._ended.set()

    def stop(self, why: str) -> None:
        with self._lock:
            self._running.stop(why)
        self._ended.wait()

    def news(self, seconds: float, *, look: bool) -> News:
        path = self._running.folder / "record.sqlite"
        if not self._ended.wait(seconds):
            return News(record=self._file(path) if look and self._has_new(path) else None)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        printed = self._printed()
        outcome = replace(self._outcome, error=self._there(self._outcome.error))
        record = self._file(path) if outcome.record else None
        shutil.rmtree(self._running.folder, ignore_errors=True)
        return News(outcome, record, printed.encode())

    def _printed(self) -> str:
        try:
            told = (self._running.folder / "output.txt").read_bytes()
        except FileNotFoundError:  # it was stopped before it had begun
            return ""
        return self._there(told[-_PRINTED:].decode(errors="replace"))

    def _there(self, text: str) -> str:
        return text.replace(str(self._copy), self._place.root) if self._place else text

    def _has_new(self, path: Path) -> bool:
        seen = tuple(
            (p.stat().st_mtime_ns, p.stat().st_size) for p in (path, path.with_name(path.name + "-wal")) if p.exists()
        )
        new, self._seen = seen != self._seen, seen
        return new and bool(seen)

    def _file(self, path: Path) -> bytes:
        """The record as one file with all that is in it by now; a damaged one as it is."""
        alone = path.with_name("alone.sqlite")
        alone.unlink(missing_ok=True)

        def copied() -> None:
            with opened(path) as record, closing(sqlite3.connect(alone, isolation_level=None)) as copy:
                record.backup(copy)
                settle(copy)

        try:
            patiently(copied)
            if self._place:
                moved_back(alone, self._place, self._copy)
        except (RecordError, ChangedError, TornError, sqlite3.Error):
            return path.read_bytes()
        return alone.read_bytes()
