"""The list of runs as a page: each with how it stands, and how loss and score went, as small pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePath

import numpy as np
from markupsafe import Markup

from unstuck._language import _
from unstuck.evidence import Series
from unstuck.report import _words as words
from unstuck.report._curves import by_step, is_wide, levels, until_of
from unstuck.report.served import Place, page, status
from unstuck.store import RunSummary

_POINTS = 40


@dataclass(frozen=True)
class Number:
    """A cell: what it says, and the number it is sorted by, NaN for none."""

    text: str = ""
    value: float = math.nan
    picture: Markup = field(default_factory=Markup)
    name: str = ""


@dataclass(frozen=True)
class Row:
    """One run in the list.

    Attributes:
        name: What it is called.
        key: The same as a part of an address.
        script: The script, without the way to it.
        script_path: With it.
        started: When it started, in words, and as a number.
        status: How it stands, in a word.
        code: The same as one of the store's words.
        verdict: What was found, "" when it was not judged.
        steps, seconds, loss, score: Numbers, the last two with their course.
    """

    name: str
    key: str
    script: str
    script_path: str
    started: Number
    status: str
    code: str
    verdict: str
    steps: Number
    seconds: Number
    loss: Number
    score: Number


@np.errstate(all="ignore")
def row(facts: RunSummary, key: str, course: Mapping[str, Series]) -> Row:
    """One run, as the list shows it.

    Args:
        facts: What is known of it.
        key: Its name as a part of an address.
        course: Thinned series of the whole program by signal: loss, score, and those of evaluations.

    Returns:
        The row.
    """
    told = facts.progress
    script = words.clean(facts.script)
    score_name = words.score_name(told.get("score_name") or "score")
    return Row(
        name=words.clean(facts.name),
        key=key,
        script=PurePath(script).name or script,
        script_path=script,
        started=_time(facts.started),
        status=status(facts.status),
        code=facts.status,
        verdict=facts.verdict if facts.verdict in words.VERDICT_MARKS else "",
        steps=Number(f"{facts.steps:,}" if facts.steps else "", float(facts.steps)),
        seconds=Number(words.duration(facts.seconds) if math.isfinite(facts.seconds) else "", facts.seconds),
        loss=_course(_("loss"), course.get("loss") or course.get("eval_loss"), told.get("loss")),
        score=_course(score_name, course.get("score") or course.get("eval_score"), told.get("score")),
    )


def render(rows: Sequence[Row], place: Place, *, where: str) -> str:
    """The page.

    Args:
        rows: The runs, in the order in which they are listed.
        place: The page.
        where: The folder they lie in.

    Returns:
        An HTML document that asks only the server it came from.
    """
    return page("runs.html", place, scripts=("runs.js",), rows=rows, where=where)


def _time(started: str) -> Number:
    try:
        at = datetime.fromisoformat(started)
    except ValueError:
        return Number(words.clean(started))
    return Number(at.strftime("%Y-%m-%d %H:%M:%S"), at.timestamp())


def _course(name: str, series: Series | None, told: float | None) -> Number:
    """The last number of a series and its course; where there is none, or it broke, what was told while it went on."""
    is_told = isinstance(told, (int, float))
    if series is None or not len(series):
        return Number(words.number(told), float(told), name=name) if is_told else Number(name=name)
    is_broken = is_told and not math.isfinite(told) and not math.isfinite(series.last)
    last = series.last if is_broken else series.finite.last
    until = until_of(series) if is_broken else None
    shown = series if until is None else series.until(until + 1)
    return Number(words.number(last), last, _picture(shown, broken=is_broken), name)


def _picture(series: Series, *, broken: bool) -> Markup:
    """A course as a small line; the number beside it says the rest."""
    values = by_step(series, _POINTS, broken=broken)
    level, low, high = levels(values, "log" if is_wide(series.values) else "linear")
    heights = 11 - 10 * np.clip((level - low) / (high - low), 0, 1)
    path = [
        f"{'M' if i == 0 or math.isnan(heights[i - 1]) else 'L'}{i} {height:.3g}"
        for i, height in enumerate(heights)
        if not math.isnan(height)
    ]
    if len(path) < 2:
        return Markup()
    return Markup(
        '<svg class="spark" viewBox="0 0 {} 12" preserveAspectRatio="none" aria-hidden="true"><path d="{}"/></svg>'
    ).format(len(values) - 1, "".join(path))
