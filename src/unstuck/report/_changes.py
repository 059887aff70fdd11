"""What changed most between the first sample and the last, of one signal by layer: said in a sentence and shown as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unstuck._language import _, tell
from unstuck.evidence import Series
from unstuck.report._words import measured, number, place, signal

_MOST = 4
_SLIGHT = {"log": math.log10(1.5), "share": 0.02}  # a change by less than half, or by two points, is none to speak of
_BROKE = 1e3  # decades: what became NaN or Inf comes first, then what became zero or rose from it
_VANISHED = 1e2


@dataclass(frozen=True)
class Change:
    """What became of one place: its first and last value, and a number that ranks it."""

    place: str
    first: float
    last: float
    size: float


@dataclass(frozen=True)
class Changes:
    """The largest changes of a signal, most first, and a sentence that says them."""

    signal: str
    largest: tuple[Change, ...]
    says: str


def changes(name: str, rows: list[tuple[str, Series]]) -> Changes:
    """The four largest changes.

    Args:
        name: The signal.
        rows: Its places, each with its series.

    Returns:
        Changes by factors; of shares by percentage points. What became NaN or Inf comes first, then what became exactly zero.
    """
    scale = "share" if signal(name).scale == "share" else "log"
    found = [Change(p, s.first, s.last, _size(s.first, s.last, scale)) for p, s in rows if len(s) > 1]
    largest = sorted((c for c in found if c.size >= _SLIGHT[scale]), key=lambda c: -c.size)[:_MOST]
    return Changes(name, tuple(largest), _said(name, largest, found, scale))


def table(found: Changes, of_what: str) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The changes as a table: a header, and a row each."""
    header = (of_what, _("first sample"), _("last sample"), _("change"))
    return header, tuple(
        (place(c.place, 60), _value(found.signal, c.first), _value(found.signal, c.last), _told(found.signal, c))
        for c in found.largest
    )


def _size(first: float, last: float, scale: str) -> float:
    if not math.isfinite(last):
        return _BROKE if math.isfinite(first) else 0.0
    if not math.isfinite(first):
        return 0.0
    if scale == "share":
        return abs(last - first)
    if first <= 0 or last <= 0:
        return 0.0 if first == last else _VANISHED
    return abs(math.log10(last) - math.log10(first))


def _value(name: str, value: float) -> str:
    return measured(name, value) if math.isfinite(value) else number(value)


def _told(name: str, change: Change) -> str:
    first, last = change.first, change.last
    if not math.isfinite(last):
        return _("broke")
    if signal(name).scale == "share":
        return tell("{points} points", points=f"{100 * (last - first):+.0f}".replace("-", "−"))
    if first <= 0 or last <= 0:
        return _("fell to exactly 0") if last <= 0 else _("rose from exactly 0")
    ratio = last / first if last > first else first / last
    return f"{'×' if last > first else '÷'} {number(ratio, 2)}"


def _said(name: str, largest: list[Change], found: list[Change], scale: str) -> str:
    is_log = scale == "log"
    if not found:
        return ""
    if not largest:
        return (
            _("From the first sample to the last no row changed by half or more.")
            if is_log
            else _("From the first sample to the last no row changed by two points or more.")
        )
    one = largest[0]
    told = {
        "place": place(one.place), "first": _value(name, one.first), "last": _value(name, one.last), "all": len(found),
        "some": sum(c.size >= _SLIGHT[scale] for c in found),
    }  # fmt: skip
    if is_log:
        return tell(
            "The largest change is that of {place}, from {first} to {last}; {some} of {all} rows changed by half or more.",
            **told,
        )
    return tell(
        "The largest change is that of {place}, from {first} to {last}; {some} of {all} rows changed by two points or more.",
        **told,
    )
