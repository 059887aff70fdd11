"""Rows of tables, taken out of a record's pages without SQLite. No numpy.

Source: the SQLite file format, https://www.sqlite.org/fileformat2.html, sections 1.5, 1.6 and 2.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Protocol

LEAF, INNER = 0x0D, 0x05
_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)  # bytes of a value by its serial type
_DEEPEST = 20  # levels of a tree; a deeper one goes in circles

Row = tuple[Any, ...]


class TornError(Exception):
    """A row, or the way to it, of which a part is lost."""


class Paged(Protocol):
    """A database by its pages, numbered from 1; pages beyond the end are empty."""

    size: int
    usable: int
    total: int

    def __getitem__(self, number: int, /) -> bytes: ...


def rows(pages: Paged, table: str) -> Iterator[Row]:
    """The rows of a table, by the way that leads to them; where there is no such table, none.

    Args:
        pages: The database.
        table: Name of the table; it has no column that is kept as the row's number alone.

    Yields:
        Its rows, by number.

    Raises:
        TornError: A part of them is lost.
    """  # noqa: DOC502
    for _, found in _tree(pages, 1):
        if len(found) == 5 and found[0] == "table" and found[1] == table:
            for _, row in _tree(pages, found[3]):
                yield row


def cells(pages: Paged, number: int) -> Iterator[int]:
    """Where the cells of a page start, none when it is no leaf of a table."""
    page, head = pages[number], 100 if number == 1 else 0
    if len(page) < pages.size or page[head] != LEAF:
        return
    yield from _pointers(page, head, head + 8, pages.size // 4)  # none is shorter than 4 bytes, its pointer included


def row(pages: Paged, number: int, at: int) -> tuple[int, Row]:
    """The row in the cell that starts there, with its number.

    Args:
        pages: The database.
        number: Of the leaf.
        at: Where in the leaf the cell starts.

    Returns:
        The row's number, and its values.

    Raises:
        TornError: A part of it is lost.
    """
    page = pages[number]
    length, at = _varint(page, at)
    rowid, at = _varint(page, at)
    if length > pages.total:
        raise TornError
    return rowid, tuple(_values(_payload(pages, page, at, length)))


def _tree(pages: Paged, number: int, depth: int = 0) -> Iterator[tuple[int, Row]]:
    """The rows under a page, leaf or not.

    Raises:
        TornError: A part of them is lost.
    """
    page, head = pages[number], 100 if number == 1 else 0
    if len(page) < pages.size or depth > _DEEPEST or page[head] not in (LEAF, INNER):
        raise TornError
    try:
        if page[head] == LEAF:
            for at in list(cells(pages, number)):
                yield row(pages, number, at)
            return
        for at in list(_pointers(page, head, head + 12, pages.size // 4)):
            yield from _tree(pages, int.from_bytes(page[at : at + 4], "big"), depth + 1)
        yield from _tree(pages, int.from_bytes(page[head + 8 : head + 12], "big"), depth + 1)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise TornError from error


def _pointers(page: bytes, head: int, first: int, most: int) -> Iterator[int]:
    count = int.from_bytes(page[head + 3 : head + 5], "big")
    for i in range(min(count, most)):
        yield int.from_bytes(page[first + 2 * i : first + 2 * i + 2], "big")


def _payload(pages: Paged, page: bytes, at: int, length: int) -> bytes:
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


def _values(data: bytes) -> Iterator[Any]:
    """The values in the bytes of a row.

    Raises:
        TornError: A part of it is lost.
    """
    end, at = _varint(data, 0)
    start = end
    while at < end:
        kind, at = _varint(data, at)
        size = _SIZES[kind] if kind < 10 else (kind - 12) // 2
        part = data[start : start + size]
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
