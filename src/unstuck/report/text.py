"""The verdict in the terminal: one screen, readable at 80 columns, without colour, and without Unicode."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from unstuck._language import Said, _, marked, speaking, spoken, tell
from unstuck.evidence import Record
from unstuck.report import _words as words
from unstuck.report._curvature import brief, gathered
from unstuck.report._curves import Course, by_step, courses, ended_in_nan, spark
from unstuck.report._lines import wrapped
from unstuck.report._profile import Profile, profile
from unstuck.verdict import Finding, Verdict

WIDEST = 100
TALLEST = 30
_LABEL = 15
_BARS = "cyan"
_REST = {
    "sick": marked("Also found"),
    "healthy": marked("Worth knowing"),
    "unknown": marked("Found all the same"),
}
Row = tuple[str, RenderableType]
_COLOURS = {"sick": "red", "healthy": "green", "unknown": "yellow", "error": "red", "warning": "yellow", "note": "cyan"}
_ASCII = str.maketrans({
    "✗": "x", "✓": "+", "·": "-", "…": "~", "→": ">", "×": "x", "±": "+-", "–": "-", "─": "-", "│": "|", "├": "|", "└": "`",
    **dict(zip("▁▂▃▄▅▆▇█", "_.:-=+*#", strict=True)),
})  # fmt: skip


def render(verdict: Verdict, record: Record, *, width: int | None = None) -> RenderableType:
    """The verdict as something that rich can print.

    Args:
        verdict: The judgement over one run.
        record: The record it was made of.
        width: Columns to fill at most; the console's width when None. Lines never get longer than 100.

    Returns:
        A renderable of about 24 lines, never much above 30; plain ASCII on a console that can't show more.
    """
    return _Report(verdict, record, width)


def plain(verdict: Verdict, record: Record, *, width: int = WIDEST) -> str:
    """The verdict as a file or a log holds it: without colour.

    Args:
        verdict: The judgement over one run.
        record: The record it was made of.
        width: Columns to fill at most.

    Returns:
        Lines, each with a newline at its end.
    """
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, color_system=None).print(render(verdict, record))
    return trimmed(file.getvalue())


def trimmed(text: str) -> str:
    """Lines without spaces that only fill them."""
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


class Sheet:
    """Renderables one below the other, no wider than a report is, in ASCII where the console can't show more.

    Args:
        parts: Gives them for a width in columns.
        width: Columns to fill at most; the console's width when None.
    """

    def __init__(self, parts: Callable[[int], Iterator[RenderableType]], width: int | None) -> None:
        self.parts, self.width = parts, width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self.width or WIDEST, options.max_width, WIDEST)
        options = options.update(width=width, height=None)
        with shown_on(options):
            segments = list(console.render(Group(*self.parts(width)), options))
        for segment in segments:
            yield Segment(in_ascii(segment.text, options), segment.style, segment.control)


class _Report:
    def __init__(self, verdict: Verdict, record: Record, width: int | None) -> None:
        self.verdict, self.record, self.width = verdict, record, width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self.width or WIDEST, options.max_width, WIDEST)
        options = options.update(width=width, height=None)
        with shown_on(options):
            segments = self._fitting(console, options, width)
        for segment in segments:
            yield Segment(in_ascii(segment.text, options), segment.style, segment.control)

    def _fitting(self, console: Console, options: ConsoleOptions, width: int) -> list[Segment]:
        segments: list[Segment] = []
        for most in range(4, 0, -1):
            with np.errstate(all="ignore"):  # what is broken is shown as it is
                segments = list(console.render(Group(*self._parts(width, most)), options))
            if sum(segment.text.count("\n") for segment in segments) <= TALLEST:
                break
        return segments

    def _parts(self, width: int, most: int) -> Iterator[RenderableType]:
        verdict, record = self.verdict, self.record
        root = verdict.findings[0] if verdict.verdict == "sick" and verdict.findings else None
        rest = verdict.findings[1:] if root else verdict.findings
        yield _headline(verdict, record)
        yield Text()
        if root:
            yield from _decisive(root)
        yield table(_rows(verdict, record, root, width))
        if root and root.explains:
            yield from _explained(root, most)
        if rest:
            yield Text()
            yield Text(_(_REST[verdict.verdict]), "bold")
            yield from _others(rest, most)
        yield Text("─" * width, style="dim")
        yield table(_footer(verdict, record))


def _headline(verdict: Verdict, record: Record) -> RenderableType:
    badge = Text(
        f"{words.VERDICT_MARKS[verdict.verdict]} {_(words.VERDICT_WORDS[verdict.verdict]).upper()}",
        f"bold {_COLOURS[verdict.verdict]}",
    )
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    grid.add_row(badge, Short(Text(words.headline(verdict, record), "bold"), lines=3))
    return grid


def _decisive(finding: Finding) -> Iterator[RenderableType]:
    yield Text.assemble(
        (finding.cause, f"bold {_COLOURS[finding.severity]}"),
        "  ",
        tell(
            "{severity}, {confidence}",
            severity=words.SEVERITY_WORDS[finding.severity],
            confidence=words.confidence(finding.confidence),
        ),
    )
    yield Padding(Short(Text(words.sentence(finding.says)), lines=3), (0, 0, 0, 2))
    yield Text()


def _rows(verdict: Verdict, record: Record, root: Finding | None, width: int) -> Iterator[Row]:
    if root:
        yield _("where"), Short(Text(words.places(root.layers, record)), lines=2)
        picture = profile(root, record)
        if picture:
            yield (
                _("by lag") if picture.axis == "lag" else _("by depth"),
                Short(_depth(picture, width - _LABEL), lines=2),
            )
    for course in courses(verdict, record):
        yield words.clean(course.name), line(_course(course, width - _LABEL, broken=ended_in_nan(record)))
    bent = gathered(record)
    if bent is not None:
        yield _("curvature"), Short(Text(words.clean(brief(bent))), lines=2)
    if root and root.evidence:
        yield _("evidence"), Short(Text("; ".join(words.evidence(root.evidence))), lines=2)
    if root and root.treated_by:
        yield _("fits"), line(words.remedies(root))


def _course(course: Course, room: int, *, broken: bool) -> Text:
    first, last = words.number(course.first), words.number(course.last)
    note = f"  {words.clean(course.note)}" if course.note else ""
    width = max(8, min(36, room - len(first) - len(last) - cell_len(note) - 2))
    bars = spark(by_step(course.series, width, broken=broken), course.scale)
    return Text.assemble(f"{first} ", (bars, _BARS), f" {last}", (note, "dim"))


def _depth(picture: Profile, room: int) -> Text:
    first, last = (words.place(name, 16) for name in (picture.names[0], picture.names[-1]))
    values = picture.squeezed(max(8, min(40, room - cell_len(first) - cell_len(last) - 2)))
    wide = max(1, min(3, 24 // len(values)))
    bars = "".join(bar * wide for bar in spark(values, picture.scale))
    used = cell_len(first) + len(bars) + cell_len(last) + 2
    gap = "  " if used + 2 + cell_len(picture.caption) <= room else "\n"
    return Text.assemble(f"{first} ", (bars, _BARS), f" {last}{gap}", (picture.caption, "dim"))


def _explained(root: Finding, most: int) -> Iterator[RenderableType]:
    yield Text(f"  {_('this explains')}")
    branches = list(_branches(root.explains, "  "))
    yield from branches[:most]
    if len(branches) > most:
        yield Text("  " + tell("… and {number} more", number=len(branches) - most), "dim")


def _branches(symptoms: Sequence[Finding], indent: str) -> Iterator[Text]:
    for i, finding in enumerate(symptoms):
        is_last = i == len(symptoms) - 1
        branch = (f"{indent}{'└─' if is_last else '├─'} ", "dim")
        yield line(Text.assemble(branch, _told(finding)))
        yield from _branches(finding.explains, indent + ("   " if is_last else "│  "))


def _others(findings: Sequence[Finding], most: int) -> Iterator[RenderableType]:
    for finding in findings[:most]:
        mark = (f"  {words.SEVERITY_MARKS[finding.severity]} ", f"bold {_COLOURS[finding.severity]}")
        yield line(Text.assemble(mark, _told(finding)))
    if len(findings) > most:
        yield Text("  " + tell("… and {number} more", number=len(findings) - most), "dim")


def _footer(verdict: Verdict, record: Record) -> Iterator[Row]:
    program = record.program
    for item in program.models[:1]:
        yield _("model"), line(words.model(item, record) + _more(program.models, 1))
    for item in program.optimizers[:1]:
        yield _("optimizer"), line(words.optimizer(item) + _more(program.optimizers, 1))
    yield _("run"), Short(Text(words.run(record)), lines=2)
    if program.not_found:
        told = _("; ").join(words.not_found(record)[:2])
        yield _("not found"), Short(Text(told + _more(program.not_found, 2)), lines=2)
    for kind, path in ((_("record"), verdict.run.get("record") or record.path), (_("page"), verdict.run.get("html"))):
        if path:
            yield kind, Text(words.clean(path), overflow="fold")


def _more(items: Sequence[object], told: int) -> str:
    return tell(" (+{number} more)", number=len(items) - told) if len(items) > told else ""


def _told(finding: Finding) -> Text:
    weight = tell(
        " ({severity}, {confidence:.2f}): ",
        severity=words.SEVERITY_WORDS[finding.severity],
        confidence=finding.confidence,
    )
    return Text.assemble(finding.cause, (weight, "dim"), words.clean(finding.says))


def shown_on(options: ConsoleOptions) -> contextlib.AbstractContextManager[str]:
    """The language that a console can show: the one that is spoken, or English where it has nothing but ASCII."""
    return speaking("en" if options.ascii_only else spoken())


def in_ascii(text: str, options: ConsoleOptions) -> str:
    """The text as a console can show it: as it is, or in ASCII."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii") if options.ascii_only else text


def table(rows: Iterable[Row]) -> Table:
    """Labels with what they stand for."""
    made = Table.grid()
    made.add_column(width=_LABEL, style="dim", no_wrap=True, overflow="ellipsis")
    made.add_column(ratio=1)
    for label, content in rows:
        made.add_row(Padding(line(label), (0, 2)), content)
    return made


def line(content: str | Text) -> Text:
    """Text on one line, cut off at its end."""
    text = Text(_(content) if isinstance(content, Said) else content) if isinstance(content, str) else content
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


class Short:
    """Text on so many lines at most, with an ellipsis where more was cut off."""

    def __init__(self, text: Text, *, lines: int) -> None:
        self.text, self.lines = text, lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = wrapped(self.text, console, options.max_width)
        for i, line in enumerate(lines[: self.lines]):
            if i == self.lines - 1 and len(lines) > self.lines:
                line.append("…")
                line.truncate(options.max_width, overflow="ellipsis")
            yield line
