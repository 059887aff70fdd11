"""How a child is told to watch: its command line and its environment. Never imports torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

INJECT = Path(__file__).parent / "inject"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def told(command: Sequence[str], folder: Path, **settings: Any) -> dict[str, Any]:
    """The watcher's settings.

    Args:
        command: The script and its arguments, or "-m", a module and its arguments.
        folder: Of the record.
        **settings: Budgets, a seed, a file of edits, ...: see `watcher.bootstrap` and `watcher.treated`.
    """
    script = " ".join(command[: 1 + (command[0] == "-m")])
    meta = {"script": script, "argv": list(command), "cwd": str(Path.cwd())}
    return {"folder": str(folder.absolute()), "parent": os.getpid(), "meta": meta, **settings}


def command_line(command: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """What Python is called with: the script, through `treated` where it is changed."""
    through = [str(INJECT.parent / "treated.py")] if "edits" in settings else []
    return [sys.executable, *through, *command]


def environment(settings: Mapping[str, Any], *, threads: int = 0, **more: str) -> dict[str, str]:
    """The environment of a child that is watched.

    Args:
        settings: The watcher's, see `told`.
        threads: Of the processor that it may use; 0 for as many as it likes.
        **more: Variables.
    """
    path = os.pathsep.join([str(INJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    pinned = dict.fromkeys(THREADS, str(threads)) if threads else {}
    return {**os.environ, **pinned, "PYTHONPATH": path, "UNSTUCK_RUN": json.dumps(settings), **more}
