"""Runs a training under the watcher, as `with unstuck.watch()` does, and gives what came of it."""

import contextlib
import functools
import math
from dataclasses import dataclass

import pytest
import torch

import unstuck
from unstuck.evidence import Record
from unstuck.verdict import Finding, Verdict

SEED = 0


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        score: What the program returned: how good it got, 1 is perfect; NaN when it crashed.
        verdict: Over its record.
        record: The record.
    """

    score: float
    verdict: Verdict
    record: Record

    @property
    def loud(self) -> tuple[Finding, ...]:
        """Findings of severity warning or worse; what one of them explains is under it."""
        return self.verdict.loud


@pytest.fixture(scope="session")
def outcome(tmp_path_factory):
    """The outcome of a program, a function of a seed; each is run once a session, in one thread."""

    @functools.cache
    def of(program, *, experiments=False):
        score, threads = math.nan, torch.get_num_threads()
        folder = tmp_path_factory.mktemp("run")
        torch.set_num_threads(1)
        try:
            with (
                torch.random.fork_rng(),
                contextlib.suppress(RuntimeError),
                unstuck.watch(probe_budget=0.15 if experiments else 0.0, runs=folder) as run,
            ):
                score = program(SEED)
        finally:
            torch.set_num_threads(threads)
        record, verdict = run.record, run.verdict
        failed = [e.data for e in record.happened("watcher-error")]
        failed += [e.data for e in record.happened("probe") if "error" in e.data]
        assert not failed, failed
        assert "rule_errors" not in verdict.run, verdict.run["rule_errors"]
        return Outcome(score, verdict, record)

    return of


@pytest.fixture(autouse=True)
def anew(request, outcome):
    """A test that is run once more runs its programs once more."""
    if getattr(request.node, "execution_count", 1) > 1:
        outcome.cache_clear()
