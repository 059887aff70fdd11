from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest

from unstuck.data.sketch import sketch


def pixels(found: dict) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(found["data"]), np.uint8)
    return data.reshape(found["height"], found["width"], found["channels"])


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (28, 28, 1), (1, 1, 28, 28)])
def test_a_grey_picture_keeps_its_pixels(shape):
    picture = np.random.default_rng(0).uniform(-3, 7, (28, 28))
    found = sketch(picture.reshape(shape))
    expected = np.round(255 * (picture - picture.min()) / np.ptp(picture))
    assert (found["kind"], found["shape"]) == ("image", list(shape))
    assert np.array_equal(pixels(found)[..., 0], expected)


@pytest.mark.parametrize("first", [True, False])
def test_a_large_colour_picture_is_shrunk_by_means_of_squares(first):
    picture = np.random.default_rng(0).uniform(0, 1, (100, 64, 3))
    found = sketch(np.moveaxis(picture, -1, 0) if first else picture)
    means = picture.reshape(25, 4, 16, 4, 3).mean((1, 3))
    expected = np.round(255 * (means - means.min()) / np.ptp(means))
    assert np.abs(pixels(found).astype(float) - expected).max() <= 1  # sums in another order may round the other way


def test_a_constant_picture_and_one_with_nan():
    assert not pixels(sketch(np.full((8, 8), 5.0))).any()
    picture = np.arange(64.0).reshape(8, 8)
    picture[0, 0] = np.nan
    assert pixels(sketch(picture))[0, 0, 0] == 0 and pixels(sketch(np.full((8, 8), np.nan))).shape == (8, 8, 1)


def test_series_run_along_their_longer_axis():
    waves = np.sin(np.arange(300.0))[:, None] * [1, 2]
    found = sketch(waves)
    assert found["kind"] == "series" and len(found["lines"]) == 2 and len(found["lines"][0]) <= 96
    assert sketch(waves.T)["lines"] == found["lines"]
    assert sketch(waves[:, 0])["lines"][0] == found["lines"][0]


@pytest.mark.parametrize("shape", [(60, 4), (60, 8), (1, 4, 60)])
def test_features_over_time_are_no_picture(shape):
    found = sketch(np.random.default_rng(0).normal(size=shape))
    assert found["kind"] == "series" and len(found["lines"][0]) == 60


def test_other_things_are_told_by_their_first_numbers_and_text_as_text():
    assert sketch(np.array([1.23456, math.inf, 3]))["numbers"] == [1.235, None, 3.0]
    assert sketch("x" * 999)["text"] == "x" * 300
    assert sketch(np.array(["a"]))["numbers"] == [] and sketch(np.zeros(0))["kind"] == "numbers"


@pytest.mark.parametrize("shape", [(3, 32, 32), (224, 224, 3), (16, 40, 8), (1000,), (2,), (5, 5, 5, 5), ()])
def test_it_is_small_and_plain(shape):
    assert len(json.dumps(sketch(np.random.default_rng(0).normal(size=shape)), allow_nan=False)) < 4500
