"""The verdict as GitHub-flavoured Markdown: for a step's summary, a comment on a pull request, an issue.

Short enough for a comment, with evidence and run folded away. All text from the user's program is escaped: nothing in it becomes
markup, a link, or a mention of somebody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from unstuck._language import _, marked, say, translated
from unstuck.evidence import Record
from unstuck.report import _words as words
from unstuck.report._curves import by_step, courses, ended_in_nan, spark
from unstuck.report.output import write_text
from unstuck.verdict import Finding, Verdict

_MOST_FINDINGS = 20
_MOST_EVIDENCE = 24
_LONGEST = 300  # characters of what one cell quotes from the user's program
_BARS = 30
_SEVERITIES = {"error": marked("error"), "warning": marked("warning"), "note": marked("note")}
_VERDICTS = {"sick": marked("SICK"), "healthy": marked("HEALTHY"), "unknown": marked("UNKNOWN")}
_ESCAPED = re.compile(r"[\\`*{}\[\]<>#|~&!$]|(?<![^\W_])_|_(?![^\W_])")  # within a word, _ is no markup
_WAKES = re.compile(r"@|://|(?i:\bwww\.|#(?=\d)|\bgh-(?=\d))")  # what GitHub makes a mention or a link of
_APART = "\u200b"


@np.errstate(all="ignore")  # what is broken is shown as it is
def render(verdict: Verdict, record: Record) -> str:
    """The whole report.

    Args:
        verdict: The judgement over one run.
        record: The record it was made of.

    Returns:
        GitHub-flavoured Markdown, below 65,536 characters (the most that a comment may have).
    """
    return "\n\n".join(_parts(verdict, record)) + "\n"


def write(verdict: Verdict, record: Record, path: str | Path) -> None:
    """Write the report to a file.

    Args:
        verdict: The judgement over one run.
        record: The record it was made of.
        path: The file; what was there is replaced.

    Raises:
        MisuseError: `path` is a folder, or in a folder that doesn't exist.
        RecordError: The system refuses to write there.
    """  # noqa: DOC502
    write_text(path, render(verdict, record))


def _parts(verdict: Verdict, record: Record) -> Iterator[str]:
    mark = words.VERDICT_MARKS[verdict.verdict]
    yield f"## {mark} {_(_VERDICTS[verdict.verdict])}: {_safe(words.headline(verdict, record))}"
    found = list(_flat(verdict.findings))
    if found:
        yield _findings(found, record)
    if numbers := list(_courses(verdict, record)):
        yield _table(("", _("first"), _("last"), "", _("over the run")), numbers)
    evidence = [(f, e) for f, _depth in found[:_MOST_FINDINGS] for e in f.evidence]
    if evidence:
        rows = [
            (f"`{f.cause}`", _safe(words.signal(e.signal).words), _safe(e.layer or _("the whole program")), str(e.step),
             words.measured(e.signal, e.value))
            for f, e in evidence[:_MOST_EVIDENCE]
        ]  # fmt: skip
        header = (_("cause"), _("what"), _("where"), _("step"), _("value"))
        yield _folded(_("Evidence"), _table(header, rows, more=len(evidence) - len(rows)))
    yield _folded(_("The run"), _table(("", ""), list(_run(verdict, record))))
    if found:
        cause = found[0][0].cause
        yield _safe(_("More of a finding:")) + f" `unstuck explain {cause}`"


def _flat(findings: Iterable[Finding], depth: int = 0) -> Iterator[tuple[Finding, int]]:
    """Findings with their symptoms right behind them, and how deep they lie."""
    for finding in findings:
        yield finding, depth
        yield from _flat(finding.explains, depth + 1)


def _findings(found: Sequence[tuple[Finding, int]], record: Record) -> str:
    rows = [_finding(finding, depth, record) for finding, depth in found[:_MOST_FINDINGS]]
    header = ("", _("cause"), _("what was found"), _("where"), _("confidence"), _("remedies that fit"))
    return _table(header, rows, more=len(found) - len(rows))


def _finding(finding: Finding, depth: int, record: Record) -> tuple[str, ...]:
    return (
        f"{words.SEVERITY_MARKS[finding.severity]}\N{NO-BREAK SPACE}{_(_SEVERITIES[finding.severity])}",
        f"{'↳ ' * depth}`{finding.cause}`",
        _safe(words.sentence(translated(finding.says))),
        _safe(words.places(finding.layers, record)),
        words.confidence(finding.confidence),
        _safe(words.remedies(finding)),
    )


def _courses(verdict: Verdict, record: Record) -> Iterator[tuple[str, ...]]:
    broken = ended_in_nan(record)
    for course in courses(verdict, record):
        bars = spark(by_step(course.series, _BARS, broken=broken), course.scale)
        first, last = words.number(course.first), words.number(course.last)
        yield _safe(course.name), first, last, _safe(course.note), f"`{bars}`" if bars else ""


def _run(verdict: Verdict, record: Record) -> Iterator[tuple[str, str]]:
    program = record.program
    parts: list[tuple[str, Iterable[str]]] = [
        (_("script"), [words.program(record)]),
        (_("models"), [words.model(item, record) for item in program.models]),
        (_("optimizers"), [words.optimizer(item) for item in program.optimizers]),
        (_("run"), [words.run(record)]),
        (_("not found"), words.not_found(record)),
        (_("record"), [str(verdict.run.get("record") or record.path or "")]),
    ]
    for name, told in parts:
        text = "; ".join(_safe(item) for item in list(told)[:4])
        if text:
            yield name, text


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, more: int = 0) -> str:
    lines = [header, ["---"] * len(header), *rows]
    if more > 0:
        lines.append(["", _safe(translated(say("and {number} more", number=more))), *[""] * (len(header) - 2)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _safe(text: object) -> str:
    """Text in which nothing is markup, and nothing becomes a link or a mention."""
    plain = words.clean(text)
    plain = plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}…"
    return _ESCAPED.sub(r"\\\g<0>", _WAKES.sub(lambda found: found[0] + _APART, plain))
