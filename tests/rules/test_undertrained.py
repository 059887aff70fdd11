from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Optimizer
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
