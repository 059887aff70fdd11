"""The server: a socket, an event loop, a browser if wanted, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from urllib.parse import quote

import uvicorn

from unstuck._language import say
from unstuck.errors import MisuseError
from unstuck.view.app import View
from unstuck.view.guard import Door, is_any, is_loopback
from unstuck.view.runs import Runs

_MORE_PORTS = 50  # that are tried when one is taken
_MOST_AT_A_TIME = 200  # requests and streams; beyond, one is told to come back later


class Server(uvicorn.Server):
    """One that tells its streams to end before it waits for them.

    Args:
        view: What is served.
        ready: Called when it is.
    """

    def __init__(self, view: View, ready: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                view.app, loop="asyncio", http="h11", ws="none", lifespan="on", access_log=False, log_config=None,
                proxy_headers=False, server_header=False, date_header=False, timeout_graceful_shutdown=1,
                limit_concurrency=_MOST_AT_A_TIME,
            )
        )  # fmt: skip
        self._view, self._ready = view, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to serve."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the streams, then everything else."""
        self._view.close()
        await super().shutdown(sockets)
        for connection in list(
            self.server_state.connections
        ):  # whoever has not taken all of an answer does not hold up the end
            connection.transport.abort()
        await asyncio.sleep(0)


def serve(
    runs: Runs,
    *,
    first: str = "",
    host: str = "127.0.0.1",
    port: int = 8765,
    token: bool = False,
    opens: bool | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Serves runs until Ctrl-C.

    Args:
        runs: What to show.
        first: Name of the run to open with, "" for the list.
        host: Address or name to bind to.
        port: The port, or the next one that is free.
        token: Ask for a token though it is bound to this machine alone.
        opens: Open a browser; None for: where there is a screen, and no token in the address.
        tell: Says a line to who started it.

    Raises:
        MisuseError: It can't be bound to that.
    """  # noqa: DOC502
    bound = bind(host, port)
    with bound:
        free = bound.getsockname()[1]
        if port and free != port:
            tell(say("port {port} is taken: using {free}", port=port, free=free))
        names = () if is_loopback(host) else (socket.gethostname(), socket.getfqdn())
        door = Door.of(host, free, names, token=token)
        view = View(runs, door)
        address = address_of(host, free, first, door.token)

        def ready() -> None:
            tell(say("{place} on {address} (Ctrl-C ends it)", place=runs.place, address=address))
            if opens or (
                opens is None and not door.token and has_screen()
            ):  # others see what a browser is started with
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(Server(view, ready).serve([bound]))
        tell(say("the view has ended"))


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to a port of a host, or to the next one that is free.

    Args:
        host: Address or name.
        port: The port; 0 for any.

    Returns:
        The socket.

    Raises:
        MisuseError: There is no such host, or it may not be bound to.
    """
    try:
        family, _kind, _protocol, _name, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise MisuseError(
            say("--host is {host!r}, which is no address of this machine: {error}", host=host, error=str(error))
        ) from error
    last = port if port == 0 else min(65535, port + _MORE_PORTS)
    for free in range(port, last + 1):
        try:
            return socket.create_server((where[0], free), family=family, backlog=64)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                reason = (error.strerror or str(error)).lower()
                raise MisuseError(
                    say("can't serve on {host}, port {free}: {reason}", host=host, free=free, reason=reason)
                ) from error
    raise MisuseError(
        say(
            "the ports {port} to {last} of {host} are all taken; name another one by --port",
            port=port,
            last=last,
            host=host,
        )
    )


def address_of(host: str, port: int, first: str, token: str) -> str:
    """The address to be opened.

    Args:
        host: What the server is bound to.
        port: Its port.
        first: Name of the run to open with, "" for the list.
        token: What it asks for, "" for nothing.

    Returns:
        With a name by which other machines know this one, where the server is bound to all its addresses.
    """
    name = socket.gethostname() if is_any(host) else host
    shown = f"[{name}]" if ":" in name else name
    path = f"/runs/{quote(first, safe='')}" if first else "/"
    return f"http://{shown}:{port}{path}" + (f"?token={token}" if token else "")


def has_screen() -> bool:
    """Whether a browser that is opened here would be seen by who started this."""
    if not sys.stdout.isatty() or os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
