"""What all pages of `unstuck view` have in common: the bar above them, the script that keeps them up to date, and a page for trouble.

A served page knows an address that tells when there is something new (server-sent events), and one that gives its `<main>` anew. The
bar says whether the page is live, ended, paused, or out of contact with its server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from unstuck._language import _, many, tell
from unstuck.report import _words as words
from unstuck.report.html import Live, _asset, _policy, _template
from unstuck.store import RunSummary

_GROWING = ("running", "empty")
_SILENT = 60.0  # seconds after which it is said that a run writes nothing


@dataclass(frozen=True)
class Standing:
    """How runs stand: `kind` is `live` or `ended`, `word` says it, `says` is a line with the numbers noted last."""

    kind: str = "live"
    word: str = ""
    says: str = ""


@dataclass(frozen=True)
class Place:
    """A served page, as its bar and its script need it.

    Attributes:
        title: What the page is about; it stands in the bar.
        stream: Address of the events that tell what is new.
        part: Address of the page's `<main>` alone.
        state: What the page shows; the stream tells another one when there is something new.
        standing: How what it shows stands.
        is_list: It is the list of runs itself.
    """

    title: str
    stream: str
    part: str
    state: str
    standing: Standing
    is_list: bool = False


def live(place: Place) -> Live:
    """What the server adds to the page of a run.

    Args:
        place: The page.

    Returns:
        The script, the style, and the bar.
    """
    bar = _template("bar.html").render(place=place, words_of_script=_words())
    return Live((_asset("live.js"),), (_asset("view.css"),), Markup(bar))


def page(
    name: str, place: Place, *, scripts: Sequence[str] = (), styles: Sequence[str] = ("page.css",), **values: Any
) -> str:
    """A page that only a server has.

    Args:
        name: Its template.
        place: The page.
        scripts: Names of its scripts, which run before the one that keeps it up to date.
        styles: Names of its style sheets, among them "page.css"; a later one has the last word.
        **values: What its template needs.

    Returns:
        An HTML document that asks only the server it came from.
    """
    added = live(place)
    texts = [*map(_asset, scripts), *added.scripts]
    return _template(name).render(
        place=place,
        head=added.head,
        policy=_policy(texts, is_live=True),
        scripts=[Markup(text) for text in texts],
        styles=[Markup(text) for text in (*map(_asset, styles), *added.styles)],
        **values,
    )


def trouble(place: Place, says: str, *, is_fault: bool = False) -> str:
    """The page of a run that can't be shown.

    Args:
        place: The page.
        says: Why.
        is_fault: It is a fault of ours.

    Returns:
        An HTML document; it turns into the run's as soon as that can be shown.
    """
    return page("trouble.html", place, says=says, is_fault=is_fault)


def refused(says: object) -> tuple[str, str]:
    """The page that answers where there is nothing to show: no such run, no such address, too few runs to compare.

    Args:
        says: Why.

    Returns:
        An HTML document without any script, and its content security policy.
    """
    policy = _policy(())
    styles = [Markup(_asset(name)) for name in ("page.css", "view.css")]
    return _template("refused.html").render(
        says=says, policy=policy, styles=styles, scripts=(), head="", place=None
    ), policy


def standing(runs: Sequence[RunSummary], now: float) -> Standing:
    """How the runs that a page shows stand.

    Args:
        runs: One run, two that are compared, or none for the list of all.
        now: The time, Unix.

    Returns:
        What the bar says.
    """
    if not runs:
        return Standing("live", _("live"))
    growing = [run for run in runs if run.status in _GROWING]
    word = _("live") if growing else ", ".join(dict.fromkeys(status(run.status) for run in runs))
    return Standing("live" if growing else "ended", word, _noted(runs[0], now) if len(runs) == 1 else "")


def status(code: str) -> str:
    """How a run stands, in a word; one that is not known as it is."""
    known = {
        "running": _("running"),
        "finished": _("finished"),
        "failed": _("failed"),
        "interrupted": _("interrupted"),
        "killed": _("killed"),
        "empty": _("nothing recorded"),
        "unreadable": _("unreadable"),
    }
    return known.get(code, words.clean(code))


def _noted(run: RunSummary, now: float) -> str:
    """The numbers noted last, and for how long there were no new ones where that is long."""
    if run.status == "empty":
        return _("Nothing is recorded yet.")
    parts = [many("{number} step", "{number} steps", run.steps)] if run.steps else []
    loss = run.progress.get("loss")
    if run.status == "running" and isinstance(loss, (int, float)):
        parts.append(tell("loss {value}", value=words.number(loss)))
    silence = now - run.changed
    if run.status == "running" and silence > _SILENT:
        parts.append(tell("nothing new for {time}", time=words.duration(silence - silence % _SILENT)))
    return " · ".join(parts)


def _words() -> dict[str, str]:
    """What the script says."""
    return {
        "lost": _("no contact"),
        "unanswered": _("The server does not answer. Is `unstuck view` still running?"),
        "paused": _("paused"),
        "news": _("There is something new."),
        "pause": _("Pause"),
        "resume": _("Go on"),
    }
