import copy
import math
import random

from unstuck.watcher.cadence import Cadence, Sentinel


def drive(cadence, steps, *, plain, sample):
    """Plays a training: plain steps of `plain` seconds, sampled ones of `sample` more; gives the sampled steps."""
    sampled = []
    for step in range(steps):
        wanted = cadence.wants(step)
        if wanted:
            sampled.append(step)
        cadence.ended(plain + (sample if wanted else 0.0), sample if wanted else 0.0, sampled=wanted)
    return sampled


def test_first_steps_are_always_sampled():
    assert drive(Cadence(0.0), 4, plain=1.0, sample=100.0) == [0, 1, 2]


def test_spending_stays_within_the_budget():
    cadence = Cadence(0.02)
    sampled = drive(cadence, 20_000, plain=0.001, sample=0.003)
    assert 0.013 < len(sampled) * 0.003 / 20.0 < 0.017
    assert cadence.overhead < 0.017


def test_a_larger_budget_samples_more():
    few = drive(Cadence(0.01), 5000, plain=0.001, sample=0.003)
    many = drive(Cadence(0.1), 5000, plain=0.001, sample=0.003)
    assert len(many) > 5 * len(few)


def test_without_a_budget_only_the_ladder_is_climbed():
    sampled = drive(Cadence(0.0), 1000, plain=0.001, sample=0.003)
    assert sampled[:9] == [0, 1, 2, 4, 8, 16, 32, 64, 128]
    assert sampled[-1] > 500


def test_cheap_samples_are_taken_often_with_a_rest_between():
    sampled = drive(Cadence(0.02), 200, plain=1.0, sample=0.001)
    assert 50 <= len(sampled) <= 60
    assert 4 in sampled and not {5, 6, 7} & set(sampled)


def test_burst_samples_the_next_steps():
    cadence = Cadence(0.0)
    drive(cadence, 200, plain=0.001, sample=0.1)
    assert cadence.burst()
    assert [cadence.wants(201 + i) for i in range(4)] == [True, True, True, False]


def bursts(cadence):
    count = 0
    for _ in range(20):
        count += cadence.burst()
        cadence.burst_left = 0
    return count


def test_bursts_beyond_the_budget_are_limited():
    cadence = Cadence(0.0)
    drive(cadence, 200, plain=0.001, sample=0.1)
    assert bursts(cadence) == 2


def test_bursts_within_the_budget_are_limited():
    cadence = Cadence(1.0)
    drive(cadence, 200, plain=0.001, sample=0.0001)
    assert bursts(cadence) == 6


def test_steps_ahead_are_those_nobody_wants():
    cadence = Cadence(0.02)
    drive(cadence, 70, plain=0.001, sample=0.005)
    some = 0
    for step in range(70, 600):
        wanted = cadence.wants(step)
        if not wanted:
            ahead = cadence.plain_ahead(step, 16, 0.1)
            some += ahead
            shadow = copy.deepcopy(cadence)
            for later in range(step + 1, step + ahead):
                shadow.ended(0.001, 0.0, sampled=False)
                assert not shadow.wants(later)
        cadence.ended(0.006 if wanted else 0.001, 0.005 if wanted else 0.0, sampled=wanted)
    assert some > 0


def test_norm_is_looked_at_seldom_when_it_is_dear():
    cadence = Cadence(0.02)
    drive(cadence, 100, plain=0.001, sample=0.001)
    assert cadence.norm_stride(1e-6) == 1
    assert cadence.norm_stride(1e-4) == 50


def test_sentinel_is_quiet_on_noise_and_on_a_falling_loss():
    sentinel = Sentinel()
    noise = [2.3 * 0.98**i * (1 + 0.3 * math.sin(7 * i)) for i in range(300)]
    assert not any(sentinel.jumps(v) for v in noise)


def test_sentinel_allows_what_its_definition_allows():
    sentinel, generator = Sentinel(skip=0), random.Random(0)
    values = [generator.lognormvariate(0, 2) for _ in range(64)]
    for count, value in enumerate(values, 1):
        sentinel.add(value)
        if count % 8 == 0:
            kept = sorted(values[max(0, count - 32) : count])
            median, tail = kept[len(kept) // 2], len(kept) // 10
            spread = max(abs(v - median) for v in kept[tail : len(kept) - tail])
            assert sentinel.limit == median + max(8.0 * spread, 2.0 * median)


def test_sentinel_tells_one_spike():
    sentinel = Sentinel()
    values = [2.3 + 0.1 * math.sin(i) for i in range(100)]
    values[76] = 339.0
    assert [i for i, v in enumerate(values) if sentinel.jumps(v)] == [76]


def test_sentinel_tells_nan_from_the_first():
    assert Sentinel().jumps(math.nan)


def test_first_value_never_counts_as_normal():
    sentinel = Sentinel()
    values = [1.5e7, *[2.0] * 40, 50.0]
    assert [i for i, v in enumerate(values) if sentinel.jumps(v)] == [41]
