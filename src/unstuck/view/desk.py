"""Where records are read, judged and drawn: beside the event loop, in threads of low priority.

The threads are daemons, since who presses Ctrl-C does not wait for a page. What waits for them when the desk closes is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from unstuck._language import say
from unstuck.errors import UnstuckError

T = TypeVar("T")
_QUIETER = 10  # niceness beside that of the server: a training on the same machine goes first


class ClosedError(UnstuckError, RuntimeError):
    """The server ends, so that what was asked for is not made any more."""


class Desk:
    """Does pieces of work in threads of low priority, in the order they were asked for.

    Args:
        threads: How many.
    """

    def __init__(self, threads: int = 1) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._open = True
        for number in range(threads):
            threading.Thread(target=self._run, name=f"unstuck-view-{number}", daemon=True).start()

    async def done(self, make: Callable[[], T]) -> T:
        """What a piece of work makes.

        Args:
            make: The work; it runs in a thread, in the context of the caller (which language is spoken).

        Returns:
            What it returns. What it raises is raised here.

        Raises:
            ClosedError: The desk is closed, or was meanwhile.
        """
        if not self._open:
            raise ClosedError(say("the view has ended"))
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()
        self._waiting.add(answer)
        self._work.put(lambda: _answer(loop, answer, context, make))
        try:
            return await answer
        finally:
            self._waiting.discard(answer)

    def close(self) -> None:
        """Tells all who wait that nothing comes any more; from the event loop's thread."""
        self._open = False
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(ClosedError("the view has ended"))

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # where threads have no priority of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, os.nice(0) + _QUIETER))
        while True:
            self._work.get()()


def _answer(
    loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T], context: contextvars.Context, make: Callable[[], T]
) -> None:
    """Does the work and hands its outcome to the loop, where anybody still waits for it."""
    if answer.done():
        return
    made: Any = None
    error: BaseException | None = None
    try:
        made = context.run(make)
    except BaseException as raised:  # noqa: BLE001 - it is raised where the work was asked for
        error = raised

    def hand_over() -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(made)
        else:
            answer.set_exception(error)

    if not loop.is_closed():
        loop.call_soon_threadsafe(hand_over)
