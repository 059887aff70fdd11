from __future__ import annotations

import numpy as np
import pytest

from unstuck.rules.output_range import output_range

WORSE = np.full(100, 1.4)


def case(runs, last, low, high, std=1.0, **call):
    target = {"min": low, "max": high, "mean": 0.0, "std": std}
    return runs.regression(WORSE, chain=("linear", last), target=target, layer="head", **call)


@pytest.mark.parametrize(
    ("last", "low", "high"),
    [
        ("sigmoid", 0, 1),
        ("tanh", -1, 1),
        ("relu", 0, 1e6),
        ("linear", -1e9, 1e9),
        ("softplus", 0, 50),
        ("sigmoid", -0.4, 1.4),
    ],
)
def test_targets_within_reach_are_silent(runs, last, low, high):
    assert output_range(runs.stuck(**case(runs, last, low, high))) == []


@pytest.mark.parametrize(
    ("last", "low", "high"),
    [("sigmoid", 0, 100), ("sigmoid", -1, 1), ("tanh", -2, 2), ("relu", -2, 2), ("sigmoid", -0.6, 1)],
)
def test_targets_out_of_reach_are_named(runs, last, low, high):
    [finding] = output_range(runs.stuck(**case(runs, last, low, high)))
    assert (finding.severity, finding.layers) == ("error", ("head",))
    assert last in finding.says


def test_how_far_counts_in_deviations_of_the_targets(runs):
    assert output_range(runs.stuck(**case(runs, "relu", -4, 90, std=10.0))) == []
    assert output_range(runs.stuck(**case(runs, "relu", -6, 90, std=10.0)))
    assert output_range(runs.stuck(**case(runs, "relu", -4, 90, std=10.0)), beyond=0.3)


def test_cross_entropies_say_themselves_what_they_take(runs):
    assert output_range(runs.stuck(**case(runs, "sigmoid", -1, 1, name="binary_cross_entropy"))) == []


def test_classes_by_hand_are_silent(runs):
    assert output_range(runs.stuck(**case(runs, "softmax", -1, 1, name="hand-written", target_kind="one-hot"))) == []
    assert output_range(runs.stuck(**case(runs, "sigmoid", -9, 9, name="hand-written")))
