"""From what a training says to SQL statements for its record; see `_store_file` for the tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unstuck._store_file import SET_META, encode
from unstuck.evidence import Event

Columns = tuple[tuple[str, str], ...]
Statement = tuple[str, tuple[Any, ...]]
_LARGEST = np.float32(np.finfo(np.float32).max)


class _Chunk:
    """Consecutive steps of one dense series, which are rewritten as one row of the file until it is full."""

    def __init__(self, number: int, layout: int, columns: Columns, step: int, most: int) -> None:
        self.number, self.layout, self.columns = number, layout, columns
        self.first = self.next = step
        self.end = step + most
        self.data = b""
        self.new: list[tuple[float, ...]] = []
        self.time = 0.0


class Composer:
    """Turns what the training said into statements, which may be carried out twice without harm.

    Args:
        most: Most steps in a chunk.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._done: list[Statement] = []
        self._numbers = itertools.count(1)
        self._layouts: dict[Columns, int] = {}
        self._chunks: dict[Columns, _Chunk] = {}
        self._chunk: _Chunk | None = None  # the last one used
        self._meta: dict[str, Any] = {}
        self._document: Mapping[str, Any] | None = None
        self._complaints: set[str] = set()
        self._step = 0

    def take(self, kind: str, *args: Any) -> None:
        """Takes one thing that was said; one that makes no sense is left out and complained of."""
        self._guarded(getattr(self, f"_{kind}"), *args)

    def take_row(self, step: int, columns: Columns, values: tuple[float, ...], when: float) -> None:
        """Takes one step of a dense series; apart from the rest, as it comes often."""
        chunk = self._chunk
        if chunk is None or step != chunk.next or step == chunk.end or columns != chunk.columns:
            chunk = self._chunk = self._chunk_for(int(step), columns)
        chunk.new.append(values)
        chunk.next += 1
        chunk.time = when

    def statements(self) -> list[Statement]:
        """What is to be carried out for everything taken since the last time."""
        for chunk in list(self._chunks.values()):
            self._guarded(self._put, chunk)
        if self._document is not None:
            self._guarded(self._put_document, self._document)
        for key, value in self._meta.items():
            self._guarded(self._put_meta, key, value)
        self._document, self._meta = None, {}
        done, self._done = self._done, []
        return done

    def layouts(self) -> list[Statement]:
        """Statements that make all layouts again."""
        return [self._make_layout(columns, number) for columns, number in self._layouts.items()]

    def complain(self, error: Exception) -> None:
        """Notes a failure, once for each kind."""
        kind = type(error).__name__
        if kind not in self._complaints:
            self._complaints.add(kind)
            self._event(Event(self._step, "watcher-error", "", {"where": "store", "error": repr(error)[:500]}))

    def _guarded(self, action: Callable[..., None], *args: Any) -> None:
        try:
            action(*args)
        except Exception as error:  # noqa: BLE001 - what can't be written is left out
            self.complain(error)

    def _chunk_for(self, step: int, columns: Columns) -> _Chunk:
        """The open chunk that a step belongs to, or a new one."""
        chunk = self._chunks.get(columns)
        if chunk is not None:
            if step == chunk.next < chunk.end:
                return chunk
            self._guarded(self._put, chunk)
        number, layout = next(self._numbers), self._layout(columns)
        chunk = self._chunks[columns] = _Chunk(number, layout, columns, step, self.most)
        self._step = step
        return chunk

    def _put(self, chunk: _Chunk) -> None:
        if not chunk.new:
            return
        new, chunk.new = chunk.new, []
        try:
            chunk.data += _bytes(new, (len(new), len(chunk.columns)))
        except Exception:
            del self._chunks[chunk.columns]  # its steps would no longer follow each other
            self._chunk = None
            raise
        self._sampled(chunk.number, chunk.first, chunk.next - chunk.first, chunk.layout, chunk.time, chunk.data)

    def _sample(self, step: int, columns: Columns, values: Sequence[float], when: float) -> None:
        data = _bytes(values, (len(columns),))
        self._sampled(next(self._numbers), int(step), 1, self._layout(columns), when, data)

    def _sampled(self, *row: Any) -> None:
        self._do("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?)", *row)

    def _layout(self, columns: Columns) -> int:
        number = self._layouts.get(columns)
        if number is None:
            number = self._layouts[columns] = len(self._layouts) + 1
            self._done.append(self._make_layout(columns, number))
        return number

    def _make_layout(self, columns: Columns, number: int) -> Statement:
        return "INSERT OR REPLACE INTO layouts VALUES (?, ?)", (number, encode(columns))

    def _vector(self, step: int, signal: str, place: str, values: Sequence[float]) -> None:
        data = _bytes(values, (-1,))
        self._do(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?)",
            next(self._numbers), int(step), _text(signal), _text(place), data,
        )  # fmt: skip

    def _event(self, event: Event) -> None:
        self._do(
            "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?)",
            next(self._numbers), int(event.step), _text(event.kind), _text(event.layer), encode(event.data),
        )  # fmt: skip

    def _program(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def _put_document(self, document: Mapping[str, Any]) -> None:
        self._do("INSERT OR REPLACE INTO program(rowid, document) VALUES (1, ?)", encode(document))

    def _note(self, meta: Mapping[str, Any]) -> None:
        self._meta.update(meta)

    def _put_meta(self, key: str, value: Any) -> None:
        self._do(SET_META, _text(key), encode(value))

    def _do(self, sql: str, *values: Any) -> None:
        self._done.append((sql, values))


def _bytes(values: Any, shape: tuple[int, ...]) -> bytes:
    """Numbers as little-endian float32, in which a finite number stays finite.

    Raises:
        ValueError: They don't have this shape.
    """
    wide = np.asarray(values)
    if wide.dtype != np.float32:
        wide = wide.astype(np.float64)
    if -1 not in shape and (wide.shape != shape or not wide.size):
        raise ValueError(f"numbers of shape {wide.shape} were given, but {shape} are expected")
    narrow = wide.astype("<f4")
    if wide.dtype == np.float64:
        over = np.isinf(narrow) & np.isfinite(wide)
        if over.any():
            narrow[over] = np.copysign(_LARGEST, wide[over])
    return narrow.tobytes()


def _text(words: str) -> str:
    """Text that SQLite takes: file names may hold bytes that are no characters."""
    return str(words).encode("utf-8", "replace").decode()
