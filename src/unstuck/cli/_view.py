"""`unstuck view`: which runs are meant, and the server that shows them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import typer

from unstuck._language import joined, say, translated
from unstuck.errors import MissingError, MisuseError

_NEEDED = ("starlette", "uvicorn")


def view(run: Path | None, folder: Path, *, host: str, port: int, token: bool, opens: bool | None) -> None:
    """Serves a folder of runs, or one run that lies elsewhere, until Ctrl-C.

    Args:
        run: The run to open with: its folder, its name in the folder of runs, or its record's file.
        folder: The folder of runs.
        host: What to bind to.
        port: The port to begin with.
        token: Ask for a token though it is bound to this machine alone.
        opens: Open a browser; None for: where there is a screen.

    Raises:
        MissingError: Packages are missing.
        MisuseError: There is no such run, or the server can't be bound to that.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingError(
            say("the live view needs {packages}: pip install 'unstuck[view]'", packages=joined(missing, say(" and ")))
        )
    from unstuck.view.runs import Runs, name_of
    from unstuck.view.server import serve

    path = None if run is None else _meant(run, folder)
    inside = path is None or (path.is_dir() and path.resolve().parent == folder.resolve())
    if folder.exists() and not folder.is_dir():
        raise MisuseError(
            say(
                "{folder!r} is a file, not a folder of runs; to see one record: unstuck view {folder}",
                folder=str(folder),
            )
        )
    runs = Runs(folder) if inside else Runs(folder, only=path)
    serve(runs, first="" if path is None else name_of(path), host=host, port=port, token=token, opens=opens, tell=_told)


def _told(line: str) -> None:
    typer.echo(f"unstuck: {translated(line)}")


def _meant(run: Path, folder: Path) -> Path:
    """A run's folder or its record's file.

    Raises:
        MisuseError: There is no such run.
        RecordError: The file is no record.
    """  # noqa: DOC502
    if not run.exists() and (folder / run).is_dir():
        return folder / run
    if not run.exists():
        raise MisuseError(
            say(
                "there is no run {run!r}; `unstuck runs --runs {folder}` lists those there are",
                run=str(run),
                folder=str(folder),
            )
        )
    if run.is_dir() and not any(run.glob("record*.sqlite")):
        from unstuck.store import list_runs

        if list_runs(run):
            raise MisuseError(say("{run!r} is a folder of runs: unstuck view --runs {run}", run=str(run)))
    if run.is_file():
        from unstuck.store import read

        read(run)
    return run.parent if run.is_file() and run.name.startswith("record") else run
