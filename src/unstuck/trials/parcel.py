"""The files of a script on a machine that doesn't have them: put into a parcel, unpacked elsewhere, and paths made to fit.

A parcel holds one folder: the working folder where the script lies in it, else the script's own. There the script runs in the copy, with
the same paths relative to it, and absolute paths that lead into the folder lead into the copy. In what comes back they are as they were.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from unstuck._language import say
from unstuck._store_file import encode
from unstuck.errors import MisuseError
from unstuck.source import Edit
from unstuck.trials.job import Job

MOST = 256 * 2**20  # bytes
_NOT_TAKEN = frozenset(
    {".git", ".hg", ".unstuck", "__pycache__", ".venv", "node_modules", ".mypy_cache", ".ruff_cache"}
)
_COLUMNS = (("meta", "value"), ("program", "document"), ("layouts", "columns"), ("events", "data"))


@dataclass(frozen=True)
class Place:
    """Where a script lies, on the machine where it was given.

    Attributes:
        cwd: The working folder.
        root: The folder that goes into a parcel.
        real: Its path without links.
        script: The script's file, "" where it is a module that lies elsewhere.
        digest: Of the script's text.
    """

    cwd: str
    root: str
    real: str
    script: str
    digest: str

    @classmethod
    def of(cls, job: Job) -> Place:
        """The place of a job of this process."""
        cwd = Path.cwd()
        script = _script((job.file,) if job.file else job.command, cwd)
        if script is None:
            return cls(str(cwd), str(cwd), os.path.realpath(cwd), "", "")
        root = cwd if script.is_relative_to(cwd) else script.parent
        return cls(str(cwd), str(root), os.path.realpath(root), str(script), digest(script))

    def here(self) -> bool:
        """Whether this machine has it."""
        return os.path.isdir(self.cwd) and (not self.script or digest(Path(self.script)) == self.digest)  # noqa: PTH112

    def moved(self, copy: Path) -> Place:
        """The same in a copy of its folder."""
        cwd = copy / Path(self.cwd).relative_to(self.root) if Path(self.cwd).is_relative_to(self.root) else copy
        script = str(copy / Path(self.script).relative_to(self.root)) if self.script else ""
        return Place(str(cwd), str(copy), str(copy), script, self.digest)


def digest(file: Path) -> str:
    """Tells texts apart; "" of a file that can't be read."""
    try:
        return hashlib.sha256((file / "__main__.py" if file.is_dir() else file).read_bytes()).hexdigest()
    except OSError:
        return ""


def _script(command: tuple[str, ...], cwd: Path) -> Path | None:
    if command[0] != "-m":
        return Path(os.path.normpath(cwd / command[0]))
    module = cwd.joinpath(*command[1].split("."))
    return next((p for p in (module.with_name(module.name + ".py"), module / "__main__.py") if p.exists()), None)


# ---------------------------------------------------------------------- the parcel


def pack(place: Place, *, without: Path) -> bytes:
    """The parcel of a place: all files of its folder but those of git, caches and installed packages; links to folders aren't followed.

    Args:
        place: The place.
        without: A folder that isn't taken: that of the runs.

    Raises:
        MisuseError: It is too large.
    """
    size, held = 0, io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as file:
        for path in _files(Path(place.root), without.absolute()):
            size += path.stat().st_size
            if size > MOST:
                raise MisuseError(
                    say(
                        "the folder {root!r} has more than {size} MiB, too much to be sent to a machine that doesn't "
                        "have it: put script and data where all machines find them by the same path, or start in a "
                        "smaller folder",
                        root=place.root,
                        size=MOST >> 20,
                    )
                )
            file.write(path, path.relative_to(place.root))
    return held.getvalue()


def _files(root: Path, without: Path) -> Iterator[Path]:
    for folder, inside, names in os.walk(root):
        here = Path(folder)
        inside[:] = sorted(
            n for n in inside if n not in _NOT_TAKEN and here / n != without and not _installed(here / n)
        )
        yield from (here / n for n in sorted(names) if (here / n).is_file())  # no sockets, no broken links


def _installed(folder: Path) -> bool:
    return (folder / "pyvenv.cfg").exists() or (folder / "conda-meta").is_dir()


def unpack(parcel: bytes, folder: Path) -> None:
    """Makes the copy."""
    with zipfile.ZipFile(io.BytesIO(parcel)) as file:
        file.extractall(folder)


# ---------------------------------------------------------------------- paths


def moved(job: Job, place: Place, copy: Path) -> Job:
    """The job in a copy of its folder."""
    roots = sorted({place.root, place.real}, key=len, reverse=True)

    def there(path: str) -> str:
        for root in roots:
            if path == root or path.startswith(root + os.sep):
                return str(copy) + path[len(root) :]
        return path

    def argument(text: str) -> str:
        name, equals, value = text.partition("=")
        return f"{name}={there(value)}" if equals and name.startswith("-") else there(text)

    first = job.command[0]
    if place.script and first != "-m" and not Path(place.script).is_relative_to(place.cwd):
        first = place.script  # by its whole path, as there is no other working folder
    edits = tuple(
        Edit(there(os.path.normpath(Path(place.cwd) / e.file)), e.start, e.end, e.text, e.rank) for e in job.edits
    )
    command = (there(first), *map(argument, job.command[1:]))
    return dataclasses.replace(job, command=command, edits=edits, file=there(job.file))


def moved_back(record: Path, place: Place, copy: Path) -> None:
    """Makes a record name the files of the place, not those of the copy."""
    before, after = (encode(str(path))[1:-1] for path in (copy, place.root))
    with closing(sqlite3.connect(record)) as connection, connection:
        for table, column in _COLUMNS:
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (before, after))
