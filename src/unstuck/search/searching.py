"""A search, read from top to bottom.

1. Two arms take turns: the **search**, whose sampler goes by what came of its children, and the **control**, which draws at random. Both
   have as many evaluations, and their children are halved alike (`halving`). What is told to a sampler is how good a child was at the end
   of its first stage, as this is what all children have in common.
2. The best few of each arm are trained whole, with **fresh seeds**: the best of many looks better than it is, more so the more there were.
3. The answer is the best by these, beside the best of the control.

The journal (`trials.jsonl`) is the only state. Every proposal is written down before it is made, every outcome before it is used. A search
that is gone on with asks and tells its samplers anew what the journal says, begins again what was under way, and goes on; what had ended
is neither lost nor made again.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unstuck._discover import get
from unstuck._language import joined, say, stored
from unstuck.errors import MisuseError
from unstuck.evidence import Record
from unstuck.search.answer import Answer, Child, Finalist, answered, ranked
from unstuck.search.halving import Halving
from unstuck.search.problems import FunctionProblem, Problem, check, refused
from unstuck.search.sampling import Proposal, Sampler, Setting
from unstuck.search.sickness import hopeless, sickness
from unstuck.search.space import Draw
from unstuck.source import EditError
from unstuck.trials.executor import Executor, Log, outcome_of
from unstuck.trials.job import Outcome

FRESH = 1001  # the first of the seeds that nothing was chosen by
_ASKED_AFTER = 10  # children, how the sampler is doing
SEARCH, CONTROL, OWN = "search", "control", "own"
OWN_NUMBER = -1  # of the script as it stands


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        sampler: Its name.
        settings: Its settings.
        evaluations: Of each arm; None where only time ends the search.
        seconds: After which nothing new is begun; None where only the number of evaluations ends it. The final trainings come on top.
        control: Search at random beside it.
        top: How many of each arm are trained with fresh seeds.
        seeds: How many.
        halving: Train children stage by stage, where they can be.
        seed: Of all samplers.
        workers: Children at a time, as far as samplers go by it.
    """

    sampler: str = "auto"
    settings: dict[str, Any] = field(default_factory=dict)
    evaluations: int | None = 50
    seconds: float | None = None
    control: bool = True
    top: int = 3
    seeds: int = 3
    halving: bool = True
    seed: int = 0
    workers: int = 1

    def told(self) -> dict[str, Any]:
        """What of it must be the same when a search is gone on with."""
        return {
            "sampler": self.sampler, "settings": self.settings, "control": self.control, "seed": self.seed, "halving": self.halving
        }  # fmt: skip


@dataclass
class _Arm:
    """A sampler, and what it has proposed.

    Attributes:
        name: "search" or "control".
        sampler: It.
        children: In order.
        halving: Which of them go on.
        exhausted: It has nothing left to propose.
    """

    name: str
    sampler: Sampler
    children: list[Child] = field(default_factory=list)
    halving: Halving = field(default_factory=Halving)
    exhausted: bool = False


@dataclass
class _Task:
    """A training of a child that isn't over: one job for each split.

    Attributes:
        child: It.
        stage: To the end of which; -1 for all.
        seed: Shift of its seeds.
        outcomes: By part.
    """

    child: Child
    stage: int
    seed: int = 0
    outcomes: dict[int, Outcome] = field(default_factory=dict)


