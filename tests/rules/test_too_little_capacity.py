from __future__ import annotations

import pytest

from unstuck.evidence import Event, Optimizer
from unstuck.rules.too_little_capacity import too_little_capacity


def probes(*, after=0.5, start_after=0.5, samples=32, reference=0.9, best=0.1):
    """Accuracies of ten classes: of the handful that was fitted, of the reference on samples it never saw, and with other rates."""
    found = [
        {"name": "overfit-batch", "score_after": after, "start_score_after": start_after, "samples": samples, "after": 1.2},
        {"name": "reference", "linear": 0.2, "mlp": reference, "network": 0.1, "chance": 0.1, "samples": 400},
        {
            "name": "step-sizes", "factors": [0.1, 1.0, 10.0], "losses": [2.0, 2.0, None], "scores": [best, 0.1, None],
            "before": 2.3, "score_before": 0.1, "steps": 50, "rate": 0.1,
        },
    ]  # fmt: skip
    return [Event(100, "probe", data=data) for data in found]


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_a_network_that_fits_a_handful_is_silent(runs, state):
    assert too_little_capacity(getattr(runs, state)(events=probes(after=1.0))) == []


def test_nothing_is_said_where_time_was_up_while_the_loss_fell(runs):
    overfit, *others = probes()
    assert len(too_little_capacity(runs.stuck(events=[overfit, *others]))) == 1
    cut = Event(100, "probe", data={**overfit.data, "falling": True})
    assert too_little_capacity(runs.stuck(events=[cut, *others])) == []


def test_without_experiments_nothing_is_said(runs):
    assert too_little_capacity(runs.stuck()) == []
    for left_out in ("overfit-batch", "reference"):
        events = [e for e in probes() if e.data["name"] != left_out]
        assert too_little_capacity(runs.stuck(events=events)) == []


@pytest.mark.parametrize(
    ("after", "start_after", "found"),
    [(0.83, 0.2, 0), (0.2, 0.83, 0), (0.81, 0.81, 1), (0.81, None, 1), (None, 0.5, 1)],
)
def test_eight_tenths_of_the_way_is_fitted_from_wherever_it_began(runs, after, start_after, found):
    """From 0.1 to 1 that is at 0.82."""
    assert len(too_little_capacity(runs.stuck(events=probes(after=after, start_after=start_after)))) == found


@pytest.mark.parametrize(("reference", "found"), [(0.32, 0), (0.34, 1)])
def test_a_larger_network_must_do_better(runs, reference, found):
    """A quarter of the way from where it is, at chance: 0.325."""
    assert len(too_little_capacity(runs.stuck(events=probes(reference=reference)))) == found


@pytest.mark.parametrize(("best", "found"), [(0.15, 0), (0.14, 1)])
def test_another_rate_must_not(runs, best, found):
    assert len(too_little_capacity(runs.stuck(events=probes(best=best)))) == found


@pytest.mark.parametrize(("samples", "found"), [(15, 0), (16, 1)])
def test_a_few_samples_are_learned_by_any_network(runs, samples, found):
    findings = too_little_capacity(runs.stuck(events=probes(samples=samples)))
    assert len(findings) == found
    assert all(f"{samples} samples" in f.says for f in findings)


@pytest.mark.parametrize(
    ("state", "severities"), [("stuck", ["error"]), ("learns", ["warning"]), ("well", []), ("diverges", [])]
)
def test_how_severe_it_is(runs, state, severities):
    assert [f.severity for f in too_little_capacity(getattr(runs, state)(events=probes()))] == severities


def test_numbers_are_told(runs):
    (found,) = too_little_capacity(runs.stuck(events=probes(after=0.4, start_after=0.6)))
    assert "stays at 0.6" in found.says and "reaches 0.9" in found.says
    assert found.evidence[0].value == 0.6
    assert found.treated_by[0] == "wider"


def test_a_failed_experiment_tells_nothing(runs):
    failed = Event(100, "probe", data={"name": "overfit-batch", "error": "RuntimeError: no"})
    assert too_little_capacity(runs.stuck(events=[*probes(), failed])) == []


def test_losses_that_pull_against_each_other_are_silent(runs):
    both = {"optimizers": [Optimizer(steps=100), Optimizer(steps=100)]}
    assert too_little_capacity(runs.stuck(events=probes(), **both)) == []
