"""Moving averages against the slow loop, closed forms, and what theory says of noise and lag."""

from __future__ import annotations

import copy
import math
import time

import numpy as np
import pytest
import torch

from unstuck.errors import MisuseError
from unstuck.optim.moving_average import MovingAverage, beta_of_window, half_life, moving_average, window_of

NAN = math.nan


def series(count=300, seed=0, missing=0.0):
    draw = np.random.default_rng(seed)
    x = 5 + draw.normal(size=count).cumsum()
    x[draw.random(count) < missing] = NAN
    return x


def slow(x, beta, times=None):
    """Weighted means, each from the beginning."""
    times = np.arange(len(x)) if times is None else times
    found = []
    for last in range(len(x)):
        weights = beta ** (times[last] - times[: last + 1]) * ~np.isnan(x[: last + 1])
        found.append(np.nansum(weights * x[: last + 1]) / weights.sum() if weights.sum() else NAN)
    return np.array(found)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_series_at_once_and_sample_by_sample_are_the_slow_loop(beta, missing):
    x = series(missing=missing)
    x[:2] = [NAN, NAN] if missing else x[:2]
    expected = slow(x, beta)
    if beta == 0:  # in a gap the average stays, where the loop has no weight left
        expected = np.array([next((v for v in x[i::-1] if not math.isnan(v)), NAN) for i in range(len(x))])
    average = MovingAverage(beta)
    stepwise = [average.add(v) or average.value for v in x]
    np.testing.assert_allclose(moving_average(x, beta), expected, rtol=1e-12)  # float64, 300 samples
    np.testing.assert_allclose(stepwise, expected, rtol=1e-12)
    assert average.count == len(x)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_it_is_what_pandas_has(missing):
    pandas = pytest.importorskip("pandas")
    x = series(missing=missing)
    theirs = pandas.Series(x).ewm(alpha=0.1)
    average, variances = MovingAverage(0.9, variance=True), []
    for v in x:
        average.add(v)
        variances.append(average.variance)
    np.testing.assert_allclose(moving_average(x, 0.9), theirs.mean(), rtol=1e-12)
    np.testing.assert_allclose(variances, theirs.var(), rtol=1e-9)


def test_a_constant_is_itself_from_the_first_sample_and_too_small_if_not_corrected():
    x = np.full(50, 0.3)
    assert (moving_average(x, 0.98) == 0.3).all()
    average = MovingAverage(0.98)
    for v in x:
        average.add(v)
        assert average.value == 0.3
    biased = 0.3 * (1 - 0.98 ** np.arange(1, 51))
    np.testing.assert_allclose(moving_average(x, 0.98, corrected=False), biased, rtol=1e-12)
    plain = MovingAverage(0.98, corrected=False)
    assert plain.value == 0
    np.testing.assert_allclose([plain.add(v) or plain.value for v in x], biased, rtol=1e-12)


def test_not_corrected_is_the_recursion_of_textbooks_also_over_gaps():
    x, v, found = series(), 0.0, []
    for sample in x:
        v = 0.9 * v + 0.1 * sample
        found.append(v)
    np.testing.assert_allclose(moving_average(x, 0.9, corrected=False), found, rtol=1e-12)
    gaps = np.where(np.arange(len(x)) % 3 == 1, NAN, x)
    gaps[0] = NAN
    plain = MovingAverage(0.9, corrected=False)
    np.testing.assert_allclose(
        moving_average(gaps, 0.9, corrected=False), [plain.add(s) or plain.value for s in gaps], rtol=1e-12
    )


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_samples_that_are_not_evenly_spaced_count_by_their_age(missing):
    x, draw = series(missing=missing), np.random.default_rng(1)
    times = draw.exponential(2.0, len(x)).cumsum() - 40
    expected = slow(x, 0.5 ** (1 / 3.0), times)
    average = MovingAverage(half_life=3.0)
    stepwise = [average.add(v, time=t) or average.value for v, t in zip(x, times, strict=True)]
    np.testing.assert_allclose(moving_average(x, times=times, half_life=3.0), expected, rtol=1e-10)
    np.testing.assert_allclose(stepwise, expected, rtol=1e-10)
    even = moving_average(x, times=np.arange(len(x)), half_life=half_life(0.9))
    np.testing.assert_allclose(even, moving_average(x, 0.9), rtol=1e-10)
    assert average.window == pytest.approx(3.0 / math.log(2))


def test_arrays_and_tensors_are_averaged_element_by_element():
    x = np.stack([series(seed=s, missing=0.2) for s in range(6)], 1).reshape(-1, 2, 3)
    expected = np.stack([slow(column, 0.8) for column in x.reshape(-1, 6).T], 1).reshape(x.shape)
    np.testing.assert_allclose(moving_average(x, 0.8), expected, rtol=1e-12)
    at_once = moving_average(torch.from_numpy(x), 0.8)
    np.testing.assert_allclose(at_once.numpy(), expected, rtol=1e-12)
    of_arrays, of_tensors = MovingAverage(0.8).of(x), MovingAverage(0.8).of(torch.from_numpy(x))
    np.testing.assert_allclose(of_arrays.value, expected[-1], rtol=1e-12)
    assert torch.allclose(of_tensors.value, torch.from_numpy(expected[-1]), rtol=1e-12)


