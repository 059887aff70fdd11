"""Rows of a record whose SQLite file is cut short or damaged, read page by page. No numpy.

SQLite finds rows through inner pages, and one that is lost hides every row under it. But rows sit in leaf pages that each
can be read alone, so we read every leaf that is left and tell by the types of a row's values which table it is from. The
inner pages aren't looked at. Pages of a log left beside the file come before those in the file.

Source: the SQLite file format, https://www.sqlite.org/fileformat2.html, section 4; see `_store_rows` for what is in a page.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unstuck._language import say
from unstuck._store_file import KINDS, check, fits
from unstuck._store_rows import TornError, cells, row
from unstuck.errors import RecordError

Rows = dict[str, list[tuple[Any, ...]]]


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
        for cell in cells(pages, number):
            try:
                rowid, found_row = row(pages, number, cell)
            except (TornError, IndexError, struct.error, UnicodeDecodeError):
                lost += 1
                continue
            if found_row[:1] == (None,):  # an id is kept as the row's number alone
                found_row = (rowid, *found_row[1:])
            for table in KINDS:
                if fits(found_row, table):
                    _keep(found[table], rowid, found_row)
    if not any(found.values()):
        raise RecordError(_nothing_left(path))
    return {table: [rows[rowid] for rowid in sorted(rows)] for table, rows in found.items()}, max(lost, 1)


def _nothing_left(path: Path) -> str:
    return say("{path!r} is damaged, and nothing of it could be recovered", path=str(path))


def _keep(rows: dict[int, tuple[Any, ...]], rowid: int, new: tuple[Any, ...]) -> None:
    """Keeps a row; of two states of one row, which a freed page may hold, the longer, which is the later."""
    if rowid not in rows or len(new[-1]) > len(rows[rowid][-1]):
        rows[rowid] = new


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
            raise RecordError(_nothing_left(path))
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
