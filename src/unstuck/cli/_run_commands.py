"""The commands that run a script once: what each takes, and in which order it does what.

`run` starts the script as Python itself would (`python SCRIPT ARGS`, or `-m MODULE`), with the watcher waiting in the child for
torch to be imported, and judges the record when the child has ended, in whatever way. It reads, judges and prints only after
the child has been started, so that the script starts at once. Hence the imports inside of functions.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unstuck.cli import _options as options
from unstuck.cli._app import PASSED_ON, app
from unstuck.cli._child import command_line, end_like, watch
from unstuck.cli._command import Command
from unstuck.cli._records import judge, new_folder, report, report_curvature


@app.command(context_settings=PASSED_ON, cls=Command)
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


@app.command(context_settings=PASSED_ON, cls=Command)
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
    surface: Annotated[
        bool,
        typer.Option("--surface/--no-surface", help="The loss in a plane around the end, for a picture on the page."),
    ] = True,
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
    wanted = {"seconds": limit, "full": True, "density": density, "layers": layers, "surface": surface}
    code = watch(command, folder, {"budget": 0.02, "probe_budget": 0.0, "curvature": wanted}, quiet=quiet)
    report_curvature(*judge(folder, code, {}), json_file, html_file, quiet=quiet)
    end_like(code)


@app.command(context_settings=PASSED_ON, cls=Command)
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
    verdict, record = judge(folder, code, {})
    record = _batch.with_reason(record, verdict, module or (script or ["run"])[0])
    if prove and code == 0:
        record = _batch.proved(record, script or [], folder, seeds=seeds, quiet=quiet)
    _batch.report(record, json_file, html_file, quiet=quiet)
    end_like(code)
