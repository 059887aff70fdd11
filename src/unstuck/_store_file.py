"""The file behind a record: its tables, how values are written in them, and how a file is opened. No numpy.

A record is one SQLite file. While it grows it is in WAL mode, so that it can be read meanwhile and a killed process loses
nothing that was flushed; when it is finished it is one plain file with no log beside it. Who reads it takes no lock and writes
nothing (`_store_image`).

| table | holds |
|---|---|
| meta | facts of the run: a key and its value as JSON |
| program | what was learned of the script: one JSON document |
| layouts | columns of rows: a JSON list of [signal, place] |
| samples | `num_steps` rows for consecutive steps from `step` on, in columns of `layout`; `time` (Unix) is that of the last |
| vectors | one vector-valued sample |
| events | what happened, its data as JSON |

Numbers are float32, little-endian, row by row. The types of a row's values alone say which table it is from (`KINDS`), so
that rows can be told apart where the way to them is lost (`_store_salvage`): change no column without regard to that.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from unstuck._language import say
from unstuck._store_image import FOLDED, ChangedError, image, journal_of, log_of
from unstuck._store_rows import TornError, rows
from unstuck.errors import RecordError

APPLICATION = 0x756E7374  # "unst"
VERSION = 1
TABLES = """
    CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE program(document TEXT NOT NULL);
    CREATE TABLE layouts(id INTEGER PRIMARY KEY, columns TEXT NOT NULL);
    CREATE TABLE samples(id INTEGER PRIMARY KEY, step INTEGER NOT NULL, num_steps INTEGER NOT NULL,
        layout INTEGER NOT NULL, time REAL NOT NULL, data BLOB NOT NULL);
    CREATE TABLE vectors(id INTEGER PRIMARY KEY, step INTEGER NOT NULL, signal TEXT NOT NULL, place TEXT NOT NULL,
        data BLOB NOT NULL);
    CREATE TABLE events(id INTEGER PRIMARY KEY, step INTEGER NOT NULL, kind TEXT NOT NULL, layer TEXT NOT NULL,
        data TEXT NOT NULL);
"""
KINDS: dict[str, tuple[Any, ...]] = {
    "meta": (str, str),
    "program": (str,),
    "layouts": (int, str),
    "samples": (int, int, int, int, (float, int), bytes),
    "vectors": (int, int, str, str, bytes),
    "events": (int, int, str, str, str),
}
SET_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value"
LOG_SIZE = 4 << 20  # bytes a log has before it is carried over into the file
_NON_FINITE = "$float"  # {"$float": "nan"} stands for what JSON can't say


# ---------------------------------------------------------------------- values


def encode(value: Any) -> str:
    """JSON of a value. NaN and Inf survive; what JSON has no word for becomes a list, a number or a string."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain, separators=(",", ":"))
    except (ValueError, TypeError):  # NaN, or a key that is no string
        return json.dumps(_strict(value), separators=(",", ":"))


def decode(text: str) -> Any:
    """The value that `encode` was given."""
    return json.loads(text, object_hook=_revive if _NON_FINITE in text else None)


def fits(row: tuple[Any, ...], table: str) -> bool:
    """Whether a row has the types of a table's rows."""
    kinds = KINDS[table]
    return len(row) == len(kinds) and all(map(isinstance, row, kinds))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_NON_FINITE: str(float(value))}
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _strict(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(part) for part in value]
    return _strict(_plain(value))


def _revive(found: dict[str, Any]) -> Any:
    return float(found[_NON_FINITE]) if list(found) == [_NON_FINITE] else found


# ---------------------------------------------------------------------- making and settling a file


def create(path: Path, meta: Mapping[str, Any]) -> sqlite3.Connection:
    """Makes the file, complete with tables and facts of the run.

    Args:
        path: The file; one without any samples in it is replaced.
        meta: Facts of the run.

    Returns:
        A connection in WAL mode, which another thread may use.

    Raises:
        RecordError: The file can't be made, or there is a record already.
    """
    try:
        if not path.parent.is_dir():
            raise RecordError(
                say(
                    "can't make the record {path!r}: there is no folder {folder!r}",
                    path=str(path),
                    folder=str(path.parent),
                )
            )
        if path.exists():
            _clear_away(path)
        return _made(path, meta)
    except RecordError:
        raise
    except (sqlite3.Error, OSError) as error:
        raise RecordError(
            say("can't make the record {path!r}: {reason}", path=str(path), reason=reason(error))
        ) from error


