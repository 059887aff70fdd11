"""The treatment, read from top to bottom: see what is wrong, try what may help, go on until it is well, and prove it.

1. One run as it stands, surveyed and with experiments: what is wrong, and where in the script the training is made.
2. Remedies that the findings call for, with the settings they propose, each written into the script as edits; a run of each, of the
   same seed. The best is kept where it helps, the run is diagnosed again, and what is still wrong is treated on top of it.
3. Fresh seeds, with and without: the effect is that of these pairs alone, as the best of many tries always looks good.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unstuck._discover import find
from unstuck.doctor import diagnose
from unstuck.errors import UnstuckError
from unstuck.evidence import Record
from unstuck.program import Script, edits_of
from unstuck.rules._learning import skill as skill_of
from unstuck.rules._probes import reachable
from unstuck.source import Edit, EditError, Source, edited
from unstuck.trials.estimate import Effect, paired
from unstuck.trials.executor import Executor, Log, Processes
from unstuck.trials.job import LOWER_IS_BETTER, Job, Outcome
from unstuck.trials.visit import Cure, Dose, Prescription, Treatment, Trial, words
from unstuck.verdict import Finding, Verdict

WELL = 0.97  # of the way from chance to perfect: no more is looked for
FINE = 0.85  # of that way: enough where nothing is found any more
HELPS = 0.02  # of that way: the least that a single run must gain to be gone on with
ROUNDS = 4
MOST = 6  # treatments in a round
FEW = 3  # of which are tried in any case
FRESH = 1000  # where the seeds of the confirmation begin
FALLBACK = ("optimizer", "learning-rate", "train-longer")
PAIRED = (
    "standardize-input",
    "standardize-target",
    "output-loss",
    "initialization",
    "activation",
    "zero-grad",
    "shape",
)
PARTNERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("initialization", {"scheme": "default"}), ("optimizer", {"to": "Adam", "rate": 0.01}), ("train-longer", {"times": 10}),
)  # fmt: skip
Tell = Callable[[str], None]


class Doctor:
    """Cures one script.

    Args:
        command: The script and its arguments.
        folder: Where runs and what has finished are kept; a visit that was broken off goes on from there.
        seeds: Pairs of fresh seeds that confirm.
        budget: Seconds that tries may take before the confirmation.
        executor: Makes the runs.
        tell: Shown what goes on.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        seeds: int = 3,
        budget: float = 120.0,
        executor: Executor | None = None,
        tell: Tell = lambda words: None,
    ) -> None:
        self.command, self.folder = tuple(command), folder
        self.seeds, self.budget, self.tell = seeds, budget, tell
        self.executor = executor or Processes(Log(folder))
        self.began = time.perf_counter()
        self.trials: list[Trial] = []
        self._tried: set[Treatment] = set()
        self._seed = 0  # of the runs that are compared

    # ------------------------------------------------------------------ the visit

    def visit(self) -> Cure:
        """All of it."""
        first = Job(self.command, survey=True, probe_budget=0.15)
        both = [
            first,
            Job(self.command, seed=FRESH),
        ]  # the second is needed only to confirm, while a core has nothing else to do
        baseline = next(
            out for job, out in self.executor.run(both, enough=lambda job, out: job is first) if job is first
        )
        if not baseline.record:
            return self._over(
                Verdict("unknown", (), baseline.error or "it could not be run", {}), baseline, why=baseline.error
            )
        record = Record.read(baseline.record)
        verdict = diagnose(record)
        script = Script(self.command[0], record)
        if not any(f.severity != "note" for f in verdict.findings) and verdict.verdict != "unknown":
            return self._over(verdict, baseline, why="nothing is wrong with it")
        self.tell(_said(verdict))
        best = self._treat(script, verdict, baseline)
        if not best:
            return self._over(verdict, baseline, why="nothing that was tried helps")
        try:
            return self._confirm(script, verdict, baseline, best)
        except KeyboardInterrupt:
            why = f"stopped before it was confirmed: {words(best)} helped with one seed"
            return self._over(verdict, baseline, why=why)

    def _treat(self, script: Script, verdict: Verdict, baseline: Outcome) -> Treatment:
        """Rounds of trials, each on top of the best so far; who breaks it off gets the best so far."""
        self._best: tuple[Treatment, Outcome] = ((), baseline)
        try:
            self._rounds(script, verdict, baseline)
        except KeyboardInterrupt:
            self.tell("stopped: what is best so far is confirmed")
        return self._best[0]

    def _rounds(self, script: Script, verdict: Verdict, baseline: Outcome) -> None:
        current = verdict
        reference = reachable(script.record)
        self._reach = min(WELL, max(0.9, skill_of(script.record, reference))) if math.isfinite(reference) else WELL
        for _ in range(ROUNDS):
            base, before = self._best
            helped = self._try(script, self._candidates(script, current, base), base, before, baseline)
            if not helped:
                helped = self._try(script, self._pairs(script, current, base), base, before, baseline)
            if not helped:
                helped = self._try(script, self._candidates(script, current, base, FALLBACK), base, before, baseline)
            if not helped or self._spent:
                return
            again = self._one(self._fresh(script, self._best[0], baseline))  # of a fresh seed: one may be lucky
            if skill(again) < skill(self._best[1]) - HELPS:
                self._seed, self._best = FRESH, (self._best[0], again)
            if not again.record or self._over_with:
                return
            current = diagnose(Record.read(again.record))
            loud = any(f.severity != "note" for f in current.findings)
            if not loud and skill(self._best[1]) > FINE:
                return
            if loud:
                self.tell(f"still {_said(current)}")
            self._refine(script, baseline)

    @property
    def _over_with(self) -> bool:
        """It is as good as can be expected, or time is over."""
        return self._spent or skill(self._best[1]) > self._reach

    def _refine(self, script: Script, baseline: Outcome) -> None:
        """Rates around the one that helped, or around the script's own where something else did."""
        base, before = self._best
        if self._over_with:
            return
        rates = {i: d.settings["rate"] for i, d in enumerate(base) if "rate" in d.settings}
        around: list[Treatment] = []
        for factor in (1 / 3, 3.0):
            if rates:
                i, rate = next(iter(rates.items()))
                other = Dose(base[i].remedy, {**base[i].settings, "rate": float(f"{rate * factor:.3g}")})
                around.append((*base[:i], other, *base[i + 1 :]))
            elif (rate := script.record.series("lr").median()) > 0:
                around.append((*base, Dose("learning-rate", {"rate": float(f"{rate * factor:.3g}")})))
        self._try(
            script, [t for t in around if t not in self._tried and self._written(script, t)], base, before, baseline
        )

    def _pairs(self, script: Script, verdict: Verdict, base: Treatment) -> list[Treatment]:
        """Two doses at once, where none alone helps: what the findings call for first, with what lets it learn."""
        remedies = find("remedies")
        firsts: dict[Dose, None] = {}
        for name, _ in _wanted(verdict.findings):
            if name in PAIRED and name in remedies:
                proposed = _proposed(remedies[name], script, verdict)[:1]
                firsts.update(dict.fromkeys(Dose(name, settings) for settings in proposed))
        seconds = [Dose(name, settings) for name, settings in PARTNERS]
        pairs = [(a, b) for a in list(firsts)[:2] for b in [*list(firsts)[1:3], *seconds]] + [(seconds[1], seconds[2])]
        given = {d.remedy for d in base}
        fitting = [(*base, a, b) for a, b in pairs if a.remedy != b.remedy and not {a.remedy, b.remedy} & given]
        return [t for t in dict.fromkeys(fitting) if t not in self._tried and self._written(script, t)][:MOST]

    def _written(self, script: Script, treatment: Treatment) -> bool:
        """Whether a treatment can be written into the script; why not is noted."""
        try:
            self._edits(script, treatment)
        except EditError as error:
            self._tried.add(treatment)
            self.trials.append(Trial(treatment, why_not=str(error)))
            return False
        return True

    def _try(
        self, script: Script, treatments: Iterable[Treatment], base: Treatment, before: Outcome, baseline: Outcome
    ) -> bool:
        """A run of each, of the first seed; the best becomes the one to go on with. Whether one helps."""
        jobs: dict[str, Treatment] = {}
        waiting: list[Job] = []
        for treatment in treatments:
            self._tried.add(treatment)
            job = self._job(script, treatment, seed=self._seed, limit=self._limit(baseline, treatment))
            if job.key not in jobs:
                jobs[job.key] = treatment
                waiting.append(job)
        helped = False
        done = 0

        def enough(job: Job, outcome: Outcome) -> bool:
            nonlocal done
            done += 1
            good = skill(outcome) > WELL or (done >= FEW and skill(self._best[1]) > self._reach)
            return good or self._spent

        def hopeless(job: Job, record: Path) -> str:
            return _behind(record, self._best[1]) if "train-longer" not in {d.remedy for d in jobs[job.key]} else ""

        for job, outcome in self.executor.run(waiting, enough=enough, hopeless=hopeless):
            treatment = jobs[job.key]
            gain = gained(before, outcome)
            better = gain > HELPS and skill(outcome) > skill(self._best[1])
            self.trials.append(Trial(treatment, (outcome.value,), gain, outcome.seconds, better, outcome.error))
            self.tell(f"{'+ ' if better else '  '}{words(treatment)}: {_outcome_words(outcome)}")
            if better:
                self._best, helped = (treatment, outcome), True
        return helped

    def _confirm(self, script: Script, verdict: Verdict, baseline: Outcome, best: Treatment) -> Cure:
        """Pairs of fresh seeds; as many again where the first few leave it open."""
        pairs = self._pairs_of_runs(script, baseline, best, range(FRESH, FRESH + self.seeds))
        certain = _certain(pairs)
        if not certain.helps and certain.mean > HELPS:
            more = range(FRESH + self.seeds, FRESH + 2 * self.seeds)
            pairs += self._pairs_of_runs(script, baseline, best, more)
            certain = _certain(pairs)
        if not certain.helps:
            why = f"{words(best)} helped with one seed, but not beyond noise with {len(pairs)} others"
            return self._over(verdict, baseline, why=why)
        treated = pairs[0][1]
        after = diagnose(Record.read(treated.record)) if treated.record else None
        edits = self._edits(script, best)
        texts = {file: edited(script.source(file), edits) for file in dict.fromkeys(e.file for e in edits)}
        values = [(a.value, b.value) for a, b in pairs]
        same = all(a.score == b.score and math.isfinite(a.value) and math.isfinite(b.value) for a, b in pairs)
        sign = -1.0 if treated.score in LOWER_IS_BETTER else 1.0
        prescription = Prescription(
            best, paired([sign * a for a, _ in values], [sign * b for _, b in values]) if same else certain,
            treated.score if same else "share of the way from chance to perfect", treated.score,
            tuple(a for a, _ in values), tuple(b for _, b in values),
            tuple(f.cause for f in after.findings if f.severity != "note") if after else (), edits,
            {file: hashlib.sha256(script.source(file).text.encode()).hexdigest() for file in texts}, texts,
            "".join(_diff(script.source(file), text) for file, text in texts.items()),
        )  # fmt: skip
        return self._over(verdict, baseline, prescription=prescription)

    def _pairs_of_runs(
        self, script: Script, baseline: Outcome, best: Treatment, seeds: Iterable[int]
    ) -> list[tuple[Outcome, Outcome]]:
        """Runs without and with a treatment, of the same seeds."""
        limit = self._limit(baseline, best)
        jobs = [(Job(self.command, seed=s, limit=limit), self._fresh(script, best, baseline, seed=s)) for s in seeds]
        got = {job.key: out for job, out in self.executor.run([*(b for _, b in jobs), *(a for a, _ in jobs)])}
        return [(got[a.key], got[b.key]) for a, b in jobs]

    def _over(
        self, verdict: Verdict, baseline: Outcome, *, prescription: Prescription | None = None, why: str = ""
    ) -> Cure:
        return Cure(verdict, baseline, tuple(self.trials), prescription, why, time.perf_counter() - self.began)

    # ------------------------------------------------------------------ candidates

    def _candidates(
        self, script: Script, verdict: Verdict, base: Treatment, names: Sequence[str] = ()
    ) -> list[Treatment]:
        """Treatments of one dose more than there is, the most promising first.

        Args:
            script: The script.
            verdict: What is wrong.
            base: What there is.
            names: Remedies; by default those that the findings call for.
        """
        remedies = find("remedies")
        ranked: dict[Treatment, float] = {}
        given = {dose.remedy for dose in base}
        for name, rank in [(n, float(i)) for i, n in enumerate(names)] if names else _wanted(verdict.findings):
            remedy = remedies.get(name)
            if remedy is None:
                continue
            kept = tuple(d for d in base if d.remedy != name)
            for i, settings in enumerate(_proposed(remedy, script, verdict)):
                treatment = (*kept, Dose(name, settings))
                if treatment in self._tried or (name in given and treatment == base):
                    continue
                if not self._written(script, treatment):
                    continue
                ranked.setdefault(treatment, rank + 1.5 * i)
        return sorted(ranked, key=lambda t: ranked[t])[:MOST]

    def _edits(self, script: Script, treatment: Treatment) -> tuple[Edit, ...]:
        """The edits of all doses.

        Raises:
            EditError: A dose can't be written, or two are of the same place.
        """  # noqa: DOC502
        remedies = find("remedies")
        edits = edits_of(remedies[dose.remedy](script, **dose.settings) for dose in treatment)
        for file in {e.file for e in edits}:
            edited(script.source(file), edits)
        return tuple(edits)

    # ------------------------------------------------------------------ runs

    def _job(self, script: Script, treatment: Treatment, **given: Any) -> Job:
        return Job(self.command, edits=self._edits(script, treatment), **given)

    def _fresh(self, script: Script, treatment: Treatment, baseline: Outcome, *, seed: int = FRESH) -> Job:
        """A run that confirms; the first of them tells what is still wrong, too."""
        probe_budget = 0.15 if seed == FRESH else 0.0
        return self._job(
            script, treatment, seed=seed, probe_budget=probe_budget, limit=self._limit(baseline, treatment)
        )

    def _one(self, job: Job) -> Outcome:
        return next(out for _, out in self.executor.run([job]))

    def _limit(self, baseline: Outcome, treatment: Treatment) -> float:
        times = math.prod(float(d.settings.get("times", 1.0)) for d in treatment if d.remedy == "train-longer")
        return 10.0 + 3.0 * max(1.0, times) * baseline.seconds

    @property
    def _spent(self) -> bool:
        return time.perf_counter() - self.began > self.budget


