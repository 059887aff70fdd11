"""The pages: made when they are asked for, one at a time of each run, and kept while nothing has changed.

So ten windows on one run cost as much as one. A page of a run that grows is made anew only after a while in which the training has the
machine to itself: four times as long as making it took. The list comes at once, with as many small pictures as a second allows;
the others follow.
"""

from __future__ import annotations

import asyncio
import hashlib
import html as entities
import logging
import re
import time
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from unstuck._language import _, say
from unstuck.doctor import diagnose
from unstuck.errors import NotFoundError, RecordError
from unstuck.evidence import Record
from unstuck.report import html
from unstuck.report.compare_page import render as compare_page
from unstuck.report.comparison import Side
from unstuck.report.runs_page import Row, row
from unstuck.report.runs_page import render as runs_page
from unstuck.report.served import Place, live, standing, trouble
from unstuck.store import course
from unstuck.view.desk import Desk
from unstuck.view.news import State, Subject
from unstuck.view.runs import Run, Runs

_LOG = logging.getLogger("unstuck.view")
_MOST_KEPT = 16
_REST = 4.0  # times as long as making a page took is it good for
_PICTURES = 1.0  # seconds for the small pictures in one making of the list
_GOES_ON = {"undertrained": {"progress_left": 1e9, "behind": 1e9}}  # nobody has stopped it
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')


@dataclass(frozen=True)
class Page:
    """A page as it was made.

    Attributes:
        text: The whole document.
        state: What it shows.
    """

    text: str
    state: str

    @property
    def main(self) -> str:
        """What changes of it."""
        begin = self.text.index("<main", self.text.index("<body"))
        return self.text[begin : self.text.index("</main>", begin) + len("</main>")]

    @property
    def policy(self) -> str:
        """Its content security policy, and that nobody may frame it, which only a header can say."""
        found = _POLICY.search(self.text)
        assert found is not None
        return f"{entities.unescape(found[1])}; frame-ancestors 'none'"


@dataclass(frozen=True)
class _Kept:
    page: Page
    good_until: float


class Pages:
    """The pages of a server.

    A subject is what a page is about: nothing for the list of runs, the name of a run, or the names of two that are compared.

    Args:
        runs: What there is.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._drawing, self._looking = Desk(2), Desk(1)
        self._kept: OrderedDict[Subject, _Kept] = OrderedDict()
        self._locks: defaultdict[Subject, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._rows: dict[str, tuple[str, Row]] = {}

    async def state(self, subject: Subject) -> State:
        """How a subject stands.

        Args:
            subject: What is asked about.

        Returns:
            What the stream tells.

        Raises:
            NotFoundError: There is no such run.
            RecordError: The folder of runs can't be read.
        """  # noqa: DOC502
        place = _place(subject, await self._looking.done(lambda: self._found(subject)))
        return State(place.state, place.standing.kind, place.standing.word, place.standing.says)

    async def page(self, subject: Subject, *, hurry: bool = True) -> Page:
        """The page about a subject.

        Args:
            subject: What it is about.
            hurry: It must show how things stand now, not a moment ago.

        Returns:
            The page.

        Raises:
            NotFoundError: There is no such run.
            RecordError: The folder of runs can't be read.
        """  # noqa: DOC502
        await self._looking.done(lambda: self._found(subject))  # who asks for what is not there leaves nothing behind
        async with self._locks[subject]:
            found = await self._looking.done(lambda: self._found(subject))
            place, kept = _place(subject, found), self._kept.get(subject)
            if kept is None or not (
                kept.page.state == place.state or (time.monotonic() < kept.good_until and not hurry)
            ):
                began = time.monotonic()
                page = await self._drawing.done(lambda: self._made(subject, found, place))
                ended = time.monotonic()
                kept = _Kept(page, ended + _REST * (ended - began))
            self._keep(subject, kept)
        return kept.page

    def close(self) -> None:
        """Tells those who wait for a page that none will come."""
        self._drawing.close()
        self._looking.close()

    def _keep(self, subject: Subject, kept: _Kept) -> None:
        self._kept[subject] = kept
        self._kept.move_to_end(subject)
        while len(self._kept) > _MOST_KEPT:
            oldest, _kept = self._kept.popitem(last=False)
            if not self._locks[oldest].locked():
                del self._locks[oldest]

    def _found(self, subject: Subject) -> list[Run]:
        """The runs a subject is about.

        Raises:
            NotFoundError: There is no such run.
        """
        there = self.runs.look(subject)
        for name in subject:
            if name not in there:
                raise NotFoundError(say("there is no run {name!r} in {place!r}", name=name, place=self.runs.place))
        return [there[name] for name in subject] if subject else list(there.values())

    # ------------------------------------------------------------------ in a thread of the desk

    def _made(self, subject: Subject, found: Sequence[Run], place: Place) -> Page:
        if not subject:
            return self._list(found, place)
        try:
            sides = [Side(run.name, *_judged(run)) for run in found]
            if len(sides) == 2:
                return Page(compare_page(sides[0], sides[1], place), place.state)
            return Page(html.render(sides[0].verdict, sides[0].record, live=live(place)), place.state)
        except RecordError as error:
            return Page(trouble(place, str(error)), place.state)
        except Exception as error:  # noqa: BLE001 - other pages go on; this one and the terminal say what it was
            _LOG.exception("the page of %s could not be made", " and ".join(subject))
            return Page(trouble(place, repr(error), is_fault=True), place.state)

    def _list(self, found: Sequence[Run], place: Place) -> Page:
        """The list; where there is no time for all small pictures its state says so, so that it is asked for again."""
        until, late = time.monotonic() + _PICTURES, 0
        rows: dict[str, tuple[str, Row]] = {}
        for run in found:
            known = self._rows.get(run.name)
            if known is None or known[0] != run.state:
                if time.monotonic() < until:
                    known = (run.state, row(run.facts, quote(run.name, safe=""), _course(run)))
                else:
                    known, late = ("", row(run.facts, quote(run.name, safe=""), {})), late + 1
            rows[run.name] = known
        self._rows = rows
        state = f"{place.state}-{late}" if late else place.state
        place = _place((), found, state)
        return Page(runs_page([row for _, row in rows.values()], place, where=self.runs.place), state)


def _judged(run: Run) -> tuple:
    record = Record.read(run.path)
    return diagnose(record, settings=_GOES_ON if record.meta.get("status") == "running" else None), record


def _course(run: Run) -> dict:
    """Loss and score of a run; none where they can't be read, which its page says."""
    try:
        return course(run.path, ("loss", "score", "eval_loss", "eval_score"))
    except RecordError:
        return {}


def _place(subject: Subject, found: Sequence[Run], state: str = "") -> Place:
    """The page about a subject, as its bar needs it."""
    keys = [quote(name, safe="") for name in subject]
    stands = standing([run.facts for run in found] if subject else [], time.time())
    state = state or hashlib.sha256("".join(run.state for run in found).encode()).hexdigest()[:16]
    listening = "/changes" + ("?" if keys else "") + "&".join(f"run={key}" for key in keys)
    if not subject:
        return Place(_("Runs"), listening, "/?part=main", state, stands, is_list=True)
    if len(keys) == 2:
        return Place(" | ".join(subject), listening, f"/compare?a={keys[0]}&b={keys[1]}&part=main", state, stands)
    return Place(subject[0], listening, f"/runs/{keys[0]}?part=main", state, stands)
