"""The child: a script run as Python would run it, with the watcher in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from unstuck._language import say, speaking, spoken, translated
from unstuck.errors import MisuseError, ScriptError
from unstuck.watcher.launch import command_line as child_of
from unstuck.watcher.launch import environment as environment_of
from unstuck.watcher.launch import told


def command_line(script: list[str], module: str | None, *, name: str = "run", takes_module: bool = True) -> list[str]:
    """The child's command line.

    Args:
        script: The script and its arguments, or a module's arguments.
        module: Its name.
        name: Of the command, for the error.
        takes_module: Whether the command has `-m`, for the error.

    Raises:
        MisuseError: No script is named.
        ScriptError: There is nothing that Python could run.
    """
    if module is not None:
        return [sys.executable, "-m", module, *script]
    if not script:
        usage = (
            say(
                "which script? usage: unstuck {name} [OPTIONS] SCRIPT [ARGS...], or unstuck {name} -m MODULE [ARGS...]",
                name=name,
            )
            if takes_module
            else say("which script? usage: unstuck {name} [OPTIONS] SCRIPT [ARGS...]", name=name)
        )
        raise MisuseError(usage)
    path = Path(script[0])
    if not path.exists():
        raise ScriptError(say("there is no file {script!r}", script=script[0]))
    if path.is_dir() and not (path / "__main__.py").exists():
        raise ScriptError(say("{script!r} is a folder without a __main__.py: name the script to run", script=script[0]))
    if path.is_file() and not os.access(path, os.R_OK):
        raise ScriptError(say("{script!r} can't be read: check its permissions", script=script[0]))
    return [sys.executable, *script]


def watch(command: list[str], folder: Path, given: dict[str, Any], *, quiet: bool) -> int:
    """Runs the command with the watcher in it; returns its exit code, negative for a signal.

    Args:
        command: Python and its arguments.
        folder: Of the record.
        given: The watcher's settings: budgets, and maybe a file of edits to the script.
        quiet: Show nothing meanwhile.
    """
    settings = told(command[1:], folder, **given)
    command, environment = child_of(command[1:], settings), environment_of(settings)
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


def end_like(code: int) -> None:
    """Ends as the child ended: by its exit code, or by the signal that ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if code >= 0:
        sys.exit(code)
    signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -code)
    time.sleep(1)
    sys.exit(128 - code)


def announce(words: str) -> None:
    """Says a line of ours on stderr, in the language that is spoken; in English where that has no other letters, as reports do."""
    wide = (sys.stderr.encoding or "utf-8").lower().startswith("utf")
    with speaking(spoken() if wide else "en"):
        sys.stderr.write(f"unstuck: {translated(words)}\n")
