"""Which runs there are, and what state each is in.

Names are looked up in the list of what lies in the folder, and only here: nothing of an address ever becomes a path. What leads out of
the folder by a link is not in the list. Whether a run has changed is told by the sizes and times of its files, so that one that stands
still costs a look into its folder and no more; one that is under way is asked again whether its process still lives.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from unstuck._language import say
from unstuck.errors import RecordError
from unstuck.store import RunSummary, summary

_RECORD = re.compile(r"record.*\.sqlite(-wal)?\Z")
_RUN = re.compile(r"\d{8}-\d{6}-")  # a run that has recorded nothing yet is told by its name
Files = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Run:
    """One run that is served.

    Attributes:
        name: What it is called in addresses.
        path: Its folder, or the file of its record.
        facts: What the list shows of it.
        state: Differs whenever there is something new to be shown of it.
    """

    name: str
    path: Path
    facts: RunSummary
    state: str

    @property
    def is_running(self) -> bool:
        """Whether more may come."""
        return self.facts.status in ("running", "empty")


class Runs:
    """The runs of a folder, or a single one.

    Args:
        folder: The folder of runs; it may come into being later.
        only: Serve this run alone: its folder or its record's file.
    """

    def __init__(self, folder: Path, only: Path | None = None) -> None:
        self.folder, self.only = folder, only
        self._known: dict[str, tuple[Files, Run]] = {}
        self._lock = threading.Lock()

    @property
    def place(self) -> str:
        """What is served, as its owner would name it."""
        return str(self.only or self.folder)

    def look(self, names: Collection[str] = ()) -> dict[str, Run]:
        """The runs as they are now, by name, the newest first.

        Args:
            names: Look at these alone; none for all.

        Returns:
            Those there are.

        Raises:
            RecordError: The folder can't be read.
        """
        with self._lock:
            try:
                found = {name: self._seen(name, path) for name, path in self._paths(names)}
            except OSError as error:
                raise RecordError(
                    say(
                        "can't read the runs in {place!r}: {reason}",
                        place=self.place,
                        reason=error.strerror or str(error),
                    )
                ) from error
            self._known = self._known | found if names else found
        return {run.name: run for _, run in sorted(found.values(), key=lambda seen: _when(seen[1]), reverse=True)}

    def _paths(self, names: Collection[str]) -> Iterator[tuple[str, Path]]:
        if self.only is not None:
            yield name_of(self.only), self.only
            return
        if not self.folder.is_dir():
            return
        inside = self.folder.resolve()
        for entry in os.scandir(self.folder):
            if names and entry.name not in names:
                continue
            path = Path(entry.path)
            if path.is_dir() and _stays(path, inside) and (_RUN.match(entry.name) or _files(path)):
                yield entry.name, path

    def _seen(self, name: str, path: Path) -> tuple[Files, Run]:
        files = _files(path)
        known = self._known.get(name)
        if known is not None and known[0] == files and not known[1].is_running:
            return known
        try:
            facts = summary(path)
        except OSError:  # no permission: listed as unreadable
            facts = RunSummary(name, path)
        return files, Run(name, path, facts, _state(name, files, facts.status))


def name_of(path: Path) -> str:
    """What a run is called: the name of its folder; of a record's file that lies elsewhere, its own."""
    if path.is_dir() or not _RECORD.match(path.name):
        return path.absolute().name if path.is_dir() else path.stem
    return path.absolute().parent.name


def _stays(path: Path, inside: Path) -> bool:
    """Whether a run's folder, and every file of its record, lies in a folder (without links in its path), or a link leads out."""
    links = [path / name for name, _, _ in _files(path) if (path / name).is_symlink()]
    return all(one.resolve().is_relative_to(inside) for one in (path, *links))


def _files(path: Path) -> Files:
    """The files of a record with their sizes and times, as far as they are there."""
    if path.is_file():
        beside = [path, path.with_name(f"{path.name}-wal")]
    else:
        try:
            beside = [Path(entry.path) for entry in os.scandir(path) if _RECORD.match(entry.name)]
        except OSError:  # no permission, or just removed
            return ()
    found = []
    for file in beside:
        try:
            told = file.stat()
        except OSError:  # a log that was just folded into its record, or a link to nothing
            continue
        found.append((file.name, told.st_size, told.st_mtime_ns))
    return tuple(sorted(found))


def _state(name: str, files: Files, status: str) -> str:
    return hashlib.sha256(repr((name, files, status)).encode("utf-8", "replace")).hexdigest()[:16]


def _when(run: Run) -> tuple[float, str]:
    try:
        return datetime.fromisoformat(run.facts.started).timestamp(), run.name
    except ValueError:
        return (0.0 if math.isnan(run.facts.changed) else run.facts.changed), run.name
