"""From the rows of a record's file to a `Record`. Columns are cut out, and vectors unpacked, when they are first asked for."""

from __future__ import annotations

import functools
import gc
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from unstuck._store_file import decode, encode, fits, opened, patiently, status
from unstuck._store_image import FOLDED, ChangedError
from unstuck._store_rows import TornError
from unstuck._store_salvage import Rows, salvage
from unstuck.evidence import Event, Program, Record, Series, Vector

Key = tuple[str, str]
_ORDERED = {"meta": "key", "program": "rowid", "layouts": "id", "samples": "id", "vectors": "id", "events": "id"}
_TILE = 256  # rows
_ENDED = ("finished", "failed", "interrupted")


def read_file(path: Path) -> Record:
    """The record in a file, whatever state it is in.

    Args:
        path: The file.

    Returns:
        Everything that can be read of it.

    Raises:
        RecordError: It is no record, a newer version wrote it, or nothing is left of it.
    """  # noqa: DOC502
    try:
        rows, lost = patiently(lambda: _fetched(path)), 0
    except (sqlite3.Error, ValueError, TornError, ChangedError):  # ValueError: text that is no unicode
        rows, lost = salvage(path)
    return assemble(rows, path, lost)


def _fetched(path: Path) -> Rows:
    with opened(path) as connection:
        return fetch(connection)


def read_signals(path: Path, signals: Sequence[str]) -> dict[str, Series]:
    """Some series of the whole program, without the rest of the record.

    Args:
        path: The file.
        signals: Their names.

    Returns:
        Series by signal; those that were measured.

    Raises:
        RecordError: It is no record, a newer version wrote it, or nothing is left of it.
    """  # noqa: DOC502
    wanted = {(signal, "") for signal in signals}
    try:
        rows = patiently(lambda: _fetched_of(path, wanted))
    except (sqlite3.Error, ValueError, TornError, ChangedError):
        rows, _ = salvage(path)
    count = _Count(0)
    found = _series({table: [row for row in part if count.approves(row, table)] for table, part in rows.items()}, count)
    return {signal: found[signal, ""] for signal in signals if (signal, "") in found}


def _fetched_of(path: Path, wanted: Set[Key]) -> Rows:
    """The rows that hold any of these series."""
    with opened(path) as connection:
        every = connection.execute("SELECT * FROM layouts ORDER BY id").fetchall()
        layouts = [row for row in every if any(encode(key) in row[1] for key in wanted)]
        chosen = f"SELECT * FROM samples WHERE layout IN ({', '.join(str(row[0]) for row in layouts)}) ORDER BY id"
        return {"layouts": layouts, "samples": connection.execute(chosen).fetchall()}


def fetch(connection: sqlite3.Connection) -> Rows:
    """All rows of all tables, as they were at one moment."""
    connection.execute("BEGIN")
    try:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()
            for table, order in _ORDERED.items()
        }
    finally:
        connection.execute("ROLLBACK")


def assemble(rows: Rows, path: Path | None, lost: int = 0) -> Record:
    """A record from its rows.

    Args:
        rows: Rows by table, in the order they were written.
        path: The file they are from.
        lost: Pieces that are known to be lost already.

    Returns:
        The record; `meta["damaged"]` counts the pieces that are lost, and is missing when it is whole.
    """
    with _without_collector():
        return _assembled(rows, path, _Count(lost))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Without Python's cycle collector, which else takes most of the time where there are many thousand layers."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _assembled(rows: Rows, path: Path | None, count: _Count) -> Record:
    rows = {table: [row for row in found if count.approves(row, table)] for table, found in rows.items()}
    meta = {key: value for key, text in rows["meta"] if (value := count.decoded(text)) is not None}
    meta.pop(FOLDED, None)
    documents = [count.decoded(text, dict) for (text,) in rows["program"]]
    program = count.tried(lambda: Program.from_json(documents[-1] or {}), Program()) if documents else Program()
    events = [_event(row, count) for row in rows["events"]]
    series = _series(rows, count)
    vectors = _vectors(rows["vectors"], count)
    meta["status"] = status(meta)
    if meta["status"] not in _ENDED:
        told = meta.get("steps")
        meta["steps"] = max(told if isinstance(told, int) else 0, _steps(series))
    if count.lost:
        meta["damaged"] = count.lost
    return Record(program, meta, tuple(e for e in events if e is not None), path, series, vectors)


T = TypeVar("T")


class _Count:
    """Counts the pieces that can't be understood, as they are found."""

    def __init__(self, lost: int) -> None:
        self.lost = lost

    def approves(self, row: tuple[Any, ...], table: str) -> bool:
        known = fits(row, table)
        self.lost += not known
        return known

    def tried(self, make: Callable[[], T], otherwise: T) -> T:
        try:
            return make()
        except (ValueError, TypeError, AttributeError):
            self.lost += 1
            return otherwise

    def decoded(self, text: str, kind: type = object) -> Any:
        value = self.tried(lambda: decode(text), None)
        if isinstance(value, kind):
            return value
        self.lost += value is not None
        return None


def _event(row: tuple[Any, ...], count: _Count) -> Event | None:
    _, step, kind, layer, data = row
    found = count.decoded(data, dict)
    return None if found is None else Event(step, kind, layer, found)


def _steps(series: Mapping[Key, Series]) -> int:
    loss = series.get(("loss", ""))
    return int(loss.steps[-1]) + 1 if loss is not None and len(loss) else 0


# ---------------------------------------------------------------------- what is made when it is asked for

Part = TypeVar("Part")
Value = TypeVar("Value")


