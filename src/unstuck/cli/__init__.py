"""The command line. It never imports torch: what trains is a child process, and what judges reads records."""

from __future__ import annotations

import sys

from unstuck.cli._child import say
from unstuck.cli._commands import program
from unstuck.errors import UnstuckError

_WITH_VALUE = (
    "--json", "--html", "--budget", "--probe-budget", "--curvature-budget", "--fail-on", "--runs", "--set", "--with",
    "--seeds", "--format", "--output", "--lang",
)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Runs the command line; misuse is one line on stderr and exit code 2."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        program(given[0] if given else "")(_bounded(given), standalone_mode=True)
    except UnstuckError as error:
        say(str(error))
        sys.exit(2)


def _bounded(argv: list[str]) -> list[str]:
    """Puts a `--` behind `-m MODULE`, so that what follows is the module's, as with Python itself."""
    if argv[:1] in (["run"], ["curvature"], ["batch"]) and "-m" in argv:
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
