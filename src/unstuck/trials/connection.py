"""Ray, connected without noise, and left as it was found."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

from unstuck._language import say
from unstuck.errors import ClusterError, MissingError

_STORE = 200 * 2**20  # bytes of memory for what goes between processes: Ray takes a third of the machine's otherwise


def cores() -> int:
    """Of this machine, that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def connected(address: str | None, num_cpus: int) -> tuple[Any, Callable[[], None]]:
    """Ray, connected; and what leaves it as it was before.

    Raises:
        MissingError: Ray isn't installed.
        ClusterError: The cluster can't be reached.
    """
    try:
        with _quiet(uv=address is not None):
            ray = importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise MissingError(
            say("runs are made by Ray, which can't be imported ({error}): pip install 'unstuck[ray]'", error=str(error))
        ) from None
    if ray.is_initialized():
        return ray, lambda: None
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address in (None, "local"):
        folder = tempfile.mkdtemp(
            prefix="unstuck-", dir=None if len(tempfile.gettempdir()) < 24 else "/tmp"
        )  # of sockets: short
        how |= {"num_cpus": num_cpus, "include_dashboard": False, "object_store_memory": _STORE, "_temp_dir": folder}
    else:
        folder = ""

    def leave() -> None:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)

    try:
        _reach(address)
        with _signals_kept(), _quiet(uv=address is not None), _unheard(ray):
            ray.init(address=address or "local", **how)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        leave()
        why = last_line(error)
        if address:
            raise ClusterError(
                say("the Ray at {address!r} can't be reached: {why}", address=address, why=why)
            ) from None
        raise ClusterError(say("the Ray of this machine can't be started: {why}", why=why)) from None
    return ray, leave


def _reach(address: str | None) -> None:
    """Makes sure that somebody answers there: Ray tries for minutes, and then ends the process.

    Raises:
        OSError: Nobody does.
    """  # noqa: DOC502
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextlib.contextmanager
def _quiet(*, uv: bool) -> Iterator[None]:
    """Variables under which Ray reports to nobody, and, where it may not use uv, sends no folder of its own choice to its workers."""
    given = {"RAY_USAGE_STATS_ENABLED": "0"} | ({} if uv else {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"})
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _unheard(ray: Any) -> Iterator[None]:
    """Keeps Ray from printing to stdout that a worker or machine was lost, which it does whatever it is asked for."""
    listen = "listen_error_messages"
    inside = ray._private.worker
    theirs = getattr(inside, listen, None)
    if theirs is None:
        yield
        return
    setattr(inside, listen, lambda *_: None)
    try:
        yield
    finally:
        setattr(inside, listen, theirs)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Gives signals back their handlers, as Ray takes SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def last_line(error: Exception) -> str:
    """The last line of what an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
