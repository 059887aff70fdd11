from __future__ import annotations

import dataclasses

import pytest

from unstuck.rules.saturated_activation import saturated_activation


def share(value, start=0.0):
    return {("act_saturated", "tanh1"): [start] + [value] * 4}


def layers(runs, op="tanh"):
    return runs.chain("linear", op, "linear")


@pytest.mark.parametrize(("value", "found"), [(0.0, 0), (0.49, 0), (0.5, 1)])
def test_half_of_the_outputs(runs, value, found):
    assert len(saturated_activation(runs.stuck(share(value), **layers(runs)))) == found


@pytest.mark.parametrize(
    ("state", "value", "severity"),
    [("stuck", 0.9, "error"), ("stuck", 0.6, "warning"), ("learns", 0.9, "warning"), ("well", 1.0, "note")],
)
def test_how_severe_it_is(runs, state, value, severity):
    [finding] = saturated_activation(getattr(runs, state)(share(value), **layers(runs)))
    assert (finding.severity, finding.layers) == (severity, ("tanh1",))


@pytest.mark.parametrize(("state", "found"), [("stuck", 1), ("learns", 0), ("well", 0), ("diverges", 0)])
def test_a_confident_output_is_not_saturated(runs, state, found):
    given = runs.chain("linear", "tanh")
    given["layers"][-1] = dataclasses.replace(given["layers"][-1], role="output")
    assert len(saturated_activation(getattr(runs, state)(share(1.0), **given))) == found


@pytest.mark.parametrize("op", ["linear", "softmax", "relu"])
def test_only_bounded_activations_count(runs, op):
    assert saturated_activation(runs.stuck({("act_saturated", f"{op}1"): [1.0] * 5}, **layers(runs, op))) == []


def test_what_comes_after_the_break_does_not_count(runs):
    from unstuck.evidence import Series

    series = {("act_saturated", "tanh1"): Series.of([0.1, 0.1, 0.1, 1.0, 1.0], [0, 20, 30, 50, 90])}
    assert saturated_activation(runs.diverges(series, **layers(runs))) == []
