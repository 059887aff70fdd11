"""Sending a record to trackers while it grows, from a thread of its own.

The thread reads what was written to the record's file; the training knows nothing of it. It rests fifty times as long as it
worked, so that it takes two percent of one core at most.
"""

from __future__ import annotations

import contextvars
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from unstuck.integrations._growing import Growing
from unstuck.integrations._points import Names, Points, points

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.integrations.trackers import Tracker
    from unstuck.verdict import Verdict

EVERY = 2.0  # seconds between two looks at the record, at least
_REST = 50.0  # times as long as the last look took
_MOST = 40  # numbers of each series in one look
_PATIENCE = 60.0  # seconds that a tracker may take for what is left at the end
_logger = logging.getLogger("unstuck")


class Paced:
    """Does something again and again in a thread, for at most two percent of the time.

    Args:
        action: What to do.
        every: Seconds between two times, at least.
    """

    def __init__(self, action: Callable[[], None], every: float = EVERY) -> None:
        self._action, self._every = action, every
        self._over = threading.Event()
        context = contextvars.copy_context()  # a notebook's kernel finds by it the cell that what we show belongs to
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="unstuck-sending", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, patience: float = _PATIENCE) -> bool:
        """Ends it.

        Args:
            patience: Seconds to wait for what is being done.

        Returns:
            Whether it has ended; a thread that hangs is left alone.
        """
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        wait = self._every
        while not self._over.wait(wait):
            start = time.perf_counter()
            self._action()
            wait = max(self._every, _REST * (time.perf_counter() - start))


class Sending:
    """Sends one record to one tracker. One that raises is told of once, and left out from there on.

    Args:
        path: The record's file.
        tracker: Where to send it.
        every: Seconds between two looks, at least.
    """

    def __init__(self, path: Path, tracker: Tracker, every: float = EVERY) -> None:
        self._growing, self._tracker = Growing(path), tracker
        self._paced = Paced(self._look, every)
        self._broken = False

    def start(self) -> None:
        """Begins to look at the record."""
        self._paced.start()

    def finish(self, judged: Callable[[], tuple[Verdict, Record]]) -> None:
        """Sends what is left, then the verdict and the page.

        Args:
            judged: Gives the verdict and the whole record; what it raises ends nothing but the sending.
        """
        if not self._paced.stop():
            self._told(TimeoutError(f"it was still busy {_PATIENCE:g} seconds after the training"))
            return
        self._look()
        if not self._broken:
            self._tried(lambda: tell(self._tracker, *judged()))

    def _look(self) -> None:
        if not self._broken:
            self._tried(self._send)

    def _send(self) -> None:
        new = self._growing.new()
        send(self._tracker, points(new, Names(self._growing.program), _MOST))

    def _tried(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a tracker that fails must not end the training
            self._told(error)

    def _told(self, error: Exception) -> None:
        self._broken = True
        name = type(self._tracker).__name__
        _logger.warning("unstuck sends nothing more to %s: %s: %s", name, type(error).__name__, error)


def send(tracker: Tracker, found: Points) -> None:
    """Sends numbers by step."""
    for step, numbers in found:
        tracker.scalars(numbers, step)
    if found:
        tracker.flush()


def tell(tracker: Tracker, verdict: Verdict, record: Record) -> None:
    """Sends the verdict as text and as the page."""
    from unstuck.report import html, markdown

    try:
        tracker.text("unstuck/verdict", markdown.render(verdict, record))
        with tempfile.TemporaryDirectory(prefix="unstuck-") as folder:
            page = Path(folder) / "unstuck.html"
            html.write(verdict, record, page)
            tracker.file(page)
    finally:
        tracker.close()
