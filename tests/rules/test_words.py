from __future__ import annotations

import math

import pytest

from unstuck.rules._words import names, number, plural, share


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2.3026, "2.30"),
        (3e-7, "3e-7"),
        (1.25e-7, "1.2e-7"),
        (0, "0"),
        (1234.5, "1234"),
        (1e9, "1e9"),
        (math.nan, "NaN"),
        (-math.inf, "-Inf"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_are_short(value, said):
    assert number(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0%"), (1, "100%"), (0.5, "50%"), (0.031, "3.1%"), (1e-5, "<0.1%"), (0.998, "99.8%"), (0.9999, "99.9%")],
)
def test_shares_never_round_to_all_or_nothing(value, said):
    assert share(value) == said


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([], "no layer"),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (list("abcde"), "a, b and 3 more"),
    ],
)
def test_names_are_listed(places, said):
    assert names(places) == said


@pytest.mark.parametrize(
    ("count", "noun", "said"), [(1, "step", "1 step"), (20, "step", "20 steps"), (3, "batch", "3 batches")]
)
def test_plurals(count, noun, said):
    assert plural(count, noun) == said
