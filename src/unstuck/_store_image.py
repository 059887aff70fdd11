"""A record's file as the log beside it has changed it, read without a lock and without writing anything. No numpy.

SQLite's own readers of a file that is being written need memory shared with the writer, kept in a third file that they make or
change, and that works on one machine only. We read the two files as bytes instead. As long as the head of the log stays the same, the
file changes only by pages that the log holds by then (a checkpoint). So the file read first and the log after it are one consistent
state, if the head is the same before and after; and so are the log read first and some pages of the file after it, if the log has not
grown meanwhile. If not, we look again. Frames of the log that are used are checked by their sums, and the log ends before the first that
fails.

A copy of the two made at different times can be of two states that don't fit. The file says up to which log it is complete
(`FOLDED`), so that such a copy is refused.

Source: the SQLite file format, https://www.sqlite.org/fileformat2.html, sections 1.3 and 4; https://www.sqlite.org/wal.html.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from unstuck._language import say
from unstuck._store_rows import TornError, rows
from unstuck.errors import RecordError

FOLDED = "logs_folded"  # fact of a run: how many logs were begun anew after they were carried over into the file
_HEAD, _FRAME = 32, 24  # bytes before the frames, and before the page of each
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
_MASK = 0xFFFFFFFF


class ChangedError(Exception):
    """The file changed while it was being read: read it again."""


class Image:
    """The pages of a record at one moment, numbered from 1.

    Args:
        file: The file.
        log: The log beside it.
        quick: Frames of the log are checked when they are used, and a broken one is a `TornError`; otherwise all are checked
            at once, and the log ends before the first broken one.

    Attributes:
        size: Bytes of a page.
        usable: Bytes of it that rows may take.
        count: Pages.
        total: Bytes of file and log.
        has_log: Whether there is a log.
    """

    def __init__(self, file: BinaryIO, log: Path, *, quick: bool = False) -> None:
        self._file, self._path = file, log
        data = _read(log)
        self._log = _Log(data, quick=quick)
        self.has_log = bool(data)
        head = os.pread(file.fileno(), 100, 0)
        size = int.from_bytes(head[16:18], "big")
        self.size = 65536 if size == 1 else size
        self.usable = self.size - head[20] if len(head) == 100 else 0
        length = os.fstat(file.fileno()).st_size
        self.total = length + len(data)
        self.count = self._log.count or (length // self.size if self.size else 0)

    def __getitem__(self, number: int) -> bytes:
        """A page; what is beyond the end is empty."""
        found = self._log.page(number)
        return self.below(number) if found is None else found

    def below(self, number: int) -> bytes:
        """A page as the file alone has it."""
        return os.pread(self._file.fileno(), self.size, (number - 1) * self.size) if number > 0 else b""

    @property
    def head(self) -> bytes:
        """The first 100 bytes."""
        return self[1][:100] if self.size else os.pread(self._file.fileno(), 100, 0)

    def whole(self) -> bytes:
        """All of it, as a file that stands alone; the log is read again, as the file may be ahead of what was read of it."""
        length = os.fstat(self._file.fileno()).st_size
        data = bytearray(_read_all(self._file, length))
        log = _Log(_read(self._path), quick=False)
        count = log.count or len(data) // self.size
        del data[self.size * count :]
        data.extend(bytes(self.size * count - len(data)))
        for number, page in log.pages():
            data[(number - 1) * self.size : number * self.size] = page
        data[18:20] = b"\1\1"  # needs no log
        return bytes(data)

    def is_current(self) -> bool:
        """Whether the log has not grown since it was read."""
        at, known = self._log.next
        return _read(self._path, _FRAME, at) == known

    def fits(self) -> bool:
        """Whether the file is complete up to where the log begins, and the log up to where the file is."""
        if not self._log.sequence and not self._log.is_cut:
            return True
        for key, value in rows(_Below(self), "meta"):
            if key == FOLDED:
                folded = json.loads(value)
                return folded == self._log.sequence or (folded > self._log.sequence and not self._log.is_cut)
        return True


class _Below:
    """The pages of an image's file alone."""

    def __init__(self, image: Image) -> None:
        self.size, self.usable, self.total = image.size, image.usable, image.total
        self._image = image

    def __getitem__(self, number: int) -> bytes:
        return self._image.below(number)


