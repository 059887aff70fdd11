"""What is said while many runs are made: a line for each thing that is known, and on a terminal what goes on and for how long still."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from unstuck._language import _, translated
from unstuck.cli._child import announce

_SURE = 0.05  # of the work, from which on the rest can be told from it


class Teller:
    """Prints lines as they come, and on a terminal a last line that shows what goes on.

    Args:
        stream: Standard error.
        quiet: Tell nothing.
        doing: What goes on, where that stays the same: "searching"; else that of a visit, first runs, then the confirmation.
        limit: Seconds after which it ends, from now on; None where that isn't known.
        share: Tells how much of the work is done, from 0 to 1, from which the time left is told.
    """

    def __init__(
        self,
        stream: Any,
        *,
        quiet: bool,
        doing: str = "",
        limit: float | None = None,
        share: Callable[[], float] | None = None,
    ) -> None:
        self.stream, self.quiet, self.doing, self.limit, self.share = stream, quiet, doing, limit, share
        self.status: Any = None
        self.now = doing or _("running the script as it is")
        self.confirming = False
        self.began = time.perf_counter()

    def __enter__(self) -> Teller:
        if not self.quiet and self.stream.isatty():
            from rich.console import Console

            self.status = Console(file=self.stream).status(self)
            self.status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.status is not None:
            self.status.stop()
            self.status = None

    def __rich__(self) -> Any:
        """What goes on, how long it has, and for how long still."""
        from rich.text import Text

        from unstuck.report.live import clock, left

        took = time.perf_counter() - self.began
        rest = self._left(took)
        return Text(
            " │ ".join([self.now, clock(took), *([] if rest is None else [left(rest)])]),
            overflow="ellipsis",
            no_wrap=True,
        )

    def _left(self, took: float) -> float | None:
        done = self.share() if self.share is not None else 0.0
        rests = [took / done * (1 - done)] if done >= _SURE else []
        if self.limit is not None and not self.confirming:
            rests.append(self.limit - took)
        return min(rests, default=None)

    def tell(self, line: str) -> None:
        """Prints a line, with the time that has passed.

        Args:
            line: What is known now.
        """
        if self.quiet:
            return
        took = f"{time.perf_counter() - self.began:6.1f} s  "
        if self.status is None:
            announce(took + translated(line))
            return
        self.status.console.print(took + translated(line), highlight=False, markup=False, soft_wrap=False)
        self.confirming |= line.startswith("confirming")
        if not self.doing and self.confirming:
            self.now = _("confirming, with fresh seeds")
        elif not self.doing:
            self.now = _("trying what may help; Ctrl-C confirms the best so far")
