from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Event, Layer
from unstuck.rules.short_memory import short_memory

LENGTH = 30


def curve(reach, length=LENGTH):
    """A gradient that falls below a thousandth at this lag."""
    return 10.0 ** (-3.0001 * np.arange(length) / reach)


def lags(*curves, steps=200, op="lstm", name="lstm"):
    return {"vectors": {("lag_grad", name): curves}, "meta": {"steps": steps}, "layers": [Layer(name, op)]}


def reference(accuracy):
    return Event(200, "probe", "", {"name": "reference", "linear": 0.1, "mlp": accuracy, "network": 0.1})


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_a_gradient_that_lasts_is_silent(runs, state):
    assert short_memory(getattr(runs, state)(**lags(0.9 ** np.arange(LENGTH)))) == []


@pytest.mark.parametrize(("reach", "found"), [(10, 0), (9, 1)])
def test_a_third_of_the_sequence(runs, reach, found):
    findings = short_memory(runs.stuck(**lags(curve(reach))))
    assert len(findings) == found
    assert all(f"{reach} steps of 30" in f.says and f.layers == ("lstm",) for f in findings)


def test_the_ratio_is_a_threshold(runs):
    record = runs.stuck(**lags(curve(5)))
    assert short_memory(record)
    assert short_memory(record, lag_ratio=1e-12) == []


@pytest.mark.parametrize(("length", "found"), [(19, 0), (20, 1)])
def test_short_sequences_are_silent(runs, length, found):
    assert len(short_memory(runs.stuck(**lags(curve(4, length))))) == found


@pytest.mark.parametrize(("steps", "found"), [(199, 0), (200, 1)])
def test_recurrence_is_given_time(runs, steps, found):
    assert len(short_memory(runs.stuck(**lags(curve(4), steps=steps)))) == found


@pytest.mark.parametrize(("state", "severities"), [("stuck", ["error"]), ("learns", ["note"]), ("well", [])])
def test_how_severe_it_is(runs, state, severities):
    assert [f.severity for f in short_memory(getattr(runs, state)(**lags(curve(4))))] == severities


def test_half_of_the_way_is_far_enough(runs):
    half = {("score", ""): np.full(100, 0.56), ("loss", ""): np.linspace(2.3, 1.2, 100)}
    assert short_memory(runs.learns(half, **lags(curve(4)))) == []


def test_what_it_learned_to_remember_counts(runs):
    assert short_memory(runs.stuck(**lags(curve(4), curve(4), curve(25)))) == []
    assert short_memory(runs.stuck(**lags(curve(25), curve(4))))


def test_a_gradient_that_comes_back_is_within_reach(runs):
    back = curve(4)
    back[20] = 0.5
    assert short_memory(runs.stuck(**lags(back))) == []


def test_lags_that_were_not_measured_are_filled_in(runs):
    holes = curve(6)
    holes[1::2] = np.nan
    assert len(short_memory(runs.stuck(**lags(holes)))) == 1


def test_the_layer_that_reaches_least_is_told_and_all_are_named(runs):
    given = lags(curve(8), name="upper")
    given["vectors"][("lag_grad", "lower")] = [curve(3)]
    given["layers"] = [Layer("lower", "lstm"), Layer("upper", "lstm")]
    [finding] = short_memory(runs.stuck(**given))
    assert finding.says.startswith("the gradient of lower reaches back 3 steps")
    assert finding.layers == ("lower", "upper")


def test_a_reference_that_does_well_makes_it_more_certain(runs):
    for accuracy, confidence in ((0.3, 0.8), (0.5, 0.85)):
        [finding] = short_memory(runs.stuck(events=[reference(accuracy)], **lags(curve(4))))
        assert finding.confidence == confidence
    [plain] = short_memory(runs.stuck(**lags(curve(4), op="rnn")))
    assert plain.confidence == 0.6
