"""Which batch size is best, in the terminal and as JSON: what `unstuck batch` shows."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from unstuck._json import plain
from unstuck._language import _, speaking, tell
from unstuck.evidence import Record
from unstuck.report import _words as words
from unstuck.report._batch import HEADER, Batch, advice, caveats, facts, gathered, headline, mark, row
from unstuck.report._batch import to_json as as_json
from unstuck.report._curves import spark
from unstuck.report.output import write_json
from unstuck.report.text import Row, Sheet, Short, line, table

_COLOURS = {"change": "cyan", "keep": "green", "unknown": "yellow"}
_BARS = "cyan"
_ROOM = 92  # columns that all cells of the table need


def render(record: Record, *, width: int | None = None) -> RenderableType:
    """What was measured as something that rich can print.

    Args:
        record: The run.
        width: Columns to fill at most; the console's width when None. Lines never get longer than 100.

    Returns:
        A renderable of about 30 lines; plain ASCII on a console that can't show more.
    """
    return Sheet(functools.partial(_parts, record), width)


def to_json(record: Record) -> dict[str, Any]:
    """What was measured as plain dicts and lists that strict JSON can hold.

    Args:
        record: The run.

    Returns:
        Its keys are documented in docs/batch.md; parts that were not measured are None.

    Example:
        >>> to_json(Record.of())["verdict"]
        'unknown'
    """
    with speaking("en"):
        return plain(as_json(gathered(record), record))


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


def _parts(record: Record, width: int) -> Iterator[RenderableType]:
    found = gathered(record)
    yield _headline(found, record)
    yield Text()
    if advice(found):
        yield Short(Text(words.sentence(advice(found))), lines=4)
        yield Text()
    if found.choice:
        yield _sizes(found, wide=width >= _ROOM)
        yield Text()
    yield table(_rows(found))
    yield Text("─" * width, style="dim")
    yield table(_footer(found, record))


def _headline(found: Batch, record: Record) -> RenderableType:
    badge = {"change": f"{found.choice.get('recommended')}", "keep": tell("KEEP {size}", size=found.choice.get("own"))}
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    told = Text(badge.get(found.verdict, _("UNKNOWN")), f"bold {_COLOURS[found.verdict]}")
    grid.add_row(told, Short(Text(words.clean(headline(found, record)), "bold"), lines=4))
    return grid


def _sizes(found: Batch, *, wide: bool) -> Table:
    """A row a batch size; on a narrow console without the columns that decide least."""
    left_out = set() if wide else {"a pass", "memory"}
    shown = [i for i, name in enumerate(HEADER) if name not in left_out]
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    grid.add_column("", width=1)
    for i in shown:
        grid.add_column(_(HEADER[i]), justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for size in found.sizes:
        cells, told = row(size), mark(size, found)
        style = "bold" if found.is_recommended(size) else "" if told else "dim"
        sign = "→" if told in ("recommended", "kept") else ""
        grid.add_row(sign, *(cells[i] for i in shown), words.clean(told), style=style)
    return grid


def _rows(found: Batch) -> Iterator[Row]:
    for label, told in facts(found):
        yield label, Short(Text(words.clean(told)), lines=3)
        if label == "noise" and len(found.noise) > 2:
            yield (
                "",
                line(
                    Text.assemble(
                        (spark(_course(found), "log"), _BARS), (f"  {_('from start to end, log scale')}", "dim")
                    )
                ),
            )
    for i, told in enumerate(caveats(found)):
        yield "" if i else _("mind"), Short(Text(words.clean(words.sentence(told))), lines=3)


def _course(found: Batch) -> np.ndarray:
    """The noise scale at its points, or what it is at least."""
    values = [p["scale"] if p["known"] else p["low"] for p in found.noise]
    return np.array([np.nan if v is None else v for v in values], float)


def _footer(found: Batch, record: Record) -> Iterator[Row]:
    if found.notes:
        yield _("left out"), Short(Text(words.clean(_("; ").join(found.notes))), lines=3)
    seconds = record.meta.get("batch_seconds")
    took = tell(", measuring took {time}", time=words.duration(seconds)) if seconds else ""
    yield _("run"), Short(Text(words.run(record) + took), lines=2)
    if record.path:
        yield _("record"), Text(words.clean(record.path), overflow="fold")
