"""The commands that run nothing: they read records, and say what rules and causes mean."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from unstuck._language import say, tell
from unstuck.cli import _options as options
from unstuck.cli._app import app
from unstuck.cli._child import announce
from unstuck.cli._command import Command
from unstuck.cli._completion import causes_and_rules, one_of, runs_beginning
from unstuck.cli._records import FOLDER, find_record, report


@app.command(cls=Command)
def diagnose(
    record: Annotated[
        Path | None,
        typer.Argument(
            metavar="RECORD",
            help="A run's folder, its name, or a record's file; also of a run that goes on.",
            show_default=False,
            autocompletion=runs_beginning,
        ),
    ] = None,
    json_file: options.JsonFile = None,
    html_file: options.HtmlFile = None,
    form: options.Format = "text",
    output: options.OutputFile = None,
    fail_on: options.FailOn = None,
    settings: options.Settings = None,
    language: options.Language = None,
    quiet: options.Quiet = False,
) -> None:
    """Judge a saved run again.

    Nothing is run, torch is not needed, and the record stays as it is. The verdict goes to stdout.
    Exit code: 0; 3 with --fail-on; 2 for misuse.
    """
    from unstuck.doctor import diagnose as judged
    from unstuck.evidence import Record

    limit = options.severity(fail_on)
    options.check_one_of(form, options.FORMATS, "--format")
    options.check_targets(json_file, html_file, output)
    rules = options.rule_settings(settings)
    read = Record.read(find_record(record))
    verdict = judged(read, settings=rules)
    report(verdict, read, json_file, html_file, form=form, output=output, quiet=quiet, to_stderr=False)
    if limit is not None and verdict.reaches(limit):
        sys.exit(3)


@app.command(cls=Command)
def runs(
    folder: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the records.")] = FOLDER,
) -> None:
    """List the runs in a folder, the newest first."""
    from rich.console import Console

    from unstuck.report.runs import table
    from unstuck.report.text import shown_on
    from unstuck.store import list_runs

    found = list_runs(folder)
    if not found:
        typer.echo(tell("no runs in {folder}", folder=str(folder)))
        return
    console = Console()
    with shown_on(console.options):
        console.print(table(found))


@app.command(cls=Command)
def view(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="The run to open with: its folder, its name, or a record's file.",
            show_default=False,
            autocompletion=runs_beginning,
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the runs to show.")] = FOLDER,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="What to bind to; where other machines reach it, a token is asked for."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="The port, or the next free one.")] = 8765,
    token: Annotated[
        bool, typer.Option("--token", help="Ask for a token on this machine too: others may use it as well.")
    ] = False,
    opens: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open", help="Open a browser.  [default: where there is a screen]", show_default=False
        ),
    ] = None,
    language: options.Language = None,
) -> None:
    """Show runs in a browser while they grow: a list, the page of each, and two side by side.

    Records are read, nothing is written. Ctrl-C ends it.
    Exit code: 0; 2 for misuse.
    """
    from unstuck.cli._view import view as show

    show(run, folder, host=host, port=port, token=token, opens=opens)


@app.command(cls=Command)
def explain(
    name: Annotated[
        str,
        typer.Argument(
            metavar="CAUSE|RULE",
            help="As in a finding, or in `unstuck rules`.",
            show_default=False,
            autocompletion=causes_and_rules,
        ),
    ] = "",
    language: options.Language = None,
) -> None:
    """Say what a cause or a rule means.

    And how it is told apart, by which thresholds, when that is wrong, what treats it, and which other causes it explains.
    """
    from rich.console import Console

    from unstuck.doctor import EXPLAINS
    from unstuck.report.explain import explain as page

    Console(highlight=False).print(page(name, EXPLAINS))


@app.command(cls=Command)
def schema(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="verdict (of `run` and `diagnose`) or cure.",
            autocompletion=one_of(*options.SCHEMAS),
        ),
    ] = "verdict",
) -> None:
    """Print the JSON Schema (2020-12) of what --json writes.

    Exit code: 0; 2 for misuse.
    """
    from importlib.resources import files

    options.check_one_of(name, options.SCHEMAS, say("the schema"))
    typer.echo(files("unstuck.report").joinpath("assets", f"{name}.schema.json").read_text("utf-8").rstrip("\n"))


@app.command(cls=Command)
def rules(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with all thresholds.")] = False,
    language: options.Language = None,
) -> None:
    """List the rules, and what each finds."""
    from rich.console import Console

    from unstuck._discover import problems
    from unstuck.report.explain import listing, table

    if as_json:
        typer.echo(json.dumps(listing(), indent=2, ensure_ascii=False))
    else:
        Console(highlight=False).print(table())
    for problem in problems("rules"):
        announce(problem)
