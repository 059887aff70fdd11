"""What is tried, kept, taken out again and confirmed: runs are looked up in a table, nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from unstuck import proposals, treating
from unstuck.evidence import Record, Task
from unstuck.patients import Written
from unstuck.proposals import Proposals
from unstuck.source import EditError
from unstuck.treating import CHECKS, FRESH, Doctor
from unstuck.trials.job import Job, Outcome
from unstuck.trials.visit import Dose
from unstuck.verdict import Finding, Verdict

ADAM, LONGER = Dose("optimizer", {"to": "Adam", "rate": 0.01}), Dose("train-longer", {"times": 10})
ZERO, CLIP = Dose("zero-grad", {}), Dose("gradient-clipping", {"norm": 1.0})


@dataclass
class Program:
    """A patient, its runs and what is found in them, by the remedies it is given."""

    scores: dict[frozenset[str], float]
    found: dict[Any, tuple[tuple[str, tuple[str, ...]], ...]] = field(default_factory=dict)  # or by remedies and seed
    impossible: frozenset[str] = frozenset()
    noise: dict[int | tuple[frozenset[str], int], float] = field(default_factory=dict)
    runs: list[tuple[frozenset[str], int]] = field(default_factory=list)

    def see(self, record):
        self.seen = record

    def proposing(self, record):
        return record

    def check(self, treatment):
        if self.impossible & {d.remedy for d in treatment}:
            raise EditError("it can't be written")

    def job(self, treatment=(), **given):
        names = frozenset(d.remedy for d in treatment)
        return Job((",".join(sorted(names)),), seed=given.get("seed", 0), probe_budget=given.get("probe_budget", 0.0))

    def written(self, treatment):
        return Written(diff=" + ".join(d.remedy for d in treatment))

    # the executor

    def run(self, jobs, *, enough=None, hopeless=None):
        for job in jobs:
            names = frozenset(filter(None, job.command[0].split(",")))
            self.runs.append((names, job.seed))
            noise = self.noise.get((names, job.seed), self.noise.get(job.seed, 0.0))
            score = self.scores.get(names, 0.1) + noise * bool(names)
            from_chance = score + 0.3 * bool(names)  # which is estimated anew in each run: not to be gone by
            outcome = Outcome(
                "finished", "accuracy", score, from_chance, 1.0, 10, record=f"{job.command[0]}@{job.seed}"
            )
            yield job, outcome
            if enough is not None and enough(job, outcome):
                return

    def later(self, jobs):
        pass

    def close(self):
        pass


@pytest.fixture
def visit(monkeypatch):
    """The visit of a program whose remedies each propose the one dose of theirs above, or no settings."""
    doses = {d.remedy: d.settings for d in (ADAM, LONGER, ZERO, CLIP)}
    task = Task("classification", 10, "accuracy", 2.3, 0.0)

    def made(program, **options):
        def read(path):
            return Record.of({("lr", ""): [0.0], ("loss", ""): [0.0]}, task=task, meta={"names": path})

        def diagnose(record):
            told, _, seed = str(record.meta["names"]).partition("@")
            names = frozenset(filter(None, told.split(",")))
            findings = program.found.get((names, int(seed)), program.found.get(names, ()))
            made = tuple(Finding(c, c, "error", 0.9, c, treated_by=t) for c, t in findings)
            return Verdict("sick" if made else "healthy", made)

        monkeypatch.setattr(treating.Record, "read", read)
        for module in (treating, proposals):
            monkeypatch.setattr(module, "diagnose", diagnose)
        monkeypatch.setattr(
            Proposals, "_proposed", lambda self, name, verdict, record: [doses[name]] if name in doses else []
        )
        return Doctor(program, program, **options).visit()

    return made


def names(*several):
    return frozenset(several)


SICK = {names(): (("gradients-accumulate", ("zero-grad",)),)}


def test_what_is_well_is_not_treated(visit):
    cure = visit(Program({names(): 0.5}))
    assert (cure.prescription, cure.why, cure.trials) == (None, "nothing is wrong with it", ())


def test_what_was_lucky_with_its_first_seed_is_treated_with_another(visit):
    found = {(names(), CHECKS + 1): (("gradients-accumulate", ("zero-grad",)),)}
    program = Program({names("zero-grad"): 0.98}, found)
    cure = visit(program)
    assert cure.prescription is not None
    assert cure.prescription.treatment == (ZERO,)
    assert cure.verdict.verdict == "sick"
    assert (names("zero-grad"), CHECKS + 1) in program.runs and (names("zero-grad"), 0) not in program.runs


def test_what_another_seed_cannot_do_without_stays(visit):
    found = {**SICK, names("zero-grad"): (("exploding-gradient", ("gradient-clipping",)),)}
    scores = {names("zero-grad"): 0.6, names("zero-grad", "gradient-clipping"): 0.99, names("gradient-clipping"): 0.985}
    luck = {(names("gradient-clipping"), seed): -0.6 for seed in range(CHECKS, FRESH)}
    cure = visit(Program(scores, found, noise=luck))
    assert cure.prescription is not None
    assert set(cure.prescription.treatment) == {ZERO, CLIP}


def test_a_third_look_where_two_leave_it_open(visit):
    noise = {(names("zero-grad"), FRESH + i): -1.6 for i in (0, 3)}
    cure = visit(Program({names("zero-grad"): 0.98}, SICK, noise=noise))
    assert cure.prescription is not None
    assert cure.prescription.effect.pairs == 12


def test_what_helps_is_confirmed_by_seeds_that_nothing_else_used(visit):
    program = Program({names("zero-grad"): 0.98}, SICK)
    cure = visit(program, seeds=4)
    assert cure.prescription is not None
    assert cure.prescription.treatment == (ZERO,)
    assert cure.prescription.effect.mean == pytest.approx(0.88)
    fresh = range(FRESH, FRESH + 4)
    confirming = program.runs[-8:]
    assert sorted(confirming, key=lambda r: (len(r[0]), r[1])) == [
        (names(*n), s) for n in ((), ("zero-grad",)) for s in fresh
    ]
    assert not {s for _, s in program.runs[:-8]} & set(fresh)


def test_nothing_is_prescribed_that_helped_with_one_seed_alone(visit):
    program = Program({names("zero-grad"): 0.98}, SICK, noise=dict.fromkeys(range(FRESH, FRESH + 99), -0.88))
    cure = visit(program)
    assert cure.prescription is None
    assert "not beyond noise" in cure.why


def test_what_gets_as_far_gains_nothing_whatever_chance_is_taken_to_be(visit):
    cure = visit(Program({names("zero-grad"): 0.1}, SICK))
    assert cure.prescription is None
    assert cure.trials[0].gain == pytest.approx(0.0)


def test_one_answer_to_all_is_a_guess_though_a_better_one(visit):
    """The commonest class may be commoner among what is evaluated: the score is above chance, and the same with every seed."""

    class Scores(dict):
        def get(self, key, default):
            return super().get(key, -0.7)

    scores = Scores({names(): 0.0, names("zero-grad"): 0.05})  # of the way from chance to perfect as well
    cure = visit(Program(scores, SICK))
    assert cure.prescription is None
    assert "no better than a guess" in cure.why
    noise = {FRESH + i: 0.01 * i for i in range(3)}
    assert visit(Program(scores, SICK, noise=noise)).prescription is not None


def test_as_many_pairs_again_where_the_first_leave_it_open(visit):
    program = Program({names("zero-grad"): 0.98}, SICK, noise={FRESH: -0.8})
    cure = visit(program)
    assert cure.prescription is not None
    assert cure.prescription.effect.pairs == 6


def test_what_is_still_found_is_treated_on_top(visit):
    found = {**SICK, names("zero-grad"): (("exploding-gradient", ("gradient-clipping",)),)}
    program = Program({names("zero-grad"): 0.6, names("zero-grad", "gradient-clipping"): 0.99}, found)
    cure = visit(program)
    assert cure.prescription is not None
    assert cure.prescription.treatment == (ZERO, CLIP)
    assert (names("zero-grad"), CHECKS) in program.runs


def test_of_those_that_did_well_the_one_that_does_with_other_seeds_is_taken(visit):
    found = {names(): (("gradients-accumulate", ("optimizer", "zero-grad")),)}
    shaky = {(names("optimizer"), seed): -0.6 for seed in range(CHECKS + 1, FRESH + 9)}
    cure = visit(Program({names("optimizer"): 0.92, names("zero-grad"): 0.9}, found, noise=shaky))
    assert cure.prescription is not None
    assert cure.prescription.treatment == (ZERO,)
    assert cure.prescription.effect.mean == pytest.approx(0.8)


def test_what_is_wrong_with_another_seed_is_treated_on_top(visit):
    found = {**SICK, names("zero-grad"): (("exploding-gradient", ("gradient-clipping",)),)}
    shaky = {(names("zero-grad"), seed): -0.6 for seed in range(CHECKS + 1, FRESH + 9)}
    program = Program({names("zero-grad"): 0.98, names("zero-grad", "gradient-clipping"): 0.98}, found, noise=shaky)
    cure = visit(program)
    assert cure.prescription is not None
    assert set(cure.prescription.treatment) == {ZERO, CLIP}


def test_what_does_well_with_all_seeds_is_not_compared_again(visit):
    program = Program({names("zero-grad"): 0.98, names("optimizer"): 0.97}, SICK)
    cure = visit(program)
    assert cure.prescription is not None
    assert cure.prescription.treatment == (ZERO,)
    assert len([r for r in program.runs if CHECKS <= r[1] < FRESH]) == treating.MANY


def test_what_is_not_needed_beside_what_came_later_is_taken_out(visit):
    found = {**SICK, names("zero-grad"): (("exploding-gradient", ("gradient-clipping",)),)}
    scores = {names("zero-grad"): 0.6, names("zero-grad", "gradient-clipping"): 0.99, names("gradient-clipping"): 0.985}
    cure = visit(Program(scores, found))
    assert cure.prescription is not None
    assert cure.prescription.treatment == (CLIP,)


def test_two_that_help_only_together_are_found_by_what_the_run_with_one_shows(visit):
    found = {**SICK, names("zero-grad"): (("exploding-gradient", ("gradient-clipping",)),)}
    program = Program({names("zero-grad", "gradient-clipping"): 0.98}, found)
    cure = visit(program)
    assert cure.prescription is not None
    assert cure.prescription.treatment == (ZERO, CLIP)


def test_what_was_called_for_and_helps_only_now_is_tried_again(visit):
    found = {names(): (("degenerate-targets", ("zero-grad", "gradient-clipping")),)}
    program = Program({names("zero-grad"): 0.9, names("zero-grad", "gradient-clipping"): 0.99}, found)
    cure = visit(program)
    assert cure.prescription is not None
    assert cure.prescription.treatment == (ZERO, CLIP)


def test_where_nothing_helps_what_helps_many_is_tried_last(visit):
    program = Program({names("optimizer"): 0.9}, SICK)
    cure = visit(program)
    assert cure.prescription is not None
    assert cure.prescription.treatment == (ADAM,)


def test_of_those_that_do_as_well_the_one_that_was_to_be_tried_first_is_taken(visit, monkeypatch):
    found = {names(): (("gradients-accumulate", ("zero-grad", "gradient-clipping", "optimizer")),)}
    program = Program({names("zero-grad"): 0.99, names("gradient-clipping"): 0.992, names("optimizer"): 0.99}, found)
    run = program.run

    def the_second_ends_first(jobs, **given):
        jobs = list(jobs)
        return run([*jobs[1:2], *jobs[:1], *jobs[2:]], **given)

    monkeypatch.setattr(program, "run", the_second_ends_first, raising=False)
    cure = visit(program)
    assert cure.prescription is not None
    assert cure.prescription.treatment == (ZERO,)
    assert (names("optimizer"), 0) not in program.runs  # two were enough


def test_what_cannot_be_given_is_told(visit):
    cure = visit(Program({}, SICK, impossible=names("zero-grad", "optimizer", "train-longer")))
    assert (cure.prescription, cure.why) == (None, "nothing that was tried helps")
    assert {t.why_not for t in cure.trials} == {"it can't be written"}


def test_when_time_is_over_what_is_best_is_confirmed(visit):
    found = {**SICK, names("zero-grad"): (("exploding-gradient", ("gradient-clipping",)),)}
    program = Program({names("zero-grad"): 0.6, names("zero-grad", "gradient-clipping"): 0.99}, found)
    cure = visit(program, budget=0.0)
    assert cure.prescription is not None
    assert cure.prescription.treatment == (ZERO,)


def test_who_breaks_it_off_gets_what_is_best_so_far(visit, monkeypatch):
    program = Program({names("zero-grad"): 0.6}, SICK)
    monkeypatch.setattr(Doctor, "_checked", lambda self, record: (_ for _ in ()).throw(KeyboardInterrupt))
    cure = visit(program)
    assert cure.prescription is not None
    assert cure.prescription.treatment == (ZERO,)
