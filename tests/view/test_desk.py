"""Work beside the event loop: in order, in the caller's context, its errors to the caller, and nobody left waiting."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
from typing import Any

import pytest

from unstuck.view.desk import ClosedError, Desk

told: contextvars.ContextVar[str] = contextvars.ContextVar("told", default="nothing")


def run(scene: Any) -> None:
    asyncio.run(asyncio.wait_for(scene, 60))


def test_work_is_done_in_order_and_in_the_callers_context() -> None:
    async def scene() -> None:
        desk, done = Desk(), []
        told.set("something")
        answers = await asyncio.gather(*(desk.done(lambda i=i: (done.append(i), told.get(), i)[1:]) for i in range(20)))
        assert answers == [("something", i) for i in range(20)]
        assert done == list(range(20))

    run(scene())


def test_errors_are_raised_where_the_work_was_asked_for() -> None:
    async def scene() -> None:
        desk = Desk()
        with pytest.raises(ZeroDivisionError):
            await desk.done(lambda: 1 / 0)
        assert await desk.done(lambda: 1) == 1

    run(scene())


def test_a_closed_desk_keeps_nobody_waiting() -> None:
    async def scene() -> None:
        desk, held = Desk(), threading.Event()
        waiting = [asyncio.create_task(desk.done(work)) for work in (held.wait, lambda: 1)]
        await asyncio.sleep(0.05)
        desk.close()
        for one in waiting:
            with pytest.raises(ClosedError):
                await one
        with pytest.raises(ClosedError):
            await desk.done(lambda: 1)
        held.set()

    run(scene())


def test_work_nobody_waits_for_any_more_is_not_done() -> None:
    async def scene() -> None:
        desk, held, done = Desk(), threading.Event(), []
        first = asyncio.create_task(desk.done(held.wait))
        second = asyncio.create_task(desk.done(lambda: done.append(1)))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0)
        held.set()
        assert await first
        assert await desk.done(lambda: 2) == 2
        assert done == []

    run(scene())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux")
def test_trainings_go_first() -> None:
    async def scene() -> None:
        mine = os.getpriority(os.PRIO_PROCESS, 0)
        there = await Desk().done(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        assert there == min(19, mine + 10)
        assert os.getpriority(os.PRIO_PROCESS, 0) == mine

    run(scene())
