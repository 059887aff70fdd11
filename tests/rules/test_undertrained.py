from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Event, Optimizer
from unstuck.rules.undertrained import undertrained


def loss(values):
    return {("loss", ""): np.asarray(values, float)}


def slope(part):
    """A loss over 100 steps whose last quarter brings this part of all progress."""
    return loss(np.interp(np.arange(100), [0, 62, 87, 99], [2.3, 1.3 + part * 1.05, 1.3, 1.28]))


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_a_settled_loss_is_silent(runs, state):
    assert undertrained(getattr(runs, state)()) == []


@pytest.mark.parametrize(("part", "found"), [(0.05, 0), (0.25, 1)])
def test_a_tenth_of_all_progress_in_the_last_quarter(runs, part, found):
    findings = undertrained(runs.learns(slope(part)))
    assert len(findings) == found
    assert all(f.severity == "warning" and "100 steps" in f.says for f in findings)


def test_the_part_is_a_threshold(runs):
    straight = loss(np.linspace(2.3, 1.3, 100))  # the last quarter brings a quarter
    assert undertrained(runs.learns(straight))
    assert undertrained(runs.learns(straight), progress_left=0.3) == []


def test_noise_is_no_progress(runs):
    noisy = 1.5 + np.random.default_rng(1).normal(0, 0.3, 100)
    noisy[:3] = 1.6
    assert undertrained(runs.learns(loss(noisy)), progress_left=0.0) == []


def test_a_network_that_learns_well_is_left_alone(runs):
    assert undertrained(runs.well(loss(np.linspace(2.3, 0.2, 100)))) == []


@pytest.mark.parametrize(("end", "found"), [(0.004, 0), (0.006, 1)])
def test_a_rate_that_was_scheduled_down_means_the_end_was_planned(runs, end, found):
    series = {**loss(np.linspace(2.3, 1.3, 100)), ("lr", ""): np.linspace(0.1, end, 100)}
    assert len(undertrained(runs.learns(series))) == found


@pytest.mark.parametrize(("last", "found"), [(1.04, 1), (1.06, 0)])
def test_evaluation_that_gets_worse_needs_no_more_training(runs, last, found):
    series = {**loss(np.linspace(2.3, 1.3, 100)), ("eval_loss", ""): [2.0, 1.0, last]}
    assert len(undertrained(runs.learns(series))) == found


@pytest.mark.parametrize(("steps", "found"), [(4, 0), (5, 1)])
def test_very_few_steps_are_too_few_to_judge(runs, steps, found):
    series = {**loss(np.linspace(2.3, 1.9, steps)), ("score", ""): [], ("lr", ""): [0.1] * steps}
    assert len(undertrained(runs.learns(series))) == found


def test_losses_without_a_floor_are_silent(runs):
    assert undertrained(runs.stuck(loss(np.linspace(0.5, -9, 100)))) == []
    both = {"optimizers": [Optimizer(steps=100), Optimizer(steps=100)]}
    assert undertrained(runs.learns(loss(np.linspace(2.3, 1.3, 100)), **both)) == []


# ---------------------------------------------------------------------- continued as an experiment


def continued(before, after, steps=100, end=0.9):
    """Accuracies of ten classes before and after: a tenth of the way from chance to perfect is 0.09."""
    data = {"name": "go-on", "steps": steps, "losses": [1.3, 1.0, end], "scores": [before, 0.5, after]}
    return [Event(100, "probe", data=data)]


@pytest.mark.parametrize(("after", "found"), [(0.58, 0), (0.6, 1)])
def test_continuing_decides_where_the_loss_had_settled(runs, after, found):
    findings = undertrained(runs.learns(events=continued(0.5, after)))
    assert len(findings) == found
    assert all("continued for 100 steps it goes from 44% to 56%" in f.says for f in findings)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [(0.85, 0.886, 0), (0.85, 0.889, 1), (0.905, 0.94, 0), (0.905, 0.942, 1), (0.915, 0.99, 0)],
)
def test_or_a_quarter_of_what_was_left(runs, before, after, found):
    """From 0.85 to 1 that is 0.0375 of accuracy; and at least 0.036, twice of what counts as settled. From 0.91 on it is well."""
    assert len(undertrained(runs.learns(events=continued(before, after)))) == found


@pytest.mark.parametrize(("end", "found"), [(1.24, 0), (1.23, 1)])
def test_the_loss_must_fall_too(runs, end, found):
    """By a twentieth of 1.3: scores of a few batches are noisy."""
    findings = undertrained(runs.learns(events=continued(0.5, 0.7, end=end)))
    assert len(findings) == found
    assert all(f.says.count("100 steps") == 2 for f in findings), "continued, and made"


@pytest.mark.parametrize(("after", "found"), [(0.51, 0), (0.52, 1)])
def test_continuing_that_brings_nothing_silences_a_falling_loss(runs, after, found):
    straight = loss(np.linspace(2.3, 1.3, 100))
    assert len(undertrained(runs.learns(straight, events=continued(0.5, after)))) == found


@pytest.mark.parametrize(("steps", "found"), [(25, 0), (24, 1)])
def test_unless_it_was_continued_for_a_moment_only(runs, steps, found):
    straight = loss(np.linspace(2.3, 1.3, 100))
    assert len(undertrained(runs.learns(straight, events=continued(0.5, 0.5, steps)))) == found


def test_continuing_that_diverges_brings_nothing(runs):
    straight = loss(np.linspace(2.3, 1.3, 100))
    diverged = Event(100, "probe", data={"name": "go-on", "steps": 100, "losses": [1.3, None], "scores": [0.5, None]})
    assert undertrained(runs.learns(straight, events=[diverged])) == []


@pytest.mark.parametrize("state", ["well", "diverges"])
def test_continuing_is_no_matter_where_training_was_done_or_broke(runs, state):
    assert undertrained(getattr(runs, state)(events=continued(0.5, 0.9))) == []


def test_a_planned_end_is_one_though_continuing_would_help(runs):
    series = {("lr", ""): np.linspace(0.1, 0.004, 100)}
    assert undertrained(runs.learns(series, events=continued(0.5, 0.9))) == []


def test_an_experiment_that_failed_leaves_it_to_the_loss(runs):
    straight = loss(np.linspace(2.3, 1.3, 100))
    failed = Event(100, "probe", data={"name": "go-on", "error": "RuntimeError: no"})
    assert len(undertrained(runs.learns(straight, events=[failed]))) == 1


def test_an_r2_that_stays_below_chance_is_no_progress(runs):
    on = Event(100, "probe", data={"name": "go-on", "steps": 100, "losses": [4.0, 2.0], "scores": [-3.0, -1.0]})
    given = runs.regression(np.r_[np.linspace(3.0, 0.99, 50), np.full(50, 0.9)])
    assert undertrained(runs.learns(given.pop("series"), **given, events=[on])) == []
