"""`unstuck search`: which kind of search a file asks for, where its journal is, and what becomes of the answer."""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unstuck._language import _, say, stored
from unstuck.cli._child import announce
from unstuck.cli._cure import end_as_by_ctrl_c, executor
from unstuck.cli._records import FOLDER, made_folder
from unstuck.cli._teller import Teller
from unstuck.errors import MisuseError


@dataclass(frozen=True)
class Given:
    """What the command was given, beside the plan.

    Attributes:
        command: The file, and arguments of a script.
        over: Remedies.
        vary: Arguments.
        executor: Its name.
        address: Of a Ray cluster.
        workers: Children at a time.
        folder: Of the journal.
        quiet: Tell nothing.
    """

    command: list[str]
    over: list[str] | None
    vary: list[str]
    executor: str
    address: str | None
    workers: int | None
    folder: Path
    quiet: bool


def is_search_file(path: Path) -> bool:
    """Whether a file defines a space of its own, and so is no script."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {"space", "training"} <= names


def search_folder(runs_folder: Path | None, file: str, *, resume: bool) -> Path:
    """The folder of a search: a new one, or that of the last of this file.

    Raises:
        MisuseError: There is none to go on with, or it can't be made.
    """
    runs, stem = runs_folder or FOLDER, f"search-{Path(file).stem}"
    found = sorted(
        int(p.name.rpartition("-")[2]) for p in runs.glob(f"{stem}-*") if p.name.rpartition("-")[2].isdigit()
    )
    if resume:
        if not found:
            raise MisuseError(
                say("there is no search of {file!r} in {runs!r} to go on with", file=file, runs=str(runs))
            )
        return runs / f"{stem}-{found[-1]}"
    return made_folder(runs / f"{stem}-{found[-1] + 1 if found else 1}")


def sampler_settings(given: list[str] | None) -> dict[str, Any]:
    """Settings of the sampler by name: "population=50".

    Raises:
        MisuseError: One isn't NAME=VALUE.
    """
    settings: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise MisuseError(say("--set is {text!r}, but must be NAME=VALUE, such as population=50", text=text))
        try:
            settings[name.replace("-", "_")] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name.replace("-", "_")] = value
    return settings


def searched(given: Given, plan: Any) -> Any:
    """Searches by an executor, which is closed then, and tells on stderr what goes on.

    Returns:
        The answer, and the problem.
    """
    from unstuck.search.searching import Search
    from unstuck.trials.executor import Log

    end_as_by_ctrl_c()
    log = Log(given.folder, crashes=True)
    made = executor(given.executor, log, address=given.address, workers=given.workers)
    try:
        with (
            Teller(sys.stderr, quiet=given.quiet, doing=_("searching"), limit=plan.seconds) as teller,
            contextlib.closing(made) as made_by,
        ):
            problem = _problem(given, made_by, teller.tell)
            search = Search(problem, made_by, log, plan, tell=teller.tell)
            teller.share = lambda: _share(search)
            return search.visit(), problem
    except KeyboardInterrupt:
        announce(_("broken off; what had ended is kept: the same command with --resume goes on"))
        sys.exit(130)


def _share(search: Any) -> float:
    """How many of the points that are to be tried have been begun; 0 once the best are trained again, which is on top of that."""
    wanted = (search.plan.evaluations or 0) * len(search.arms)
    return sum(len(arm.children) for arm in search.arms) / wanted if wanted and not search.finalists else 0.0


def _problem(given: Given, made_by: Any, tell: Callable[[str], None]) -> Any:
    """What is searched; of a script, after a run of it as it stands.

    Raises:
        MisuseError: It can't be searched.
        NotFoundError: There is no such remedy.
    """  # noqa: DOC502
    from unstuck._discover import get
    from unstuck.search.hyperparameters import Varied
    from unstuck.search.problems import ScriptProblem, TrainingProblem
    from unstuck.trials.job import Job

    if is_search_file(Path(given.command[0])):
        if given.over is not None or given.vary or given.command[1:]:
            raise MisuseError(
                say(
                    "{file!r} says by itself what is searched: --over, --vary and arguments are for scripts, and our "
                    "own options stand before the file",
                    file=given.command[0],
                )
            )
        return TrainingProblem(given.command[0])
    vary = [Varied.of(text) for text in given.vary]
    for name in given.over or []:
        get("remedies", name)
    tell(say("running the script as it is"))
    [(_job, baseline)] = list(made_by.run([Job(tuple(given.command), survey=True)]))
    if not baseline.record or baseline.status == "failed":
        raise MisuseError(say("{file} fails as it stands: {error}", file=given.command[0], error=baseline.error))
    problem = ScriptProblem(given.command, baseline, over=given.over, vary=vary)
    tell(
        say(
            "as it is: {score} {value:.4g}, {seconds:.1f} s",
            score=stored(baseline.score),
            value=baseline.value,
            seconds=baseline.seconds,
        )
    )
    for name, why in problem.left_out.items():
        tell(say("{name} is left out: {why}", name=name, why=why))
    return problem


def report(
    answer: Any, problem: Any, *, json_file: Path | None, html_file: Path | None, export: Path | None, quiet: bool
) -> None:
    """Prints and writes what came of the search."""
    import json

    from unstuck.report.output import write_text
    from unstuck.search.export import described, exported

    told = described(answer, problem)
    if json_file is not None:
        write_text(json_file, json.dumps(told, indent=1, allow_nan=False))
    if html_file is not None:
        from unstuck.report.search_page import write

        write(told, html_file)
    if not quiet:
        from unstuck.report.search import text

        text(told, sys.stderr)
    for path in exported(answer, problem, export) if export is not None else ():
        if not quiet:
            announce(say("written: {path}", path=str(path)))
