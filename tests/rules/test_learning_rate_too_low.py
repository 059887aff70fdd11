from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from unstuck.evidence import Event, Optimizer, Task
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
    assert learning_rate_too_low(runs.stuck(slow(2e-4), **both, **runs.chain("linear"))) == []


# ---------------------------------------------------------------------- tried as an experiment


def tried(*, end=0.5, start=0.5, own=0.1, before=0.1):
    """Accuracies of ten classes with ten times the rate, from the end and from the start; 0.135 is 0.15 of the way."""
    rates = {
        "factors": [0.1, 1.0, 10.0],
        "losses": [2.3, 2.2, 1.2],
        "before": 2.303,
        "score_before": before,
        "steps": 50,
        "rate": 1e-4,
    }
    found = [Event(100, "probe", data={**rates, "name": "step-sizes", "scores": [0.1, own, end]})]
    if start is not None:
        found.append(Event(100, "probe", data={**rates, "name": "from-start", "scores": [0.1, 0.1, start]}))
    return found


def fast(runs):
    """Updates of a usual size, so that nothing but experiments tells."""
    return slow(1e-2), runs.chain("linear")


@pytest.mark.parametrize(("end", "found"), [(0.23, 0), (0.24, 1)])
def test_a_higher_rate_gets_further_from_the_end(runs, end, found):
    series, chain = fast(runs)
    findings = learning_rate_too_low(runs.stuck(series, events=tried(end=end), **chain))
    assert len(findings) == found
    assert all(
        "10 times the rate (0.00100) takes accuracy to 0.24" in f.says and "50 updates" in f.says for f in findings
    )


@pytest.mark.parametrize(("start", "found"), [(0.23, 0), (0.24, 1), (None, 1)])
def test_and_from_the_start_where_that_is_known(runs, start, found):
    series, chain = fast(runs)
    assert len(learning_rate_too_low(runs.stuck(series, events=tried(start=start), **chain))) == found


def test_not_where_its_own_rate_gets_there_or_it_was_there(runs):
    series, chain = fast(runs)
    assert learning_rate_too_low(runs.stuck(series, events=tried(own=0.5), **chain)) == []
    assert learning_rate_too_low(runs.stuck(series, events=tried(before=0.5), **chain)) == []


@pytest.mark.parametrize(("end", "found"), [(0.63, 0), (0.64, 1)])
def test_not_where_the_network_has_learned_as_much(runs, end, found):
    """It ended at 0.5; what was kept of it may be worse."""
    series, chain = fast(runs)
    assert len(learning_rate_too_low(runs.learns(series, events=tried(end=end), **chain))) == found


@pytest.mark.parametrize(
    ("state", "severities"), [("stuck", ["error"]), ("learns", ["warning"]), ("well", []), ("diverges", [])]
)
def test_how_severe_an_experiment_is(runs, state, severities):
    series, chain = fast(runs)
    record = getattr(runs, state)(series, events=tried(end=0.9), **chain)
    assert [f.severity for f in learning_rate_too_low(record)] == severities


def test_zero_gradients_say_nothing_of_the_rate_whatever_was_tried(runs):
    record = runs.stuck(slow(1e-2, gradient=0.0), events=tried(), **runs.chain("linear"))
    assert learning_rate_too_low(record) == []


def test_rates_that_diverge_get_nowhere(runs):
    series, chain = fast(runs)
    data = {**tried()[0].data, "losses": [2.3, 2.2, None], "scores": [0.1, 0.1, None]}
    assert learning_rate_too_low(runs.stuck(series, events=[Event(100, "probe", data=data)], **chain)) == []


def two(runs, rate, way, *, other=0.1, kinds=("SGD", "SGD"), backwards=(1.0, 0.0)):
    """Two optimizers that step after one backward; the first has a rate, and its weight goes a way in a hundred steps."""
    series = {
        ("update_ratio", "linear0.weight"): [way / 100] * 100, ("update_ratio", "linear2.weight"): [0.01] * 100,
        ("grad_rms", "linear0.weight"): [0.1] * 5, ("grad_rms", "linear2.weight"): [0.1] * 5,
        ("lr", "0.0"): np.full(100, rate), ("lr", "1.0"): np.full(100, other),
    }  # fmt: skip
    made = [Optimizer(kind, steps=100, backwards_per_step=b) for kind, b in zip(kinds, backwards, strict=True)]
    chain = runs.chain("linear", "relu", "linear")
    chain["parameters"] = [
        dataclasses.replace(p, optimizers=(0 if "linear0" in p.name else 1,)) for p in chain["parameters"]
    ]
    return series, {"optimizers": made, **chain}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"rate": 0.0009, "way": 0.009}, 1),
        ({"rate": 0.0011, "way": 0.009}, 0),
        ({"rate": 0.0009, "way": 0.011}, 0),
        ({"rate": 0.0009, "way": 0.009, "kinds": ("SGD", "Adam")}, 0),
        ({"rate": 0.0009, "way": 0.009, "backwards": (1.0, 1.0)}, 0),
    ],
    ids=["still", "not so far apart", "it moves", "of different kinds", "they take turns"],
)
def test_one_of_two_optimizers(runs, given, found):
    series, rest = two(runs, **given)
    findings = learning_rate_too_low(runs.stuck(series, **rest))
    assert len(findings) == found
    assert all(f.layers == ("linear0",) and "optimizer 0" in f.says for f in findings)
    assert learning_rate_too_low(runs.well(series, **rest)) == [], "as fine-tuning does"


@pytest.mark.parametrize(("update", "found"), [(0.9e-4, 1), (1.1e-4, 0)])
def test_where_the_loss_tells_nothing_weights_that_stay_where_they_were_drawn_do(runs, update, found):
    series = {("update_ratio", "linear0.weight"): [update] * 100, ("grad_rms", "linear0.weight"): [0.1] * 100}
    record = runs.well(
        series, **runs.chain("linear"), features=["targets of its own"], task=Task("regression", score="r2")
    )
    assert [f.severity for f in learning_rate_too_low(record)] == ["warning"] * found
