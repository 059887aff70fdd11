"""A help page in another language: what typer writes in English is looked up, and lines are as wide as they are seen."""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, chop_cells

from unstuck._language import _, marked, stored, translated

_WIDE = "\u2e80-\u9fff\uff00-\uffef"  # Chinese, which may be broken anywhere
_BEFORE, _BEHIND = r"（《“「\[", "，。；：、）》”」！？…"  # never last in a line, never first
_WHOLE = r"\[[^][]{1,24}\]"  # a short default stays in one line
_UNIT = re.compile(rf"(?:{_WHOLE}|[{_BEFORE}]*(?:[{_WIDE}]|[^\s{_WIDE}{_BEFORE}{_BEHIND}]+)?)[{_BEHIND}]*\s*")
_WORDS = (
    marked("Arguments"), marked("Options"), marked("Commands"), marked("required"), marked("default: {default}"),
    marked("Show this message and exit."), marked("Install completion for the current shell."),
    marked("Show completion for the current shell, to copy it or customize the installation."),
)  # fmt: skip


class Page:
    """Stands in for typer's formatter of help, whose methods it has.

    Args:
        width: Of the page, in cells of the terminal.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._written: list[str] = []
        self._margin = 0

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Writes the line that says how a command is used.

        Args:
            prog: What is called.
            args: What it takes.
            prefix: Unused; it is English.
        """
        before = f"{_('Usage:')}{prog} "
        first, *more = textwrap.wrap(args, self.width - cell_len(before), break_on_hyphens=False) or [""]
        self._lines([before + first, *(" " * cell_len(before) + line for line in more)])

    def write_heading(self, heading: str) -> None:
        """Writes a heading.

        Args:
            heading: One of typer's words.
        """
        self._lines([f"{_(heading)}："])

    def write_paragraph(self) -> None:
        """Writes an empty line, but not as the first."""
        if self._written:
            self._written.append("\n")

    def write_text(self, text: str) -> None:
        """Writes paragraphs.

        Args:
            text: English, looked up paragraph by paragraph; a paragraph that begins with a backspace is shown as it is.
        """
        for number, paragraph in enumerate(re.split(r"\n\s*\n", text)):
            if number:
                self.write_paragraph()
            if paragraph.startswith("\b"):
                self._lines(paragraph.splitlines()[1:])
            else:
                self._lines(wrapped(_(" ".join(paragraph.split())), self.width - self._margin))

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Writes names, each with what it is.

        Args:
            rows: Names and texts.
            col_max: The widest name that has its text beside it.
            col_spacing: Between them.
        """
        column = min(max(cell_len(name) for name, _means in rows), col_max) + col_spacing
        for name, means in rows:
            lines = wrapped(_meaning(means), max(self.width - self._margin - column, 10))
            beside = cell_len(name) <= column - col_spacing
            first = f"{name}{' ' * (column - cell_len(name))}{lines[0]}" if beside else name
            self._lines([first, *(" " * column + line for line in lines[beside:])])

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """What is written in it has a heading.

        Args:
            name: The heading.
        """
        self.write_paragraph()
        self.write_heading(name)
        with self.indentation():
            yield

    @contextlib.contextmanager
    def indentation(self) -> Iterator[None]:
        """What is written in it is moved to the right."""
        self._margin += 2
        try:
            yield
        finally:
            self._margin -= 2

    def getvalue(self) -> str:
        """The page."""
        return "".join(self._written)

    def _lines(self, lines: Sequence[str]) -> None:
        self._written += [f"{' ' * self._margin}{line}".rstrip() + "\n" for line in lines]


def _meaning(text: str) -> str:
    """What is said of an option: our text, and behind it what typer says of its default and its range."""
    if _(text) != text:
        return _(text)
    ours, bracket, extra = text.removesuffix("]").rpartition("  [")
    if not bracket:
        return text
    parts = (translated(stored(part, "default: {default}")) for part in extra.split("; "))
    return f"{_(ours)}  [{'；'.join(parts)}]"


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a text; Chinese is broken between any two letters, but for its punctuation.

    Args:
        text: One paragraph.
        width: Of the longest line, in cells of the terminal; a word that is wider is cut.

    Returns:
        One line at least.

    Example:
        >>> wrapped("默认为 en，否则为 zh。", 12)
        ['默认为 en，', '否则为 zh。']
    """
    lines, line = [], ""
    for unit in (piece for whole in _UNIT.findall(text) for piece in chop_cells(whole, width)):
        if line and unit and cell_len((line + unit).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += unit
    return [*lines, line.rstrip()]
