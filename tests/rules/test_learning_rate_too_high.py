from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Optimizer
from unstuck.rules.learning_rate_too_high import learning_rate_too_high


def loss(values):
    return {("loss", ""): np.asarray(values, float)}


@pytest.mark.parametrize("state", ["stuck", "learns", "well"])
def test_a_quiet_loss_is_silent(runs, state):
    assert learning_rate_too_high(getattr(runs, state)(**runs.chain("linear"))) == []


@pytest.mark.parametrize(("peak", "found"), [(6.8, 0), (7.0, 1)])
def test_a_loss_that_rises_to_nan(runs, peak, found):
    rising = [*np.linspace(2.3, peak, 10), np.nan, np.nan]
    findings = learning_rate_too_high(runs.stuck(loss(rising)))
    assert len(findings) == found
    assert all("no longer finite" in f.says and "0.1" in f.says for f in findings)


def test_a_nan_out_of_the_blue_is_silent(runs):
    assert learning_rate_too_high(runs.stuck(loss([*np.linspace(2.3, 0.1, 50), np.nan, np.nan]))) == []


def test_an_old_peak_is_not_what_led_to_nan(runs):
    assert learning_rate_too_high(runs.stuck(loss([2.3, 50, *np.linspace(2.3, 0.1, 50), np.nan, np.nan]))) == []


@pytest.mark.parametrize(("top", "found"), [(11.4, 0), (11.7, 1)])
def test_a_jump_from_which_it_never_recovers(runs, top, found):
    flat = np.full(100, 2.303)
    flat[30] = top
    assert len(learning_rate_too_high(runs.stuck(loss(flat)))) == found


@pytest.mark.parametrize(("top", "at", "found"), [(22, 5, 0), (24, 5, 1), (24, 50, 0)])
def test_where_it_learns_the_jump_must_be_larger_and_early(runs, top, at, found):
    falling = 1.2 + 1.1 * runs.falling
    falling[at] = top
    assert len(learning_rate_too_high(runs.learns(loss(falling)))) == found


def test_a_network_that_learns_well_is_left_alone(runs):
    falling = 0.05 + 2.2 * runs.falling
    falling[3] = 1e6
    assert learning_rate_too_high(runs.well(loss(falling))) == []


def updates(runs, size, start=None):
    return {("update_ratio", "linear0.weight"): [size if start is None else start] + [size] * 4}


@pytest.mark.parametrize(("end", "found"), [(2.45, 0), (2.6, 1)])
def test_a_loss_that_ends_above_chance(runs, end, found):
    series = {**loss(np.full(100, end)), **updates(runs, 0.01)}
    assert len(learning_rate_too_high(runs.stuck(series, **runs.chain("linear")))) == found


def test_above_chance_but_hardly_moving_is_silent(runs):
    series = {**loss(np.full(100, 3.0)), **updates(runs, 1e-5)}
    assert learning_rate_too_high(runs.stuck(series, **runs.chain("linear"))) == []


def test_above_chance_but_falling_is_silent(runs):
    series = {**loss(np.linspace(9, 3, 100)), **updates(runs, 0.01)}
    assert learning_rate_too_high(runs.stuck(series, **runs.chain("linear"))) == []


@pytest.mark.parametrize(("size", "found"), [(0.02, 0), (0.04, 1)])
def test_large_updates_in_vain(runs, size, found):
    assert len(learning_rate_too_high(runs.stuck(updates(runs, size), **runs.chain("linear")))) == found


@pytest.mark.parametrize(("largest", "found"), [(0.05, 0), (0.2, 1)])
def test_updates_that_kill_all_units(runs, largest, found):
    series = {**updates(runs, 1e-6, start=largest), ("act_zero", "relu1"): [0.5, 0.9, 1.0, 1.0, 1.0]}
    findings = learning_rate_too_high(runs.stuck(series, **runs.chain("linear", "relu", "linear")))
    assert len(findings) == found
    assert all("relu1" in f.says for f in findings)


def test_units_that_were_born_dead_say_nothing(runs):
    series = {**updates(runs, 1e-6, start=0.2), ("act_zero", "relu1"): [1.0] * 5}
    assert learning_rate_too_high(runs.stuck(series, **runs.chain("linear", "relu", "linear"))) == []


def test_a_loss_thrown_above_chance_again_and_again(runs):
    swinging = 1.2 + 1.1 * runs.falling
    swinging[50::10] = 9.0
    assert learning_rate_too_high(runs.learns({**loss(swinging), **updates(runs, 0.02)}, **runs.chain("linear")))
    assert learning_rate_too_high(runs.learns({**loss(swinging), **updates(runs, 0.001)}, **runs.chain("linear"))) == []


def test_more_signs_make_it_surer(runs):
    one = learning_rate_too_high(runs.diverges())[0]
    more = learning_rate_too_high(runs.diverges(updates(runs, 0.1, start=50.0), **runs.chain("linear")))[0]
    assert more.confidence > one.confidence
    assert one.severity == "error"


def test_without_gradient_nothing_is_said_of_the_rate(runs):
    series = {**loss(np.full(100, 3.0)), ("grad_norm", ""): np.zeros(100)}
    assert learning_rate_too_high(runs.stuck(series)) == []


def test_losses_that_pull_against_each_other_are_silent(runs):
    both = {"optimizers": [Optimizer(steps=100), Optimizer(steps=100)]}
    assert learning_rate_too_high(runs.diverges(**both)) == []


def test_a_loss_that_may_be_negative_is_silent(runs):
    noise = np.random.default_rng(0).normal(0, 1, 100)
    noise[50] = 1e3
    assert learning_rate_too_high(runs.stuck(loss(noise))) == []
