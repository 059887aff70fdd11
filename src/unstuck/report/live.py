"""One line at the foot of the terminal while a script runs, though the script owns the terminal.

The terminal's last row is kept back by a scroll region (DECSTBM), as apt does for its progress bar: what the script
prints scrolls above it, untouched. Everything is one write, with the cursor saved and restored within it, so that it can't
fall in the middle of the script's own. The row is given back at the end, on an exception, when the process is told to
stop or suspended, and at a change of size.

Nothing is written where standard error is no terminal, where `TERM` is "dumb", or while the program is in the background.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import signal
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, Self, TextIO

from rich.cells import cell_len, set_cell_size

from unstuck._language import _, marked, say, translated
from unstuck.report._words import clean, number, percent

INTERVAL = 0.2  # seconds between two drawings
_FEWEST_ROWS = 4
_FEWEST_COLUMNS = 20
_BAR = 12
_MEASURED = {name: name for name in (marked("experiments"), marked("curvature"), marked("batch sizes"))}
_SAVE, _RESTORE = "\x1b7", "\x1b8"
_DOWN, _UP = "\x1bD", "\x1b[A"  # index, unlike a line feed, keeps the column
_WHOLE = "\x1b[r"
_STOPPING = ("SIGTERM", "SIGHUP", "SIGQUIT")


class LiveLine:
    """The line at the foot of the terminal.

    Use it as a context manager, or call `start` and `stop`. `update` may be called as often as one likes.

    Args:
        stream: Where to draw; standard error.
        enabled: Draw at all; false for `--quiet`.

    Example:
        >>> import sys
        >>> with LiveLine(sys.stderr, enabled=False) as line:
        ...     line.update({"step": 3, "loss": 2.3})
    """

    def __init__(self, stream: TextIO, enabled: bool = True) -> None:
        self._stream = stream
        self._enabled = enabled and os.name == "posix" and os.environ.get("TERM", "dumb") != "dumb" and _is_tty(stream)
        self._fd = stream.fileno() if self._enabled else -1
        self._plain = bool(os.environ.get("NO_COLOR"))
        self._size: tuple[int, int] | None = None  # rows and columns the region was made for; None while there is none
        self._progress: dict[str, Any] = {}
        self._started = self._drawn = -math.inf
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Keep the terminal's last row back and draw the line."""
        self._started = time.monotonic()
        if self._enabled:
            atexit.register(self.stop)
            self._handle_signals()
            self._draw()

    def update(self, progress: Mapping[str, Any]) -> None:
        """Show how far the run is; drawn a few times a second at most.

        Args:
            progress: Any of `step`, `loss`, `score` (a number, or a dict with `name` and `last`), `score_name`, `overhead`
                (a share), `elapsed` (seconds; by default since the start), `note` (a few words), `measuring` (what is measured
                when the script has ended: `what`, `since` in seconds since 1970, `most` seconds about). What is left out stays
                as it was.
        """
        self._progress.update(progress)
        if self._enabled and time.monotonic() - self._drawn >= INTERVAL:
            self._draw()

    def stop(self) -> None:
        """Give the row back, and the signals; calling it again does nothing."""
        if not self._enabled:
            return
        self._release()
        self._enabled = False
        for number_, handler in self._handlers.items():
            signal.signal(number_, handler)
        self._handlers.clear()
        atexit.unregister(self.stop)

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        try:
            if not _in_foreground(self._fd):
                return
            columns, rows = os.get_terminal_size(self._fd)
        except OSError:
            return
        if rows < _FEWEST_ROWS or columns < _FEWEST_COLUMNS:
            self._release()
            return
        kept = "" if self._size == (rows, columns) else _keep_back(rows, resized=self._size is not None)
        self._size = rows, columns
        line = set_cell_size(self._line(columns - 1), columns - 1)
        colour = ("", "") if self._plain else ("\x1b[0;2m", "\x1b[0m")
        self._write(f"{kept}{_SAVE}\x1b[{rows};1H{colour[0]}{line}{colour[1]}\x1b[K{_RESTORE}")

    def _line(self, width: int) -> str:
        """As many parts as fit, the most telling first."""
        line = "unstuck"
        for part in _parts(self._progress, time.monotonic() - self._started, bar="█░" if self._is_unicode else "#-"):
            if cell_len(line) + 3 + cell_len(part) <= width:
                line = f"{line} │ {part}" if self._is_unicode else f"{line} | {part}"
        return line

    @property
    def _is_unicode(self) -> bool:
        return (getattr(self._stream, "encoding", None) or "").lower().startswith("utf")

    def _release(self) -> None:
        if self._size is None:
            return
        rows = self._size[0]
        self._size = None
        with contextlib.suppress(OSError):
            if _in_foreground(self._fd):
                self._write(f"{_SAVE}{_WHOLE}\x1b[{rows};1H\x1b[2K{_RESTORE}")

    def _write(self, text: str) -> None:
        try:
            self._stream.flush()
            os.write(self._fd, text.encode(self._stream.encoding or "ascii", "replace"))
        except BlockingIOError:
            return  # the script made the terminal non-blocking and it is busy: the next line will do
        except (OSError, ValueError):
            self._enabled = False  # the terminal is gone

    def _handle_signals(self) -> None:
        wanted = {name: self._end for name in _STOPPING} | {"SIGTSTP": self._suspend, "SIGWINCH": self._resize}
        for name, handler in wanted.items():
            number_ = getattr(signal, name)
            # Handlers can be set in the main thread alone. One that handles a signal already also calls `stop`.
            with contextlib.suppress(ValueError):
                if signal.getsignal(number_) is signal.SIG_DFL:
                    self._handlers[number_] = signal.signal(number_, handler)

    def _resize(self, number_: int, frame: FrameType | None) -> None:
        self._draw()  # at once, before the script prints onto the line that was the last

    def _end(self, number_: int, frame: FrameType | None) -> None:
        self.stop()  # puts the default back
        os.kill(os.getpid(), number_)

    def _suspend(self, number_: int, frame: FrameType | None) -> None:
        self._release()
        signal.signal(number_, signal.SIG_DFL)
        os.kill(os.getpid(), number_)  # stops here, until SIGCONT; the next update draws anew
        signal.signal(number_, self._suspend)


