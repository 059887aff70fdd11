"""Rows of a record whose SQLite file is cut short or damaged, read page by page. No numpy.

SQLite finds rows through inner pages, and one that is lost hides every row under it. But rows sit in leaf pages that each
can be read alone, so we read every leaf that is left and tell by the types of a row's values which table it is from. The
inner pages aren't looked at. Pages of a log left beside the file come before those in the file.

Source: the SQLite file format, https://www.sqlite.org/fileformat2.html, sections 1.5, 1.6, 2.1 and 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unstuck._store_file import KINDS, check, fits
from unstuck.errors import RecordError

_LEAF = 0x0D
_NOTHING_LEFT = "{!r} is damaged, and nothing of it could be recovered"
_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)  # bytes of a value by its serial type
Rows = dict[str, list[tuple[Any, ...]]]


class TornError(Exception):
    """A row of which a part is lost."""


def salvage(path: Path) -> tuple[Rows, int]:
    """Every row that is whole.

    Args:
        path: The file.

    Returns:
        Rows by table, as `SELECT *` gives them, in the order they were written; and how many pieces are known to be lost.

    Raises:
        RecordError: It is not a record, a newer version wrote it, or nothing is left of it.
    """
    pages = _Pages(path)
    found: dict[str, dict[int, tuple[Any, ...]]] = {table: {} for table in KINDS}
    lost = int(pages.cut)
    for number in range(1, pages.count + 1):
        for cell in _cells(pages, number):
            try:
                rowid, row = _row(pages, number, cell)
            except (TornError, IndexError, struct.error, UnicodeDecodeError):
                lost += 1
                continue
            row = (rowid, *row[1:]) if row[:1] == (None,) else row  # an id is kept as the row's number alone
            for table in KINDS:
                if fits(row, table):
                    _keep(found[table], rowid, row)
    if not any(found.values()):
        raise RecordError(_NOTHING_LEFT.format(str(path)))
    return {table: [rows[rowid] for rowid in sorted(rows)] for table, rows in found.items()}, max(lost, 1)


def _keep(rows: dict[int, tuple[Any, ...]], rowid: int, row: tuple[Any, ...]) -> None:
    """Keeps a row; of two states of one row, which a freed page may hold, the longer, which is the later."""
    if rowid not in rows or len(row[-1]) > len(rows[rowid][-1]):
        rows[rowid] = row


class _Pages:
    """The pages of a file, numbered from 1, as the log beside it has changed them."""

    def __init__(self, path: Path) -> None:
        self._file = path.read_bytes()
        log = path.with_name(f"{path.name}-wal")
        self._log = log.read_bytes() if log.is_file() else b""
        self._changed = dict(_changes(self._log))
        head = self._log[self._changed[1] :][:100] if 1 in self._changed else self._file[:100]
        size = int.from_bytes(head[16:18], "big")
        self.size = 65536 if size == 1 else size
        if not head.startswith(b"SQLite format 3\0"):
            check(path, 0, 0)
        if len(head) < 100 or self.size < 512:
            raise RecordError(_NOTHING_LEFT.format(str(path)))
        check(path, int.from_bytes(head[68:72], "big"), int.from_bytes(head[60:64], "big"))
        self.usable = self.size - head[20]
        self.count = max(len(self._file) // self.size, *self._changed, 0)
        self.cut = self.count < int.from_bytes(head[28:32], "big")
        self.total = len(self._file) + len(self._log)

    def __getitem__(self, number: int) -> bytes:
        """A page; what is beyond the end is empty."""
        if number in self._changed:
            start = self._changed[number]
            return self._log[start : start + self.size]
        return self._file[(number - 1) * self.size : number * self.size] if number > 0 else b""


def _changes(log: bytes) -> Iterator[tuple[int, int]]:
    """Pages that a write-ahead log holds, and where in it; the last committed state of each comes last."""
    size, salt = int.from_bytes(log[8:12], "big"), log[16:24]
    waiting: list[tuple[int, int]] = []
    for start in range(32, len(log) - size - 23, size + 24):
        if log[start + 8 : start + 16] != salt:  # left over from before the log was begun anew
            return
        waiting.append((int.from_bytes(log[start : start + 4], "big"), start + 24))
        if log[start + 4 : start + 8] != b"\0\0\0\0":  # a commit
            yield from waiting
            waiting.clear()


def _cells(pages: _Pages, number: int) -> Iterator[int]:
    """Where the cells of a page start, none when it is no leaf of a table."""
    page, head = pages[number], 100 if number == 1 else 0
    if len(page) < pages.size or page[head] != _LEAF:
        return
    count = int.from_bytes(page[head + 3 : head + 5], "big")
    for i in range(min(count, pages.size // 4)):  # none is shorter than 4 bytes, its pointer included
        at = head + 8 + 2 * i
        yield int.from_bytes(page[at : at + 2], "big")


def _row(pages: _Pages, number: int, at: int) -> tuple[int, tuple[Any, ...]]:
    """The row in the cell that starts there, with its id.

    Raises:
        TornError: A part of it is lost.
    """
    page = pages[number]
    length, at = _varint(page, at)
    rowid, at = _varint(page, at)
    if length > pages.total:
        raise TornError
    return rowid, tuple(_values(_payload(pages, page, at, length)))


def _payload(pages: _Pages, page: bytes, at: int, length: int) -> bytes:
    """The bytes of a row, gathered from its cell and the pages it flows over to.

    Raises:
        TornError: A part of it is lost.
    """
    usable = pages.usable
    if length <= usable - 35:
        return page[at : at + length]
    least = (usable - 12) * 32 // 255 - 23
    here = least + (length - least) % (usable - 4)
    here = here if here <= usable - 35 else least
    parts, missing = [page[at : at + here]], length - here
    following = int.from_bytes(page[at + here : at + here + 4], "big")
    while missing > 0:
        page = pages[following]
        if len(page) < min(usable, missing + 4):
            raise TornError
        parts.append(page[4 : min(usable, missing + 4)])
        missing -= len(parts[-1])
        following = int.from_bytes(page[:4], "big")
    return b"".join(parts)


def _values(row: bytes) -> Iterator[Any]:
    """The values in the bytes of a row.

    Raises:
        TornError: A part of it is lost.
    """
    end, at = _varint(row, 0)
    start = end
    while at < end:
        kind, at = _varint(row, at)
        size = _SIZES[kind] if kind < 10 else (kind - 12) // 2
        part = row[start : start + size]
        if len(part) < size:
            raise TornError
        start += size
        if kind == 0:
            yield None
        elif kind < 7:
            yield int.from_bytes(part, "big", signed=True)
        elif kind == 7:
            yield struct.unpack(">d", part)[0]
        elif kind < 10:
            yield kind - 8
        else:
            yield part.decode() if kind % 2 else part


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The variable-length number there, and where it ends."""
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9
