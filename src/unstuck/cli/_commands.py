"""Which commands there are, and which file has which: only that of the command which is called is imported."""

from __future__ import annotations

import importlib

import typer

from unstuck.cli._app import app, empty

FILES = {
    "run": "_run_commands", "cure": "_trial_commands", "curvature": "_run_commands", "batch": "_run_commands",
    "search": "_trial_commands", "diagnose": "_record_commands", "runs": "_record_commands", "view": "_record_commands",
    "explain": "_record_commands", "schema": "_record_commands", "rules": "_record_commands",
}  # fmt: skip


def program(name: str) -> typer.Typer:
    """The command line, with all commands or just the one that is wanted: to make all of them takes a while.

    Args:
        name: The first word that was given.

    Returns:
        With this command alone where there is one of this name.
    """
    for file in dict.fromkeys([FILES[name]] if name in FILES else FILES.values()):
        importlib.import_module(f"unstuck.cli.{file}")
    app.registered_commands.sort(key=lambda command: list(FILES).index(_name(command)))
    if name not in FILES:
        return app
    alone = empty()
    alone.registered_callback = app.registered_callback
    alone.registered_commands = [command for command in app.registered_commands if _name(command) == name]
    return alone


def _name(command: typer.models.CommandInfo) -> str:
    return command.name or getattr(command.callback, "__name__", "")
