from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Optimizer, Task
from unstuck.rules.degenerate_targets import degenerate_targets

ONE_CLASS = Task("classification", 10, "accuracy", 0.0, 1.0, label_share=(1.0,) + (0.0,) * 9)
SOLVED = {("loss", ""): np.geomspace(2.3, 1e-4, 100)}
CONSTANT = {"min": 0, "max": 0, "mean": 0, "std": 0, "unique": 1, "integer": 1}


def test_ten_classes_are_silent(runs):
    assert degenerate_targets(runs.well()) == []


def test_one_class_is_named(runs):
    [finding] = degenerate_targets(runs.well(SOLVED, task=ONE_CLASS, losses=[runs.loss_call(target=CONSTANT)]))
    assert (finding.severity, finding.layers) == ("error", ())
    assert "every label seen is 0" in finding.says


def test_one_class_of_few_samples_is_silent(runs):
    call = runs.loss_call(target=CONSTANT, target_shape=(4,), calls=1)
    assert degenerate_targets(runs.well({**SOLVED, ("score", ""): [1.0] * 7}, task=ONE_CLASS, losses=[call])) == []
    assert degenerate_targets(runs.well({**SOLVED, ("score", ""): [1.0] * 8}, task=ONE_CLASS, losses=[call]))


def test_a_contrastive_loss_that_asks_for_class_0_is_silent(runs):
    logits = runs.loss_call(target=CONSTANT, chain=("linear", "norm", "matmul", "cat", "div"))
    assert degenerate_targets(runs.well(SOLVED, task=ONE_CLASS, losses=[logits])) == []


def test_one_class_that_is_not_solved_is_silent(runs):
    slow = {("loss", ""): np.full(100, 2.2)}
    assert degenerate_targets(runs.well(slow, task=ONE_CLASS, losses=[runs.loss_call(target=CONSTANT)])) == []


@pytest.mark.parametrize(("low", "high", "found"), [(0, 1, 0), (0.1, 0.9, 0), (-1, 1, 1), (1, 2, 1), (0, 255, 1)])
def test_targets_of_a_binary_cross_entropy_lie_between_0_and_1(runs, low, high, found):
    call = runs.loss_call("binary_cross_entropy_with_logits", target_kind="binary", target={"min": low, "max": high})
    assert len(degenerate_targets(runs.stuck(losses=[call]))) == found


def test_a_gan_is_silent(runs):
    call = runs.loss_call("binary_cross_entropy", target_kind="binary", target={"min": 1, "max": 1})
    assert degenerate_targets(runs.stuck(losses=[call], optimizers=[Optimizer(steps=9), Optimizer(steps=9)])) == []
    assert degenerate_targets(runs.stuck(losses=[call]))


@pytest.mark.parametrize(("value", "found"), [(0.0, 0), (3.5, 1)])
def test_a_regression_to_zero_may_be_a_residual(runs, value, found):
    case = runs.regression(np.geomspace(1, 1e-6, 100), mean=value, std=0.0)
    assert len(degenerate_targets(runs.well(**case))) == found
