"""Medians of many stretches are those that numpy gives of each."""

from __future__ import annotations

import numpy as np
import pytest

from unstuck.rules._medians import medians, medians_before, stretches

NAN = np.nan


@pytest.mark.parametrize("kind", ["random", "few values", "rising", "falling", "all alike", "negative and infinite"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 9, 100])
def test_the_median_before_each_end_is_numpys(kind, length):
    random = np.random.default_rng(length)
    values = {
        "random": random.standard_normal(length),
        "few values": random.integers(0, 3, length).astype(float),
        "rising": np.arange(length) * 1.5,
        "falling": -np.arange(length) * 1.5,
        "all alike": np.full(length, 0.1),
        "negative and infinite": np.append(-np.abs(random.standard_normal(length - 1)), np.inf),
    }[kind]
    ends = np.arange(1, length + 1)
    assert medians_before(values, ends).tolist() == [np.median(values[:end]) for end in ends]
    some = random.permutation(ends)[: length // 2 + 1]
    assert medians_before(values, some).tolist() == [np.median(values[:end]) for end in some]


def test_no_ends_have_no_medians():
    assert medians_before(np.ones(3), np.zeros(0, int)).tolist() == []


def test_stretches_reach_beyond_both_ends():
    found = stretches(np.array([1.0, 2.0, 3.0]), np.array([-2, -1, 0, 2, 3]), 2)
    assert np.array_equal(found, [[NAN, NAN], [NAN, 1], [1, 2], [3, NAN], [NAN, NAN]], equal_nan=True)


def test_stretches_of_nothing_are_empty():
    assert np.isnan(stretches(np.zeros(0), np.array([-1, 0]), 2)).all()


def test_the_median_of_a_row_leaves_nan_out():
    rows = np.array([[3.0, 1, 2, 5], [NAN, 4, NAN, 2], [NAN, 7, NAN, NAN], [np.inf, 1, -np.inf, 2], [NAN] * 4])
    assert np.array_equal(medians(rows), [2.5, 3, 7, 1.5, NAN], equal_nan=True)
