from __future__ import annotations

import pytest

from unstuck.evidence import Event, Optimizer
from unstuck.rules.ill_conditioned import ill_conditioned


def probes(*, adam=0.82, best=0.55, losses=(2.3, 1.0, None), steps=50):
    data = {
        "factors": [0.1, 1.0, 10.0], "losses": list(losses), "scores": [0.1, best, None], "before": 2.3, "score_before": 0.1,
        "steps": steps, "rate": 0.1, "adam_rates": [1e-3, 1e-2], "adam_losses": [2.0, 0.5], "adam_scores": [0.3, adam],
    }  # fmt: skip
    return [Event(100, "probe", data={"name": "from-start", **data})]


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_a_rate_that_does_as_well_is_silent(runs, state):
    assert ill_conditioned(getattr(runs, state)(events=probes(best=0.8))) == []
    assert ill_conditioned(getattr(runs, state)()) == []


@pytest.mark.parametrize(("best", "found"), [(0.6, 0), (0.59, 1)])
def test_adam_gets_much_further_than_any_rate(runs, best, found):
    """A quarter of the way from 0.1 to 1 is 0.225: from 0.82 back to 0.595."""
    assert len(ill_conditioned(runs.stuck(events=probes(best=best)))) == found


@pytest.mark.parametrize(("adam", "found"), [(0.58, 0), (0.6, 1)])
def test_the_network_must_be_behind_that(runs, adam, found):
    """Its accuracy is 0.5, and a tenth of the way 0.09."""
    assert len(ill_conditioned(runs.learns(events=probes(adam=adam, best=0.2)))) == found


@pytest.mark.parametrize(
    ("kind", "found"), [("SGD", 1), ("ASGD", 1), ("hand-written", 1), ("Adam", 0), ("RMSprop", 0), ("LBFGS", 0)]
)
def test_only_plain_gradient_descent_is_judged(runs, kind, found):
    assert len(ill_conditioned(runs.stuck(events=probes(), optimizers=[Optimizer(kind, steps=100)]))) == found


@pytest.mark.parametrize(("state", "severities"), [("stuck", ["warning"]), ("learns", ["warning"]), ("well", [])])
def test_how_severe_it_is(runs, state, severities):
    assert [f.severity for f in ill_conditioned(getattr(runs, state)(events=probes()))] == severities


@pytest.mark.parametrize(("steps", "found"), [(19, 0), (20, 1)])
def test_few_updates_tell_who_sets_out_faster_and_no_more(runs, steps, found):
    assert len(ill_conditioned(runs.stuck(events=probes(steps=steps)))) == found


def test_numbers_are_told(runs):
    (found,) = ill_conditioned(runs.stuck(events=probes()))
    assert "50 updates of Adam go 0.800 of the way" in found.says
    assert "those of SGD 0.500 at its best rate (0.100)" in found.says
    assert found.treated_by[0] == "optimizer"


def test_a_rate_that_diverges_everywhere_goes_nowhere(runs):
    (found,) = ill_conditioned(runs.stuck(events=probes(losses=(None, None, None))))
    assert "SGD 0 at" in found.says


def test_without_adam_there_is_nothing_to_compare_with(runs):
    data = {k: v for k, v in probes()[0].data.items() if not k.startswith("adam")}
    assert ill_conditioned(runs.stuck(events=[Event(100, "probe", data=data)])) == []


def test_losses_that_pull_against_each_other_are_silent(runs):
    both = {"optimizers": [Optimizer(steps=100), Optimizer(steps=100)]}
    assert ill_conditioned(runs.stuck(events=probes(), **both)) == []


@pytest.mark.parametrize(("typical", "sure"), [(0.06, 0.55), (0.04, 0.65), (None, 0.55), (0.0, 0.55)])
def test_measured_curvature_makes_it_surer(runs, typical, sure):
    """An eigenvalue of 5 is a hundred times one of 0.05."""
    curvature = Event(100, "probe", data={"name": "curvature", "top": 5.0, "typical": typical})
    (found,) = ill_conditioned(runs.stuck(events=[*probes(), curvature]))
    assert found.confidence == sure
    assert ("times as much as a typical one" in found.says) == (sure > 0.6)


def test_steep_directions_alone_say_nothing(runs):
    curvature = Event(100, "probe", data={"name": "curvature", "top": 5.0, "typical": 1e-9})
    assert ill_conditioned(runs.stuck(events=[curvature])) == []
