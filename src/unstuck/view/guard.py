"""Who may ask for what: stands before everything else that the server does.

The server shows what is on this machine to a browser that shows other people's pages too. So it answers

- only `GET` and `HEAD`: there is nothing to change here;
- only to its own names in `Host`: a page whose name was made to point to this machine (DNS rebinding) has another one;
- only what its own pages, or somebody who typed the address, ask for (`Origin`, `Sec-Fetch-Site`), not what other sites do;
- where it is bound to more than this machine, only to those who have the token: once in the address, from then on in a cookie that
  neither scripts nor requests from other sites get to see.

Every answer forbids to be kept, framed, guessed at, or told of to others, and to load or run anything but what the page itself names.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@dataclass(frozen=True)
class Door:
    """What lets a request in.

    Attributes:
        names: Hosts it may be addressed to, in lower case.
        any_address: Any IP address as host too: bound to all addresses, one can't know which are ours, and no name leads there.
        token: What it must have, "" for nothing.
        cookie: Name of the cookie that holds the token.
    """

    names: frozenset[str]
    any_address: bool = False
    token: str = ""
    cookie: str = "unstuck"

    @classmethod
    def of(cls, host: str, port: int, names: Iterable[str] = (), *, token: bool = False) -> Door:
        """The door of a server.

        Args:
            host: What it is bound to.
            port: The port: cookies of one host are shared by all its ports.
            names: Further names it is known by, where other machines reach it.
            token: Ask for a token though it is bound to this machine alone, which others may use too.

        Returns:
            The door, with a new token where one is asked for.
        """
        wanted = token or not is_loopback(host)
        known = {host.lower(), *map(str.lower, names), *(LOOPBACK if is_loopback(host) or is_any(host) else ())}
        return cls(frozenset(known), is_any(host), secrets.token_urlsafe(24) if wanted else "", f"unstuck_{port}")

    def knows(self, host: str) -> bool:
        """Whether a `Host` header names this server; the port may be another one, as through a tunnel."""
        name = _name(host)
        return name in self.names or (self.any_address and _address(name) is not None)

    def fits(self, given: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a server bound to this host."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def is_any(host: str) -> bool:
    """Whether this stands for all addresses of the machine."""
    address = _address(host)
    return address is not None and address.is_unspecified


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _name(host: str) -> str:
    """A host without its port, in lower case; "" when it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if not set("/?#@\\") & set(host) else ""
    except ValueError:
        return ""


class Guard:
    """Lets in what may come in, and puts the headers on what goes out.

    Args:
        app: What is guarded.
        door: What lets a request in.
    """

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        answer = self._refusal(scope) or self._entrance(scope)
        await (answer or self.app)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.door.knows(hosts[0]):
            return PlainTextResponse("This server is not known by that name.", 403)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("There is nothing to change here.", 405, {"Allow": "GET, HEAD"})
        if _is_foreign(headers, hosts[0]):
            return PlainTextResponse("Another site asked for this. Type the address into the browser yourself.", 403)
        return None

    def _entrance(self, scope: Scope) -> Response | None:
        """Asks for the token, where there is one; who brings it in the address gets the cookie and the address without it."""
        if not self.door.token:
            return None
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in asked if name == "token"]
        if given and self.door.fits(given[0]):
            rest = urlencode([(name, value) for name, value in asked if name != "token"])
            answer = RedirectResponse(_local(scope["path"]) + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(self.door.cookie, self.door.token, httponly=True, samesite="strict")
            return answer
        if not given and self.door.fits(_cookie(Headers(scope=scope), self.door.cookie)):
            return None
        return PlainTextResponse(
            "This needs the token: open the address that `unstuck view` printed when it was started.", 403
        )


def _local(path: str) -> str:
    """A path as an address on this server: with two slashes in front it would be that of another one."""
    return "/" + quote(path.lstrip("/\\"))


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie("; ".join(headers.getlist("cookie"))).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _is_foreign(headers: Headers, host: str) -> bool:
    """Whether another site asks. Browsers say so; programs that are no browsers say nothing."""
    origins, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
    return any(origin.lower() != f"http://{host}".lower() for origin in origins) or any(
        site not in ("same-origin", "none") for site in sites
    )


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            headers.setdefault("Content-Security-Policy", _NOTHING)
        await send(message)

    return sent
