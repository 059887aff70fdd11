"""The command line. It never imports torch: what trains is a child process, and what judges reads records."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

from unstuck._language import known, speaking
from unstuck.cli._child import announce
from unstuck.cli._commands import program
from unstuck.errors import MisuseError, UnstuckError

_SCRIPTS = ("run", "cure", "curvature", "batch", "search")  # commands that pass on what stands behind a script
_WITH_VALUE = (
    "--json", "--html", "--budget", "--probe-budget", "--curvature-budget", "--fail-on", "--runs", "--set", "--with",
    "--seeds", "--format", "--output", "--lang", "--write", "--executor", "--address", "--workers", "--over", "--vary",
    "--sampler", "--evaluations", "--top", "--seed", "--export", "--host", "--port",
)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Runs the command line; misuse is one line on stderr and exit code 2."""
    given = list(sys.argv[1:] if argv is None else argv)
    with _speaking(given):
        try:
            program(given[0] if given else "")(_bounded(given), standalone_mode=True)
        except UnstuckError as error:
            announce(error.says)
            sys.exit(2)


def _speaking(argv: list[str]) -> AbstractContextManager[object]:
    """The language that is asked for, which help and errors speak too, wherever `--lang` stands among our options."""
    try:
        return speaking(known(_asked(argv)))
    except MisuseError:
        return nullcontext()  # the command refuses it when it comes to it


def _asked(argv: list[str]) -> str | None:
    """What `--lang` says, None where it isn't given: the words behind a script are the script's own."""
    words, asked = iter(argv[1:]), None
    for word in words:
        name, equals, value = word.partition("=")
        value = value if equals else next(words, "") if name in _WITH_VALUE else ""
        if name == "--lang":
            asked = value
        if argv[0] in _SCRIPTS and (name in ("-m", "--") or not name.startswith("-")):
            break
    return asked


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
