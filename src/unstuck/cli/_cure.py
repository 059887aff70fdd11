"""`unstuck cure`: the visit as a command, and a prescription applied to a run."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unstuck._language import _, say
from unstuck.cli._child import announce
from unstuck.cli._teller import Teller
from unstuck.errors import MisuseError
from unstuck.source import digest_of

EXECUTORS = ("processes", "ray", "inline")


def seconds(text: str, *, option: str = "--budget") -> float:
    """A time in seconds: "90", "90s", "2m", "1h".

    Raises:
        MisuseError: It is none.
    """
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        value = float(number) * unit
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise MisuseError(
            say("{option} is {text!r}, but must be a time, such as 90s, 2m or 1h", option=option, text=text)
        )
    return value


def check_executor(name: str, address: str | None, workers: int | None) -> None:
    """Makes sure that there is such an executor, and that it takes what it is given.

    Raises:
        MisuseError: There is none, or it doesn't.
    """
    if name not in EXECUTORS:
        raise MisuseError(
            say("--executor is {name!r}, but must be one of {names}", name=name, names=", ".join(EXECUTORS))
        )
    if address is not None and name != "ray":
        raise MisuseError(say("--address is that of a Ray cluster: give --executor ray as well"))
    if workers not in (None, 1) and name == "inline":
        raise MisuseError(say("--workers is {workers}, but --executor inline makes one run at a time", workers=workers))


def executor(name: str, log: Any, *, address: str | None, workers: int | None) -> Any:
    """The executor of this name.

    Args:
        name: One of `EXECUTORS`.
        log: Keeps what has finished, and has the folder of the runs.
        address: Of a Ray cluster.
        workers: Runs at a time.
    """
    from unstuck.trials.executor import Processes

    if name != "ray":
        return Processes(log, workers=1 if name == "inline" else workers)
    from unstuck.trials.ray import Ray

    return Ray(log, address=address, workers=workers)


def visit(command: list[str], made_by: Any, *, seeds: int, budget: float, quiet: bool) -> Any:
    """Makes the visit by an executor, which is closed then, and tells on stderr what goes on; ends where it is broken off early."""
    from unstuck.patients import ScriptPatient
    from unstuck.treating import Doctor

    end_as_by_ctrl_c()
    try:
        with Teller(sys.stderr, quiet=quiet, limit=budget) as teller, contextlib.closing(made_by) as executor:
            return Doctor(ScriptPatient(command), executor, seeds=seeds, budget=budget, tell=teller.tell).visit()
    except KeyboardInterrupt:  # before there was anything to confirm
        announce(_("broken off; what had ended is kept: the same command goes on"))
        sys.exit(130)


def end_as_by_ctrl_c() -> None:
    """Lets SIGTERM end this process in order: else what is under way would go on without us."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def prescribed_edits(file: Path, folder: Path) -> str:
    """Makes the edits of a prescription ready for a run; gives the path of a file that holds them.

    Raises:
        MisuseError: The file is no prescription, or the script has changed since it was made.
    """
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MisuseError(say("--with {file!r} can't be read: {error}", file=str(file), error=str(error))) from None
    if isinstance(told, dict) and "prescription" in told:  # the whole report
        told = told["prescription"]
    if not isinstance(told, dict) or "edits" not in told:
        raise MisuseError(
            say("--with {file!r} is no prescription: write one by `unstuck cure --json FILE SCRIPT`", file=str(file))
        )
    for name, digest in told.get("digests", {}).items():
        path = Path(name)
        if not path.exists():
            raise MisuseError(
                say(
                    "the prescription changes {name!r}, which isn't here: run it in the folder it was made in",
                    name=name,
                )
            )
        if digest_of(path.read_text(encoding="utf-8")) != digest:
            raise MisuseError(
                say("{name!r} has changed since the prescription was made: run `unstuck cure` again", name=name)
            )
    target = folder / "edits.json"
    target.write_text(json.dumps(told["edits"]), encoding="utf-8")
    return str(target.absolute())


def report(
    cure: Any, *, json_file: Path | None, diff: bool, write_file: Path | None, echo: Callable[[str], None]
) -> None:
    """Prints and writes what came of the visit."""
    from unstuck.report.output import write_text

    if json_file is not None:
        write_text(json_file, json.dumps(cure.to_json(), indent=1, allow_nan=False))
    found = cure.prescription
    if write_file is not None and found is not None and len(found.texts) > 1:
        announce(
            say(
                "the change is in {number} files, so nothing is written to {file}: take it by --diff",
                number=len(found.texts),
                file=str(write_file),
            )
        )
    elif write_file is not None and found is not None:
        write_text(write_file, next(iter(found.texts.values())))
    if diff and found is not None:
        echo(found.diff.rstrip("\n"))
