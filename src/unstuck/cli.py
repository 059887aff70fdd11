"""The command line: `unstuck run`, `unstuck runs`.

`run` starts the script as Python itself would (`python SCRIPT ARGS`, or `-m MODULE`), with the watcher waiting in the child for
torch to be imported, and judges the record when the child has ended, in whatever way. This process never imports torch, and
reads, judges and prints only after the child has been started, so that the script starts at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Optional, TextIO

import typer

from unstuck.errors import MisuseError, ScriptError, UnstuckError

FOLDER = Path(".unstuck")
app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
_PASSED_ON = {"allow_interspersed_args": False, "ignore_unknown_options": False}


def main(argv: list[str] | None = None) -> None:
    """Runs the command line; misuse is one line on stderr and exit code 2."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        app(_bounded(given), standalone_mode=True)
    except UnstuckError as error:
        _say(str(error))
        sys.exit(2)


def _bounded(argv: list[str]) -> list[str]:
    """Puts a `--` behind `-m MODULE`, so that what follows is the module's, as with Python itself."""
    if argv[:1] == ["run"] and "-m" in argv:
        at = argv.index("-m")
        if not _has_script(argv[1:at]) and at + 1 < len(argv):
            return [*argv[: at + 2], "--", *argv[at + 2 :]]
    return argv


def _has_script(before: list[str]) -> bool:
    """Whether a positional argument stands among these options, so that a later `-m` is the script's own."""
    skip = False
    for word in before:
        if skip:
            skip = False
        elif word in _WITH_VALUE:
            skip = True
        elif not word.startswith("-"):
            return True
    return False


_WITH_VALUE = ("--json", "--html", "--budget", "--probe-budget", "--fail-on", "--runs", "--set")


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


@app.command(context_settings=_PASSED_ON)
def run(
    script: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads it
        typer.Argument(
            metavar="SCRIPT [ARGS]...", help="The script and its arguments, as after `python`.", show_default=False
        ),
    ] = None,
    module: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("-m", metavar="MODULE", help="Run a module instead of a script; what follows are its arguments."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the verdict as JSON.")] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one offline page.")
    ] = None,
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
    fail_on: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--fail-on", metavar="SEVERITY", help="Exit with code 3 on a finding this severe: note, warning or error."
        ),
    ] = None,
    runs_folder: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--runs", metavar="DIR", help="Folder for the records of runs.  [default: .unstuck]", show_default=False
        ),
    ] = None,
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="RULE.NAME=VALUE", help="Set a rule's threshold: dead-units.fraction=0.8."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing of ours.")] = False,
) -> None:
    """Run a training script unmodified, watch it, and say what is wrong with the training.

    The script's output, results and exit code are as without unstuck; the verdict goes to stderr when it has ended.
    Exit code: the script's own; 3 with --fail-on; 2 for misuse.
    """
    command = _command(script or [], module)
    share, limit = _share(budget), _severity(fail_on)
    probing = _share(probe_budget, option="--probe-budget")
    for target in (json_file, html_file):
        _check_target(target)
    rules = _rule_settings(settings or [])
    folder = _folder(runs_folder, module or (script or ["run"])[0], quiet=quiet)
    code = _watch(command, folder, {"budget": share, "probe_budget": probing}, quiet=quiet)
    verdict, record = _judge(folder, code, rules)
    _report(verdict, record, json_file, html_file, quiet=quiet)
    if limit is not None and verdict.reaches(limit):
        sys.exit(3)
    _end_like(code)


@app.command()
def runs(
    folder: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the records.")] = FOLDER,
) -> None:
    """List the runs in a folder, the newest first."""
    from rich.console import Console

    from unstuck.report.runs import table
    from unstuck.store import list_runs

    found = list_runs(folder)
    if not found:
        typer.echo(f"no runs in {folder}")
        return
    Console().print(table(found))


# ---------------------------------------------------------------------- what was asked for


def _command(script: list[str], module: str | None) -> list[str]:
    """The child's command line.

    Raises:
        MisuseError: No script is named.
        ScriptError: There is nothing that Python could run.
    """
    if module is not None:
        return [sys.executable, "-m", module, *script]
    if not script:
        raise MisuseError(
            "which script? usage: unstuck run [OPTIONS] SCRIPT [ARGS...], or unstuck run -m MODULE [ARGS...]"
        )
    path = Path(script[0])
    if not path.exists():
        raise ScriptError(f"there is no file {script[0]!r}")
    if path.is_dir() and not (path / "__main__.py").exists():
        raise ScriptError(f"{script[0]!r} is a folder without a __main__.py: name the script to run")
    if path.is_file() and not os.access(path, os.R_OK):
        raise ScriptError(f"{script[0]!r} can't be read: check its permissions")
    return [sys.executable, *script]


