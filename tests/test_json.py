"""What goes into JSON is plain, whatever it was before."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from unstuck._json import plain


@pytest.mark.parametrize("value", [None, True, 3, -0.5, "word", [1, "a"], {"a": {"b": [None]}}])
def test_what_json_knows_stays(value):
    assert plain(value) == value and type(plain(value)) is type(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32(math.nan), np.float64(math.inf)])
def test_numbers_that_are_not_finite_become_null(value):
    assert plain({"a": [value]}) == {"a": [None]}


def test_numpy_becomes_plain():
    told = plain({"n": np.int64(3), "x": np.float32(0.5), "b": np.True_, "v": np.array([[1.0, math.nan]])})
    assert json.dumps(told, allow_nan=False) == '{"n": 3, "x": 0.5, "b": true, "v": [[1.0, null]]}'


def test_all_collections_become_lists_and_all_keys_text():
    assert plain({1: (2, 3), "s": {4}, "f": frozenset({5})}) == {"1": [2, 3], "s": [4], "f": [5]}


def test_anything_else_becomes_text():
    assert plain([Path("a")]) == ["a"]
