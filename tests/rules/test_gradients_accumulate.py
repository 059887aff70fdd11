from __future__ import annotations

import dataclasses

import pytest

from unstuck.evidence import Optimizer
from unstuck.rules.gradients_accumulate import gradients_accumulate

LEFT = {("stale_rms", "linear0.weight"): [0.0, 0.9, 0.95, 0.97, 0.98]}


def sgd(**given):
    return {"optimizers": [Optimizer("SGD", steps=100, **given)]}


def test_cleared_gradients_are_silent(runs):
    clear = {("stale_rms", "linear0.weight"): [0.0] * 5}
    assert gradients_accumulate(runs.stuck(clear, **runs.chain("linear"))) == []


def test_gradients_left_over_are_named(runs):
    [finding] = gradients_accumulate(runs.stuck(LEFT, **runs.chain("linear"), **sgd(cleared=False)))
    assert (finding.severity, finding.treated_by) == ("error", ("zero-grad",))
    assert finding.confidence > 0.9
    assert "100%" in finding.says


def test_what_rounding_leaves_is_silent(runs):
    little = {("stale_rms", "linear0.weight"): [0.0, 0.04, 0.04, 0.04]}
    assert gradients_accumulate(runs.stuck(little, **runs.chain("linear"))) == []
    assert gradients_accumulate(runs.stuck(little, **runs.chain("linear")), left=0.03)


@pytest.mark.parametrize(("kept", "found"), [(1, 0), (2, 1)])
def test_half_of_the_steps_must_have_some_left(runs, kept, found):
    left = {("stale_rms", "linear0.weight"): [0.0] + [0.9] * kept + [0.0] * (4 - kept)}
    assert len(gradients_accumulate(runs.stuck(left, **runs.chain("linear")))) == found


def test_accumulation_over_several_backwards_is_silent(runs):
    assert gradients_accumulate(runs.stuck(LEFT, **runs.chain("linear"), **sgd(backwards_per_step=4.0))) == []


def test_an_optimizer_that_calls_backward_itself_is_silent(runs):
    assert gradients_accumulate(runs.stuck(LEFT, **runs.chain("linear"), **sgd(closure=True))) == []


def test_it_is_no_error_where_it_learns_well(runs):
    assert [f.severity for f in gradients_accumulate(runs.well(LEFT, **runs.chain("linear")))] == ["warning"]


def thrown(gradient):
    return {
        ("back_rms", "linear0"): [0.1] * 5,
        ("grad_rms", "linear0.weight"): gradient,
        ("grad_rms", "linear0.bias"): gradient,
    }


def test_gradients_thrown_away_before_the_step_are_named(runs):
    chain = runs.chain("linear")
    still = [type(p)(p.name, p.shape, p.layers, changed=False) for p in chain["parameters"]]
    [finding] = gradients_accumulate(runs.stuck(thrown([0.2, 0, 0, 0, 0]), layers=chain["layers"], parameters=still))
    assert "between backward and step" in finding.says
    assert gradients_accumulate(runs.stuck(thrown([0.2, 0.1, 0, 0, 0]), layers=chain["layers"], parameters=still)) == []
    assert gradients_accumulate(runs.stuck(thrown([0.0] * 5), **chain)) == [], "they did change"


@pytest.mark.parametrize(("zero", "found"), [(1.0, 0), (0.9, 1)])
def test_behind_dead_units_a_weight_has_no_gradient_to_throw_away(runs, zero, found):
    chain = runs.chain("linear", "relu", "flatten", "linear")
    still = [dataclasses.replace(p, changed=False) for p in chain["parameters"]]
    series = {
        ("back_rms", "linear3"): [0.1] * 5, ("act_zero", "relu1"): [zero] * 5,
        **{("grad_rms", p.name): [0.0] * 5 for p in still},
    }  # fmt: skip
    assert len(gradients_accumulate(runs.stuck(series, layers=chain["layers"], parameters=still))) == found


@pytest.mark.parametrize(("backwards", "found"), [(0.0, 1), (1.0, 0)])
def test_the_second_of_two_that_step_together(runs, backwards, found):
    """Where they take turns, as in a GAN, what is left in the other's gradients is no fault."""
    chain = runs.chain("linear", "relu", "linear")
    left = {
        ("stale_rms", "linear0.weight"): [0.0] * 5, ("stale_rms", "linear2.weight"): [0.0, 0.9, 0.9, 0.9, 0.9],
    }  # fmt: skip
    held = [dataclasses.replace(p, optimizers=(1 if "linear2" in p.name else 0,)) for p in chain["parameters"]]
    both = [Optimizer(steps=100), Optimizer(steps=100, backwards_per_step=backwards)]
    record = runs.stuck(left, **{**chain, "parameters": held}, optimizers=both)
    assert len(gradients_accumulate(record)) == found
