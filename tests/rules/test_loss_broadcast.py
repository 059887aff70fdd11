from __future__ import annotations

import numpy as np
import pytest

from unstuck.rules.loss_broadcast import loss_broadcast


def test_equal_shapes_are_silent(runs):
    assert loss_broadcast(runs.stuck(**runs.regression(np.ones(100)))) == []


@pytest.mark.parametrize(
    ("output", "target"), [((32, 9), (32, 1)), ((32,), ()), ((1, 1), (1,)), ((), ()), ((32, 1), (1, 1))]
)
def test_one_stretched_side_is_silent(runs, output, target):
    assert loss_broadcast(runs.stuck(**runs.regression(np.ones(100), output_shape=output, target_shape=target))) == []


@pytest.mark.parametrize(
    ("output", "target"), [((32, 1), (32,)), ((32,), (32, 1)), ((2, 1), (2,)), ((5, 5, 1), (5, 5))]
)
def test_two_stretched_sides_are_named(runs, output, target):
    [finding] = loss_broadcast(
        runs.stuck(**runs.regression(np.ones(100), output_shape=output, target_shape=target, layer="head"))
    )
    assert (finding.cause, finding.severity, finding.layers) == ("loss-broadcast", "error", ("head",))
    assert str(output) in finding.says
    assert str(target) in finding.says


def test_pairs_compared_on_purpose_are_silent(runs):
    distances = {"name": "hand-written", "output_shape": (32, 1, 8), "target_shape": (1, 40, 8)}
    assert loss_broadcast(runs.learns(**runs.regression(np.ones(100), **distances))) == []


def test_a_loss_by_hand_is_named_when_dimensions_differ(runs):
    shapes = {"name": "hand-written", "output_shape": (32, 1), "target_shape": (32,)}
    [finding] = loss_broadcast(runs.learns(**runs.regression(np.ones(100), **shapes)))
    assert "so that the loss compares 1024 pairs instead of 32" in finding.says


def test_it_is_no_error_where_the_network_learns_well(runs):
    case = runs.regression(2 * runs.falling + 0.01, output_shape=(32, 1), target_shape=(32,))
    assert [f.severity for f in loss_broadcast(runs.well(**case))] == ["warning"]


def test_a_loss_that_is_only_evaluated_is_silent(runs):
    case = runs.regression(np.ones(100), output_shape=(32, 1), target_shape=(32,), trains=False)
    assert loss_broadcast(runs.stuck(**case)) == []
