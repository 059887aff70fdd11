from __future__ import annotations

import pytest

from unstuck.evidence import Layer, Parameter
from unstuck.rules.missing_nonlinearity import missing_nonlinearity


@pytest.mark.parametrize(
    "between", ["relu", "tanh", "gelu", "softmax", "max_pool", "layer_norm", "lstm", "recurrent", "other", "attention"]
)
def test_what_bends_between_linear_layers_is_enough(runs, between):
    assert missing_nonlinearity(runs.stuck(**runs.chain("linear", between, "linear"))) == []


@pytest.mark.parametrize(
    "between", [(), ("dropout",), ("reshape", "dropout"), ("batch_norm",), ("avg_pool", "flatten")]
)
def test_what_does_not_bend_is_looked_through(runs, between):
    [finding] = missing_nonlinearity(runs.stuck(**runs.chain("conv", "relu", "linear", *between, "linear")))
    last = f"linear{len(between) + 3}"
    assert (finding.severity, finding.layers) == ("warning", ("linear2", last))
    assert last in finding.says


@pytest.mark.parametrize(
    ("state", "severity"), [("stuck", "warning"), ("learns", "warning"), ("well", "note"), ("diverges", "note")]
)
def test_how_severe_it_is(runs, state, severity):
    assert [f.severity for f in missing_nonlinearity(getattr(runs, state)(**runs.chain("linear", "linear")))] == [
        severity
    ]


def test_one_pair_more_or_less_is_a_note_where_it_came_half_of_the_way(runs):
    better = {("score", ""): 0.7 - 0.6 * runs.falling}
    pair = runs.chain("linear", "relu", "linear", "linear")
    assert [f.severity for f in missing_nonlinearity(runs.learns(better, **pair))] == ["note"]
    assert [f.severity for f in missing_nonlinearity(runs.learns(**pair))] == ["warning"]
    assert [f.severity for f in missing_nonlinearity(runs.learns(better, **runs.chain("linear", "linear")))] == [
        "warning"
    ]


def test_a_linear_network_is_called_so(runs):
    [finding] = missing_nonlinearity(runs.learns(**runs.chain("linear", "linear", "linear")))
    assert "whole network" in finding.says
    assert finding.layers == ("linear0", "linear1", "linear2")


def test_a_single_layer_is_silent(runs):
    assert missing_nonlinearity(runs.stuck(**runs.chain("linear"))) == []


@pytest.mark.parametrize(("width", "found"), [(11, 0), (12, 1)])
def test_a_bottleneck_is_wanted(runs, width, found):
    shapes = {"linear0": (width, 16), "linear1": (16, width)}
    assert len(missing_nonlinearity(runs.stuck(**runs.chain("linear", "linear", shapes=shapes)))) == found


def test_a_depthwise_convolution_is_wanted(runs):
    shapes = {"conv0": (16, 1, 3, 3), "conv1": (16, 16, 1, 1)}
    assert missing_nonlinearity(runs.stuck(**runs.chain("conv", "conv", shapes=shapes))) == []


def test_a_residual_sum_is_not_looked_through(runs):
    layers = [
        Layer("a", "linear", parameters=("a.weight",)), Layer("relu", "relu", inputs=("a",)),
        Layer("b", "linear", inputs=("relu",), parameters=("b.weight",)),
        Layer("sum", "add", inputs=("relu", "b")), Layer("c", "linear", inputs=("sum",), parameters=("c.weight",)),
    ]  # fmt: skip
    parameters = [Parameter(f"{n}.weight", (16, 16), (n,)) for n in "abc"]
    assert missing_nonlinearity(runs.stuck(layers=layers, parameters=parameters)) == []


def test_layers_that_feed_each_other_in_a_circle_end(runs):
    layers = [
        Layer("a", "linear", inputs=("b",), parameters=("a.weight",)), Layer("b", "linear", inputs=("a",), parameters=("b.weight",)),
    ]  # fmt: skip
    parameters = [Parameter(f"{n}.weight", (16, 16), (n,)) for n in "ab"]
    assert len(missing_nonlinearity(runs.stuck(layers=layers, parameters=parameters))) == 1
