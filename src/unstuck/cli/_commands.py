"""The commands: what each takes, and in which order it does what.

`run` starts the script as Python itself would (`python SCRIPT ARGS`, or `-m MODULE`), with the watcher waiting in the child for
torch to be imported, and judges the record when the child has ended, in whatever way. It reads, judges and prints only after
the child has been started, so that the script starts at once. Hence the imports inside of functions.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unstuck.cli import _options as options
from unstuck.cli._child import command_line, end_like, say, watch
from unstuck.cli._completion import ScriptCommand, causes_and_rules, one_of, plugins, runs_beginning
from unstuck.cli._examples import epilog
from unstuck.cli._records import FOLDER, find_record, judge, new_folder, report, report_curvature, visit_folder


def _empty() -> typer.Typer:
    return typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, epilog=epilog(""))


app = _empty()
_PASSED_ON = {"allow_interspersed_args": False, "ignore_unknown_options": False}


def program(name: str) -> typer.Typer:
    """The command line, with all commands or just the one that is wanted: to make all of them takes a while.

    Args:
        name: The first word that was given.

    Returns:
        With this command alone where there is one of this name.
    """
    wanted = [
        command
        for command in app.registered_commands
        if name in (command.name, getattr(command.callback, "__name__", None))
    ]
    if not wanted:
        return app
    alone = _empty()
    alone.registered_callback, alone.registered_commands = app.registered_callback, wanted
    return alone


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


@app.command(context_settings=_PASSED_ON, cls=ScriptCommand, epilog=epilog("run"))
def run(
    script: options.Script = None,
    module: options.Module = None,
    json_file: options.JsonFile = None,
    html_file: options.HtmlFile = None,
    form: options.Format = "text",
    output: options.OutputFile = None,
    budget: Annotated[
        str, typer.Option(metavar="SHARE", help="Share of the training's time the watcher may take.")
    ] = "2%",
    probe_budget: Annotated[
        str,
        typer.Option(
            "--probe-budget",
            metavar="SHARE",
            help="Share of the training's time for experiments on copies when it has ended: 2 to 60 seconds; 0 for none.",
        ),
    ] = "15%",
    curvature: Annotated[
        bool,
        typer.Option(
            "--curvature", help="Measure curvature along the run, on copies when it has ended: see `curvature`."
        ),
    ] = False,
    curvature_budget: Annotated[
        str,
        typer.Option(
            "--curvature-budget",
            metavar="SHARE",
            help="Share of the training's time that --curvature may take: 2 seconds at least.",
        ),
    ] = "15%",
    fail_on: options.FailOn = None,
    runs_folder: options.RunsFolder = None,
    with_file: Annotated[
        Path | None,
        typer.Option(
            "--with",
            metavar="FILE",
            help="Apply the prescription that `unstuck cure --json FILE` wrote.",
            show_default=False,
        ),
    ] = None,
    settings: options.Settings = None,
    language: options.Language = None,
    quiet: options.Quiet = False,
) -> None:
    """Run a training script unmodified, watch it, and say what is wrong with the training.

    The script's output, results and exit code are as without unstuck; the verdict goes to stderr when it has ended.
    Exit code: the script's own; 3 with --fail-on; 2 for misuse.
    """
    command = command_line(script or [], module)
    share, limit = options.share(budget), options.severity(fail_on)
    probing = options.share(probe_budget, option="--probe-budget")
    curving = options.share(curvature_budget, option="--curvature-budget")
    options.check_one_of(form, options.FORMATS, "--format")
    options.check_targets(json_file, html_file, output)
    rules = options.rule_settings(settings)
    folder = new_folder(runs_folder, module or (script or ["run"])[0], quiet=quiet)
    given: dict[str, Any] = {"budget": share, "probe_budget": probing}
    if curvature:
        given["curvature"] = {"share": curving}
    if with_file is not None:
        from unstuck.cli._cure import prescribed_edits

        given["edits"] = prescribed_edits(with_file, folder)
    code = watch(command, folder, given, quiet=quiet)
    verdict, record = judge(folder, code, rules)
    report(verdict, record, json_file, html_file, form=form, output=output, quiet=quiet, to_stderr=True)
    if limit is not None and verdict.reaches(limit):
        sys.exit(3)
    end_like(code)


@app.command(context_settings=_PASSED_ON, cls=ScriptCommand, epilog=epilog("cure"))
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
    from unstuck.cli._child import command_line
    from unstuck.report.cure import text
    from unstuck.trials.executor import Log

    command_line(script or [], None)
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


@app.command(context_settings=_PASSED_ON, cls=ScriptCommand, epilog=epilog("curvature"))
def curvature(
    script: options.Script = None,
    module: options.Module = None,
    json_file: options.MeasuredJson = None,
    html_file: options.HtmlFile = None,
    budget: options.MeasuringTime = "30s",
    density: Annotated[
        bool, typer.Option("--density/--no-density", help="The density of all eigenvalues, and the counts of signs.")
    ] = True,
    layers: Annotated[bool, typer.Option("--layers/--no-layers", help="The curvature of each layer by itself.")] = True,
    runs_folder: options.RunsFolder = None,
    language: options.Language = None,
    quiet: options.Quiet = False,
) -> None:
    """Run a training script unmodified, and say what lies under its loss where it ended.

    Saddle or minimum, with the proof; how steep, layer by layer; which learning rate it bears; and the course of all that over the
    run. Measured on copies when the script has ended. Its output and results are as without unstuck.
    Exit code: the script's own; 2 for misuse.
    """
    from unstuck.cli._cure import seconds

    command = command_line(script or [], module, name="curvature")
    limit = seconds(budget)
    options.check_targets(json_file, html_file)
    folder = new_folder(runs_folder, module or (script or ["run"])[0], quiet=quiet)
    wanted = {"seconds": limit, "full": True, "density": density, "layers": layers}
    code = watch(command, folder, {"budget": 0.02, "probe_budget": 0.0, "curvature": wanted}, quiet=quiet)
    report_curvature(*judge(folder, code, {}), json_file, html_file, quiet=quiet)
    end_like(code)


@app.command(context_settings=_PASSED_ON, cls=ScriptCommand, epilog=epilog("batch"))
def batch(
    script: options.Script = None,
    module: options.Module = None,
    json_file: options.MeasuredJson = None,
    html_file: options.HtmlFile = None,
    budget: options.MeasuringTime = "30s",
    prove: Annotated[
        bool,
        typer.Option("--prove", help="Train with the recommended size and as it is, with the same seeds, and compare."),
    ] = False,
    seeds: Annotated[int, typer.Option(metavar="N", min=2, help="Pairs of fresh seeds that --prove runs.")] = 3,
    runs_folder: options.RunsFolder = None,
    language: options.Language = None,
    quiet: options.Quiet = False,
) -> None:
    """Run a training script unmodified, and say which batch size would get it where it got in the least time.

    By the noise of its gradient along the run, and the time and memory of an update by batch size on this machine; with the learning
    rate that goes with it. Measured on copies when the script has ended. Its output and results are as without unstuck.
    Exit code: the script's own; 2 for misuse.
    """
    from unstuck.cli import _batch
    from unstuck.cli._cure import seconds

    command = command_line(script or [], module, name="batch")
    if prove:
        _batch.refuse_module(module)
    limit = seconds(budget)
    options.check_targets(json_file, html_file)
    folder = new_folder(runs_folder, module or (script or ["run"])[0], quiet=quiet)
    code = watch(command, folder, {"budget": 0.05, "probe_budget": 0.0, "batch": {"seconds": limit}}, quiet=quiet)
    record = judge(folder, code, {})[1]
    if prove and code == 0:
        record = _batch.proved(record, script or [], folder, seeds=seeds, quiet=quiet)
    _batch.report(record, json_file, html_file, quiet=quiet)
    end_like(code)


@app.command(context_settings=_PASSED_ON, cls=ScriptCommand, epilog=epilog("search"))
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
    from unstuck.cli._child import command_line
    from unstuck.search.searching import Plan
    from unstuck.trials.connection import cores

    command_line(script or [], None, name="search")
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


@app.command(epilog=epilog("diagnose"))
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


@app.command(epilog=epilog("runs"))
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
        typer.echo(f"no runs in {folder}")
        return
    console = Console()
    with shown_on(console.options):
        console.print(table(found))


@app.command(epilog=epilog("view"))
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


@app.command(epilog=epilog("explain"))
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


@app.command(epilog=epilog("schema"))
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

    options.check_one_of(name, options.SCHEMAS, "the schema")
    typer.echo(files("unstuck.report").joinpath("assets", f"{name}.schema.json").read_text("utf-8").rstrip("\n"))


@app.command(epilog=epilog("rules"))
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
        say(problem)
