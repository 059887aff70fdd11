from __future__ import annotations

import numpy as np
import pytest

from unstuck.rules.unnormalized_target import unnormalized_target


def case(runs, mean, std, left=1.0):
    """A regression of which this share of the variance is left at the end."""
    return runs.regression(np.full(100, left * std**2), mean=mean, std=std, layer="head")


@pytest.mark.parametrize(
    ("mean", "std", "found"), [(0, 1, 0), (0, 9.9, 0), (0, 10.1, 1), (10.1, 0.5, 1), (0, 2e-3, 0), (0, 9e-4, 1)]
)
def test_the_scale_of_the_targets(runs, mean, std, found):
    findings = unnormalized_target(runs.stuck(**case(runs, mean, std)))
    assert len(findings) == found
    assert all(f.layers == ("head",) for f in findings)


def test_small_deviations_around_a_usual_mean_are_silent(runs):
    assert unnormalized_target(runs.stuck(**case(runs, 0.5, 5e-4))) == []


@pytest.mark.parametrize(("left", "severity"), [(1.0, "error"), (0.7, "warning"), (0.6, "note"), (0.05, "note")])
def test_how_severe_it_is(runs, left, severity):
    assert [f.severity for f in unnormalized_target(runs.learns(**case(runs, 300, 80, left)))] == [severity]


def test_classes_have_no_scale(runs):
    assert unnormalized_target(runs.stuck()) == []
