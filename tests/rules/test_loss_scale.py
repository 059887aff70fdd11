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


@pytest.mark.parametrize(("divisor", "found"), [(1.0, 1), (3.9, 1), (4.1, 0), (16.0, 0), (0.1, 1)])
def test_what_the_sum_is_divided_by_counts(runs, divisor, found):
    findings = loss_scale(runs.stuck(jump(), **summed(runs, divisor=divisor)))  # over 32 samples, at a rate of 0.1
    assert len(findings) == found
    words = {
        1.0: "32 samples, so that a rate of 0.100 is one of 3.20",
        3.9: "divided by 3.90",
        0.1: "is one of 32.0 on",
    }
    assert all(words[divisor] in f.says for f in findings)
