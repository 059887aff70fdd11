"""Tells whoever listens that a run, or the list of runs, has changed.

Each subject is looked at by one task for all its listeners, once a second at most, and only while there are any. Looking is reading the
sizes and times of files, and of a run under way the few numbers its writer noted last. Where that itself takes long (a thousand runs in a
folder on a slow network) it is done less often, so that it takes a twentieth of the time at most.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, field

from unstuck.errors import UnstuckError

_LOG = logging.getLogger("unstuck.view")
_EVERY = 1.0  # seconds between two looks
_SHARE = 0.05  # of the time that looks may take
_SIGN_OF_LIFE = 10.0  # seconds after which a listener hears that the server is there


@dataclass(frozen=True)
class State:
    """How a subject stands.

    Attributes:
        state: Differs whenever there is something new to be shown.
        kind: `live`, `ended`, or `lost` when it can't be looked at.
        word: The same in a word or two, as the page shows it.
        says: What more there is to say in a line.
    """

    state: str
    kind: str = "live"
    word: str = ""
    says: str = ""


Subject = tuple[str, ...]
Look = Callable[[Subject], Awaitable[State]]


@dataclass
class _Watched:
    """A subject somebody listens to."""

    task: asyncio.Task[None]
    listeners: int = 0
    state: State | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class News:
    """The streams of a server, in the form of server-sent events.

    Args:
        look: How a subject stands now; a subject is the names of runs, none for the list.
        every: Seconds between two looks.
    """

    def __init__(self, look: Look, *, every: float = _EVERY) -> None:
        self._look, self._every = look, every
        self._watched: dict[Subject, _Watched] = {}
        self._closing = asyncio.Event()

    @property
    def subjects(self) -> list[Subject]:
        """What is listened to."""
        return list(self._watched)

    async def listen(self, subject: Subject) -> AsyncIterator[bytes]:
        """The stream for one listener: how the subject stands, at once and whenever that changes.

        Args:
            subject: What it listens to.

        Yields:
            Server-sent events, each a `State` as JSON; and a comment now and then as a sign of life.
        """
        watched = self._watched.get(subject)
        if watched is None:
            watched = self._watched[subject] = _Watched(asyncio.create_task(self._watch(subject)))
        watched.listeners += 1
        try:
            yield b"retry: 2000\n\n"
            told: State | None = None
            while not self._closing.is_set():
                if watched.state is not None and watched.state != told:
                    told = watched.state
                    yield f"data: {json.dumps(asdict(told))}\n\n".encode()
                elif not await self._something(watched):
                    yield b": still here\n\n"
        finally:
            watched.listeners -= 1
            if not watched.listeners and self._watched.get(subject) is watched:
                del self._watched[subject]
                watched.task.cancel()

    def close(self) -> None:
        """Ends all streams."""
        self._closing.set()
        for watched in self._watched.values():
            watched.changed.set()

    async def _something(self, watched: _Watched) -> bool:
        """Waits until there is news; false when there was none for long."""
        try:
            await asyncio.wait_for(watched.changed.wait(), _SIGN_OF_LIFE)
        except TimeoutError:
            return False
        return True

    async def _watch(self, subject: Subject) -> None:
        while True:
            watched, began = self._watched[subject], time.monotonic()
            state = await self._seen(subject)
            if state != watched.state:
                watched.state = state
                watched.changed.set()
                watched.changed = asyncio.Event()
            await asyncio.sleep(max(self._every, (time.monotonic() - began) / _SHARE))

    async def _seen(self, subject: Subject) -> State:
        try:
            return await self._look(subject)
        except UnstuckError as error:
            return State("", "lost", says=str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours is seen on the page, and in the terminal
            _LOG.exception("looking at %s failed", subject or "the runs")
            return State("", "lost", says=repr(error))
