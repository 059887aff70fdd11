"""The program that commands join, and what it is without any: its version and its help."""

from __future__ import annotations

from typing import Annotated

import typer

from unstuck.cli._command import Program

PASSED_ON = {"allow_interspersed_args": False, "ignore_unknown_options": False}


def empty() -> typer.Typer:
    """A program without commands."""
    return typer.Typer(cls=Program, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


app = empty()


def _tell_version(wanted: bool) -> None:
    if wanted:
        from unstuck import __version__

        typer.echo(f"unstuck {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Your network won't train: find out why."""
