"""Records on disk: writing one from inside a training, reading one in whatever state it is, and the folder of runs.

A run has a folder with one SQLite file in it, `record.sqlite`, or several `record-….sqlite` where several processes trained.
`Writer` fills one; `read` reads it at any time, while it grows or after a kill. See `_store_file` for what is in it. Reading takes
no lock and writes nothing, so that it works from another machine too, over a shared folder.

Who watches a run asks `summary` now and then: it reads a few pages of the record, whatever its length, and says how far the run
is, whether it still goes on, and when it was last heard of. `course` gives a few series, thinned, without the rest of the record.

Importing this is cheap: numpy is loaded with the first record that is written or read.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstuck._language import say
from unstuck._store_file import facts, note, reason, status
from unstuck._store_image import log_of
from unstuck.errors import RecordError

if TYPE_CHECKING:
    from unstuck._store_writer import Writer
    from unstuck.evidence import Record, Series

__all__ = ["RunSummary", "Writer", "annotate", "course", "list_runs", "new_run", "progress", "read", "summary"]


def __getattr__(name: str) -> Any:
    if name != "Writer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unstuck._store_writer import Writer

    return Writer


def read(path: str | Path) -> Record:
    """The record in a file or run folder, also while it is being written, after a kill, or damaged.

    Args:
        path: The record's file, or the folder of a run. Of several records in a folder it is the one with most steps.

    Returns:
        Everything that was flushed and can be read. `meta["status"]` is `killed` where the process is gone without having
        finished; `meta["damaged"]` counts pieces that are lost, and is missing when there are none.

    Raises:
        RecordError: There is no record, it is not one, it can't be read, or it was written by a newer version.
    """
    from unstuck._store_reader import read_file

    try:
        return read_file(_find(Path(path)))
    except RecordError:
        raise
    except OSError as error:
        raise RecordError(
            say("can't read the record {path!r}: {reason}", path=str(path), reason=reason(error))
        ) from error


def progress(path: str | Path) -> dict[str, Any] | None:
    """How far a run has come: what its writer noted last as `progress`.

    Args:
        path: The record's file, or the folder of a run.

    Returns:
        The numbers, such as `step` and `loss`; None while there are none.
    """
    try:
        told = facts(_find(Path(path))).get("progress")
    except (RecordError, OSError):
        return None
    return told if isinstance(told, dict) else None


def course(path: str | Path, signals: Sequence[str] = ("loss", "score"), *, points: int = 100) -> dict[str, Series]:
    """How some numbers of the whole program went, thinned, without reading the rest of the record.

    Args:
        path: The record's file, or the folder of a run.
        signals: Names of series of the whole program.
        points: See `Series.thinned`.

    Returns:
        Series by signal; those that were measured.

    Raises:
        RecordError: There is no record, it is not one, it can't be read, or it was written by a newer version.
    """
    from unstuck._store_reader import read_signals

    try:
        found = read_signals(_find(Path(path)), signals)
    except OSError as error:
        raise RecordError(
            say("can't read the record {path!r}: {reason}", path=str(path), reason=reason(error))
        ) from error
    return {name: series.thinned(points) for name, series in found.items() if len(series)}


def annotate(path: str | Path, **meta: Any) -> None:
    """Adds facts to a record, also while another process writes it; does nothing when it can't be written.

    Args:
        path: The record's file, or the folder of a run.
        **meta: The facts.
    """
    try:
        note(_find(Path(path)), meta)
    except OSError:
        return


# ---------------------------------------------------------------------- the folder of runs


@dataclass(frozen=True)
class RunSummary:
    """One run in a folder of runs.

    Attributes:
        name: Name of its folder.
        path: Its folder.
        script: The script, "" when unknown.
        started: When it started, ISO time, "" when unknown.
        status: `running`, `finished`, `failed`, `interrupted`, `killed`; `empty` when nothing was recorded, `unreadable` when
            what was recorded can't be read.
        steps: Updates made.
        seconds: How long it took, NaN when unknown.
        verdict: `healthy`, `sick`, `unknown`, or "" when it was not judged.
        size_bytes: Size of all its files.
        progress: What its writer noted last: `step`, `loss`, `score`, `score_name`, `overhead`, `seconds`; empty when nothing.
        changed: When something was last written, Unix time by the clock of the folder's machine; NaN when unknown. A process on
            another machine can't be asked whether it lives: a run of its that is `running` and was not heard of for minutes may
            have been killed.
        host: Machine it runs on, "" when unknown.
    """

    name: str
    path: Path
    script: str = ""
    started: str = ""
    status: str = "unreadable"
    steps: int = 0
    seconds: float = math.nan
    verdict: str = ""
    size_bytes: int = 0
    progress: Mapping[str, Any] = field(default_factory=dict)
    changed: float = math.nan
    host: str = ""


def list_runs(folder: str | Path) -> list[RunSummary]:
    """The runs in a folder, the newest first.

    Args:
        folder: The folder of runs.

    Returns:
        One entry for each run folder in it; none when there is no such folder.

    Raises:
        RecordError: The folder can't be read.
    """
    try:
        inside = list(Path(folder).iterdir()) if Path(folder).is_dir() else []
        runs = [path for path in inside if path.is_dir() and (_RUN.match(path.name) or _files(path))]
        return sorted(map(summary, runs), key=_when, reverse=True)
    except OSError as error:
        raise RecordError(
            say("can't read the runs in {folder!r}: {reason}", folder=str(folder), reason=reason(error))
        ) from error


def summary(path: str | Path) -> RunSummary:
    """One run, as `list_runs` gives it: cheap enough to be asked every second, however long the run is.

    Args:
        path: Its folder, or the file of a record that lies elsewhere.

    Returns:
        How it stands now. Of a run that goes on, `steps` and `progress` are those of the last second or so.
    """
    path = Path(path)
    files = [path] if path.is_file() else _files(path)
    size = sum(map(_size, files if path.is_file() else path.rglob("*")))
    changed = max((_changed(file) for file in files), default=math.nan)
    if not files:
        return RunSummary(path.name, path, started=_named_time(path.name), status="empty", size_bytes=size)
    try:
        meta = _facts(_find(path))
    except (RecordError, OSError):
        return RunSummary(path.name, path, started=_named_time(path.name), size_bytes=size, changed=changed)
    steps, seconds, told = meta.get("steps"), meta.get("seconds"), meta.get("progress")
    return RunSummary(
        path.name,
        path,
        script=str(meta.get("script") or ""),
        started=str(meta.get("started") or _named_time(path.name)),
        status=status(meta),
        steps=steps if isinstance(steps, int) else 0,
        seconds=float(seconds) if isinstance(seconds, (int, float)) else math.nan,
        verdict=str(meta.get("verdict") or ""),
        size_bytes=size,
        progress=told if isinstance(told, dict) else {},
        changed=changed,
        host=str(meta.get("host") or ""),
    )


def new_run(folder: str | Path, script: str) -> Path:
    """Makes a folder for a new run.

    Args:
        folder: The folder of runs; made when there is none, with a `.gitignore` that keeps its content out of git.
        script: File or module to be run.

    Returns:
        The new folder, `<folder>/<yyyymmdd-hhmmss>-<script>`, with `-2`, `-3`, ... behind it when there is one already.

    Raises:
        RecordError: It can't be made.
    """
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{_short(script)}"
    try:
        if not Path(folder).exists():
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / ".gitignore").write_text("*\n")
        for number in range(1, 10_000):
            path = Path(folder) / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
    except OSError as error:
        what = say("it is a file") if Path(folder).is_file() else reason(error)
        raise RecordError(
            say("can't make a run in the folder {folder!r}: {what}", folder=str(folder), what=what)
        ) from error
    raise RecordError(
        say(
            "can't make a run in the folder {folder!r}: there are too many named {name!r}",
            folder=str(folder),
            name=name,
        )
    )


_RUN = re.compile(r"\d{8}-\d{6}-")


def _short(script: str) -> str:
    """A script's name as part of a file name: "train" for "./models/train.py", "models.train" for the module."""
    path = Path(script)
    name = path.stem if path.suffix in (".py", ".pyw", ".pyc") else path.name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "run"


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:  # a log that was just folded into its record
        return 0


