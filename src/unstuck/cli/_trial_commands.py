"""The commands that run a program many times: `cure` and `search`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from unstuck.cli import _options as options
from unstuck.cli._app import PASSED_ON, app
from unstuck.cli._child import command_line
from unstuck.cli._command import Command
from unstuck.cli._completion import plugins
from unstuck.cli._records import visit_folder


@app.command(context_settings=PASSED_ON, cls=Command)
def cure(
    script: options.Script = None,
    json_file: options.JsonFile = None,
    html_file: options.HtmlFile = None,
    diff: Annotated[bool, typer.Option("--diff", help="Print what changes in the script, as a unified diff.")] = False,
    write_file: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Write the changed script.", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=2, help="Pairs of fresh seeds that confirm.")] = 3,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="Time for tries, before the confirmation: 90s, 2m, 1h.")
    ] = "2m",
    executor: options.Executor = "processes",
    address: options.Address = None,
    workers: options.Workers = None,
    runs_folder: options.RunsFolder = None,
    language: options.Language = None,
    quiet: options.Quiet = False,
) -> None:
    """Try what may help, prove what does, and write the change.

    The script is run as it is, then with one remedy after the other that fits what is found, each with the same seed, and
    what helps is confirmed with fresh seeds, with and without it. The script itself is not touched.
    A visit that was broken off goes on where it was when it is started again with the same --runs.
    Exit code: 0; 1 when the script can't be run; 2 for misuse.
    """
    from unstuck.cli import _cure
    from unstuck.report.cure import text
    from unstuck.trials.executor import Log

    command_line(script or [], None, name="cure", takes_module=False)
    limit = _cure.seconds(budget)
    _cure.check_executor(executor, address, workers)
    options.check_targets(json_file, html_file, write_file)
    folder = visit_folder(runs_folder, script or [])
    made_by = _cure.executor(executor, Log(folder), address=address, workers=workers)
    found = _cure.visit(script or [], made_by, seeds=seeds, budget=limit, quiet=quiet)
    if not quiet:
        text(found, sys.stderr)
    if html_file is not None:
        from unstuck.report.cure_page import write

        write(found, html_file, name=Path((script or [""])[0]).name, command=script or [])
    _cure.report(found, json_file=json_file, diff=diff, write_file=write_file, echo=typer.echo)
    if found.baseline.status == "failed" and not found.baseline.record:
        sys.exit(1)


@app.command(context_settings=PASSED_ON, cls=Command)
def search(
    script: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE [ARGS]...",
            help="A script and its arguments; or a file with the functions space(draw) and training(chosen).",
            show_default=False,
        ),
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(
            metavar="REMEDY,...",
            help="What of a script is searched: learning-rate, optimizer, batch-size, dropout, any remedy.  "
            "[default: the usual ones that fit]",
            show_default=False,
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="ARG=VALUES", help="An argument of the script, with a range or values: n=16..512:log."),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="auto, random, local, evolution, gaussian-process, tpe, fast, zoph-le.",
            autocompletion=plugins("search.samplers"),
        ),
    ] = "auto",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set the sampler: population=50.")
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Points to be tried, and as many at random.  [default: 50]", show_default=False
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Nothing new is tried after this time: 90s, 30m, 8h.", show_default=False),
    ] = None,
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="Try as many at random, to compare with.")
    ] = True,
    halving: Annotated[
        bool, typer.Option("--halving/--no-halving", help="Train only the best to the end, where that can be.")
    ] = True,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="How many of the best get fresh seeds.")] = 3,
    seeds: Annotated[int, typer.Option(metavar="N", min=0, help="Fresh seeds for the best.")] = 3,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the samplers.")] = 0,
    executor: options.Executor = "processes",
    address: options.Address = None,
    workers: options.Workers = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the last search of this file.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the answer as JSON.", show_default=False)
    ] = None,
    html_file: options.HtmlFile = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write what was found: source, weights, recipe; of a script, the change.",
            show_default=False,
        ),
    ] = None,
    runs_folder: options.RunsFolder = None,
    language: options.Language = None,
    quiet: options.Quiet = False,
) -> None:
    """Search hyper-parameters of a script, or architectures and recurrent cells, beside a random control.

    The best of the search and of as many points drawn at random are trained again with fresh seeds; the answer says by how much the
    best is better, and how sure that is. The file itself is not touched. What had ended is kept when a search is broken off:
    --resume goes on with it.
    Exit code: 0; 1 when nothing could be trained; 2 for misuse.
    """
    from unstuck.cli import _cure, _search
    from unstuck.search.searching import Plan
    from unstuck.trials.connection import cores

    command_line(script or [], None, name="search", takes_module=False)
    command = list(script or [])
    _cure.check_executor(executor, address, workers)
    options.check_targets(json_file, html_file)
    limit = None if budget is None else _cure.seconds(budget)
    if evaluations is None and limit is None:
        evaluations = 50
    many = workers or (1 if executor == "inline" else cores())
    plan = Plan(
        sampler, _search.sampler_settings(settings), evaluations, limit, control, top, seeds, halving, seed, many
    )
    folder = _search.search_folder(runs_folder, command[0], resume=resume)
    given = _search.Given(
        command, over.split(",") if over else None, vary or [], executor, address, workers, folder, quiet
    )
    answer, problem = _search.searched(given, plan)
    _search.report(answer, problem, json_file=json_file, html_file=html_file, export=export, quiet=quiet)
    if answer.best is None:
        sys.exit(1)
