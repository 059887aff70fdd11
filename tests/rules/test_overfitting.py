from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Series
from unstuck.rules.overfitting import overfitting


def evaluated(losses, scores=None):
    steps = np.linspace(9, 99, len(losses)).astype(int)
    series = {("eval_loss", ""): Series.of(losses, steps), ("loss", ""): np.geomspace(2.3, 0.01, 100)}
    return series if scores is None else {**series, ("eval_score", ""): Series.of(scores, steps)}


def rising(by, count=10):
    """Falls to 1 in the first third, then rises."""
    third = count // 3
    return np.concatenate([np.linspace(2, 1, third), np.linspace(1, 1 + by, count - third)])


def test_falling_evaluation_is_silent(runs):
    assert overfitting(runs.well(evaluated(np.linspace(2, 0.3, 10)))) == []


@pytest.mark.parametrize(("by", "found"), [(0.23, 0), (0.25, 1)])  # the last three are smoothed into one
def test_a_rise_of_a_fifth(runs, by, found):
    assert len(overfitting(runs.well(evaluated(rising(by))))) == found


@pytest.mark.parametrize(
    ("scores", "severity"), [([0.6] * 10, "note"), (np.linspace(0.7, 0.6, 10), "warning"), (None, "warning")]
)
def test_the_score_decides_how_severe_it_is(runs, scores, severity):
    assert [f.severity for f in overfitting(runs.well(evaluated(rising(1.0), scores)))] == [severity]


@pytest.mark.parametrize(("count", "found"), [(4, 0), (6, 1)])
def test_few_evaluations_are_no_trend(runs, count, found):
    assert len(overfitting(runs.well(evaluated(rising(2.0, count))))) == found


def test_one_odd_evaluation_is_silent(runs):
    assert overfitting(runs.well(evaluated([1, 1, 1, 1, 1, 1, 1, 1, 1, 9]))) == []


def test_a_late_minimum_is_silent(runs):
    assert overfitting(runs.well(evaluated([2, 1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.5, 0.6, 0.9]))) == []


def test_training_must_go_on_falling(runs):
    flat = {**evaluated(rising(1.0)), ("loss", ""): np.full(100, 2.0)}
    assert overfitting(runs.stuck(flat)) == []
