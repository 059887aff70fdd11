"""What a verdict is told in: as text for people, or as JSON, Markdown or SARIF for what comes next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def rendered(name: str, verdict: Any, record: Any) -> str:
    """The verdict in a format, as it is written to a file.

    Args:
        name: One of `_options.FORMATS`.
        verdict: The judgement over one run.
        record: The record it was made of.
    """
    if name == "json":
        from unstuck.report.json import to_json
        from unstuck.report.output import strict_json

        return strict_json(to_json(verdict))
    if name == "markdown":
        from unstuck.report import markdown

        return markdown.render(verdict, record)
    if name == "sarif":
        from unstuck.report import sarif

        return sarif.render(verdict, record)
    from unstuck.report import text

    return text.plain(verdict, record)


def show(verdict: Any, record: Any, *, to_stderr: bool) -> None:
    """Prints the verdict for people.

    Args:
        verdict: The judgement over one run.
        record: The record it was made of.
        to_stderr: Print to stderr, not to stdout.
    """
    from unstuck.report.text import render

    print_page(render(verdict, record), to_stderr=to_stderr)


def print_page(page: Any, *, to_stderr: bool) -> None:
    """Prints a report; into a file or a pipe without colour and without spaces that only fill lines.

    Args:
        page: Something that rich can print.
        to_stderr: Print to stderr, not to stdout.
    """
    from rich.console import Console

    from unstuck.report.text import trimmed

    console = Console(stderr=to_stderr, highlight=False, soft_wrap=False)
    if console.is_terminal:
        console.print(page)
        return
    with console.capture() as shown:
        console.print(page)
    console.file.write(trimmed(shown.get()))


def put(name: str, verdict: Any, record: Any, output: Path | None, *, quiet: bool, to_stderr: bool) -> None:
    """Writes the verdict in a format to a file, or prints it.

    Args:
        name: One of `_options.FORMATS`.
        verdict: The judgement over one run.
        record: The record it was made of.
        output: The file; None to print.
        quiet: Print nothing.
        to_stderr: Print to stderr, not to stdout.
    """
    if output is not None:
        from unstuck.report.output import write_text

        write_text(output, rendered(name, verdict, record))
    elif not quiet and name == "text":
        show(verdict, record, to_stderr=to_stderr)
    elif not quiet:
        stream = sys.stderr if to_stderr else sys.stdout
        encoding = stream.encoding or "utf-8"
        # What the terminal's encoding can't say becomes a mark: better that than no report.
        stream.write(rendered(name, verdict, record).encode(encoding, "replace").decode(encoding))
