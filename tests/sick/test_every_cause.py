"""One fault, planted in one tiny training, and the same training without it.

Each file beside this one that is named after a cause is such a pair: `sick(seed)` and `healthy(seed)` train and return how
good the network got, 1 for perfect. A second pair of the same cause is named `<cause>__<what>.py`. A file may also say:

    EXPERIMENTS = True   the cause is found by experiments when the training has ended, which take a second or two
    NOTE = True          the cause is worth a note and never more
    MISSED = "..."       why the fault isn't found as it should be
    FALSE_ALARM = "..."  why the twin isn't found healthy
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from unstuck._discover import find
from unstuck.verdict import CAUSES, flatten

pytestmark = pytest.mark.slow

BETTER = 0.1  # what the healthy twin must be ahead by


def load(path: Path) -> ModuleType:
    """The module in a file."""
    spec = importlib.util.spec_from_file_location(f"sick_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cause_of(name: str) -> str:
    """The cause that a file is named after."""
    return name.partition("__")[0].replace("_", "-")


PAIRS = {
    path.stem: load(path)
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if not path.stem.startswith("test_") and path.stem != "conftest"
}
RULES = find("rules")


def pairs(reason: str = ""):
    """The pairs as parameters, with those that give a reason of this name expected to fail."""

    def marks(name: str, pair: ModuleType):
        if getattr(pair, "EXPERIMENTS", False):
            yield pytest.mark.slow
        why = getattr(pair, reason, "") if reason else ""
        if reason == "MISSED" and cause_of(name) not in RULES:
            why = "no rule yet"
        if why:
            yield pytest.mark.xfail(strict=True, raises=AssertionError, reason=why)

    return pytest.mark.parametrize(
        ("cause", "pair"),
        [pytest.param(cause_of(name), pair, marks=list(marks(name, pair)), id=name) for name, pair in PAIRS.items()],
    )


def watched(outcome, program, pair):
    """The outcome of one of a pair."""
    return outcome(program, experiments=getattr(pair, "EXPERIMENTS", False))


def test_every_cause_has_a_pair_and_every_pair_a_cause():
    assert {cause_of(name) for name in PAIRS} == set(CAUSES)
    assert set(RULES) <= set(CAUSES)


@pairs(reason="MISSED")
def test_the_fault_is_found_and_nothing_beside_it(outcome, cause, pair):
    found = watched(outcome, pair.sick, pair)
    assert [f.cause for f in found.verdict.findings[:1]] == [cause]
    assert [f.cause for f in found.loud] == ([] if getattr(pair, "NOTE", False) else [cause])


@pytest.mark.slow
@pairs(reason="FALSE_ALARM")
def test_the_twin_is_healthy(outcome, cause, pair):
    found = watched(outcome, pair.healthy, pair)
    assert found.verdict.verdict == "healthy", found.verdict
    assert cause not in [f.cause for f in flatten(found.verdict.findings)]


@pytest.mark.slow
@pairs()
def test_the_twin_learns_what_the_sick_one_does_not(outcome, cause, pair):
    sick, healthy = (watched(outcome, program, pair).score for program in (pair.sick, pair.healthy))
    assert healthy > 0.3
    assert not sick > healthy - BETTER  # NaN where it crashed or its loss did
