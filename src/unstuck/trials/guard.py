"""Ends what a process has started when that process is gone, in whatever way: `python guard.py FOLDER`.

A process that is killed by SIGKILL can't end its children, and those that lead sessions of their own live on. A guard is a small
process beside it that reads a pipe. The pipe ends when the process does; then the guard ends what it was told to watch, and removes
the process's folder. It is no child of whom it watches over, so who ends all children of that doesn't end the guard.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path


class Guard:
    """Watches over this process.

    Args:
        folder: Removed when this process is gone.
    """

    def __init__(self, folder: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, bufsize=0,
        )  # fmt: skip
        assert process.stdin is not None
        self._pipe = process.stdin
        process.wait()  # the one that goes on is its child

    def watch(self, leader: int) -> None:
        """Takes a process that leads a session in its care, with all of that session."""
        self._tell(f"+{leader}\n")

    def release(self, leader: int) -> None:
        """One that has ended by itself: its number may soon be another's."""
        self._tell(f"-{leader}\n")

    def close(self) -> None:
        """Ends what is still watched, and removes the folder, soon."""
        self._pipe.close()

    def _tell(self, line: str) -> None:
        self._pipe.write(line.encode())


def _stay(folder: str) -> None:
    """What the guard does."""
    if os.fork():
        os._exit(0)
    end(_left(sys.stdin.buffer))
    for pause in (0.0, 0.2, 1.0):  # who has just been started shows its variables a little later
        time.sleep(pause)
        end(_begun_for(folder))
        shutil.rmtree(folder, ignore_errors=True)


def _left(lines: Iterable[bytes]) -> set[int]:
    """Who is still watched when the lines end."""
    watched: set[int] = set()
    for line in lines:
        leader = int(line[1:])
        watched.add(leader) if line[:1] == b"+" else watched.discard(leader)
    return watched


def _begun_for(folder: str) -> set[int]:
    """Groups of processes whose variables name the folder: who was killed may not have come to tell of the last one."""
    found: set[int] = set()
    processes = Path("/proc").iterdir() if Path("/proc").is_dir() else ()
    for process in [p for p in processes if p.name.isdigit()]:
        with contextlib.suppress(OSError):  # another's, or one that has just ended
            if os.fsencode(folder) in (process / "environ").read_bytes():
                found.add(os.getpgid(int(process.name)))
    return found - {os.getpgrp()}


def end(leaders: Iterable[int]) -> None:
    """Ends the sessions' processes."""
    for leader in leaders:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    _stay(sys.argv[1])