def _behind(path: Path, best: Outcome, *, share: float = 0.4, most: float = 0.85, far: float = 0.15) -> str:
    """Why a run that goes on need not end: its score is far below what the best had at the same step; "" while it may."""
    if not best.record or not math.isfinite(best.skill):
        return ""
    try:
        record, other = Record.read(path), Record.read(best.record)
    except UnstuckError:
        return ""
    score, theirs = record.series("score").finite, other.series("score").finite
    if not len(score) or not len(theirs) or record.program.task.score != best.score:
        return ""
    if not share * best.steps <= score.steps[-1] < most * best.steps:
        return ""
    step = int(score.steps[-1])
    own, its = _recent(record, step), _recent(other, step)
    return "far behind the best at the same step" if own < its - far else ""


def _recent(record: Record, step: int) -> float:
    """Share of the way from chance to perfect around a step, the median of the last few samples before it."""
    values = record.series("score").finite.until(step + 1).values[-3:]
    return skill_of(record, float(np.median(values))) if len(values) else math.nan


def _certain(pairs: Sequence[tuple[Outcome, Outcome]]) -> Effect:
    """The effect on the share of the way from chance to perfect; what broke counts as far below chance."""
    return paired([max(-1.0, skill(a)) for a, _ in pairs], [max(-1.0, skill(b)) for _, b in pairs])