def _share(budget: str, *, option: str = "--budget") -> float:
    """A budget as a number from 0 to 1: "2%" and "0.02" are the same.

    Raises:
        MisuseError: It is neither.
    """
    try:
        value = float(budget.removesuffix("%")) / (100 if budget.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise MisuseError(f"{option} is {budget!r}, but must be a share of the training's time, such as 2% or 0.02")
    return value


def _severity(name: str | None) -> Any:
    from unstuck.verdict import SEVERITIES

    if name is not None and name not in SEVERITIES:
        raise MisuseError(f"--fail-on is {name!r}, but must be one of {', '.join(SEVERITIES)}")
    return name


def _check_target(path: Path | None) -> None:
    """Finds out before the script has run that a report could not be written.

    Raises:
        MisuseError: It could not.
    """
    if path is None:
        return
    if path.is_dir():
        raise MisuseError(f"{str(path)!r} is a folder: name a file to write")
    if not path.absolute().parent.is_dir():
        raise MisuseError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to")


def _rule_settings(given: list[str]) -> Any:
    if not given:
        return {}
    from unstuck.doctor import parse_settings

    return parse_settings(given)


def _folder(runs_folder: Path | None, script: str, *, quiet: bool) -> Path:
    """The folder of this run; in the system's temporary folder when the default one can't be written."""
    from unstuck.store import new_run

    if runs_folder is not None:
        return new_run(runs_folder, script)
    try:
        return new_run(FOLDER, script)
    except UnstuckError:
        elsewhere = Path(tempfile.mkdtemp(prefix="unstuck-"))
        if not quiet:
            _say(f"this folder can't be written: the record goes to {elsewhere}")
        return new_run(elsewhere, script)


# ---------------------------------------------------------------------- the child


def _watch(command: list[str], folder: Path, budgets: dict[str, float], *, quiet: bool) -> int:
    """Runs the command with the watcher in it; returns its exit code, negative for a signal."""
    inject = Path(__file__).parent / "watcher" / "inject"
    settings = {
        "folder": str(folder.absolute()), "parent": os.getpid(), **budgets,
        "meta": {"script": command[1] if command[1] != "-m" else f"-m {command[2]}", "argv": command[1:], "cwd": str(Path.cwd())},
    }  # fmt: skip
    path = os.pathsep.join([str(inject), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "UNSTUCK_RUN": json.dumps(settings)}
    before = {
        s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGQUIT)
    }  # they are the child's to handle

    def as_before() -> None:
        for which, handler in before.items():
            signal.signal(which, signal.SIG_IGN if handler == signal.SIG_IGN else signal.SIG_DFL)

    try:
        child = subprocess.Popen(command, env=environment, preexec_fn=as_before)  # noqa: PLW1509 - no threads yet
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        return _wait(child, folder, sys.stderr, quiet=quiet)
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _wait(child: subprocess.Popen[bytes], folder: Path, stream: TextIO, *, quiet: bool) -> int:
    _load_judgement()
    if quiet or not stream.isatty():
        return child.wait()
    from unstuck.report.live import LiveLine
    from unstuck.store import progress

    with LiveLine(stream) as line:
        while True:
            try:
                return child.wait(timeout=0.25)
            except subprocess.TimeoutExpired:
                told = progress(folder / "record.sqlite")
                if told:
                    line.update(told)


def _load_judgement() -> None:
    """Imports what the verdict will need, while the script imports torch."""
    import unstuck.doctor  # noqa: F401
    import unstuck.evidence  # noqa: F401
    import unstuck.report.text  # noqa: F401


def _end_like(code: int) -> None:
    """Ends as the child ended: by its exit code, or by the signal that ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if code >= 0:
        sys.exit(code)
    signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -code)
    time.sleep(1)
    sys.exit(128 - code)


# ---------------------------------------------------------------------- the verdict


def _judge(folder: Path, code: int, settings: Any) -> tuple[Any, Any]:
    from unstuck.doctor import diagnose
    from unstuck.errors import RecordError
    from unstuck.evidence import Record
    from unstuck.store import annotate
    from unstuck.verdict import Verdict

    try:
        record = Record.read(folder)
    except RecordError as error:
        why = "the script never imported torch" if not any(folder.glob("record*")) else str(error)
        return Verdict(
            "unknown", why_unknown=f"nothing was recorded: {why}", run={"steps": 0, "record": str(folder)}
        ), Record()
    if record.path is not None:
        annotate(record.path, exit_code=code)
    try:
        verdict = diagnose(record, settings=settings)
    except Exception as error:  # noqa: BLE001 - the script has run: its exit code and its record must not be lost
        why = f"the record could not be judged: {error!r}"
        verdict = Verdict("unknown", why_unknown=why, run={"steps": record.steps, "record": str(record.path)})
    if record.path is not None:
        annotate(record.path, verdict=verdict.verdict)
    return verdict, record


def _report(verdict: Any, record: Any, json_file: Path | None, html_file: Path | None, *, quiet: bool) -> None:
    if json_file is not None:
        from unstuck.report.json import write

        write(verdict, json_file)
    if html_file is not None:
        from unstuck.report.html import write as write_page

        write_page(verdict, record, html_file)
    if not quiet:
        from rich.console import Console

        from unstuck.report.text import render

        console = Console(stderr=True, highlight=False, soft_wrap=False)
        console.print(render(verdict, record))


def _say(words: str) -> None:
    sys.stderr.write(f"unstuck: {words}\n")


if __name__ == "__main__":
    main()
