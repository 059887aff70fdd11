"""What lies under the loss, in the terminal and as JSON: what `unstuck curvature` shows."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from unstuck._json import plain
from unstuck._language import _, speaking, tell
from unstuck.evidence import Record
from unstuck.report import _words as words
from unstuck.report._curvature import (
    KINDS,
    Curvature,
    course_row,
    facts,
    gathered,
    heights,
    measured,
    says,
    stalled,
    steepest,
)
from unstuck.report._curvature import to_json as as_json
from unstuck.report._curves import by_step, spark
from unstuck.report.output import write_json
from unstuck.report.text import Row, Sheet, Short, line, table

_COLOURS = {"saddle": "yellow", "maximum": "yellow", "minimum": "green", "unknown": "red"}
_BARS = "cyan"
_LABEL = 15


def render(record: Record, *, width: int | None = None) -> RenderableType:
    """What was measured as something that rich can print.

    Args:
        record: The run.
        width: Columns to fill at most; the console's width when None. Lines never get longer than 100.

    Returns:
        A renderable of about 20 lines; plain ASCII on a console that can't show more.
    """
    return Sheet(functools.partial(_parts, record), width)


def to_json(record: Record) -> dict[str, Any]:
    """What was measured as plain dicts and lists that strict JSON can hold.

    Args:
        record: The run.

    Returns:
        Its keys are documented in docs/curvature.md; parts that were not measured are None.

    Example:
        >>> to_json(Record.of())["kind"]
        'unknown'
    """
    with speaking("en"):
        return plain(as_json(_found(record), record))


def write(record: Record, path: str | Path) -> None:
    """Write what was measured as a JSON file.

    Args:
        record: The run.
        path: The file; what was there is replaced.

    Raises:
        MisuseError: `path` is a folder, or in a folder that doesn't exist.
        RecordError: The system refuses to write there.
    """  # noqa: DOC502
    write_json(path, to_json(record))


def _found(record: Record) -> Curvature:
    return gathered(record) or Curvature(record.steps, why=_why(record))


def _why(record: Record) -> str:
    if not record.steps:
        return _("no training was seen")
    ending = words.ending(record)
    return (
        tell("the script {ending}", ending=ending)
        if ending
        else _("the script ended before anything could be measured")
    )


def _parts(record: Record, width: int) -> Iterator[RenderableType]:
    found = _found(record)
    yield _headline(found, record)
    yield Text()
    if says(found):
        yield Short(Text(words.sentence(says(found))), lines=4)
        yield Text()
    yield table(_rows(found, width))
    yield Text("─" * width, style="dim")
    yield table(_footer(found, record))


def _headline(found: Curvature, record: Record) -> RenderableType:
    badge = Text(_(KINDS.get(found.kind, found.kind)).upper(), f"bold {_COLOURS.get(found.kind, 'cyan')}")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    grid.add_row(
        badge,
        Short(
            Text(words.clean(found.headline(words.program(record))), "bold"),
            lines=3,
        ),
    )
    return grid


def _rows(found: Curvature, width: int) -> Iterator[Row]:
    for label, told in facts(found):
        yield label, Short(Text(words.clean(told)), lines=3)
        if label == "signs":
            bars = spark(heights(found, min(40, width - _LABEL - 24)), "linear")
            low, high = words.number(found.density["low"]), words.number(found.density["high"])
            yield (
                _("density"),
                line(Text.assemble(f"{low} ", (bars, _BARS), f" {high}", (f"  {_('log scale')}", "dim"))),
            )
    if found.layers:
        yield _("by layer"), Short(Text(", ".join(steepest(found))), lines=2)
    course = course_row(found)
    if course is not None:
        name, series = course
        bars = spark(by_step(series, max(8, min(36, width - _LABEL - 52)), broken=False), "log")
        first, last = words.number(series.first, 2), words.number(series.last, 2)
        edge = tell("{name}, 1 at the edge", name=name) if name.startswith("rate") else _(name)
        yield (
            _("course"),
            line(
                Text.assemble(
                    f"{first} ",
                    (bars, _BARS),
                    f" {last}",
                    (f"  {edge}", "dim"),
                )
            ),
        )
    if found.stalls:
        yield _("stalls"), line(stalled(found))


def _footer(found: Curvature, record: Record) -> Iterator[Row]:
    told = measured(found)
    if told:
        yield _("measured on"), Short(Text(words.clean(told)), lines=3)
    if found.notes:
        yield _("left out"), Short(Text(words.clean(_("; ").join(found.notes))), lines=3)
    seconds = record.meta.get("curvature_seconds")
    took = tell(", curvature took {time}", time=words.duration(seconds)) if seconds else ""
    yield _("run"), Short(Text(words.run(record, curvature=False) + took), lines=2)
    if record.path:
        yield _("record"), Text(words.clean(record.path), overflow="fold")
