"""A table of runs, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from unstuck._language import _, marked, stored
from unstuck.report import _words as words
from unstuck.report.text import in_ascii
from unstuck.store import RunSummary

_MEGABYTE = 1e6
_LEAST = 3  # columns, however narrow the terminal is
_UNBOUND = 10_000  # columns of a terminal on which everything fits
_COLOURS = {"sick": "red", "healthy": "green", "unknown": "yellow"}


def table(runs: Sequence[RunSummary]) -> RenderableType:
    """The runs, one a row, in the order given.

    Names stay whole, so that they can be copied; when a run was started and by which script is in its name, unless somebody gave another.
    On a narrow terminal columns are left out, the last ones first.
    """
    return _Runs(runs)


class _Runs:
    def __init__(self, runs: Sequence[RunSummary]) -> None:
        self.runs = runs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for most in range(len(_COLUMNS), _LEAST - 1, -1):
            made = self._table(most)
            if (
                most == _LEAST
                or console.measure(made, options=options.update(width=_UNBOUND)).maximum <= options.max_width
            ):
                for segment in console.render(made, options):
                    yield Segment(in_ascii(segment.text, options), segment.style, segment.control)
                return

    def _table(self, most: int) -> Table:
        made = Table(box=None, pad_edge=False, header_style="bold")
        for name, is_number, _cell in _COLUMNS[:most]:
            made.add_column(_(name), justify="right" if is_number else "left", overflow="fold")
        for run in self.runs:
            made.add_row(*(cell(run) for _name, _is_number, cell in _COLUMNS[:most]))
        return made


def _verdict(run: RunSummary) -> Text:
    if run.verdict not in words.VERDICT_MARKS:
        return Text("–")
    told = f"{words.VERDICT_MARKS[run.verdict]} {_(words.VERDICT_WORDS[run.verdict])}"
    return Text(told, style=_COLOURS[run.verdict])


def _noted(run: RunSummary, name: str) -> str:
    """A number that was noted last."""
    value = run.progress.get(name)
    return words.number(value) if isinstance(value, (int, float)) else "–"


_COLUMNS: tuple[tuple[str, bool, Callable[[RunSummary], RenderableType]], ...] = (
    (marked("run"), False, lambda run: Text(words.clean(run.name))),
    (marked("status"), False, lambda run: Text(words.clean(_(stored(run.status))))),
    (marked("verdict"), False, _verdict),
    (marked("steps"), True, lambda run: str(run.steps or "–")),
    (marked("loss"), True, lambda run: _noted(run, "loss")),
    (marked("time"), True, lambda run: words.duration(run.seconds)),
    (marked("score"), True, lambda run: _noted(run, "score")),
    ("MB", True, lambda run: f"{run.size_bytes / _MEGABYTE:.1f}"),
)