@contextmanager
def image(path: Path, *, quick: bool = False) -> Iterator[Image]:
    """What is in a file and its log.

    Args:
        path: The file.
        quick: See `Image`.

    Yields:
        Its pages. What was made of them is right when this ends without an error.

    Raises:
        ChangedError: It changed meanwhile.
        TornError: A part of it is lost.
        RecordError: File and log belong to different states.
        OSError: It can't be read.
    """  # noqa: DOC502
    before = stamp(path)
    if before is None:
        raise ChangedError
    with path.open("rb") as file:
        try:
            found = Image(file, log_of(path), quick=quick)
            fitting = found.fits()
            if fitting:
                yield found
        except Exception as error:
            if stamp(path) != before:
                raise ChangedError from error
            raise
        if stamp(path) != before or (quick and not found.is_current()):
            raise ChangedError
    if not fitting:
        raise RecordError(
            say(
                "{path!r} and {log!r} beside it are copies of different moments: copy both again, or the first alone",
                path=str(path),
                log=log_of(path).name,
            )
        )


def log_of(path: Path) -> Path:
    """The log beside a file."""
    return path.with_name(f"{path.name}-wal")


def journal_of(path: Path) -> Path:
    """What is beside a file while it is changed without a log."""
    return path.with_name(f"{path.name}-journal")


def stamp(path: Path) -> tuple[object, ...] | None:
    """What stays the same as long as the pages of a file and its log fit; None while the file itself is being changed."""
    head = _read(log_of(path), _HEAD)
    if _size(journal_of(path)):
        return None
    with path.open("rb") as file:
        found, counters = os.fstat(file.fileno()), os.pread(file.fileno(), 100, 0)
    if head:
        return found.st_dev, found.st_ino, head
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, counters


def _read(path: Path, most: int = -1, at: int = 0) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(at)
            return file.read(most)
    except FileNotFoundError:
        return b""


def _read_all(file: BinaryIO, length: int) -> bytes:
    file.seek(0)
    return file.read(length)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _Log:
    """The pages that a log holds, in the last state that is whole.

    Attributes:
        places: Where the frame of each page starts.
        count: Pages of the database, 0 when the log changes nothing.
        sequence: How many logs were begun before by who writes.
        next: Where the frame after the last commit starts, and the first bytes that were there.
        is_cut: Whether it ends within a frame, or within what was to be committed together.
    """

    def __init__(self, data: bytes, *, quick: bool) -> None:
        self._data = data
        self._quick = quick
        self.places: dict[int, int] = {}
        self.count = 0
        self.is_cut = False
        self.next = 0, data[:_FRAME]
        self._order = _MAGIC.get(int.from_bytes(data[:4], "big"), "")
        self._size = int.from_bytes(data[8:12], "big")
        self.sequence = int.from_bytes(data[12:16], "big")
        if not self._order or len(data) < _HEAD or self._sum(data[:24], (0, 0)) != struct.unpack(">II", data[24:32]):
            return
        self._index(len(data))
        while not quick and (broken := [at for at in self.places.values() if not self._is_whole(at)]):
            self._index(min(broken))

    def page(self, number: int) -> bytes | None:
        """A page, None when the log does not hold it.

        Raises:
            TornError: It is broken, which nobody looked at before.
        """
        at = self.places.get(number)
        if at is not None and self._quick and not self._is_whole(at):
            raise TornError
        return None if at is None else self._data[at + _FRAME : at + _FRAME + self._size]

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """All pages it holds, with their numbers."""
        for number, at in self.places.items():
            if number <= self.count:
                yield number, self._data[at + _FRAME : at + _FRAME + self._size]

    def _index(self, end: int) -> None:
        """Finds the frames up to the last commit before `end`."""
        data, salt = self._data, self._data[16:24]
        self.places, self.count, self.is_cut = {}, 0, end < len(data)
        self.next = _HEAD, data[_HEAD : _HEAD + _FRAME]
        waiting: dict[int, int] = {}
        for at in range(_HEAD, end, self._size + _FRAME):
            if data[at + 8 : at + 16] != salt:  # left over from before the log was begun anew
                break
            if at + _FRAME + self._size > end:
                self.is_cut = True
                return
            number, count = struct.unpack_from(">II", data, at)
            waiting[number] = at
            if count:  # a commit
                self.places.update(waiting)
                self.count = count
                waiting.clear()
                after = at + self._size + _FRAME
                self.next = after, data[after : after + _FRAME]
        self.is_cut |= bool(waiting)

    def _is_whole(self, at: int) -> bool:
        """Whether a frame holds what was written, by the sums of itself and of the one before."""
        before = self._data[at - self._size - 8 : at - self._size] if at > _HEAD else self._data[24:32]
        body = self._data[at : at + 8] + self._data[at + _FRAME : at + _FRAME + self._size]
        return self._sum(body, struct.unpack(">II", before)) == struct.unpack_from(">II", self._data, at + 16)

    def _sum(self, data: bytes, seed: tuple[int, ...]) -> tuple[int, int]:
        """The sums of bytes, which go on from those of what came before."""
        first, second = seed
        words = iter(struct.unpack(f"{self._order}{len(data) // 4}I", data))
        for one in words:
            first = (first + one + second) & _MASK
            second = (second + next(words) + first) & _MASK
        return first, second
