from __future__ import annotations

import dataclasses
import math

import pytest

from unstuck.errors import MisuseError
from unstuck.optim.batch_choice import Own, choose
from unstuck.optim.batch_timing import Line, Timing
from unstuck.optim.noise_scale import NoiseScale

SIZES = tuple(2**k for k in range(2, 13))


def timing(fixed, each, sizes=SIZES, error=0.0):
    seconds = tuple(fixed + each * n for n in sizes)
    return Timing(sizes, seconds, tuple(error * t for t in seconds), (Line(fixed, each),))


def scale(value, apart=1.1):
    """A noise scale with an interval of a factor either way; without an upper end where it isn't known."""
    return NoiseScale(value, 1.0, value / apart, value * apart, 1000, 32)


@pytest.mark.parametrize(("critical", "fixed", "each"), [(100, 1.0, 0.01), (1000, 1.0, 0.1), (50, 0.1, 1.0)])
def test_the_least_of_updates_times_time(critical, fixed, each):
    """(1 + b / B)(f + e B) is least at B = sqrt(b f / e); of powers of two the one next to it by the formula itself."""
    found = choose(Own(32), timing(fixed, each), [scale(critical)], [1])
    exact = {n: (1 + critical / n) * (fixed + each * n) for n in SIZES}
    assert found.fastest == min(exact, key=lambda n: exact[n])
    assert found.fastest / 2 < math.sqrt(critical * fixed / each) < 2 * found.fastest
    assert found[8].time == pytest.approx(exact[8] / exact[32])
    assert found[8].samples == pytest.approx((1 + critical / 8) / (1 + critical / 32) * 8 / 32)
    assert found[32].time == found[32].updates == found[32].rate == 1


def test_a_clearly_faster_size_is_recommended():
    found = choose(Own(32), timing(1.0, 0.001), [scale(5000)], [1])
    assert found.recommended > 32
    assert found.why == ""
    assert found[found.recommended].high < 1


def test_of_sizes_that_are_alike_the_nearest_is_taken():
    found = choose(Own(32), timing(1.0, 0.0, sizes=(32, 512, 1024)), [scale(10)], [1], clear=0.01)
    assert found[1024].time < found[512].time < 1.03 * found[1024].time
    assert found.recommended == 512


def test_its_own_is_kept_where_it_is_fastest():
    found = choose(Own(4), timing(0.0, 1.0), [scale(10)], [1])
    assert (found.recommended, found.why) == (4, "fastest")


@pytest.mark.parametrize(("waited", "recommended", "why"), [(0.19, 512, ""), (0.21, 32, "busy")])
def test_nothing_is_recommended_by_times_of_a_busy_processor(waited, recommended, why):
    measured = dataclasses.replace(timing(1.0, 0.0, sizes=(32, 512)), waited=waited)
    found = choose(Own(32), measured, [scale(5000)], [1])
    assert (found.recommended, found.why) == (recommended, why)


def test_its_own_is_kept_where_the_gain_is_small():
    """With a noise scale of 100 the best of these saves less than a tenth."""
    found = choose(Own(32), timing(1.0, 0.03), [scale(100)], [1])
    assert 0.9 < found[found.fastest].time < 0.97
    assert (found.recommended, found.why) == (32, "unclear")


@pytest.mark.parametrize(("apart", "error"), [(40.0, 0.0), (1.1, 0.4)])
def test_its_own_is_kept_where_the_interval_reaches_it(apart, error):
    found = choose(Own(32), timing(1.0, 0.01, error=error), [scale(200, apart)], [1])
    assert found[found.fastest].time < 0.9
    assert (found.recommended, found.why) == (32, "unclear")


def test_the_rate_goes_with_the_updates():
    own, other = (
        choose(Own(32), timing(1.0, 0.0), [scale(100)], [1]),
        choose(Own(32, adaptive=True), timing(1.0, 0.0), [scale(100)], [1]),
    )
    expected = (1 + 100 / 32) / (1 + 100 / 128)
    assert own[128].rate == pytest.approx(expected)
    assert other[128].rate == pytest.approx(math.sqrt(expected))


def test_adaptive_updates_are_half_way_between_those_of_noise_and_of_the_rate_alone():
    found = choose(Own(32, adaptive=True), timing(1.0, 0.0), [scale(100, 1.0)], [1])[128]
    noise, rate = (1 + 100 / 128) / (1 + 100 / 32), 1 / found.rate
    assert found.updates == pytest.approx(math.sqrt(noise * rate))
    assert found.low == pytest.approx(noise)
    assert found.high == pytest.approx(rate)


def test_a_rate_is_held_where_it_is_stable_and_takes_more_updates():
    free, held = (choose(Own(32, stable=s), timing(1.0, 0.0), [scale(1000)], [1])[256] for s in (math.inf, 2.0))
    assert held.is_capped
    assert not free.is_capped
    assert held.rate == 2
    assert held.updates * held.rate == pytest.approx(free.updates * free.rate)


