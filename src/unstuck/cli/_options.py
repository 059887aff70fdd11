"""Options that commands share, and what is checked before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from unstuck._language import LANGUAGES, known, say
from unstuck.cli._completion import one_of
from unstuck.errors import MisuseError

FORMATS = ("text", "json", "markdown", "sarif")
SCHEMAS = ("verdict", "cure")
Script = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SCRIPT [ARGS]...", help="The script and its arguments, as after `python`.", show_default=False
    ),
]
Module = Annotated[
    str | None,
    typer.Option("-m", metavar="MODULE", help="Run a module instead of a script; what follows are its arguments."),
]
MeasuredJson = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write what was measured as JSON.", show_default=False)
]
MeasuringTime = Annotated[
    str, typer.Option(metavar="TIME", help="Time for the measurements when the script has ended: 90s, 2m, 1h.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the verdict as JSON.")]
HtmlFile = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one offline page.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAME",
        help="What the verdict is told in: text, json, markdown or sarif.",
        autocompletion=one_of(*FORMATS),
    ),
]
OutputFile = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE", help="Write it there instead of printing it.", show_default=False),
]


def _known(language: str | None) -> str:
    return known(language)  # it is spoken already, see `main`


Language = Annotated[
    str | None,
    typer.Option(
        "--lang",
        metavar="CODE",
        help="Language of the report: en or zh.  [default: that of UNSTUCK_LANG, else en]",
        show_default=False,
        is_eager=True,
        callback=_known,
        autocompletion=one_of(*LANGUAGES),
    ),
]
FailOn = Annotated[
    str | None,
    typer.Option(
        "--fail-on",
        metavar="SEVERITY",
        help="Exit with code 3 on a finding this severe: note, warning or error.",
        autocompletion=one_of("error", "warning", "note"),
    ),
]
RunsFolder = Annotated[
    Path | None,
    typer.Option(
        "--runs", metavar="DIR", help="Folder for the records of runs.  [default: .unstuck]", show_default=False
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="RULE.NAME=VALUE", help="Set a rule's threshold: dead-units.fraction=0.8."),
]
Executor = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Where runs are made: processes, ray, or inline (one at a time).",
        autocompletion=one_of("processes", "ray", "inline"),
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Of a Ray cluster: auto, HOST:6379.  [default: this machine]", show_default=False
    ),
]
Workers = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Runs at a time.  [default: one a core]", show_default=False)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing of ours.")]


def share(budget: str, *, option: str = "--budget") -> float:
    """A budget as a number from 0 to 1: "2%" and "0.02" are the same.

    Raises:
        MisuseError: It is neither.
    """
    try:
        value = float(budget.removesuffix("%")) / (100 if budget.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise MisuseError(
            say(
                "{option} is {budget!r}, but must be a share of the training's time, such as 2% or 0.02",
                option=option,
                budget=budget,
            )
        )
    return value


def severity(name: str | None) -> Any:
    """The severity of this name, None for None.

    Raises:
        MisuseError: There is none.
    """
    from unstuck.verdict import SEVERITIES

    if name is not None and name not in SEVERITIES:
        raise MisuseError(
            say("--fail-on is {name!r}, but must be one of {names}", name=name, names=", ".join(SEVERITIES))
        )
    return name


def check_one_of(name: str, known: Sequence[str], what: str) -> None:
    """Makes sure that there is such a name.

    Args:
        name: What was given.
        known: All there are.
        what: It is: "--format".

    Raises:
        MisuseError: There is none.
    """
    if name not in known:
        import difflib

        close = difflib.get_close_matches(name.lower(), known, n=1)
        there_are = say("there are {names}", names=", ".join(known))
        hint = say("did you mean {name!r}?", name=close[0]) if close else there_are
        raise MisuseError(say("{what} is {name!r}; {hint}", what=what, name=name, hint=hint))


def check_targets(*paths: Path | None) -> None:
    """Finds out before the script has run that a report could not be written.

    Raises:
        MisuseError: It could not.
    """
    for path in filter(None, paths):
        if path.is_dir():
            raise MisuseError(say("{path!r} is a folder: name a file to write", path=str(path)))
        if not path.absolute().parent.is_dir():
            raise MisuseError(
                say("there is no folder {folder!r} to write {name!r} to", folder=str(path.parent), name=path.name)
            )


def rule_settings(given: list[str] | None) -> Any:
    """Thresholds by rule and name."""
    if not given:
        return {}
    from unstuck.doctor import parse_settings

    return parse_settings(given)
