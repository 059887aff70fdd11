"""What to type next, where there is something to type."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePath

from unstuck._language import _, tell
from unstuck.evidence import Record
from unstuck.report import _words as words
from unstuck.verdict import Verdict

_LONGEST = 300  # letters of a command that somebody would still type


def command(record: Record) -> list[str]:
    """The script and its arguments, or `-m`, a module and its arguments; empty where there was no script."""
    script = str(record.meta.get("script") or "")
    arguments = [str(part) for part in record.meta.get("argv") or ()]
    named = script.split() if script.startswith("-m ") else [script] if script else []
    return arguments if arguments[: len(named)] == named else [*named, *arguments]


def commands(verdict: Verdict, record: Record) -> list[tuple[str, str]]:
    """Commands that go on from a verdict, and what each does.

    Args:
        verdict: The judgement over one run.
        record: The record it was made of.

    Returns:
        Most useful first; those that need the script only where there was one.
    """
    script = _typed(command(record), str(record.meta.get("cwd") or ""))
    treated = any(finding.treated_by for finding in verdict.findings)
    found = []
    if script and verdict.verdict == "sick" and treated:
        found.append(
            (
                f"unstuck cure {script}",
                _("tries what fits in paired trials, and writes the change that is measured to help"),
            )
        )
    if script and verdict.verdict == "unknown":
        found.append((f"unstuck run {script}", _("watches it once more; longer runs tell more")))
    if script and verdict.verdict == "healthy":
        found.append((f"unstuck search {script}", _("searches for better settings, now that it trains")))
    if verdict.findings:
        cause = verdict.findings[0].cause
        found.append((f"unstuck explain {cause}", tell("says all that is known about {cause}", cause=cause)))
    return [(words.clean(typed), told) for typed, told in found]


def _typed(parts: Sequence[str], folder: str) -> str:
    """As somebody in that folder would type it, "" where that would be too long to type."""
    shown = [_shorter(part, folder) for part in parts]
    text = shlex.join(shown)
    return text if len(text) <= _LONGEST else ""


def _shorter(part: str, folder: str) -> str:
    path = PurePath(part)
    return str(path.relative_to(folder)) if folder and path.is_absolute() and path.is_relative_to(folder) else part