def _made(path: Path, meta: Mapping[str, Any]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # nothing to lose yet
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        for statement in TABLES.split(";")[:-1]:
            connection.execute(statement)
        connection.executemany(SET_META, [(key, encode(value)) for key, value in {**meta, FOLDED: 0}.items()])
        connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # `fold` does it, ...
        connection.execute("PRAGMA journal_size_limit = 0")  # ... and a log that is begun anew is short again
        _use_log(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_log(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.OperationalError):  # a file system without shared memory: readers may have to wait a little
        connection.execute("PRAGMA journal_mode = WAL")


def _clear_away(path: Path) -> None:
    """Removes a record that holds no samples, as a script that starts itself anew leaves behind.

    Raises:
        RecordError: It holds some.
    """
    if path.stat().st_size:
        try:
            is_empty = patiently(lambda: _is_empty(path))
        except (ChangedError, TornError):
            is_empty = False
        if not is_empty:
            raise RecordError(say("there is a record in {path!r} already: name another file", path=str(path)))
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def _is_empty(path: Path) -> bool:
    with opened(path) as connection:
        return not connection.execute("SELECT 1 FROM samples LIMIT 1").fetchone()


def fold(connection: sqlite3.Connection, path: Path) -> None:
    """Carries a log that has grown long over into the file, so that the next transaction begins it anew.

    The file says first how many were carried over: a copy of it without that does not fit the log that comes next.

    Args:
        connection: The one that writes.
        path: The file.
    """
    with suppress(OSError, sqlite3.Error):
        log = log_of(path)
        if log.stat().st_size < LOG_SIZE:
            return
        with log.open("rb") as file:
            number = int.from_bytes(file.read(16)[12:16], "big")
        connection.execute(SET_META, (FOLDED, encode(number + 1)))
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def settle(connection: sqlite3.Connection) -> None:
    """Makes the file stand alone, with no log beside it; left for the next who writes when somebody reads just now."""
    connection.execute("PRAGMA busy_timeout = 500")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for _ in range(10):
        try:
            connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError:
            time.sleep(0.02)
        else:
            return


def note(path: Path, meta: Mapping[str, Any]) -> bool:
    """Adds facts to a record that another connection may be writing; false when it can't be written."""
    if not path.is_file():
        return False
    try:
        with closing(_connect(path, "mode=rw")) as connection:
            _check(path.read_bytes()[:100], path)
            connection.execute(
                "PRAGMA wal_autocheckpoint = 0"
            )  # only who writes begins a log anew, and says so (`fold`)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(SET_META, [(key, encode(value)) for key, value in meta.items()])
            connection.execute("COMMIT")
            settle(connection)
    except (sqlite3.Error, OSError):
        return False
    return True


# ---------------------------------------------------------------------- opening a file to read


_PATIENCE = 3.0  # seconds a file is waited for that others change

T = TypeVar("T")


def facts(path: Path) -> dict[str, Any]:
    """Facts of a run, from as few bytes of its record as hold them.

    Args:
        path: The file.

    Returns:
        All of them.

    Raises:
        RecordError: It is no record, a newer version wrote it, or it can't be read by this way.
    """  # noqa: DOC501

    def read() -> dict[str, Any]:
        with image(path, quick=True) as found:
            _check(found.head, path)
            return {key: decode(value) for key, value in rows(found, "meta")}

    try:
        if _is_left_half_changed(path):
            raise ChangedError
        return patiently(read)
    except (TornError, ChangedError, ValueError, TypeError) as error:
        raise RecordError(say("{path!r} is damaged", path=str(path))) from error


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to read a record by, also while it grows, after a kill, and where nothing can be written.

    It is to a state of one moment, and writes nothing in the record's folder.

    Args:
        path: The file.

    Yields:
        The connection.

    Raises:
        RecordError: It is no record, or a newer version wrote it.
        ChangedError: It was changed while it was read; what was read is to be thrown away.
        TornError: A part of it is lost.
    """  # noqa: DOC502
    if _is_left_half_changed(path):
        with _aside(path) as connection:
            yield connection
        return
    with image(path) as found:
        _check(found.head, path)
        alone = found.whole() if found.has_log else None
        if alone is None:
            with closing(_connect(path, "mode=ro&immutable=1")) as connection:  # as nothing is to be locked
                yield connection
    if alone is not None:
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.deserialize(alone)
            yield connection


def patiently(read: Callable[[], T]) -> T:
    """What a function reads, tried again for a while when the file is changed meanwhile.

    Args:
        read: The function; it raises `ChangedError` when it has to be tried again.

    Returns:
        What it gives.

    Raises:
        ChangedError: It was changed all the time.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return read()
        except ChangedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _connect(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=3, isolation_level=None)
    try:
        connection.execute("PRAGMA schema_version").fetchone()  # the first to touch the file, its log and its folder
    except BaseException:
        connection.close()
        raise
    return connection


def _is_left_half_changed(path: Path) -> bool:
    """Whether somebody who is gone left the file in the middle of a change, which what is beside it undoes."""
    until = time.monotonic() + _PATIENCE
    while (age := _age(journal_of(path))) is not None:
        if age > _PATIENCE or time.monotonic() > until:
            return True
        time.sleep(0.01)
    return False


def _age(journal: Path) -> float | None:
    """Seconds since a file was changed, None when nothing is in it."""
    try:
        found = journal.stat()
    except FileNotFoundError:
        return None
    return time.time() - found.st_mtime if found.st_size else None


@contextmanager
def _aside(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy."""
    with tempfile.TemporaryDirectory(prefix="unstuck-") as folder:
        for file in (path, journal_of(path)):
            shutil.copyfile(file, Path(folder) / file.name)
        with closing(_connect(Path(folder) / path.name, "mode=rw")) as connection:
            _check(Path(folder, path.name).read_bytes()[:100], path)
            yield connection


def _check(head: bytes, path: Path) -> None:
    if head.startswith(b"SQLite format 3\0"):
        check(path, int.from_bytes(head[68:72], "big"), int.from_bytes(head[60:64], "big"))
    else:
        check(path, 0, 0)


def check(path: Path, application: int, version: int) -> None:
    """Makes sure that this is a record we can read.

    Args:
        path: The file.
        application: Its `application_id`.
        version: Its `user_version`.

    Raises:
        RecordError: It is no record, or a newer version wrote it.
    """
    if application != APPLICATION:
        if not path.stat().st_size:
            raise RecordError(say("{path!r} is empty: nothing was recorded", path=str(path)))
        raise RecordError(say("{path!r} is not a record of unstuck", path=str(path)))
    if version > VERSION:
        raise RecordError(
            say(
                "{path!r} was written by a newer unstuck (record version {version}, this reads {ours}): upgrade "
                "unstuck",
                path=str(path),
                version=version,
                ours=VERSION,
            )
        )


def reason(error: Exception) -> str:
    """Why a file could not be read or written, in a few words."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return say("the disk is full")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


# ---------------------------------------------------------------------- whether its process lives


def started_at(pid: int) -> str | None:
    """What tells a process from a later one of the same id; "" when it has ended, None when it can't be known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        return None


def lives(meta: Mapping[str, Any]) -> bool:
    """Whether the process that writes a record may still live; true when it can't be known."""
    pid = meta.get("pid")
    if meta.get("host") != os.uname().nodename or not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    now = started_at(pid)
    return now is None or now == meta.get("pid_started", now) != ""


def status(meta: Mapping[str, Any]) -> str:
    """The status a record has, seeing that a killed process can't write its own."""
    told = str(meta.get("status") or "running")
    return "killed" if told == "running" and not lives(meta) else told
