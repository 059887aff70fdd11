from __future__ import annotations

import pytest

from unstuck.evidence import Event, Optimizer
from unstuck.rules.labels_unrelated import labels_unrelated


def probes(*, held=0.11, fitted=0.8, samples=1000, chance=0.1):
    data = {
        "linear": 0.05,
        "mlp": held,
        "fitted": fitted,
        "network": 0.1,
        "chance": chance,
        "samples": samples,
        "score": "accuracy",
    }
    return [Event(100, "probe", data={"name": "reference", **data})]


def evaluated(score):
    return {("eval_score", ""): [score]}


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_labels_that_can_be_learned_are_silent(runs, state):
    assert labels_unrelated(getattr(runs, state)(evaluated(0.1), events=probes(held=0.7))) == []


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_without_experiments_nothing_is_said(runs, state):
    assert labels_unrelated(getattr(runs, state)(evaluated(0.1))) == []


@pytest.mark.parametrize(("held", "found"), [(0.15, 0), (0.14, 1)])
def test_new_samples_are_at_chance(runs, held, found):
    """Of 3000 samples 1000 are held out: 2.5 standard errors are 0.024, a twentieth of the way is 0.045."""
    assert len(labels_unrelated(runs.stuck(evaluated(0.1), events=probes(held=held, samples=3000)))) == found


@pytest.mark.parametrize(("held", "found"), [(0.17, 0), (0.155, 1)])
def test_few_samples_may_be_above_it_by_chance(runs, held, found):
    """Of 400 samples 133 are held out: 2.5 standard errors are 0.065."""
    assert len(labels_unrelated(runs.stuck(evaluated(0.1), events=probes(held=held, samples=400)))) == found


@pytest.mark.parametrize(("fitted", "found"), [(0.37, 0), (0.39, 1)])
def test_the_reference_must_be_able_to_learn_its_own_half_by_heart(runs, fitted, found):
    """0.27 more than on the other."""
    assert len(labels_unrelated(runs.stuck(evaluated(0.1), events=probes(fitted=fitted, held=0.11)))) == found


@pytest.mark.parametrize(("samples", "found"), [(199, 0), (200, 1)])
def test_the_reference_must_have_had_samples(runs, samples, found):
    assert len(labels_unrelated(runs.stuck(evaluated(0.1), events=probes(samples=samples)))) == found


@pytest.mark.parametrize(("samples", "found"), [(800, 0), (900, 1)])
def test_more_of_them_where_chance_is_high(runs, samples, found):
    """At a chance of a half 2.5 standard errors are more than three twentieths of the way, up to 833 samples."""
    events = probes(held=0.5, chance=0.5, samples=samples, fitted=0.9)
    assert len(labels_unrelated(runs.stuck(evaluated(0.1), events=events))) == found


@pytest.mark.parametrize(("score", "found"), [(0.18, 0), (0.15, 1)])
def test_a_network_that_does_better_on_new_data_shows_that_labels_follow(runs, score, found):
    """2.5 standard errors of 400 samples are 0.065 of accuracy, and as much of the way."""
    assert len(labels_unrelated(runs.learns(evaluated(score), events=probes(samples=400)))) == found


@pytest.mark.parametrize(("series", "severity", "confidence"), [(evaluated(0.1), "error", 0.8), ({}, "warning", 0.6)])
def test_how_severe_it_is(runs, series, severity, confidence):
    (found,) = labels_unrelated(runs.stuck(series, events=probes()))
    assert (found.severity, found.confidence) == (severity, confidence)
    assert "1000 samples" in found.says and "0.8" in found.says and "0.11" in found.says


@pytest.mark.parametrize(("state", "found"), [("well", 0), ("learns", 0), ("stuck", 1)])
def test_without_evaluation_a_network_that_learns_may_have_found_it(runs, state, found):
    assert len(labels_unrelated(getattr(runs, state)(events=probes()))) == found


def test_a_network_that_learned_by_heart_does_no_better_on_new_data(runs):
    (found,) = labels_unrelated(runs.well(evaluated(0.1), events=probes()))
    assert found.severity == "error"


@pytest.mark.parametrize(("held", "found"), [(0.08, 0), (0.07, 1)])
def test_regression(runs, held, found):
    """Chance is an R2 of 0, and 0.075 the noise that is allowed."""
    given = runs.regression([1.0] * 100)
    series = {**given.pop("series"), **evaluated(-0.1)}
    events = probes(held=held, fitted=0.9, chance=0.0)
    assert len(labels_unrelated(runs.stuck(series, events=events, **given))) == found


def test_losses_that_pull_against_each_other_are_silent(runs):
    both = {"optimizers": [Optimizer(steps=100), Optimizer(steps=100)]}
    assert labels_unrelated(runs.stuck(evaluated(0.1), events=probes(), **both)) == []


@pytest.mark.parametrize(("real", "found"), [(0.22, 1), (0.24, 0)])
def test_labels_that_are_learned_better_than_permuted_ones_follow(runs, real, found):
    """From 0.1 to 1, 0.15 of the way is at 0.235."""
    tried = {"name": "permuted-labels", "steps": 100, "losses": [2.3, 2.0, 2.4], "scores": [0.1, real, 0.1]}
    events = [*probes(), Event(100, "probe", data=tried)]
    assert len(labels_unrelated(runs.stuck(events=events))) == found
