"""Records on the command line: where a run's is kept, which one is meant, and the verdict over one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from unstuck._language import say
from unstuck.cli._child import announce
from unstuck.errors import MisuseError, UnstuckError

FOLDER = Path(".unstuck")


def new_folder(runs_folder: Path | None, script: str, *, quiet: bool) -> Path:
    """The folder of a new run; in the system's temporary folder when the default one can't be written."""
    from unstuck.store import new_run

    if runs_folder is not None:
        return new_run(runs_folder, script)
    try:
        return new_run(FOLDER, script)
    except UnstuckError:
        elsewhere = Path(tempfile.mkdtemp(prefix="unstuck-"))
        if not quiet:
            announce(say("this folder can't be written: the record goes to {elsewhere}", elsewhere=str(elsewhere)))
        return new_run(elsewhere, script)


def visit_folder(runs_folder: Path | None, script: list[str]) -> Path:
    """The folder of a visit: the same for the same script, arguments and text of its files, so that one that was broken off goes on.

    Raises:
        MisuseError: It can't be made.
    """  # noqa: DOC502
    import hashlib

    from unstuck.source import own_files

    texts = [path.read_bytes() for path in own_files(script[0])] if script else []
    name = hashlib.sha256(b"\0".join([*(part.encode() for part in script), *texts])).hexdigest()[:8]
    stem = Path(script[0]).stem if script else "run"
    folder = (runs_folder or FOLDER) / f"cure-{stem}-{name}"
    return made_folder(folder, exist_ok=True)


def made_folder(folder: Path, *, exist_ok: bool = False) -> Path:
    """A folder for runs, made.

    Raises:
        MisuseError: It can't be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        raise MisuseError(
            say(
                "{folder!r} can't be written: {error}; name another folder by --runs",
                folder=str(folder),
                error=str(error),
            )
        ) from None
    return folder


def find_record(given: Path | None) -> Path:
    """The record that is meant: a file, the folder of a run, or the name of one in the default folder.

    Raises:
        MisuseError: None is named, or something that is none.
    """
    if given is None:
        raise MisuseError(say("which record? usage: unstuck diagnose [OPTIONS] RECORD; `unstuck runs` lists the runs"))
    if not given.exists() and (FOLDER / given).is_dir():
        return FOLDER / given
    if given.suffix == ".py":
        raise MisuseError(
            say("{given!r} is a script, not a record: `unstuck run {given}` runs and judges it", given=str(given))
        )
    if given.is_dir() and not any(given.glob("record*")):
        from unstuck.store import list_runs

        inside = list_runs(given)
        if inside:
            raise MisuseError(
                say(
                    "{given!r} is a folder of runs: name one of them, such as {run!r}",
                    given=str(given),
                    run=str(inside[0].path),
                )
            )
    return given


def judge(folder: Path, code: int, settings: Any) -> tuple[Any, Any]:
    """The verdict over a run that has just ended, and its record, in which exit code and verdict are noted."""
    from unstuck.doctor import diagnose
    from unstuck.errors import RecordError
    from unstuck.evidence import Record
    from unstuck.store import annotate
    from unstuck.verdict import Verdict

    try:
        record = Record.read(folder)
    except RecordError as error:
        why = error.says if any(folder.glob("record*")) else say("the script never imported torch")
        return Verdict(
            "unknown", why_unknown=say("nothing was recorded: {why}", why=why), run={"steps": 0, "record": str(folder)}
        ), Record()
    if record.path is not None:
        annotate(record.path, exit_code=code)
    try:
        verdict = diagnose(record, settings=settings)
    except Exception as error:  # noqa: BLE001 - the script has run: its exit code and its record must not be lost
        why = say("the record could not be judged: {error}", error=repr(error))
        verdict = Verdict("unknown", why_unknown=why, run={"steps": record.steps, "record": str(record.path)})
    if record.path is not None:
        annotate(record.path, verdict=verdict.verdict)
    return verdict, record


def report(
    verdict: Any,
    record: Any,
    json_file: Path | None,
    html_file: Path | None,
    *,
    form: str = "text",
    output: Path | None = None,
    quiet: bool,
    to_stderr: bool,
) -> None:
    """Writes the files that were asked for, and prints the verdict, or writes it to `output`."""
    from unstuck.cli._formats import put

    if json_file is not None:
        from unstuck.report.json import write

        write(verdict, json_file)
    if html_file is not None:
        from unstuck.report.html import write as write_page

        write_page(verdict, record, html_file)
    put(form, verdict, record, output, quiet=quiet, to_stderr=to_stderr)


def report_curvature(verdict: Any, record: Any, json_file: Path | None, html_file: Path | None, *, quiet: bool) -> None:
    """Writes the files that were asked for, and prints what was measured of curvature."""
    from unstuck.report import curvature

    if json_file is not None:
        curvature.write(record, json_file)
    if html_file is not None:
        from unstuck.report.html import write as write_page

        write_page(verdict, record, html_file)
    if not quiet:
        from unstuck.cli._formats import print_page

        print_page(curvature.render(record), to_stderr=True)