def _changed(file: Path) -> float:
    """When a record or its log was last written."""
    times = []
    for part in (file, log_of(file)):
        try:
            times.append(part.stat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times, default=math.nan)


def _facts(file: Path) -> Mapping[str, Any]:
    """Facts of a run, the quick way or, where the file is damaged, the thorough one."""
    try:
        return facts(file)
    except RecordError:
        return read(file).meta


def _when(run: RunSummary) -> tuple[float, str]:
    try:
        return datetime.fromisoformat(run.started).timestamp(), run.name
    except ValueError:
        return run.path.stat().st_mtime, run.name


def _named_time(name: str) -> str:
    """The time that a run folder's name begins with, ISO; "" when it doesn't."""
    try:
        return datetime.strptime(name[:15], "%Y%m%d-%H%M%S").astimezone().isoformat()
    except ValueError:
        return ""


# ---------------------------------------------------------------------- files


def _find(path: Path) -> Path:
    """The file of a record: the path itself, or the record with most steps in the folder.

    Raises:
        RecordError: There is none.
    """
    if path.is_dir():
        files = _files(path)
        if not files:
            raise RecordError(
                say("there is no record in the folder {path!r}: nothing was recorded there", path=str(path))
            )
        return files[0] if len(files) == 1 else max(files, key=_steps)
    if not path.is_file():
        raise RecordError(say("there is no record {path!r}", path=str(path)))
    return path


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("record*.sqlite"))


def _steps(file: Path) -> int:
    """Steps in a record; fewer than none when it can't be read."""
    try:
        told = facts(file).get("steps")
        return told if isinstance(told, int) else read(file).steps
    except (RecordError, OSError):
        return -1