def test_a_rate_is_never_held_below_the_own():
    assert choose(Own(32, stable=0.1), timing(1.0, 0.0), [scale(1000)], [1])[64].rate == 1


def test_a_sum_grows_by_itself():
    """Its gradient is B times that of the mean, so a rate that goes with the mean is divided by as much."""
    mean, summed = (choose(Own(32, grows=g), timing(1.0, 0.0), [scale(1000)], [1])[128] for g in (False, True))
    assert summed.rate == pytest.approx(mean.rate / 4)
    assert summed.time == mean.time


def test_what_is_done_besides_grows_with_larger_batches_and_not_with_smaller_ones():
    found = choose(Own(32, besides=1.0), timing(1.0, 0.0), [scale(1e9)], [1])
    assert found[64].seconds == 3.0
    assert found[8].seconds == 2.0


def test_what_does_not_fit_is_not_recommended_but_named():
    found = choose(Own(32), timing(1.0, 0.0001), [scale(5000)], [1], fits=100)
    assert found.recommended == 64
    assert found.beyond == choose(Own(32), timing(1.0, 0.0001), [scale(5000)], [1]).recommended
    assert not found[128].fits
    assert found[64].fits


def test_no_more_than_the_most_is_recommended():
    assert choose(Own(32), timing(1.0, 0.0001), [scale(5000)], [1], most=200).recommended == 128


def test_points_count_by_their_weight():
    """Where all the run lies at one point, the other doesn't matter."""
    one = choose(Own(32), timing(1.0, 0.01), [scale(10), scale(1000)], [0, 1])
    assert one[128].time == pytest.approx(choose(Own(32), timing(1.0, 0.01), [scale(1000)], [1])[128].time)


def test_the_own_size_must_be_among_those_timed():
    with pytest.raises(MisuseError, match="the own batch size, 33"):
        choose(Own(33), timing(1.0, 0.0), [scale(10)], [1])


def accumulated(fixed=1.0, each=0.01, saved=0.5, count=4):
    """Batches of 8, several to an update, each further one of which takes so much less."""
    made = timing(fixed, each)
    seconds = count * (fixed + 8 * each) - (count - 1) * saved
    return dataclasses.replace(made, saved=saved, accumulated=(8, count, seconds, 0.0))


def test_the_same_samples_in_one_batch_are_the_same_update():
    """Four batches of 8 take 4 * 1.08 - 3 * 0.5 = 2.82; one of 32 takes 1.32. With batches as large as the most no other is allowed."""
    found = choose(Own(32, num_batches=4), accumulated(), [scale(1000)], [1], most=32)
    assert [(o.size, o.num_batches) for o in found.options if o.size == 32] == [(32, 4), (32, 1)]
    own, other = (o for o in found.options if o.size == 32)
    assert own.time == own.updates == own.rate == 1
    assert (other.updates, other.samples, other.rate) == (1, 1, 1)
    assert other.time == pytest.approx(1.32 / 2.82)
    assert (found.recommended, found.num_batches) == (32, 1)


@pytest.mark.parametrize(
    ("settings", "factor"),
    [({}, 1), ({"adds": True}, 4), ({"grows": True}, 1 / 4), ({"grows": True, "adds": True}, 1)],
)
def test_the_rate_has_the_length_of_the_gradient_in_it(settings, factor):
    """32 samples in one batch for 4 of 8: a gradient that was added up becomes a quarter, one that was a sum four times as long."""
    found = choose(Own(32, num_batches=4, **settings), accumulated(), [scale(1000)], [1])
    assert next(o for o in found.options if (o.size, o.num_batches) == (32, 1)).rate == pytest.approx(factor)
    adaptive = choose(Own(32, num_batches=4, adaptive=True, **settings), accumulated(), [scale(1000)], [1])
    assert next(o for o in adaptive.options if (o.size, o.num_batches) == (32, 1)).rate == 1


def test_updates_too_large_for_memory_come_in_as_large_batches_as_fit():
    found = choose(
        Own(32, num_batches=4), accumulated(1.0, 0.001, 0.0), [scale(10_000)], [1], fits=70, sizes=(96, 8192)
    )
    ways = {o.size: o.num_batches for o in found.options if (o.size, o.num_batches) != (32, 4)}
    assert (ways[64], ways[96], ways[256], ways[8192]) == (1, 3, 4, 128)
    assert all(o.fits for o in found.options)
    assert found.beyond == 0
    with_128 = next(o for o in found.options if o.size == 128)
    updates = (1 + 10_000 / 128) / (1 + 10_000 / 32)
    assert with_128.time == pytest.approx(updates * 2 * 1.064 / (4 * 1.008))


def test_its_own_batches_are_kept_where_others_are_hardly_faster():
    """Where each sample costs as much in any batch, there is no other way for 32."""
    found = choose(Own(32, num_batches=4), accumulated(0.0, 1.0, 0.0), [scale(1e6)], [1])
    assert [o.num_batches for o in found.options if o.size == 32] == [4]
    assert (found.recommended, found.num_batches) == (32, 4)