class _Lazy(Mapping[Key, Value], Generic[Part, Value]):
    """A mapping that makes a value out of its parts when it is first asked for."""

    def __init__(self, parts: Mapping[Key, Part], make: Callable[[Part], Value]) -> None:
        self._parts, self._make = parts, make
        self._made: dict[Key, Value] = {}

    def __getitem__(self, key: Key) -> Value:
        if key not in self._made:
            self._made[key] = self._make(self._parts[key])
        return self._made[key]

    def get(self, key: Key, default: Any = None) -> Any:
        """As of any mapping, without an exception for what is missing, as most is that is asked for."""
        made = self._made.get(key)
        return made if made is not None else self[key] if key in self._parts else default

    def __contains__(self, key: object) -> bool:
        return key in self._parts

    def __iter__(self) -> Iterator[Key]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


class _Block:
    """All rows of one layout."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._rows: list[tuple[int, int, int]] = []  # id, first step, steps
        self._data: list[bytes] = []

    def add(self, row: tuple[int, int, int], data: bytes) -> bool:
        """Adds consecutive rows, unless their numbers are of the wrong length."""
        if row[2] < 1 or not self.width or len(data) != 4 * self.width * row[2]:
            return False
        self._rows.append(row)
        self._data.append(data)
        return True

    @functools.cached_property
    def columns(self) -> np.ndarray:
        """The numbers, shape `(width, rows)`."""
        rows = np.frombuffer(b"".join(self._data), "<f4").reshape(-1, self.width)
        self._data.clear()
        columns = np.empty(rows.shape[::-1], np.float32)
        for start in range(0, len(rows), _TILE):  # a good deal faster than all at once, which jumps about in memory
            columns[:, start : start + _TILE] = rows[start : start + _TILE].T
        return columns

    @functools.cached_property
    def steps(self) -> np.ndarray:
        """Each row's step."""
        _, first, length = np.array(self._rows, np.int64).reshape(-1, 3).T
        return np.repeat(first - np.cumsum(length) + length, length) + np.arange(length.sum())

    @functools.cached_property
    def ascending(self) -> bool:
        """Whether every step comes once, in its place."""
        return bool((np.diff(self.steps) > 0).all())

    @functools.cached_property
    def order(self) -> np.ndarray:
        """Each row's place in the order of writing."""
        number, _, length = np.array(self._rows, np.int64).reshape(-1, 3).T
        return np.repeat(number, length)


Column = tuple[_Block, int]


def _series(rows: Rows, count: _Count) -> _Lazy[list[Column], Series]:
    """The series, from the columns of all layouts they have a part in."""
    names = {number: _names(text, count) for number, text in rows["layouts"]}
    blocks = {number: _Block(len(columns)) for number, columns in names.items()}
    for number, step, num_steps, layout, _, data in rows["samples"]:
        if layout not in blocks or not blocks[layout].add((number, step, num_steps), data):
            count.lost += 1
    parts: dict[Key, list[Column]] = {}
    for number, block in blocks.items():
        if len(block.steps):
            for i, key in enumerate(names[number]):
                parts.setdefault(key, []).append((block, i))
    return _Lazy(parts, _Joiner())


def _names(text: str, count: _Count) -> list[Key]:
    return count.tried(lambda: [(str(signal), str(place)) for signal, place in json.loads(text)], [])


class _Joiner:
    """Makes one series out of its columns. Those out of the same blocks share their steps, and the way to put them in order."""

    def __init__(self) -> None:
        self._ways: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray | None] | None] = {}

    def __call__(self, columns: list[Column]) -> Series:
        key = tuple(id(block) for block, _ in columns)
        if key not in self._ways:
            self._ways[key] = _way([block for block, _ in columns])
        way = self._ways[key]
        if way is None:
            return _merged(columns)
        parts = [block.columns[i] for block, i in columns]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        steps, order = way
        return Series(steps, _wide(values if order is None else values[order]))


def _way(blocks: list[_Block]) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The steps of blocks in order, and what puts values in order; None where a step comes twice."""
    if len(blocks) == 1 and blocks[0].ascending:
        return blocks[0].steps, None
    steps = np.concatenate([block.steps for block in blocks])
    if (np.diff(steps) > 0).all():
        return steps, None
    order = np.argsort(steps, kind="stable")
    return (steps[order], order) if (np.diff(steps[order]) > 0).all() else None


def _merged(columns: list[Column]) -> Series:
    """One series out of columns with several values for a step: the last written counts, but any rather than NaN."""
    steps = np.concatenate([block.steps for block, _ in columns])
    values = _wide(np.concatenate([block.columns[i] for block, i in columns]))
    order = np.concatenate([block.order for block, _ in columns])
    by_step = np.lexsort((order, ~np.isnan(values), steps))
    steps, values = steps[by_step], values[by_step]
    last = np.append(np.diff(steps) > 0, True)
    return Series(steps[last], values[last])


def _wide(numbers: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # signalling NaN, of which damage is full
        return numbers.astype(np.float64)


def _vectors(rows: list[tuple[Any, ...]], count: _Count) -> _Lazy[dict[int, bytes], tuple[Vector, ...]]:
    parts: dict[Key, dict[int, bytes]] = {}
    for _, step, signal, place, data in rows:
        if len(data) % 4:
            count.lost += 1
        else:
            parts.setdefault((signal, place), {})[step] = data
    return _Lazy(parts, _unpacked)


def _unpacked(found: dict[int, bytes]) -> tuple[Vector, ...]:
    """Vectors in order; at once where they are of one length."""
    steps = sorted(found)
    lengths = {len(data) // 4 for data in found.values()}
    if len(lengths) > 1:
        return tuple(Vector(step, _wide(np.frombuffer(found[step], "<f4"))) for step in steps)
    numbers = np.frombuffer(b"".join(found[step] for step in steps), "<f4").reshape(len(steps), *lengths)
    return tuple(map(Vector, steps, _wide(numbers)))
