from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Event, Optimizer
from unstuck.rules.learning_rate_too_low import learning_rate_too_low


def slow(size, gradient=0.1):
    return {("update_ratio", "linear0.weight"): [size] * 5, ("grad_rms", "linear0.weight"): [gradient] * 5}


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_usual_steps_are_silent(runs, state):
    assert learning_rate_too_low(getattr(runs, state)(slow(1e-2), **runs.chain("linear"))) == []


@pytest.mark.parametrize(("size", "found"), [(1.1e-3, 0), (0.9e-3, 1)])
def test_a_thousandth_a_step(runs, size, found):
    findings = learning_rate_too_low(runs.stuck(slow(size), **runs.chain("linear")))
    assert len(findings) == found
    assert all("0.1" in f.says and f.severity == "error" for f in findings)


@pytest.mark.parametrize(("travel", "found"), [(0.0049, 0), (0.0051, 1)])
def test_the_whole_way_is_a_threshold(runs, travel, found):
    record = runs.stuck(slow(5e-5), **runs.chain("linear"))
    assert len(learning_rate_too_low(record, travel=travel)) == found


def test_the_weight_that_moves_most_decides(runs):
    chain = runs.chain("linear", "relu", "linear")
    fast = {("update_ratio", "linear2.weight"): [0.02] * 5, ("grad_rms", "linear2.weight"): [0.1] * 5}
    assert learning_rate_too_low(runs.stuck({**slow(1e-6), **fast}, **chain)) == []


def test_the_way_is_summed_between_samples(runs):
    from unstuck.evidence import Series

    early = {
        ("update_ratio", "linear0.weight"): Series.of([0.5, 1e-6, 1e-6], [0, 1, 99]),
        ("grad_rms", "linear0.weight"): [0.1] * 5,
    }
    assert learning_rate_too_low(runs.stuck(early, **runs.chain("linear"))) == [], "the first step went far"


def test_zero_gradients_say_nothing_of_the_rate(runs):
    assert learning_rate_too_low(runs.stuck(slow(0.0, gradient=0.0), **runs.chain("linear"))) == []


def test_a_rate_of_zero_is_named(runs):
    stopped = {**slow(0.0), ("lr", ""): np.zeros(100)}
    assert "no weight moves" in learning_rate_too_low(runs.stuck(stopped, **runs.chain("linear")))[0].says


@pytest.mark.parametrize(
    ("state", "severities"), [("stuck", ["error"]), ("learns", ["warning"]), ("well", []), ("diverges", [])]
)
def test_how_severe_it_is(runs, state, severities):
    record = getattr(runs, state)(slow(1e-5), **runs.chain("linear"))
    assert [f.severity for f in learning_rate_too_low(record)] == severities


def test_loaded_weights_need_not_move(runs):
    assert learning_rate_too_low(runs.learns(slow(1e-5), events=[Event(0, "reloaded")], **runs.chain("linear"))) == []


def test_few_steps_are_silent(runs):
    short = {("loss", ""): np.full(9, 2.3), ("score", ""): [], ("lr", ""): [0.1] * 9, **slow(1e-5)}
    assert learning_rate_too_low(runs.stuck(short, **runs.chain("linear"))) == []


def test_weights_and_biases_that_start_at_zero_have_no_ratio(runs):
    biases = {("update_ratio", "linear0.bias"): [np.inf] * 5}
    assert len(learning_rate_too_low(runs.stuck({**slow(1e-5), **biases}, **runs.chain("linear")))) == 1


def test_losses_that_pull_against_each_other_are_silent(runs):
    both = {"optimizers": [Optimizer(steps=100), Optimizer(steps=100)]}
    assert learning_rate_too_low(runs.stuck(slow(1e-5), **both, **runs.chain("linear"))) == []
