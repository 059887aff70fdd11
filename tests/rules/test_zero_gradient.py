from __future__ import annotations

import dataclasses

import pytest

from unstuck.rules.zero_gradient import zero_gradient


def zeros(*names, first=0.0, rest=0.0):
    return {("grad_rms", f"{name}.weight"): [first] + [rest] * 9 for name in names}


def network(runs, *ops, **sizes):
    given = runs.chain(*ops)
    given["layers"] = [
        dataclasses.replace(layer, out_shape=sizes.get(layer.name, (32, 16))) for layer in given["layers"]
    ]
    return given


def test_living_gradients_are_silent(runs):
    living = zeros("linear0", "linear2", first=0.1, rest=0.1)
    assert zero_gradient(runs.stuck(living, **runs.chain("linear", "relu", "linear"))) == []


def test_softmax_over_one_unit_is_named(runs):
    given = network(runs, "linear", "sigmoid", "linear", "softmax", softmax3=(32, 1))
    [finding] = zero_gradient(runs.stuck(zeros("linear0", "linear2"), **given))
    assert (finding.severity, finding.layers) == ("error", ("softmax3",))
    assert "single unit" in finding.says


@pytest.mark.parametrize("op", ["round", "argmax", "sign"])
def test_steps_are_named(runs, op):
    given = network(runs, "linear", "relu", "linear", op)
    assert zero_gradient(runs.stuck(zeros("linear0", "linear2"), **given))[0].layers == (f"{op}3",)


def test_a_step_in_the_middle_is_named_though_the_rest_learns(runs):
    given = network(runs, "linear", "round", "linear")
    series = {**zeros("linear0"), **zeros("linear2", first=0.1, rest=0.1)}
    [finding] = zero_gradient(runs.learns(series, **given))
    assert (finding.severity, finding.layers) == ("warning", ("linear0",))
    assert "round1" in finding.says


def test_part_without_a_reason_is_silent(runs):
    series = {**zeros("linear0"), **zeros("linear2", first=0.1, rest=0.1)}
    assert zero_gradient(runs.stuck(series, **runs.chain("linear", "relu", "linear"))) == []


@pytest.mark.parametrize(("share", "found"), [(8, 0), (9, 1)])
def test_at_nearly_every_step(runs, share, found):
    series = {("grad_rms", "linear0.weight"): [0.0] * share + [0.1] * (10 - share)}
    assert len(zero_gradient(runs.stuck(series, **runs.chain("linear", "softmax")))) == found


def test_zeros_that_begin_later_are_silent(runs):
    assert zero_gradient(runs.stuck(zeros("linear0", first=0.1), **runs.chain("linear"))) == []


def test_what_is_solved_is_silent(runs):
    assert zero_gradient(runs.stuck({**zeros("linear0"), ("loss", ""): [1e-5] * 50}, **runs.chain("linear"))) == []
    assert zero_gradient(runs.well(zeros("linear0"), **runs.chain("linear"))) == []


def test_a_dead_layer_is_another_cause(runs):
    series = {**zeros("linear0", "linear2"), ("act_zero", "relu1"): [1.0] * 10}
    assert zero_gradient(runs.stuck(series, **runs.chain("linear", "relu", "linear"))) == []


def test_constant_weights_are_another_cause(runs):
    given = runs.chain("linear", "relu", "linear")
    given["parameters"][0] = dataclasses.replace(given["parameters"][0], initial={"std": 0.0})
    assert zero_gradient(runs.stuck(zeros("linear0", "linear2"), **given)) == []


def test_saturated_units_are_another_cause(runs):
    series = {**zeros("linear0", "linear2"), ("act_saturated", "tanh1"): [1.0] * 10}
    assert zero_gradient(runs.stuck(series, **runs.chain("linear", "tanh", "linear"))) == []


def test_gradients_that_were_cleared_are_another_cause(runs):
    assert (
        zero_gradient(runs.stuck({**zeros("linear0"), ("back_rms", "linear0"): [0.1] * 10}, **runs.chain("linear")))
        == []
    )


def test_no_reason_is_still_said(runs):
    [finding] = zero_gradient(runs.stuck(zeros("linear0"), **runs.chain("linear")))
    assert finding.confidence < 0.9


def test_a_cross_entropy_over_one_output_is_named(runs):
    call = runs.loss_call(num_classes=1, output_shape=(32, 1))
    flat = {**zeros("linear0"), ("loss", ""): [0.0] * 50, ("score", ""): []}
    assert "single output" in zero_gradient(runs.stuck(flat, losses=[call], **runs.chain("linear")))[0].says
