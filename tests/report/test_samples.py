"""Small pictures: a PNG that others can read, nothing but what fits, all of it escaped."""

from __future__ import annotations

import base64
import re
from types import SimpleNamespace

import numpy as np
import pytest

from unstuck.data.sketch import sketch
from unstuck.report._samples import drawn, png


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_what_pillow_reads(channels):
    import io

    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (17, 23, channels), np.uint8)
    read = np.asarray(image.open(io.BytesIO(png(pixels)))).reshape(17, 23, channels)
    assert np.array_equal(read, pixels)


def test_a_picture_stands_in_the_page_as_it_is():
    made = str(drawn(sketch(np.arange(64.0).reshape(8, 8)), "a <b>"))
    assert 'alt="a &lt;b&gt;"' in made
    data = re.search(r"data:image/png;base64,([^\"]+)", made)
    assert data is not None and base64.b64decode(data[1]).startswith(b"\x89PNG")


def test_series_text_and_numbers(cases: SimpleNamespace):
    assert str(drawn(sketch(np.sin(np.arange(50.0))), "a wave")).count("L") == 49
    broken = str(drawn({"kind": "series", "lines": [[1.0, None, 2.0, 3.0]]}, ""))
    assert broken.count("M") == 2
    assert "<script>" not in str(drawn(sketch(cases.NASTY), "")) and "&lt;/script&gt;" in str(
        drawn(sketch(cases.NASTY), "")
    )
    assert str(drawn(sketch([1, 2.5]), "")) == '<code class="numbers-of">1.00, 2.50</code>'


@pytest.mark.parametrize(
    "broken",
    [
        None, "x", {}, {"kind": "image"}, {"kind": "image", "height": 3, "width": 3, "channels": 1, "data": "!!"},
        {"kind": "image", "height": 9, "width": 9, "channels": 1, "data": "AAAA"}, {"kind": "series", "lines": "abc"},
        {"kind": "image", "height": 10**9, "width": 10**9, "channels": 3, "data": ""}, {"kind": "numbers", "numbers": ["x"]},
        {"kind": "series", "lines": [[None, None]]}, {"kind": "text", "text": None},
    ],
)  # fmt: skip
def test_what_is_no_sketch_breaks_nothing(broken):
    assert "<img" not in str(drawn(broken, "x"))
