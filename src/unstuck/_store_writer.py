"""Writes a record from inside a training: the caller only puts things in a queue, one thread owns the file.

Nothing in here raises into the training once the file is made. When the file can't be written any longer (a full disk, a
folder that is gone), writing goes on in memory, and into the file again at the end should there be room by then.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from unstuck import __version__
from unstuck._language import say
from unstuck._store_composer import Columns, Composer, Statement
from unstuck._store_file import KINDS, TABLES, create, fold, note, reason, settle, started_at
from unstuck.errors import RecordError

if TYPE_CHECKING:
    from unstuck.evidence import Event, Record

_MOST_WAITING = 200_000  # items in the queue; beyond, when a disk hangs, the oldest are dropped
_MOST_MEMORY = 65_536  # pages of 4 KiB
_MOST_TRIES = 40  # at a file that another process has locked, a second or more each
_REFUSED = (
    sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.IntegrityError, sqlite3.DataError, ValueError, OverflowError,
)  # fmt: skip
_PATIENCE = 60.0  # seconds the end of a run waits for the last flush


class Writer:
    """Writes one record.

    Calls return at once and are seen by readers after the next flush. Mappings that are given must not be changed later.

    Args:
        path: File to make.
        meta: Facts of the run, beside those known here: pid, host, started, python, unstuck, and the status `running`.
        flush_every: Seconds between two flushes.
        chunk: Most steps of a dense series kept in one row of the file.

    Attributes:
        path: The file.
        failure: Why writing to the file stopped, None while well.

    Raises:
        RecordError: The file can't be made.
    """

    def __init__(self, path: Path, *, meta: Mapping[str, Any], flush_every: float = 0.5, chunk: int = 256) -> None:
        self.path = Path(path)
        self.failure: str | None = None
        self._queue: deque[tuple[Any, ...]] = deque(maxlen=_MOST_WAITING)
        self._wake: SimpleQueue[None] = SimpleQueue()  # can be put to from a signal handler, unlike an Event
        self._kept: Record | None = None
        self._open = True
        connection = create(self.path, {**_facts(), **meta})
        # The thread's frame alone holds the scribe and with it the connection: in a forked child it stays behind unclosed.
        scribe = _Scribe(self, connection, self._queue, chunk)
        self._thread = threading.Thread(target=scribe.run, args=(flush_every,), name="unstuck-writer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            connection.close()
            raise RecordError(
                say("can't write the record {path!r}: {error}", path=str(path), error=str(error))
            ) from error
        _WRITERS.add(self)

    def sample(self, step: int, columns: Columns, values: np.ndarray | Sequence[float]) -> None:
        """Adds numbers measured at one step.

        Args:
            step: Training step.
            columns: Signal and place of each number.
            values: The numbers; a copy is taken.
        """
        kept = values.copy() if isinstance(values, np.ndarray) else tuple(values)
        self._queue.append(("sample", step, columns, kept, time.time()))

    def row(self, step: int, columns: Columns, values: Sequence[float]) -> None:
        """Adds one step of a dense series; consecutive steps are written together.

        Args:
            step: Training step.
            columns: Signal and place of each number.
            values: The numbers.
        """
        self._queue.append(("row", (step, columns, tuple(values), time.time())))

    def vector(self, step: int, signal: str, place: str, values: np.ndarray | Sequence[float]) -> None:
        """Adds a vector-valued sample.

        Args:
            step: Training step.
            signal: What was measured.
            place: Where.
            values: The numbers; a copy is taken.
        """
        kept = values.copy() if isinstance(values, np.ndarray) else tuple(values)
        self._queue.append(("vector", step, signal, place, kept))

    def event(self, event: Event) -> None:
        """Adds an event."""
        self._queue.append(("event", event))

    def program(self, document: Mapping[str, Any]) -> None:
        """Writes what was learned of the script, in place of what was written before."""
        self._queue.append(("program", document))

    def note(self, **meta: Any) -> None:
        """Adds facts of the run, or replaces them."""
        self._queue.append(("note", meta))

    def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything given so far is in the file.

        Args:
            timeout: Most seconds to wait.

        Returns:
            Whether it is.
        """
        return bool(self._ask("flush", timeout))

    def record(self, timeout: float = 30.0) -> Record:
        """The record as far as it was given, also where only memory holds it.

        Args:
            timeout: Most seconds to wait.

        Returns:
            The record.

        Raises:
            RecordError: It can't be read, or not in time.
        """
        if self._kept is not None:
            return self._kept
        if not self._open:
            from unstuck._store_reader import read_file

            return read_file(self.path)
        answer = self._ask("record", timeout)
        if isinstance(answer, Exception):
            raise RecordError(
                say("can't read the record {path!r}: {reason}", path=str(self.path), reason=reason(answer))
            ) from answer
        if answer is None:
            raise RecordError(
                say(
                    "can't read the record {path!r}: it was not written within {timeout:g} seconds",
                    path=str(self.path),
                    timeout=timeout,
                )
            )
        return answer

    def close(self, *, status: str, **meta: Any) -> None:
        """Flushes, finishes the file and ends the thread; what is given afterwards is left out.

        Args:
            status: How the run ended: `finished`, `failed` or `interrupted`.
            **meta: Further facts to note.
        """
        if not self._open:
            return
        queue = self._queue
        self._shut()
        queue.append(("close", {"status": status, **meta}))
        self._wake.put(None)
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            self.failure = self.failure or f"the last flush did not end within {_PATIENCE:g} seconds"

    def abandon(self) -> None:
        """Forgets everything, in a forked child: neither the file nor the connection, which are the parent's, is touched."""
        self._shut()

    def _shut(self) -> None:
        self._open = False
        self._queue = deque(maxlen=0)

    def _ask(self, what: str, timeout: float) -> Any:
        """Asks the thread, and waits for its answer; None when there is none."""
        if not self._open or not self._thread.is_alive():
            return None
        answer: SimpleQueue[Any] = SimpleQueue()
        self._queue.append((what, answer))
        self._wake.put(None)
        try:
            return answer.get(timeout=timeout)
        except Empty:
            return None


