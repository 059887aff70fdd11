"""The commands and the program as typer has them, with help and errors of use in the language that is spoken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from unstuck._language import _, spoken
from unstuck.cli._examples import epilog

_USAGE_ERROR: Any = typer.BadParameter.__base__  # that of all errors of use; typer hands out this one only


class Command(TyperCommand):
    """A command: its help ends with examples, and what stands behind a script is the script's own."""

    def __init__(self, name: str | None, **given: Any) -> None:
        super().__init__(name, **given)
        self.epilog = epilog(name or "")

    def get_help(self, ctx: Any) -> str:
        """The help page."""
        return _written(ctx, self.format_help)

    def get_usage(self, ctx: Any) -> str:
        """The line that begins with "Usage:"."""
        return _written(ctx, self.format_usage)

    def get_short_help_str(self, limit: int = 45) -> str:
        """What the list of commands says of it.

        Args:
            limit: Letters, of English.
        """
        if spoken() == "en":
            return super().get_short_help_str(limit)
        return _(" ".join((self.help or "").split("\n\n")[0].split()))

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """What may come next.

        Args:
            ctx: What was given so far.
            incomplete: The beginning of what is to come.

        Returns:
            Our options before the script, nothing behind it: the shell then completes files.
        """
        if ctx.params.get("script") or ctx.params.get("module"):
            return []
        return super().shell_complete(ctx, incomplete)


class Program(TyperGroup):
    """What has the commands."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.epilog = epilog("")

    def get_help(self, ctx: Any) -> str:
        """The help page."""
        return _written(ctx, self.format_help)

    def get_usage(self, ctx: Any) -> str:
        """The line that begins with "Usage:"."""
        return _written(ctx, self.format_usage)

    def make_context(self, *args: Any, **given: Any) -> Any:
        """What was given, as typer reads it.

        Args:
            *args: See typer.
            **given: See typer.
        """
        try:
            return super().make_context(*args, **given)
        except _USAGE_ERROR as error:
            _tell_and_end(error)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was named.

        Args:
            ctx: What was given.
        """
        try:
            return super().invoke(ctx)
        except _USAGE_ERROR as error:
            _tell_and_end(error)


def _written(ctx: Any, write: Callable[[Any, Any], None]) -> str:
    formatter = ctx.make_formatter()
    if spoken() != "en":
        from unstuck.cli._page import Page

        formatter = Page(formatter.width)
    write(ctx, formatter)
    return formatter.getvalue().rstrip("\n")


def _tell_and_end(error: Any) -> None:
    """Shows an error of use, in English by typer itself.

    Raises:
        Exit: It is shown.
    """
    from unstuck.cli._usage import told

    text = None if spoken() == "en" else told(error)
    if text is None:
        raise error
    typer.echo(text, err=True)
    raise typer.Exit(error.exit_code)