def gained(before: Outcome, after: Outcome) -> float:
    """By how much a run got further, as a share of the way from chance to perfect; of the loss where chance is not known."""
    if all(math.isfinite(o.skill) for o in (before, after)) or not math.isfinite(skill(before)) or before.value == 0:
        return skill(after) - skill(before)
    return (skill(after) - skill(before)) / abs(before.value)


def skill(outcome: Outcome) -> float:
    """How good a run got: share of the way from chance to perfect, else less its loss; minus infinity where it broke."""
    if outcome.status in ("failed", "diverged", "stopped") or not outcome.record:
        return -math.inf
    return outcome.skill if math.isfinite(outcome.skill) else outcome.quality


def _wanted(findings: Iterable[Finding]) -> list[tuple[str, float]]:
    """Remedies by name, and their rank: those of the first finding first, then of what it explains, then of the others."""
    ranked: dict[str, float] = {}
    level = 0.0
    for finding in findings:
        for i, name in enumerate(finding.treated_by):
            ranked.setdefault(name, level + i)
        for explained in finding.explains:
            for i, name in enumerate(explained.treated_by[:2]):
                ranked.setdefault(name, level + 1.5 + i)
        level += 1.0 if finding.severity != "note" else 3.0
    return sorted(ranked.items(), key=lambda item: item[1])


def _proposed(remedy: Any, script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    propose = getattr(sys.modules[remedy.__module__], "propose", None)
    try:
        return list(propose(script, verdict)) if propose is not None else [{}]
    except EditError:
        return []


# ---------------------------------------------------------------------- words


def _said(verdict: Verdict) -> str:
    loud = [f for f in verdict.findings if f.severity != "note"]
    return f"{loud[0].cause}: {loud[0].says}" if loud else (verdict.why_unknown or verdict.verdict)


def _outcome_words(outcome: Outcome) -> str:
    if outcome.status != "finished":
        return f"{outcome.status}{f': {outcome.error}' if outcome.error else ''}"
    return f"{outcome.score} {outcome.value:.3g}"


def _diff(source: Source, text: str) -> str:
    name = os.path.relpath(source.file)
    return "".join(
        difflib.unified_diff(
            source.text.splitlines(keepends=True), text.splitlines(keepends=True), f"a/{name}", f"b/{name}"
        )
    )
