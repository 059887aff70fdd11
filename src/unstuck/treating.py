"""The treatment, read from top to bottom: see what is wrong, try what may help, go on until it is well, and prove it.

1. One run as it stands, surveyed and with experiments: what is wrong, and where in the script the training is made. Where nothing is,
   two of other seeds: it may have been lucky.
2. Remedies that the findings call for, with the settings they propose; a run of each, of the same seed. The best is kept where it
   helps, is run with another seed and diagnosed again, and what is still wrong is treated on top of it.
3. What the best can do without is taken out of it. Where it does less well with other seeds, what did as well is run with these, too.
4. Fresh seeds, with and without: the effect is that of these pairs alone, as the best of many tries always looks good.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unstuck._language import Said, joined, say, stored
from unstuck.doctor import diagnose
from unstuck.evidence import Record
from unstuck.patients import Patient
from unstuck.proposals import FALLBACK, Proposals
from unstuck.rules._learning import skill as skill_of
from unstuck.rules._probes import reachable
from unstuck.trials.compare import behind, effect, floored, gained, skill
from unstuck.trials.estimate import paired
from unstuck.trials.executor import Executor
from unstuck.trials.job import LOWER_IS_BETTER, Job, Outcome
from unstuck.trials.visit import Cure, Prescription, Treatment, Trial, words
from unstuck.verdict import Verdict

WELL = 0.97  # of the way from chance to perfect: no more is looked for
FINE = 0.85  # of that way, or as far as a small reference network comes: enough where nothing is found any more
HELPS = 0.02  # of that way: the least that a single run must gain to be gone on with
ALIKE = 0.005  # of that way: as good, so that the one that was to be tried first is taken
GUESS = 0.1  # of that way: the same score with every seed below this is that of one answer to all
ROUNDS = 4
LAST = 8  # treatments, where nothing that the findings call for helps
FEW = 3  # treatments of a kind that are tried in any case
SHARE = 0.15  # of a run's time that experiments may take
LOOKING = 0.75  # of the budget, that goes to finding what helps; the rest is for what it does with other seeds
SHAKY = 0.1  # of that way: what one seed may fall behind another, before others are run with both
RIVALS = 3  # that are
OTHERS = 2  # seeds with which luck is told from help, at least
MANY = 6  # such seeds, at most
CHECKING = 0.1  # of the budget, that more of them may take
MOST = 0.15  # of the budget, that a run of still more steps may take
# Looks at pairs of fresh seeds, each at twice as many, while they leave open whether it helps: how many half widths of its interval the
# effect must lie above zero, so that luck comes to 5% over all of them at most (2.5%, 1.4% and 0.8% with three pairs at first).
LOOKS = (1.0, 1.2, 1.3)
CHECKS = 500  # where the seeds begin that tell luck from help while it is looked for
FRESH = 1000  # where those of the confirmation begin, which nothing else uses
Tell = Callable[[str], None]


class Doctor:
    """Cures one program.

    Args:
        patient: The program.
        executor: Makes the runs.
        seeds: Pairs of fresh seeds that confirm.
        budget: Seconds that tries may take before the confirmation.
        tell: Shown what goes on.
    """

    def __init__(
        self,
        patient: Patient,
        executor: Executor,
        *,
        seeds: int = 3,
        budget: float = 120.0,
        tell: Tell = lambda words: None,
    ) -> None:
        self.patient, self.executor = patient, executor
        self.seeds, self.budget, self.tell = seeds, budget, tell
        self.began = time.perf_counter()
        self.trials: list[Trial] = []
        self._may_help = Proposals(patient)
        self._seed = 0  # of the runs that are compared
        self._until = 1.0  # of the budget
        self._checks = CHECKS
        self._record: Record | None = None  # of the program as it stands

    # ------------------------------------------------------------------ the visit

    def visit(self) -> Cure:
        """All of it."""
        self.executor.later(self.patient.job(seed=FRESH + i) for i in range(self.seeds))
        baseline = self._one(self.patient.job(survey=True, probe_budget=SHARE))
        if not baseline.record:
            return self._over(
                Verdict("unknown", (), baseline.error or say("it could not be run"), {}), baseline, why=baseline.error
            )
        record = self._record = Record.read(baseline.record)
        verdict = diagnose(record)
        if baseline.status == "failed" and not record.steps:
            return self._over(
                verdict, baseline, why=say("it failed before a step was made: {error}", error=baseline.error)
            )
        self.patient.see(record)
        if _well(verdict):
            seen = baseline
            if not self._spent:
                verdict, record, seen = self._unlucky(verdict, record, baseline)
            if _well(verdict):
                return self._over(verdict, baseline, why=say("nothing is wrong with it"))
            baseline = seen
        self.tell(_said(verdict))
        best = self._treat(verdict, record, baseline)
        if not best:
            return self._over(verdict, baseline, why=say("nothing that was tried helps"))
        try:
            return self.confirm(verdict, baseline, best)
        except KeyboardInterrupt:
            why = say("stopped before it was confirmed: {treatment} helped with one seed", treatment=words(best))
            return self._over(verdict, baseline, why=why)

    def _unlucky(self, verdict: Verdict, record: Record, baseline: Outcome) -> tuple[Verdict, Record, Outcome]:
        """The program as it stands with another seed, where something is wrong with it then; else what is given."""
        self._baseline = baseline
        jobs = [self._job((), seed=seed, probe_budget=SHARE) for seed in self._other_seeds(OTHERS)]
        try:
            for job, outcome in self._run(jobs):
                self.tell(say("with another seed: {outcome}", outcome=_outcome_words(outcome)))
                seen = Record.read(outcome.record) if outcome.record else None
                if seen is not None and (again := diagnose(seen)).loud:
                    self._seed = job.seed
                    return again, seen, outcome
        except KeyboardInterrupt:
            self.tell(say("stopped"))
        return verdict, record, baseline

    def _treat(self, verdict: Verdict, record: Record, baseline: Outcome) -> Treatment:
        """Rounds of trials, each on top of the best so far; who breaks it off gets the best so far."""
        self._best: tuple[Treatment, Outcome] = ((), baseline)
        self._baseline = baseline
        self._outcomes: dict[Treatment, Outcome] = {}
        try:
            self._until = LOOKING
            self._rounds(verdict, record)
            self._until = 1.0
            self._prune()
            self._settle()
        except KeyboardInterrupt:
            self.tell(say("stopped: what is best so far is confirmed"))
        return self._best[0]

    def _rounds(self, verdict: Verdict, record: Record) -> None:
        reference = skill_of(record, reachable(record))
        self._reach = min(WELL, max(0.9, reference)) if math.isfinite(reference) else WELL
        fine = min(FINE, reference) if math.isfinite(reference) else FINE
        for _ in range(ROUNDS):
            if not self._round(verdict, record) or self._over_with:
                return
            again = self._checked(record)
            if not again.record or self._over_with:
                return
            record, first = Record.read(again.record), verdict
            verdict = diagnose(record)
            if not verdict.loud and skill(self._best[1]) > fine:
                self._try(self._may_help.alone(first, record, self._best[0])[:FEW])  # what helps only now
                return
            if verdict.loud:
                self.tell(say("still {finding}", finding=_said(verdict)))

    def _round(self, verdict: Verdict, record: Record) -> bool:
        """One dose more, else two at once, else what helps many; whether any helps."""
        base = self._best[0]
        return (
            self._try(self._may_help.alone(verdict, record, base))
            or self._try(self._may_help.by_twos(verdict, record, base, self._outcomes))
            or self._try(self._may_help.alone(verdict, record, base, FALLBACK, most=LAST))
        )

    @property
    def _over_with(self) -> bool:
        """It is as good as can be expected, or time is over."""
        return self._spent or skill(self._best[1]) > self._reach

    def _checked(self, record: Record) -> Outcome:
        """The best, of another seed and with experiments, as one may be lucky; other strengths of it are tried beside it."""
        treatment, was = self._best
        (seed,) = self._other_seeds(1)
        check = self._job(treatment, seed=seed, probe_budget=SHARE)
        own, most = self._lasts(treatment), MOST * self.budget
        around = [t for t in self._may_help.around(treatment, record) if self._lasts(t) < max(most, 1.01 * own)]
        self._try(around, beside=check)
        again = self._one(check)  # from the log
        if self._best[0] == treatment and skill(again) < skill(was) - HELPS:
            self._seed, self._best = seed, (treatment, again)
        return again

    def _prune(self) -> None:
        """Takes out what the best can do without: what helped at first may not be needed beside what came later."""
        treatment, outcome = self._best
        if len(treatment) < 2 or self._spent:
            return
        lesser = [(*treatment[:i], *treatment[i + 1 :]) for i in range(len(treatment) - 1)]
        jobs = [(self._job(t, seed=self._seed), t) for t in lesser if self._may_help.open(t)]
        treatments = {job.key: t for job, t in jobs}
        enough_of_it = skill(outcome) - HELPS / 2
        other, whole = self._other_seeds(1), math.nan  # a seed, and how good the whole is with it
        kept: list[tuple[Treatment, Outcome]] = []
        for job, without in list(self._run([job for job, _ in jobs])):
            smaller = treatments[job.key]
            self._may_help.tried.add(frozenset(smaller))
            self._outcomes[smaller] = without
            good = skill(without) >= enough_of_it
            if good:  # with one seed: so may be luck
                whole = skill(self._others(treatment, other)[0]) if math.isnan(whole) else whole
                good = skill(self._others(smaller, other)[0]) >= whole - HELPS
            self.trials.append(Trial(smaller, (without.value,), gained(self._baseline, without), without.seconds, good))
            self.tell(_of(smaller, without, "- " if good else "  "))
            if good:
                kept.append((smaller, without))
        if kept:
            self._best = max(kept, key=lambda k: skill(k[1]))
            self._prune()

    def _settle(self) -> None:
        """Where the best does less well with other seeds, takes what does well with these, too, or treats what is wrong there."""
        treatment, outcome = self._best
        if not treatment or self._spent or not math.isfinite(outcome.skill):
            return
        count = max(OTHERS, min(MANY, int(CHECKING * self.budget / max(0.1, outcome.seconds))))
        seeds = self._other_seeds(count)
        level = skill(outcome)
        found = {treatment: self._others(treatment, seeds)}
        worst = min(range(len(seeds)), key=lambda i: floored(found[treatment][i]))
        if floored(found[treatment][worst]) >= level - SHAKY:
            return
        self.tell(
            say(
                "  {treatment}, with another seed: {outcome}",
                treatment=words(treatment),
                outcome=_outcome_words(found[treatment][worst]),
            )
        )
        ranked = sorted(self._outcomes, key=lambda t: -skill(self._outcomes[t]))
        rivals = [t for t in ranked if t != treatment and skill(self._outcomes[t]) >= level - SHAKY][:RIVALS]
        for rival in rivals:
            if not self._spent:
                found[rival] = self._others(rival, seeds)
        means = {
            t: sum(map(floored, outs)) / len(outs) - (HELPS if t != treatment else 0.0) for t, outs in found.items()
        }
        best = max(means, key=means.__getitem__)
        self._seed = seeds[worst]
        self._best = (best, found[best][worst])
        if best != treatment:
            self.tell(_of(best, found[best][worst], "+ "))
        if floored(found[best][worst]) < level - SHAKY and not self._spent and self._best[1].record:
            record = Record.read(self._best[1].record)
            if self._round(diagnose(record), record):
                self._settle()

    def _other_seeds(self, count: int) -> range:
        """Seeds that nothing has been looked at with."""
        self._checks += count
        return range(self._checks - count, self._checks)

    def _others(self, treatment: Treatment, seeds: Sequence[int]) -> list[Outcome]:
        """What comes of a treatment with other seeds."""
        jobs = [self._job(treatment, seed=seed) for seed in seeds]
        found = {job.key: outcome for job, outcome in self._run(jobs)}
        return [found[job.key] for job in jobs]

    def _try(self, treatments: Sequence[Treatment], *, beside: Job | None = None) -> bool:
        """A run of each, of one seed; the best becomes the one to go on with. Whether one helps.

        Args:
            treatments: In the order in which they are tried.
            beside: A run that is made beside them, whatever comes of them.
        """
        before = self._best[1]
        jobs: dict[str, Treatment] = {}
        waiting: list[Job] = []
        for treatment in treatments:
            self._may_help.tried.add(frozenset(treatment))
            job = self._job(treatment, seed=self._seed)
            if job.key not in jobs:
                jobs[job.key] = treatment
                waiting.append(job)
        helped = False
        left = {beside.key} if beside else set[str]()
        places = {job.key: i for i, job in enumerate(waiting)}
        open_ = set(places.values())
        at = len(places)  # where the best stands among them
        done = 0

        def enough(job: Job, outcome: Outcome) -> bool:
            """None is stopped that began before one that does well: it comes first, and is about to end."""
            well = skill(self._best[1]) > WELL and at < min(open_, default=len(places))
            good = well or (done >= FEW and skill(self._best[1]) > self._reach)
            return not left and (good or self._spent)

        def hopeless(job: Job, record: Path) -> str:
            if job.key in left or "train-longer" in {d.remedy for d in jobs[job.key]}:
                return ""
            return behind(record, self._best[1])

        for job, outcome in self._run([*([beside] if beside else []), *waiting], enough=enough, hopeless=hopeless):
            if job.key not in jobs:
                left.discard(job.key)
                continue
            done += 1
            treatment, place = jobs[job.key], places[job.key]
            open_.discard(place)
            self._outcomes[treatment] = outcome
            gain = gained(before, outcome)
            ahead = skill(outcome) - skill(self._best[1])
            better = gain > HELPS and (ahead > ALIKE or (ahead > -ALIKE and place < at))
            self.trials.append(Trial(treatment, (outcome.value,), gain, outcome.seconds, better, outcome.error))
            self.tell(_of(treatment, outcome, "+ " if better else "  "))
            if better:
                self._best, helped, at = (treatment, outcome), True, place
        return helped

    # ------------------------------------------------------------------ the proof

    def confirm(self, verdict: Verdict, baseline: Outcome, best: Treatment) -> Cure:
        """Whether a treatment helps: pairs of fresh seeds, and as many again where the first few leave it open.

        Args:
            verdict: Over the program as it stands.
            baseline: Its outcome.
            best: The treatment.

        Returns:
            The visit so far, with a prescription where it helps beyond noise.
        """
        self._baseline = baseline
        self.tell(say("confirming {treatment}", treatment=words(best)))
        pairs = self._pairs_of_runs(best, range(FRESH, FRESH + self.seeds))
        certain = effect(pairs)
        helps = certain.helps
        for wider in LOOKS[1:]:
            if not helps and certain.mean > HELPS:
                pairs += self._pairs_of_runs(best, range(FRESH + len(pairs), FRESH + 2 * len(pairs)))
                certain = effect(pairs)
                helps = certain.mean > wider * (certain.mean - certain.low)
        if not helps:
            why = say(
                "{treatment} helped with one seed, but not beyond noise with {others} others",
                treatment=words(best),
                others=len(pairs),
            )
            broke = next((b for _, b in pairs if b.status != "finished"), None)
            told = say("{why}: one {outcome}", why=why, outcome=_outcome_words(broke)) if broke else why
            return self._over(verdict, baseline, why=told)
        treated = pairs[0][1]
        if _guesses([b for _, b in pairs]):
            why = say(
                "with {treatment} it is no better than a guess still: {outcome}",
                treatment=words(best),
                outcome=_outcome_words(treated),
            )
            return self._over(verdict, baseline, why=why)
        after = diagnose(Record.read(treated.record)) if treated.record else None
        values = [(a.value, b.value) for a, b in pairs]
        same = all(a.score == b.score and math.isfinite(a.value) and math.isfinite(b.value) for a, b in pairs)
        same = same and (
            min(skill(o) for pair in pairs for o in pair) > -1.0 or not math.isfinite(treated.skill)
        )  # R2 has no floor
        sign = -1.0 if treated.score in LOWER_IS_BETTER else 1.0
        written = self.patient.written(best)
        known = math.isfinite(treated.skill)
        prescription = Prescription(
            best, paired([sign * a for a, _ in values], [sign * b for _, b in values]) if same else certain,
            treated.score if same else say("share of the way from chance to perfect") if known else say("share of the loss"), treated.score,
            tuple(a for a, _ in values), tuple(b for _, b in values), tuple(f.cause for f in after.loud) if after else (),
            written.edits, written.digests, written.texts, written.diff, written.training,
            certain, tuple((a.record, b.record) for a, b in pairs),
        )  # fmt: skip
        return self._over(verdict, baseline, prescription=prescription)

    def _pairs_of_runs(self, best: Treatment, seeds: Iterable[int]) -> list[tuple[Outcome, Outcome]]:
        """Runs without and with a treatment, of the same seeds; the first with it tells what is still wrong, too."""
        limit = self._limit(best)
        jobs = [
            (
                self.patient.job(seed=s, limit=limit),
                self.patient.job(best, seed=s, limit=limit, probe_budget=SHARE if s == FRESH else 0.0),
            )
            for s in seeds
        ]
        told = {a.key: say("  seed {seed} without: ", seed=a.seed) for a, _ in jobs}
        told |= {b.key: say("  seed {seed} with it: ", seed=a.seed) for a, b in jobs}
        got: dict[str, Outcome] = {}
        for job, outcome in self._run([*(b for _, b in jobs), *(a for a, _ in jobs)]):
            got[job.key] = outcome
            self.tell(joined((told[job.key], _outcome_words(outcome))))
        return [(got[a.key], got[b.key]) for a, b in jobs]

    def _over(
        self, verdict: Verdict, baseline: Outcome, *, prescription: Prescription | None = None, why: str = ""
    ) -> Cure:
        return Cure(
            verdict,
            baseline,
            (*self.trials, *self._may_help.refused),
            prescription,
            why,
            time.perf_counter() - self.began,
        )

    # ------------------------------------------------------------------ runs

    def _job(self, treatment: Treatment, **given: Any) -> Job:
        return self.patient.job(treatment, limit=self._limit(treatment), **given)

    def _run(
        self, jobs: Iterable[Job], *, enough: Callable[[Job, Outcome], bool] | None = None, **given: Any
    ) -> Iterator[tuple[Job, Outcome]]:
        """Makes jobs; all are measured from the same chance, which is estimated anew in each run."""

        def over(job: Job, outcome: Outcome) -> bool:
            return enough is not None and enough(job, self._alike(outcome))

        for job, outcome in self.executor.run(jobs, enough=over, **given):
            yield job, self._alike(outcome)

    def _alike(self, outcome: Outcome) -> Outcome:
        if self._record is None or self._record.program.task.score != outcome.score:
            return outcome
        return replace(outcome, skill=skill_of(self._record, outcome.value))

    def _one(self, job: Job) -> Outcome:
        return next(out for _, out in self._run([job]))

    def _limit(self, treatment: Treatment) -> float:
        return 20.0 + 4.0 * max(self._baseline.seconds, self._lasts(treatment))

    def _lasts(self, treatment: Treatment) -> float:
        """Seconds that a run of a treatment takes, about."""
        times = math.prod(float(d.settings.get("times", 1.0)) for d in treatment if d.remedy == "train-longer")
        return times * self._baseline.seconds

    @property
    def _spent(self) -> bool:
        return time.perf_counter() - self.began > self._until * self.budget


# ---------------------------------------------------------------------- words


def _well(verdict: Verdict) -> bool:
    return not verdict.loud and verdict.verdict != "unknown"


def _said(verdict: Verdict) -> str:
    loud = verdict.loud
    return joined((loud[0].cause, loud[0].says), ": ") if loud else (verdict.why_unknown or verdict.verdict)


def _guesses(treated: Sequence[Outcome]) -> bool:
    """Whether runs got no further than a guess; that they differ in nothing tells that they answer all alike."""
    reached = [outcome.skill for outcome in treated]
    if not all(map(math.isfinite, reached)):
        return False
    mean = sum(reached) / len(reached)
    return mean < HELPS or (mean < GUESS and len({outcome.value for outcome in treated}) == 1)


def _of(treatment: Treatment, outcome: Outcome, mark: str) -> Said:
    return joined((mark, words(treatment), ": ", _outcome_words(outcome)))


def _outcome_words(outcome: Outcome) -> Said:
    if outcome.status != "finished":
        return joined((stored(outcome.status), *([outcome.error] if outcome.error else [])), ": ")
    return joined((stored(outcome.score), f"{outcome.value:.3g}"), " ")