def _facts() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "status": "running",
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "pid": pid,
        "pid_started": started_at(pid),
        "host": os.uname().nodename,
        "python": sys.version.split()[0],
        "unstuck": __version__,
    }


# ---------------------------------------------------------------------- the thread


class _Scribe:
    """What the thread does: takes from the queue, composes statements, and carries them out."""

    def __init__(
        self, writer: Writer, connection: sqlite3.Connection, queue: deque[tuple[Any, ...]], chunk: int
    ) -> None:
        self.writer, self.connection, self.queue = writer, connection, queue
        self.in_memory = False
        self.composer = Composer(chunk)
        self.pending: list[Statement] = []
        self.tries = 0
        self.file = _identity(writer.path)

    def run(self, flush_every: float) -> None:
        """Flushes now and then until the writer is closed."""
        over = False
        try:
            with np.errstate(all="ignore"):
                while not over:
                    with suppress(Empty):
                        self.writer._wake.get(timeout=flush_every)
                    with _turn:
                        over = self._flush()
        except Exception as error:  # noqa: BLE001 - nothing reaches the training
            self.writer.failure = self.writer.failure or f"writing the record failed: {error!r}"
            self.writer._shut()
            with suppress(sqlite3.Error):
                self.connection.close()

    def _flush(self) -> bool:
        """Carries out what was asked; true when it was the last."""
        asked: list[tuple[str, Any]] = []
        composer = self.composer
        for _ in range(len(self.queue)):
            item = self.queue.popleft()
            if item[0] == "row":
                try:
                    composer.take_row(*item[1])
                except Exception as error:  # noqa: BLE001 - what can't be written is left out
                    composer.complain(error)
            elif item[0] in ("flush", "record", "close"):
                asked.append((item[0], item[1]))
            else:
                composer.take(*item)
        ending = [meta for what, meta in asked if what == "close"]
        for meta in ending:
            composer.take("note", meta)
        self.pending += composer.statements()
        self._store(patient=not ending)
        for what, answer in asked:
            if what == "flush":
                answer.put(not self.pending and not self.in_memory)
            elif what == "record":
                answer.put(self._record())
        if ending:
            self._finish(ending[0])
        return bool(ending)

    def _store(self, *, patient: bool) -> None:
        """Carries out what is pending; where that fails for good, in memory."""
        while self.pending:
            try:
                self._execute()
                self.pending.clear()
                self.tries = 0
            except (sqlite3.Error, OSError) as error:
                with suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
                self.tries += 1
                if patient and _is_busy(error) and self.tries < _MOST_TRIES:
                    return
                if self.in_memory:  # which has its limit too
                    self.pending.clear()
                else:
                    self._go_on_in_memory(error)

    def _execute(self) -> None:
        if not self.in_memory and _identity(self.writer.path) != self.file:
            raise FileNotFoundError(0, "the file was removed")  # which SQLite would not notice
        self.connection.execute("BEGIN IMMEDIATE")
        for sql, values in self.pending:
            try:
                self.connection.execute(sql, values)
            except _REFUSED as error:
                self.composer.complain(error)  # one that can't be written does no harm to others
        self.connection.execute("COMMIT")
        if not self.in_memory:
            fold(self.connection, self.writer.path)

    def _go_on_in_memory(self, error: Exception) -> None:
        self.writer.failure = f"the record could not be written any further: {reason(error)}"
        memory = _memory_of(self.connection)
        with suppress(sqlite3.Error):
            self.connection.close()
        self.connection, self.in_memory = memory, True
        self.composer.take("note", {"failure": self.writer.failure})
        self.pending = [*self.composer.layouts(), *self.pending, *self.composer.statements()]

    def _record(self) -> Record | Exception:
        from unstuck._store_reader import assemble, fetch

        try:
            return assemble(fetch(self.connection), self.writer.path)
        except Exception as error:  # noqa: BLE001 - it is raised where the record was asked for
            return error

    def _finish(self, meta: Mapping[str, Any]) -> None:
        path, failure = self.writer.path, self.writer.failure
        if not self.in_memory:
            with suppress(sqlite3.Error):
                settle(self.connection)
        elif _identity(path) != self.file or not self._rescue():
            kept = self._record()
            self.writer._kept = None if isinstance(kept, Exception) else kept
            note(path, {**meta, "failure": failure})
        with suppress(sqlite3.Error):
            self.connection.close()

    def _rescue(self) -> bool:
        """Writes what memory holds into the file, should there be room again."""
        try:
            file = sqlite3.connect(self.writer.path, timeout=2, isolation_level=None)
        except sqlite3.Error:
            return False
        try:
            self.connection.backup(file)
            file.execute("DELETE FROM meta WHERE key = 'failure'")
            settle(file)
        except sqlite3.Error:
            return False
        finally:
            with suppress(sqlite3.Error):
                file.close()
        self.writer.failure = None
        return True


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another of the same name; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _memory_of(connection: sqlite3.Connection) -> sqlite3.Connection:
    """A copy in memory of what can still be read."""
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        connection.backup(memory)
    except sqlite3.Error:
        memory.close()
        memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        memory.executescript(TABLES)
        for table, kinds in KINDS.items():
            marks = ", ".join("?" * len(kinds))
            with suppress(sqlite3.Error):
                for row in connection.execute(f"SELECT * FROM {table}"):
                    memory.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)
    memory.execute(f"PRAGMA max_page_count = {_MOST_MEMORY}")
    return memory


# ---------------------------------------------------------------------- forks

# Nobody forks while a writer's thread is at work: the child would inherit whatever lock SQLite holds at that moment, for ever.
_turn = threading.Lock()
_forking = threading.local()
_WRITERS: weakref.WeakSet[Writer] = weakref.WeakSet()


def _before_fork() -> None:
    _forking.held = _turn.acquire(timeout=1.0)


def _after_fork_in_parent() -> None:
    if _forking.held:
        _turn.release()


def _after_fork_in_child() -> None:
    global _turn
    _turn = threading.Lock()
    for writer in list(_WRITERS):
        writer.abandon()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
