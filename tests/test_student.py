"""Student's distribution, against its density; intervals of means, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from unstuck._student import half_width, quantile


def testquantiles_are_those_of_student_or_a_little_more():
    # Student's distribution by its density, integrated over a fine grid: the oracle is good to 1e-4 of a probability
    for freedom in (1, 2, 3, 5, 10, 12, 17, 25, 30, 59, 60, 200):
        bound = quantile(freedom)
        t = np.linspace(-bound, bound, 200_001)
        scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
        share = float(np.trapezoid(scale * (1 + t**2 / freedom) ** (-(freedom + 1) / 2), t))
        assert 0.95 - 1e-4 < share < 0.957, freedom


def test_the_interval_of_a_mean():
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.303 / math.sqrt(3))
    assert half_width([2.0, 2.0]) == 0.0
    assert half_width([1.0]) == half_width([]) == math.inf