def test_half_precision_is_averaged_in_single_and_integers_as_numbers():
    x = torch.full((4000,), 3.0, dtype=torch.bfloat16)
    x[0] = 0
    average = MovingAverage(0.999).of(x)
    assert average.value.dtype == torch.float32
    expected = 3 * (1 - 0.999**3999 * 0.001 / (1 - 0.999**4000))  # of 4000 roundings to 7 digits 4 are left
    assert float(average.value) == pytest.approx(expected, rel=1e-4)
    assert moving_average(x, 0.999).dtype == torch.bfloat16
    assert moving_average(torch.tensor([1, 3]), 0.5).tolist() == pytest.approx([1, 7 / 3])
    assert float(MovingAverage(0.5).of(torch.tensor([1, 3])).value) == pytest.approx(7 / 3)


def test_nothing_waits_for_the_device_and_no_graph_is_kept(monkeypatch):
    average = MovingAverage(0.9, variance=True)
    x = torch.randn(5, requires_grad=True)
    for name in ("item", "__bool__", "__float__", "cpu", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a sync"))
    for _ in range(3):
        average.add(x * 2)
    assert not average.value.requires_grad
    assert not average.variance.requires_grad


def test_what_is_added_may_be_changed_afterwards():
    for x in (np.ones(3), torch.ones(3)):
        average = MovingAverage(0.9)
        average.add(x)
        x += 1
        assert average.value.tolist() == [1, 1, 1]


def test_white_noise_and_a_ramp_are_as_theory_has_them():
    beta, noise = 0.9, np.random.default_rng(0).normal(size=200_000)
    left = moving_average(noise, beta)[1000:].var()
    # 200,000 samples correlated over ten are worth 10,000: the variance's own deviation is 1.4%
    assert left == pytest.approx((1 - beta) / (1 + beta), rel=0.06)
    ramp = np.arange(2000.0)
    assert (ramp - moving_average(ramp, beta))[-1] == pytest.approx(beta / (1 - beta), rel=1e-9)


def test_nan_skipped_or_kept():
    average = MovingAverage(0.9)
    assert math.isnan(average.value)
    average.add(NAN)
    assert math.isnan(average.value)
    average.add(2.0)
    average.add(NAN)
    assert average.value == 2
    kept = MovingAverage(0.9, skip_nan=False)
    assert math.isnan(kept.of([1.0, NAN, 1.0]).value)
    assert MovingAverage(0.9, skip_nan=False).of(series(50)).value == pytest.approx(slow(series(50), 0.9)[-1])


def test_a_long_gap_loses_nothing():
    x = np.array([1.0, 3.0, *[NAN] * 3000, 5.0])
    at_once = moving_average(x, 0.5)
    assert at_once[-2] == pytest.approx(7 / 3)
    assert at_once[-1] == 5
    average = MovingAverage(0.5).of(x[:-1])
    assert average.value == pytest.approx(7 / 3)


def test_a_state_goes_on_where_it_was():
    x = series(40)
    whole, half = MovingAverage(0.9, variance=True).of(x), MovingAverage(0.9, variance=True).of(x[:20])
    other = MovingAverage(0.9, variance=True)
    other.load_state_dict(copy.deepcopy(half.state_dict()))
    other.of(x[20:])
    assert (other.value, other.variance, other.count) == (whole.value, whole.variance, 40)
    other.reset()
    assert math.isnan(other.value)
    with pytest.raises(MisuseError, match="but an average has"):
        other.load_state_dict({"mean": 1})


def test_words_for_the_same_thing():
    assert window_of(0.98) == pytest.approx(50)
    assert MovingAverage(0.98).window == pytest.approx(50)
    assert window_of(beta_of_window(7)) == pytest.approx(7)
    assert 0.9 ** half_life(0.9) == pytest.approx(0.5)
    assert half_life(0.0) == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MovingAverage(1.0), "beta is 1.0, but must be from 0 to less than 1"),
        (lambda: MovingAverage(-0.1), "beta is -0.1"),
        (lambda: MovingAverage(), "give beta, or half_life"),
        (lambda: MovingAverage(0.9, half_life=2.0), "not both"),
        (lambda: MovingAverage(half_life=0.0), "half_life is 0.0"),
        (lambda: MovingAverage(half_life=1.0, corrected=False), "evenly spaced samples"),
        (lambda: MovingAverage(0.9, variance=True, corrected=False), "no variance"),
        (lambda: MovingAverage(0.9).variance, "variance=True"),
        (lambda: MovingAverage(0.9).add(1.0, time=2.0), "make it by half_life"),
        (lambda: MovingAverage(half_life=1.0).add(1.0), "needs the time"),
        (lambda: MovingAverage(0.9).of([np.ones(2), np.ones(3)]), r"shape \(3,\), but those before had \(2,\)"),
        (lambda: beta_of_window(0.5), "a window of 0.5"),
        (lambda: moving_average(3.0, 0.9), "an axis of time"),
        (lambda: moving_average([1.0, 2.0], half_life=1.0), "belong together"),
        (lambda: moving_average([1.0, 2.0], half_life=1.0, times=[2.0, 1.0]), "2 numbers that ascend"),
    ],
)
def test_what_is_given_is_checked(make, words):
    with pytest.raises(MisuseError, match=words):
        make()


def test_times_that_go_back_are_refused():
    average = MovingAverage(half_life=1.0)
    average.add(1.0, time=3.0)
    with pytest.raises(MisuseError, match="a sample at time 2 behind one at 3"):
        average.add(1.0, time=2.0)


def test_an_empty_series_has_no_averages():
    assert moving_average([], 0.9).shape == (0,)


def test_a_long_series_takes_no_loop():
    x = series(100_000)
    began = time.process_time()
    moving_average(x, 0.999)
    assert time.process_time() - began < 1  # some hundredths; the loop takes tenths of it per ten thousand