class Search:
    """A search of a problem.

    Args:
        problem: What is searched.
        executor: Makes jobs.
        log: The executor's; keeps all that happens.
        plan: What is to be done.
        tell: Is told what goes on, line by line.

    Raises:
        MisuseError: The problem's space isn't one, the journal is of another search, or a number is out of range.
        NotFoundError: There is no such sampler.
    """

    def __init__(
        self,
        problem: Problem,
        executor: Executor,
        log: Log,
        plan: Plan,
        *,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        _check(plan)
        check(problem)
        self.problem, self.executor, self.log, self.plan, self.tell = problem, executor, log, plan, tell
        self.arms = [self._arm(SEARCH, plan.sampler, plan.settings, plan.seed)]
        if plan.control and plan.sampler != "random":
            self.arms.append(self._arm(CONTROL, "random", {}, plan.seed + 1))
        self.finalists: list[Finalist] = []
        self._health: list[dict[str, float]] = []
        self._best_run = Outcome("failed")
        self.score = ""
        self._own = None if problem.own is None else Child(OWN_NUMBER, OWN, problem.own, OWN)
        self._tasks: dict[
            str, list[tuple[_Task, int]]
        ] = {}  # by the keys of their jobs, with the part; both arms may want the same
        self._again: list[Any] = []  # jobs that the journal says were under way
        self._asked = 0
        self._last_line = 0.0
        self._before = 0.0  # seconds that earlier sessions took
        self._began = time.perf_counter()
        self._resume()

    def _arm(self, name: str, sampler: str, settings: dict[str, Any], seed: int) -> _Arm:
        setting = Setting(
            self.problem.space, seed, self.plan.evaluations, self.plan.workers, self.problem.score_name, self.log.folder
        )  # fmt: skip
        try:
            made = get("search.samplers", sampler)(setting, **settings)
        except TypeError as error:
            raise MisuseError(
                say("the sampler {sampler} can't be set so: {error}", sampler=sampler, error=str(error))
            ) from None
        return _Arm(name, made)

    @property
    def seconds(self) -> float:
        """Wall time, of earlier sessions as well."""
        return self._before + time.perf_counter() - self._began

    def visit(self) -> Answer:
        """Searches, and trains the best with fresh seeds.

        Returns:
            The answer.
        """
        says = getattr(self.arms[0].sampler, "says", "")
        if says:
            self.tell(says)
        for job, outcome in self.executor.run(self._stream(), hopeless=None if self.problem.staged else self._hopeless):
            self._take(job.key, outcome)
            self.log.note(event="took", key=job.key, at=self.seconds)
        return answered(
            self.plan, self.problem, {arm.name: arm.children for arm in self.arms}, self.finalists,
            health=[*self._health, dict(self.arms[0].sampler.health())], says=says, score=self.score, seconds=self.seconds,
        )  # fmt: skip

    # ------------------------------------------------------------------ what is begun

    def _stream(self) -> Iterator[Any]:
        """Jobs, whenever there is room for one; None where something under way must end first."""
        yield from self._again
        self._again = []
        while True:
            jobs = self._promoted() or self._proposed() or self._promoted()
            if not jobs and self._tasks:
                yield None
                continue
            if not jobs and not self.finalists:
                jobs = self._finals()
            if not jobs:
                return
            yield from jobs

    def _proposed(self) -> list[Any]:
        """The first stage of a new child, of the arm that has begun fewer."""
        while arms := [arm for arm in self.arms if self._may_go_on(arm)]:
            arm = min(arms, key=lambda a: len(a.children))
            proposal = arm.sampler.ask()
            if proposal is None:
                arm.exhausted = True
                continue
            values, origin = proposal.point.values, proposal.origin
            self.log.note(
                event="asked", arm=arm.name, number=self._asked, values=values, origin=origin, at=self.seconds
            )
            jobs = self._begin(self._born(arm, proposal), 0 if self._staged else -1)
            if jobs:
                return jobs
        return []

    def _may_go_on(self, arm: _Arm) -> bool:
        """Whether an arm may begin another child."""
        if arm.exhausted or (self.plan.seconds is not None and self.seconds > self.plan.seconds):
            return False
        return self.plan.evaluations is None or len(arm.children) < self.plan.evaluations

    @property
    def _staged(self) -> bool:
        return self.plan.halving and self.problem.staged

    def _born(self, arm: _Arm, proposal: Proposal) -> Child:
        child = Child(self._asked, arm.name, proposal.point, proposal.origin)
        self._asked += 1
        arm.children.append(child)
        return child

    def _promoted(self) -> list[Any]:
        """The next stage of a child that is good enough."""
        for arm in self.arms:
            found = arm.halving.next(over=self._stages_over(arm))
            if found is not None:
                number, stage = found
                self.log.note(event="promoted", number=number, stage=stage, at=self.seconds)
                return self._promote(arm, number, stage)
        return []

    def _stages_over(self, arm: _Arm) -> float | None:
        """How many stages no child of an arm is on the way to the end of; None while it isn't known how many children there will be."""
        if self._may_go_on(arm):
            return None if self.plan.seconds is not None else 0
        under_way = [
            task.stage for several in self._tasks.values() for task, _ in several if task.child.arm == arm.name
        ]
        return min(under_way, default=math.inf)

    def _promote(self, arm: _Arm, number: int, stage: int) -> list[Any]:
        arm.halving.went_on(number, stage)
        child = next(c for c in arm.children if c.number == number)
        return self._begin(child, stage + 1)

    def _finals(self) -> list[Any]:
        """Whole trainings of the best, with seeds that nothing was chosen by."""
        numbers = [child.number for arm in self.arms for child in ranked(arm.children)[: self.plan.top]]
        numbers = [*numbers, *([OWN_NUMBER] if numbers and self._own is not None else [])]
        seeds = range(FRESH, FRESH + self.plan.seeds)
        if not numbers or not self.plan.seeds:
            return []
        self.tell(
            say(
                "training the best {top} of each arm whole, with {seeds} fresh seeds",
                top=self.plan.top,
                seeds=self.plan.seeds,
            )
        )
        self.log.note(event="finals", numbers=numbers, seeds=list(seeds), at=self.seconds)
        return self._finalize(numbers, list(seeds))

    def _finalize(self, numbers: list[int], seeds: list[int]) -> list[Any]:
        children = {
            c.number: c for c in [*(c for arm in self.arms for c in arm.children), *([self._own] if self._own else [])]
        }
        self.finalists = [Finalist(children[n], tuple(seeds)) for n in numbers]
        return [job for f in self.finalists for seed in seeds for job in self._begin(f.child, -1, seed)]

    def _begin(self, child: Child, stage: int, seed: int = 0) -> list[Any]:
        """Jobs of a child; what can't be made has failed at once."""
        task, jobs = _Task(child, stage, seed), []
        for part in range(self.problem.parts):
            saved = str((self.log.folder / "saved" / f"{child.number}-{part}{f'-{seed}' if seed else ''}").absolute())
            try:
                job = self.problem.job(child.point, part=part, stage=stage, seed=seed, saved=saved)
            except EditError as error:
                self._over(task, [refused(error)])
                return []
            self._tasks.setdefault(job.key, []).append((task, part))
            jobs.append(job)
        return jobs

    # ------------------------------------------------------------------ what has ended

    def _take(self, key: str, outcome: Outcome) -> None:
        """Takes in an outcome."""
        for task, part in self._tasks.pop(key, []):
            task.outcomes[part] = outcome
            if len(task.outcomes) == self.problem.parts:
                self._over(task, [task.outcomes[i] for i in range(self.problem.parts)])

    def _over(self, task: _Task, outcomes: list[Outcome]) -> None:
        """A training is over: all its parts are."""
        child = task.child
        self.score = self.score or next((o.score for o in outcomes if o.score), "")
        if task.seed:
            finalist = next(f for f in self.finalists if f.child is child)
            finalist.took(task.seed, outcomes)
            self._say(say("{name} with seed {seed}", name=child.name, seed=task.seed), outcomes)
            return
        arm = next(a for a in self.arms if a.name == child.arm)
        child.took(task.stage, outcomes, self._facts(outcomes))
        self._best_run = max(
            self._best_run, outcomes[0], key=lambda o: o.quality if o.status == "finished" else -math.inf
        )
        if task.stage <= 0:
            arm.sampler.tell(child.point, child.quality)
            if arm.name == SEARCH and len(arm.children) % _ASKED_AFTER == 0:
                self._health.append(dict(arm.sampler.health()))
        if not child.whole and task.stage >= 0:
            arm.halving.note(child.number, task.stage, -math.inf if child.cause else child.quality)
        self._say(child.name, outcomes)

    def _facts(self, outcomes: list[Outcome]) -> dict[str, Any]:
        """What the records of a training tell: what is wrong, how far it is, how large."""
        facts: dict[str, Any] = {}
        for outcome in outcomes:
            if not outcome.record:
                continue
            record = Record.read(outcome.record)
            told = [e.data for e in record.events if e.kind == "child"]
            cause = sickness(record)
            facts = {**facts, **(told[-1] if told else {}), **({"cause": cause} if cause else {})}
        return facts

    def _say(self, name: str, outcomes: list[Outcome]) -> None:
        """Tells of a training that took some time, or now and then."""
        now = time.perf_counter()
        if now - self._last_line < 0.5:
            return
        self._last_line = now
        first = outcomes[0]
        got = joined((stored(first.score), f"{first.value:.4g}"), " ")
        self.tell(joined((name, got if math.isfinite(first.value) else first.error or stored(first.status)), ": "))

    def _hopeless(self, job: Any, record: Path) -> str:
        """Why a script that runs need not end: it is broken, or far behind the best at the same step. "" while it may go on."""
        wanted = self._tasks.get(job.key, [])
        return "" if any(task.seed for task, _ in wanted) else hopeless(record, self._best_run)

    # ------------------------------------------------------------------ going on

    def _resume(self) -> None:
        """Takes in what the journal says, as if it happened now.

        Raises:
            MisuseError: It is of another search.
        """
        told = {"problem": self.problem.told, "plan": self.plan.told()}
        before = next((line for line in self.log.lines if line.get("event") == "search"), None)
        if before is None:
            self.log.note(event="search", **told)
            return
        for what in ("problem", "plan"):
            odd = [k for k in told[what] if before[what].get(k) != told[what][k]]
            if odd:
                raise MisuseError(
                    say(
                        "the search in {folder} was of another {what} ({before!r}, now {now!r}): begin a new one, or go "
                        "on with it as it was",
                        folder=self.log.folder,
                        what=odd[0],
                        before=before[what].get(odd[0]),
                        now=told[what][odd[0]],
                    )
                )
        jobs: dict[str, Any] = {}
        ended: dict[str, Outcome] = {}
        for line in self.log.lines:
            self._before = max(self._before, float(line.get("at", 0.0)))
            for job in self._replayed(line, ended):
                jobs[job.key] = job
                if job.key in ended:
                    self._take(job.key, ended[job.key])
        self._again = [job for key, job in jobs.items() if key in self._tasks]

    def _replayed(self, line: dict[str, Any], ended: dict[str, Outcome]) -> list[Any]:
        """What a line of the journal began; what it ended is taken in, and noted."""
        match line.get("event"):
            case "asked":
                arm = next(a for a in self.arms if a.name == line["arm"])
                return self._begin(self._born(arm, self._asked_again(arm, line)), 0 if self._staged else -1)
            case "promoted":
                arm = next(a for a in self.arms if any(c.number == line["number"] for c in a.children))
                return self._promote(arm, line["number"], line["stage"])
            case "finals":
                return self._finalize(line["numbers"], line["seeds"])
        if "outcome" in line:
            ended[line["key"]] = outcome_of(line)
            self._take(line["key"], ended[line["key"]])
        return []

    def _asked_again(self, arm: _Arm, line: dict[str, Any]) -> Proposal:
        """The proposal of the journal; the sampler is asked as well, so that it is where it was, or told where it couldn't say the same."""
        again = getattr(arm.sampler, "again", None)
        if again is not None:
            proposal = Proposal(self.problem.space.at(line["values"]), line["origin"])
            again(proposal)
            return proposal
        proposal = arm.sampler.ask()
        if proposal is not None and proposal.point.values == line["values"]:
            return proposal
        return Proposal(self.problem.space.at(line["values"]), line["origin"])


def search(
    space: Callable[[Draw], Any], score: Callable[..., float], *, folder: str | Path | None = None, seeded: bool = False,
    name: str = "score", tell: Callable[[str], None] = lambda line: None, **plan: Any,
) -> Answer:  # fmt: skip
    """Searches what a function of one's own is best given, in this process.

    Args:
        space: Draws, and returns what the function is given.
        score: Takes that, and returns a number, the higher the better.
        folder: Of the journal: a search that is in it is gone on with. By default a temporary one.
        seeded: The function takes a seed as well: then the best are judged by fresh ones.
        name: Of the number.
        tell: Is told what goes on.
        **plan: See `Plan`.

    Returns:
        The answer.

    Raises:
        MisuseError: The space isn't one, the folder has another search, or a number is out of range.

    Example:
        >>> answer = search(
        ...     lambda draw: draw.number("x", -1.0, 1.0), lambda x: -((x - 0.5) ** 2), evaluations=60, sampler="local"
        ... )
        >>> abs(answer.best.child.point.chosen - 0.5) < 0.1
        True
    """  # noqa: DOC502
    from unstuck.trials.inline import Inline  # takes torch, which a search of scripts doesn't need

    log = Log(Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="unstuck-")), crashes=True)
    given = {"seeds": 3 if seeded else 0, **plan}
    return Search(
        FunctionProblem(space, score, seeded=seeded, name=name), Inline(log), log, Plan(**given), tell=tell
    ).visit()


def _check(plan: Plan) -> None:
    if plan.evaluations is None and plan.seconds is None:
        raise MisuseError(say("a search needs an end: a number of evaluations, a time, or both"))
    for name, value, least in (("evaluations", plan.evaluations, 1), ("top", plan.top, 1), ("seeds", plan.seeds, 0)):
        if value is not None and value < least:
            raise MisuseError(
                say("{name} is {value}, but must be {least} or more", name=name, value=value, least=least)
            )
