"""Which address gives what.

| address | gives |
|---|---|
| `/` | the list of runs |
| `/runs/NAME` | the page of a run, as `unstuck run --html` writes it |
| `/compare?a=NAME&b=NAME` | two runs side by side |
| `…part=main` with any of these | what changes of the page, with its state as `ETag` |
| `/changes`, `/changes?run=NAME[&run=NAME]` | what is new, as server-sent events |

There is nothing else: style, script and data are in the pages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from unstuck._language import say
from unstuck.errors import NotFoundError, RecordError, UnstuckError
from unstuck.report._words import sentence
from unstuck.report.served import refused
from unstuck.view.desk import ClosedError
from unstuck.view.guard import Door, Guard
from unstuck.view.news import News, Subject
from unstuck.view.pages import Pages
from unstuck.view.runs import Runs


class View:
    """A server's answers.

    Args:
        runs: What it shows.
        door: Who may ask.
        every: Seconds between two looks at what somebody listens to.

    Attributes:
        app: The application, to be served by any ASGI server.
        pages: Its pages.
        news: Its streams.
    """

    def __init__(self, runs: Runs, door: Door, *, every: float = 1.0) -> None:
        self.pages = Pages(runs)
        self.news = News(self.pages.state, every=every)
        app = Starlette(
            routes=[
                Route("/", self._list),
                Route("/runs/{name}", self._run),
                Route("/compare", self._compare),
                Route("/changes", self._changes),
            ],
            exception_handlers={
                NotFoundError: _said(404), RecordError: _said(500), ClosedError: _said(503), 404: _nothing,
            },
            lifespan=self._lifespan,
        )  # fmt: skip
        app.router.redirect_slashes = False
        self.app = Guard(app, door)  # around all of it: what says that something failed has the headers too

    def close(self) -> None:
        """Ends all streams, and tells all who wait for a page; from the event loop's thread."""
        self.news.close()
        self.pages.close()

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        self.close()

    async def _list(self, request: Request) -> Response:
        return await self._page(request, ())

    async def _run(self, request: Request) -> Response:
        return await self._page(request, (request.path_params["name"],))

    async def _compare(self, request: Request) -> Response:
        asked = request.query_params
        if not asked.get("a") or not asked.get("b"):
            return _refused(request, say("which runs? Tick two of them in the list"), 400)
        return await self._page(request, (asked["a"], asked["b"]))

    async def _page(self, request: Request, subject: Subject) -> Response:
        is_part = request.query_params.get("part") == "main"
        page = await self.pages.page(subject, hurry=not is_part)
        text = page.main if is_part else page.text
        return HTMLResponse(text, headers={"Content-Security-Policy": page.policy, "ETag": page.state})

    async def _changes(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        subject = tuple(request.query_params.getlist("run"))
        await self.pages.state(subject)  # there are such runs
        stream = self.news.listen(subject)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _said(code: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        return _refused(request, error.says if isinstance(error, UnstuckError) else str(error), code)

    return answer


async def _nothing(request: Request, _error: Exception) -> Response:
    return _refused(request, say("there is no such page"), 404)


def _refused(request: Request, says: str, code: int) -> Response:
    """A page with a way back; plain text for the script of a page that is there already."""
    if request.url.path == "/changes" or "part" in request.query_params:
        return PlainTextResponse(sentence(says), code)
    text, policy = refused(says)
    return HTMLResponse(text, code, headers={"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"})
