"""What is searched: something with a space, of whose points jobs can be made."""

from __future__ import annotations

import hashlib
import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from unstuck._language import say
from unstuck.errors import MisuseError
from unstuck.patients import ScriptPatient
from unstuck.search.child import Order, loaded, splits_of
from unstuck.search.hyperparameters import Variant, Varied, space_of
from unstuck.search.space import Draw, Point, Space
from unstuck.source import EditError, digest_of, own_files
from unstuck.trials.job import Job, Outcome


class Problem(Protocol):
    """What is searched."""

    @property
    def space(self) -> Space:
        """Its space."""
        ...

    @property
    def parts(self) -> int:
        """How many jobs one evaluation takes, one for each split."""
        ...

    @property
    def staged(self) -> bool:
        """Whether children can be trained stage by stage."""
        ...

    @property
    def own(self) -> Point | None:
        """What there is without a search, None where there is nothing: it is given the fresh seeds as well."""
        ...

    @property
    def score_name(self) -> str:
        """What children are compared by, "" where that is known only when one has ended."""
        ...

    @property
    def told(self) -> dict[str, Any]:
        """What names it, as JSON: a search is gone on with only where this is the same."""
        ...

    def job(self, point: Point, *, part: int, stage: int, seed: int, saved: str) -> Any:
        """A job of a point.

        Args:
            point: It.
            part: Which split.
            stage: To the end of which it is trained, -1 for all epochs.
            seed: Shift of all seeds.
            saved: Where it is saved, but for the end of the name.

        Raises:
            EditError: The point can't be made; that counts as a failure.
        """
        ...


class FunctionProblem:
    """A function of one's own, called in this process.

    Args:
        space: Draws, and returns what the function is given.
        score: Takes that, and returns a number, the higher the better. An exception counts as a failure.
        seeded: It takes a seed as well.
        name: Of the number.
    """

    parts, staged, own = 1, False, None

    def __init__(
        self, space: Callable[[Draw], Any], score: Callable[..., float], *, seeded: bool = False, name: str = "score"
    ) -> None:
        self.space, self.score, self.seeded, self.score_name = Space(space), score, seeded, name
        self.told = {"function": getattr(score, "__qualname__", type(score).__name__)}

    def job(self, point: Point, *, part: int, stage: int, seed: int, saved: str) -> FunctionJob:
        """A call of the function."""
        given = (point.chosen, seed) if self.seeded else (point.chosen,)
        return FunctionJob(f"{point.key}-{seed}", self.score, given, self.score_name, seed)


@dataclass(frozen=True)
class FunctionJob:
    """A call.

    Attributes:
        key: Names what would come out the same.
        function: Is called.
        given: What with.
        name: Of what it returns.
        seed: That is among this.
        edits: None.
    """

    key: str
    function: Callable[..., float]
    given: tuple[Any, ...]
    name: str
    seed: int = 0
    edits: tuple[Any, ...] = ()

    def outcome(self, folder: Path, hopeless: Any = None) -> Outcome:
        """Calls it."""
        began = time.perf_counter()
        try:
            value, status, why = float(self.function(*self.given)), "finished", ""
        except Exception as error:  # noqa: BLE001 - a result like others
            value, status = math.nan, "failed"
            why = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1][:300]
        if status == "finished" and not math.isfinite(value):
            status = "diverged"
        return Outcome(status, self.name, value, seconds=time.perf_counter() - began, error=why)


class TrainingProblem:
    """A user's file with two functions: `space(draw)`, and `training(chosen)`, which makes the Training of what the space chose.

    A third, `splits()`, may give splits: each evaluation then trains on each of them, `training(chosen, split)`, and is the mean.

    Args:
        file: Its path.

    Raises:
        ScriptError: It isn't there, or lacks a function.
        MisuseError: Its space is not one.
    """

    staged, own, score_name = True, None, ""

    def __init__(self, file: str) -> None:
        self.file, module = file, loaded(file)
        self.space = Space(module.space)
        self.parts = len(splits_of(module))
        self.told = {"file": str(Path(file)), "digest": digest_of(Path(file).read_text(encoding="utf-8"))}

    def job(self, point: Point, *, part: int, stage: int, seed: int, saved: str) -> Job:
        """A training in a process of its own."""
        place = Path(saved)
        order = Order(point.values, stage, part, place.name)
        return Job(
            ("-m", "unstuck.search.child", self.file, order.text()), seed=seed, file=self.file, saves=str(place.parent)
        )


class ScriptProblem:
    """An unmodified script: its arguments, and what remedies can set in it.

    Args:
        command: The script and its arguments.
        baseline: Of a surveyed run of it as it stands.
        over: Remedies by name; by default those that are usual and can be given.
        vary: Arguments of its own.
        limit: Seconds that a run may take, 0 for no limit.

    Raises:
        MisuseError: It trains nothing, a remedy can't be given to it, or there is nothing to search.
    """

    parts, staged = 1, False

    def __init__(
        self,
        command: Sequence[str],
        baseline: Outcome,
        *,
        over: Sequence[str] | None = None,
        vary: Sequence[Varied] = (),
        limit: float = 0.0,
    ) -> None:
        from unstuck.doctor import diagnose
        from unstuck.evidence import Record

        self.command, self.baseline, self.limit, self.score_name = tuple(command), baseline, limit, baseline.score
        self.patient = ScriptPatient(command)
        record = Record.read(baseline.record)
        if not record.steps:
            raise MisuseError(say("{file} trained nothing: no step of an optimizer was seen", file=command[0]))
        self.patient.see(record)
        self.define, self.left_out = space_of(self.patient, record, diagnose(record), over, vary)
        self.space, self.own = Space(self.define), Point({}, (), Variant(), "own")
        texts = [path.read_bytes() for path in own_files(self.command[0])]
        self.told = {
            "command": list(self.command), "over": self.define.names, "vary": [str(v) for v in vary],
            "digest": hashlib.sha256(b"\0".join(texts)).hexdigest()[:20],
        }  # fmt: skip

    def job(self, point: Point, *, part: int, stage: int, seed: int, saved: str) -> Job:
        """A run of the script with changes and arguments.

        Raises:
            EditError: The changes can't be written together.
        """  # noqa: DOC502
        variant: Variant = point.chosen
        job = self.patient.job(variant.treatment, seed=seed, limit=self.limit)
        return replace(job, command=(*job.command, *variant.arguments))


def refused(error: EditError) -> Outcome:
    """The outcome of a point that can't be made."""
    return Outcome("failed", error=str(error))


def check(problem: Problem) -> None:
    """Makes sure that a space is one: it draws something, and the same for the same values.

    Raises:
        MisuseError: It isn't.
    """
    import random

    first = problem.space.random(random.Random(0))
    again = problem.space.at(first.values)
    if not first.decisions:
        raise MisuseError(say("the space draws nothing: there is nothing to search"))
    if again.key != first.key or again.decisions != first.decisions:
        raise MisuseError(
            say(
                "the space draws differently for the same values: it must go by what it draws alone, and draw no "
                "random numbers"
            )
        )
