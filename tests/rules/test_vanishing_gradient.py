from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from unstuck.rules.vanishing_gradient import vanishing_gradient

DEEP = ("linear", "sigmoid") * 5 + ("linear",)


def gradients(sizes):
    """Gradients of linear0, linear2, ..., first layer first."""
    return {("grad_rms", f"linear{2 * i}.weight"): [size] * 5 for i, size in enumerate(sizes)}


def down_to(ratio):
    return gradients(np.geomspace(ratio, 1, 6))


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_even_gradients_are_silent(runs, state):
    assert vanishing_gradient(getattr(runs, state)(down_to(0.5), **runs.chain(*DEEP))) == []


@pytest.mark.parametrize(("ratio", "found"), [(1.1e-3, 0), (0.9e-3, 1)])
def test_a_thousandth_of_the_gradient(runs, ratio, found):
    assert len(vanishing_gradient(runs.stuck(down_to(ratio), **runs.chain(*DEEP)))) == found
    assert len(vanishing_gradient(runs.stuck(down_to(ratio), **runs.chain(*DEEP)), ratio=1e-2)) == 1


def test_the_layers_that_get_little_are_named(runs):
    [finding] = vanishing_gradient(runs.stuck(down_to(1e-5), **runs.chain(*DEEP)))
    assert finding.layers == ("linear0", "linear2", "linear4", "linear6")
    assert "5 sigmoid layers" in finding.says
    assert "1e-5" in finding.says


@pytest.mark.parametrize(("state", "severities"), [("stuck", ["error"]), ("learns", ["warning"]), ("well", [])])
def test_how_severe_it_is(runs, state, severities):
    record = getattr(runs, state)(down_to(1e-6), **runs.chain(*DEEP))
    assert [f.severity for f in vanishing_gradient(record)] == severities


def test_a_gradient_that_breaks_off_at_one_layer_is_silent(runs):
    assert vanishing_gradient(runs.stuck(gradients([1e-5, 2e-5, 1e-5, 2e-5, 1e-5, 1]), **runs.chain(*DEEP))) == []


def test_a_gradient_that_is_zero_at_once_is_silent(runs):
    assert vanishing_gradient(runs.stuck(gradients([0, 0, 0, 0, 0.5, 1]), **runs.chain(*DEEP))) == []
    assert vanishing_gradient(runs.stuck(gradients([0] * 6), **runs.chain(*DEEP))) == []


def test_a_gradient_that_underflows_is_named(runs):
    [finding] = vanishing_gradient(runs.stuck(gradients([0, 0, 1e-38, 1e-24, 1e-12, 1]), **runs.chain(*DEEP)))
    assert "float32" in finding.says


def test_a_dead_layer_is_the_cause_not_this(runs):
    ops = ("linear", "relu") * 5 + ("linear",)
    dead = {**down_to(1e-6), ("act_zero", "relu7"): [1.0] * 5}
    assert vanishing_gradient(runs.stuck(dead, **runs.chain(*ops))) == []


def test_two_layers_are_no_depth(runs):
    assert vanishing_gradient(runs.stuck(gradients([1e-6, 1]), **runs.chain("linear", "sigmoid", "linear"))) == []


def test_an_embedding_that_gets_its_gradient_shows_there_is_no_decline(runs):
    chain = runs.chain("embedding", *DEEP)
    sizes = {("grad_rms", f"linear{2 * i + 1}.weight"): [s] * 5 for i, s in enumerate(np.geomspace(1e-5, 1, 6))}
    assert len(vanishing_gradient(runs.stuck({**sizes, ("grad_rms", "embedding0.weight"): [1e-6] * 5}, **chain))) == 1
    assert vanishing_gradient(runs.stuck({**sizes, ("grad_rms", "embedding0.weight"): [0.1] * 5}, **chain)) == []


def test_of_layers_side_by_side_the_one_that_gets_most_counts(runs):
    chain = runs.chain(*DEEP)
    first, *others = chain["layers"]
    beside = dataclasses.replace(first, name="beside", parameters=("beside.weight",))
    weight = dataclasses.replace(chain["parameters"][0], name="beside.weight")
    chain |= {"layers": (beside, first, *others), "parameters": (weight, *chain["parameters"])}
    assert (
        len(vanishing_gradient(runs.stuck({**down_to(1e-5), ("grad_rms", "beside.weight"): [1e-4] * 5}, **chain))) == 1
    )
    assert vanishing_gradient(runs.stuck({**down_to(1e-5), ("grad_rms", "beside.weight"): [0.5] * 5}, **chain)) == []


def test_biases_do_not_count(runs):
    biases = {("grad_rms", f"linear{2 * i}.bias"): [0.0] * 5 for i in range(6)}
    assert vanishing_gradient(runs.stuck({**down_to(0.5), **biases}, **runs.chain(*DEEP))) == []


def lags(*curve):
    return {"vectors": {("lag_grad", "lstm0"): [curve] * 3}, "meta": {"steps": 200}}


@pytest.mark.parametrize(("base", "found"), [(0.5, 0), (0.4, 1)])
def test_half_the_sequence_back_a_thousandth_must_be_left(runs, base, found):
    record = runs.stuck(**lags(*(base ** np.arange(20))))  # 0.5 ** 10 is just below 1e-3
    assert len(vanishing_gradient(record, lag_ratio=9e-4)) == found


def test_along_time_it_says_how_far_it_reaches(runs):
    [finding] = vanishing_gradient(runs.stuck(**lags(*(0.1 ** np.arange(20)))))
    assert (finding.severity, finding.layers) == ("error", ("lstm0",))
    assert "3 of 20 time steps" in finding.says or "4 of 20 time steps" in finding.says


def test_recurrence_that_learns_is_left_alone(runs):
    curve = lags(*(0.1 ** np.arange(20)))
    assert {f.severity for f in vanishing_gradient(runs.learns(**curve))} <= {"note"}
    assert vanishing_gradient(runs.well(**curve)) == []


def test_lags_that_were_not_measured_are_filled_in(runs):
    curve = 0.1 ** np.arange(20.0)
    curve[1::2] = np.nan
    assert len(vanishing_gradient(runs.stuck(**lags(*curve)))) == 1


def test_recurrence_is_given_time(runs):
    curve = lags(*(0.1 ** np.arange(20)))
    assert vanishing_gradient(runs.stuck(vectors=curve["vectors"], meta={"steps": 199})) == []


def test_short_sequences_are_silent(runs):
    assert vanishing_gradient(runs.stuck(**lags(*(0.1 ** np.arange(9))))) == []
