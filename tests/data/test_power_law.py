from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unstuck.data.learning_curve import SizeCurve
from unstuck.data.power_law import _solved, fit
from unstuck.errors import MisuseError

SIZES = np.array([100, 200, 400, 800, 1600, 3200])


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(floor=st.floats(0, 0.3), factor=st.floats(0.5, 5), exponent=st.floats(0.15, 1.2))
def test_a_power_law_is_found_where_there_is_one(floor, factor, exponent):
    law = fit(SizeCurve(SIZES, floor + factor * SIZES**-exponent, higher_is_better=False))
    assert law.error(6400) == pytest.approx(floor + factor * 6400**-exponent, rel=1e-3)
    assert law.floor >= 0 and law.factor >= 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(errors=st.lists(st.floats(0, 1), min_size=6, max_size=6), exponent=st.floats(0.1, 2))
def test_floor_and_factor_are_those_of_scipys_non_negative_least_squares(errors, exponent):
    from scipy.optimize import nnls

    weights = np.linspace(0.5, 2, 6)
    root = np.sqrt(weights)
    matrix = np.stack([np.ones(6), SIZES**-exponent], axis=1)
    solution, norm = nnls(matrix * root[:, None], np.array(errors) * root)
    floor, factor, squares = (
        each[0] for each in _solved(SIZES.astype(float), np.array(errors), weights, np.array([exponent]))
    )
    assert squares == pytest.approx(norm**2, abs=1e-9)
    assert floor + factor * 800.0**-exponent == pytest.approx(solution @ [1, 800.0**-exponent], abs=1e-6)


def test_one_training_that_went_wrong_does_not_bend_the_curve():
    errors = np.repeat((0.05 + 2 * SIZES**-0.5)[:, None], 3, axis=1) * [0.99, 1.0, 1.01]
    sound = fit(SizeCurve(SIZES, 1 - errors))
    errors[3, 1], errors[1, 2] = 0.9, np.nan
    law = fit(SizeCurve(SIZES, 1 - errors))
    assert law.error(6400) == pytest.approx(sound.error(6400), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("floor, factor, exponent", [(0.05, 3, 0.5), (0, 1, 0.2), (0.1, 20, 1.0), (0.01, 2, 0.35)])
def test_the_interval_at_twice_the_data_holds_the_truth(floor, factor, exponent):
    generator, true = np.random.default_rng(0), floor + factor * SIZES**-exponent
    hits = 0
    for _ in range(60):
        errors = true[:, None] + generator.normal(size=(6, 3)) * 0.01 * np.sqrt(true / true.mean())[:, None]
        found = fit(SizeCurve(SIZES, 1 - np.abs(errors))).forecast(6400)
        hits += found.low <= 1 - floor - factor * 6400**-exponent <= found.high
    assert hits >= 50  # of 60; at 95% fewer come with a probability of 1e-4


def test_the_interval_is_wide_where_sizes_are_near_to_each_other():
    generator = np.random.default_rng(0)
    wide = []
    for sizes in (SIZES, np.array([2200, 2400, 2600, 2800, 3000, 3200])):
        errors = (0.05 + 3 * sizes**-0.5)[:, None] + generator.normal(size=(6, 3)) * 0.005
        found = fit(SizeCurve(sizes, 1 - errors)).forecast(6400)
        wide.append(found.high - found.low)
    assert wide[1] > 2 * wide[0]


def test_samples_needed_for_a_score():
    law = fit(SizeCurve(SIZES, 1 - (0.05 + 3 * SIZES**-0.5)))
    assert law.needed(0.92) == pytest.approx((3 / 0.03) ** 2, rel=1e-3)
    assert math.isinf(law.needed(0.96))


def test_a_flat_curve_needs_no_more_data():
    law = fit(SizeCurve(SIZES, np.full(6, 0.7)))
    assert law.forecast(6400).score == pytest.approx(0.7)


def test_three_sizes_are_too_few():
    with pytest.raises(MisuseError, match="scores at 3 sizes .* need 4"):
        fit(SizeCurve([1, 2, 3], [0.1, 0.2, 0.3]))


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: SizeCurve([1, 2], [0.1, 0.2, 0.3]), "scores of shape"),
        (lambda: SizeCurve([2, 1], [0.1, 0.2]), "must ascend"),
        (lambda: SizeCurve([0, 1], [0.1, 0.2]), "sizes below 1"),
        (lambda: SizeCurve([1, 2], [20.0, 30.0]), "better than 1"),
    ],
)
def test_what_is_no_curve(make, said):
    with pytest.raises(MisuseError, match=said):
        make()
