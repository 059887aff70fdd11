from __future__ import annotations

import pytest

from unstuck.evidence import Event, Optimizer
from unstuck.rules.sharp_minimum import sharp_minimum


def probes(*, critical=1.5, top=40.0):
    found = {"critical-rate": {"critical": critical, "gain": 0.1}, "curvature": {"top": top, "bottom": 0.0}}
    return [Event(100, "probe", data={"name": name, **data}) for name, data in found.items()]


def evaluated(score=0.8):
    return {("eval_score", ""): [score]}


@pytest.mark.parametrize("state", ["stuck", "learns", "diverges"])
def test_what_did_not_learn_well_is_in_no_minimum(runs, state):
    assert sharp_minimum(getattr(runs, state)(evaluated(), events=probes())) == []


def test_without_experiments_nothing_is_said(runs):
    assert sharp_minimum(runs.well(evaluated())) == []
    assert sharp_minimum(runs.well(evaluated(), events=probes()[:1])) == []


@pytest.mark.parametrize(("critical", "found"), [(2.1, 0), (2.0, 1), (0.0, 0), (None, 0)])
def test_twice_its_own_step_climbs_the_walls(runs, critical, found):
    findings = sharp_minimum(runs.well(evaluated(), events=probes(critical=critical)))
    assert len(findings) == found
    assert all("at 2.00 times the last step" in f.says for f in findings)


@pytest.mark.parametrize(("score", "found"), [(0.9, 0), (0.88, 1)])
def test_new_data_are_behind(runs, score, found):
    """The training accuracy is 0.98, and a tenth of the way 0.09."""
    assert len(sharp_minimum(runs.well(evaluated(score), events=probes()))) == found


def test_without_evaluation_nothing_is_said(runs):
    assert sharp_minimum(runs.well(events=probes())) == []


def test_it_is_a_note(runs):
    (found,) = sharp_minimum(runs.well(evaluated(), events=probes()))
    assert found.severity == "note"
    assert "40" in found.says
    assert [e.value for e in found.evidence] == [40.0, 1.5]


def test_losses_that_pull_against_each_other_are_silent(runs):
    both = {"optimizers": [Optimizer(steps=100), Optimizer(steps=100)]}
    assert sharp_minimum(runs.well(evaluated(), events=probes(), **both)) == []


def measured(edge):
    return Event(100, "curvature", data={"part": "point", "top": 40.0, "bottom": 0.0}), Event(
        100, "curvature", data={"part": "rate", "edge": edge}
    )


@pytest.mark.parametrize(("edge", "found"), [(0.49, 0), (0.5, 1), (1.2, 1), (None, 0)])
def test_the_stable_rate_stands_in_for_losses_along_the_step(runs, edge, found):
    findings = sharp_minimum(runs.well(evaluated(), events=[*measured(edge)]))
    assert len(findings) == found
    assert all("of what it bears" in f.says for f in findings)


def test_losses_along_the_step_come_first(runs):
    assert sharp_minimum(runs.well(evaluated(), events=[*probes(critical=2.1), *measured(1.2)])) == []
