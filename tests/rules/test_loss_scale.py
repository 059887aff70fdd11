from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Data, Optimizer
from unstuck.rules.loss_scale import loss_scale


def jump(scale=32.0):
    values = np.full(100, 2.3 * scale)
    values[50] = 1e6
    return {("loss", ""): values}


def summed(runs, **given):
    return {"losses": [runs.loss_call(reduction="sum", **given)]}


def test_a_mean_is_silent(runs):
    assert loss_scale(runs.stuck(jump(1.0))) == []


def test_a_sum_that_trains_is_silent(runs):
    for state in ("stuck", "learns", "well"):
        assert loss_scale(getattr(runs, state)(**summed(runs))) == []


def test_a_sum_that_overshoots_is_named(runs):
    [finding] = loss_scale(runs.stuck(jump(), **summed(runs)))
    assert (finding.severity, finding.layers, finding.treated_by[0]) == ("error", ("out",), "reduction")
    assert "one of 3.20" in finding.says


@pytest.mark.parametrize(("size", "found"), [(7, 0), (8, 1)])
def test_small_batches_are_silent(runs, size, found):
    assert len(loss_scale(runs.stuck(jump(), data=Data(batch_size=size), **summed(runs)))) == found


def test_optimizers_that_divide_by_the_gradient_do_not_care(runs):
    assert loss_scale(runs.stuck(jump(), optimizers=[Optimizer("Adam", steps=100)], **summed(runs))) == []
