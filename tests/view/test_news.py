"""Streams: news to everybody who listens, from one look for all, and no look when nobody does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from unstuck.errors import RecordError
from unstuck.view.news import News, State, Subject


class Looks:
    """Counts looks, and gives what is told."""

    def __init__(self) -> None:
        self.count, self.state, self.error = 0, State("0"), None

    async def __call__(self, subject: Subject) -> State:
        self.count += 1
        if self.error is not None:
            raise self.error
        return self.state


async def told(stream: Any) -> dict[str, Any]:
    """The next state of a stream."""
    async for part in stream:
        if part.startswith(b"data: "):
            return json.loads(part.removeprefix(b"data: "))
    raise AssertionError("the stream has ended")


def run(scene: Any) -> None:
    asyncio.run(asyncio.wait_for(scene, 60))


def test_everybody_hears_and_one_looks_for_all() -> None:
    async def scene() -> None:
        looks = Looks()
        news = News(looks, every=0.02)
        streams = [news.listen(("run",)) for _ in range(10)]
        assert [(await told(s))["state"] for s in streams] == ["0"] * 10
        before = looks.count
        await asyncio.sleep(0.2)
        assert looks.count - before <= 11  # one a time of waiting, not ten
        looks.state = State("1", "ended", "finished", "9 steps")
        assert await told(streams[0]) == {"state": "1", "kind": "ended", "word": "finished", "says": "9 steps"}
        assert [(await told(s))["state"] for s in streams[1:]] == ["1"] * 9
        news.close()

    run(scene())


def test_nobody_listens_nobody_looks() -> None:
    async def scene() -> None:
        looks = Looks()
        news = News(looks, every=0.01)
        one, other = news.listen(()), news.listen(())
        await told(one)
        await told(other)
        await one.aclose()
        assert news.subjects == [()]
        await other.aclose()
        assert news.subjects == []
        await asyncio.sleep(0)
        before = looks.count
        await asyncio.sleep(0.1)
        assert looks.count == before
        again = news.listen(())
        assert (await told(again))["state"] == "0"
        await again.aclose()

    run(scene())


def test_streams_end_when_the_server_does() -> None:
    async def scene() -> None:
        news = News(Looks(), every=30)
        stream = news.listen(())
        await told(stream)
        waiting = asyncio.create_task(told(stream))
        await asyncio.sleep(0.05)
        news.close()
        try:
            await waiting
        except AssertionError as error:
            assert "ended" in str(error)
        else:
            raise AssertionError("it went on")
        assert news.subjects == []

    run(scene())


def test_what_fails_is_said_and_looked_at_again() -> None:
    async def scene() -> None:
        looks = Looks()
        looks.error = RecordError("the disk is gone")
        news = News(looks, every=0.01)
        stream = news.listen(())
        assert await told(stream) == {"state": "", "kind": "lost", "word": "", "says": "the disk is gone"}
        looks.error = None
        assert (await told(stream))["kind"] == "live"
        looks.error = KeyError("ours")
        assert (await told(stream))["says"] == "KeyError('ours')"
        await stream.aclose()

    run(scene())
