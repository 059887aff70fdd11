from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unstuck.data.moments import Extremes, Moments
from unstuck.data.scaling import standardization
from unstuck.errors import MisuseError

quick = settings(max_examples=50, deadline=None, derandomize=True)
finite = st.floats(-1e6, 1e6)
NAN = float("nan")


def table(num_samples: int = 500, num_features: int = 4, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(num_samples, num_features)) * [1, 100, 1e-3, 5] + [0, 1e4, 3, -2]


@pytest.mark.slow
@quick
@given(
    rows=st.lists(st.tuples(finite, finite), min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
)
def test_moments_of_batches_are_those_of_two_passes_over_all(rows, cuts):
    values = np.array(rows)
    moments, parts = Moments(), [Moments() for _ in range(len(cuts) + 1)]
    for part, batch in zip(parts, np.split(values, sorted(cuts)), strict=True):
        moments.update(batch)
        part.update(batch)
    for part in parts[1:]:
        parts[0].merge(part)
    for found in (moments, parts[0]):
        assert found.count == len(values)
        # sums of 40 numbers below 1e6 in float64: some dozens of roundings of 1e-16 each
        np.testing.assert_allclose(found.mean.numpy(), values.mean(axis=0), rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(found.variance.numpy(), values.var(axis=0), rtol=1e-9, atol=1e-9)


def test_moments_do_not_cancel_far_from_zero():
    values = np.random.default_rng(0).normal(size=(10_000, 1)) + 1e9
    moments = Moments()
    for batch in np.split(values, 100):
        moments.update(batch)
    apart = values - 1e9  # exact, since both are multiples of 1.2e-7; a sum of squares would lose all digits
    np.testing.assert_allclose(moments.variance.numpy(), apart.var(axis=0), rtol=1e-12)
    assert standardization(values)(values).std() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("statistics", [Moments, Extremes])
def test_statistics_go_on_from_where_they_were_saved(statistics):
    values = table()
    first, whole = statistics(), statistics()
    first.update(values[:100])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = statistics(axis=None)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.update(values[100:])
    whole.update(values[:100])
    whole.update(values[100:])
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value) if isinstance(value, torch.Tensor) else True
    assert second.count == 500 and first.count == 100


def test_statistics_leave_what_they_are_given_as_it_was():
    for values in (table(), torch.from_numpy(table())):
        before = np.asarray(values).copy()
        for statistics in (Moments(), Extremes()):
            statistics.update(values)
            other = type(statistics)()
            other.merge(statistics)
            other.update(values + 1)
            assert statistics.count == 500
        assert np.array_equal(before, values)
    empty = Moments()
    empty.merge(Moments())
    assert empty.count == 0


def test_after_a_batch_that_is_refused_it_goes_on_as_before():
    moments = Moments()
    moments.update(np.array([[1.0], [3.0]]))
    with pytest.raises(MisuseError):
        moments.update(np.array([[NAN]]))
    moments.update(np.array([[5.0]]))
    assert moments.count == 3 and moments.mean.tolist() == [3.0]


def test_statistics_of_other_axes_do_not_go_together():
    with pytest.raises(MisuseError, match="axis 2 don't go with those of axis 1"):
        Moments(1).merge(Moments(2))
