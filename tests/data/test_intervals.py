from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unstuck.data._intervals import bootstrapped, fisher, holm, newcombe, permuted, student, wilson

quick = settings(max_examples=60, deadline=None, derandomize=True)
counts = st.tuples(st.integers(1, 200), st.integers(0, 200)).map(lambda pair: (min(pair), max(pair)))


@pytest.mark.slow  # statsmodels takes seconds to import
@quick
@given(found=counts)
def test_wilsons_interval_is_that_of_statsmodels(found):
    from statsmodels.stats.proportion import proportion_confint

    assert wilson(found[0] / found[1], found[1]) == pytest.approx(proportion_confint(*found, method="wilson"), abs=1e-6)


@pytest.mark.slow  # statsmodels takes seconds to import
@quick
@given(first=counts, second=counts)
def test_newcombes_interval_is_that_of_statsmodels(first, second):
    from statsmodels.stats.proportion import confint_proportions_2indep

    ours = newcombe(first[0] / first[1], first[1], second[0] / second[1], second[1])
    assert ours == pytest.approx(confint_proportions_2indep(*first, *second, method="newcomb"), abs=1e-6)


def test_against_what_is_known_exactly_it_is_wilsons():
    low, high = wilson(0.9, 50)
    assert newcombe(1.0, None, 0.9, 50) == pytest.approx((1 - high, 1 - low))


@quick
@given(first=counts, second=counts)
def test_fishers_test_is_that_of_scipy(first, second):
    from scipy.stats import fisher_exact

    table = [[first[0], first[1] - first[0]], [second[0], second[1] - second[0]]]
    assert fisher(*first, *second) == pytest.approx(fisher_exact(table).pvalue, rel=1e-6)


@pytest.mark.slow  # statsmodels takes seconds to import
@quick
@given(chances=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_correction_is_that_of_statsmodels(chances):
    from statsmodels.stats.multitest import multipletests

    assert holm(chances) == pytest.approx(multipletests(chances, method="holm")[1].tolist())


def test_exchanging_members_comes_near_the_exact_probability():
    group, rest = np.array([5.0, 6.0, 7.0]), np.array([1.0, 2.0, 3.0, 4.0])
    # of 35 ways to choose 3 of 7 the three largest and the three smallest are this far apart; 2000 draws have a standard error of 0.005
    assert permuted(group, rest, 0) == pytest.approx(2 / 35, abs=0.015)
    assert permuted(np.zeros(3), np.zeros(4), 0) == 1.0


def test_the_bootstrap_comes_near_the_normal_interval_of_many():
    generator = np.random.default_rng(0)
    first, second = generator.normal(1, 1, 2000), generator.normal(0, 2, 3000)
    half = 1.96 * np.sqrt(first.var() / 2000 + second.var() / 3000)
    apart = first.mean() - second.mean()
    assert bootstrapped(first, second, 0) == pytest.approx((apart - half, apart + half), abs=0.015)
    assert bootstrapped(first, 0.0, 0) == bootstrapped(first, 0.0, 0)


def test_students_interval_on_paper():
    assert student([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