def _keep_back(rows: int, *, resized: bool) -> str:
    """Make the region of all rows but the last, keeping the cursor on its text.

    Going down a row first scrolls a terminal that is full, and nothing else; below that is only our own line of before.
    """
    whole = f"{_SAVE}{_WHOLE}{_RESTORE}" if resized else ""
    return f"{whole}{_DOWN}{_SAVE}\r\x1b[J\x1b[1;{rows - 1}r{_RESTORE}{_UP}"


def _parts(progress: Mapping[str, Any], since_start: float, *, bar: str = "#-") -> list[str]:
    measuring = progress.get("measuring")
    parts = _measured(measuring, time.time(), bar) if isinstance(measuring, Mapping) else []
    if progress.get("step") is not None:
        parts.append(f"step {progress['step']}")
    if progress.get("loss") is not None:
        parts.append(f"loss {number(progress['loss'])}")
    score = progress.get("score")
    name = progress.get("score_name")
    if isinstance(score, Mapping):
        name, score = name or score.get("name"), score.get("last")
    if score is not None:
        parts.append(f"{clean(name or 'score')} {number(score)}")
    parts.append(clock(progress.get("elapsed", since_start)))
    if progress.get("note"):
        parts.append(clean(progress["note"]))
    if progress.get("overhead") is not None:
        parts.append(f"watching {percent(progress['overhead'])}")
    if isinstance(measuring, Mapping):
        parts.insert(2, _("Ctrl-C ends it"))
    return parts


def _measured(told: Mapping[str, Any], now: float, bar: str) -> list[str]:
    """What is measured, and how much of its time is left."""
    name = str(told.get("what", ""))
    since, most = float(told.get("since") or now), float(told.get("most") or 0)
    took = max(0.0, now - since)
    share = min(1.0, took / most) if most > 0 else 1.0
    full = round(_BAR * share)
    return [
        translated(say("measuring {what}", what=_(_MEASURED[name]) if name in _MEASURED else clean(name))),
        f"{bar[0] * full}{bar[1] * (_BAR - full)} {left(most - took)}",
    ]


def left(seconds: float) -> str:
    """How much time is left, as far as that can be known."""
    return translated(say("about {time} left", time=clock(math.ceil(seconds)))) if seconds > 0 else _("nearly done")


def clock(seconds: float) -> str:
    """A time span as clocks show it: "0:12", "1:02:03"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _is_tty(stream: TextIO) -> bool:
    try:
        return stream.isatty() and stream.fileno() >= 0
    except (OSError, ValueError, AttributeError):
        return False


def _in_foreground(fd: int) -> bool:
    """Whether this process may draw: a job in the background would disturb the shell, or be stopped for it."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True  # not our controlling terminal: nobody else's either
