"""Effects from pairs, against the closed form and against noise of which the truth is known."""

import math

import numpy as np
import pytest

from unstuck.trials.estimate import paired, welch

NULL_TRIALS = 400


def test_the_interval_is_students():
    effect = paired([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])  # differences 1, 2, 3: mean 2, deviation 1
    half = 4.303 / math.sqrt(3)
    assert (effect.mean, effect.pairs) == (2.0, 3)
    assert (effect.low, effect.high) == pytest.approx((2 - half, 2 + half))
    assert not effect.helps
    assert paired([0.0, 0.0, 0.0], [2.0, 2.2, 1.8]).helps


def test_what_is_worse_does_not_help():
    assert not paired([0.9, 0.91, 0.92], [0.1, 0.1, 0.11]).helps


def test_pairs_that_agree_to_the_last_digit_are_believed_no_more_than_the_least_spread():
    effect = paired([0.5, 0.5], [0.6, 0.6], least=0.01)
    assert effect.high - effect.low == pytest.approx(2 * 12.706 * 0.01 / math.sqrt(2))
    assert not paired([0.5, 0.5, 0.5], [0.501, 0.501, 0.501]).helps


@pytest.mark.parametrize(
    ("without", "treated"),
    [
        ([], []),
        ([0.1], [0.9]),
        ([0.1, math.nan], [0.9, 0.9]),
        ([-math.inf, 0.1], [-math.inf, 0.9]),
        ([0.1, 0.1], [math.inf, 1]),
    ],
)
def test_too_few_pairs_or_no_numbers_show_nothing(without, treated):
    effect = paired(without, treated)
    assert (effect.low, effect.high, effect.helps) == (-math.inf, math.inf, False)


def slack(rate, count):
    """Three standard deviations of a share of `count`."""
    return 3 * math.sqrt(rate * (1 - rate) / count)


@pytest.mark.parametrize("pairs", [2, 3, 5, 12])
@pytest.mark.parametrize("kind", ["normal", "accuracy", "heavy tails"])
def test_what_does_nothing_is_called_helpful_in_no_more_than_a_twentieth(kind, pairs):
    def runs(random):
        if kind == "normal":
            return random.normal(0.7, 0.05, pairs)
        if kind == "accuracy":  # of 200 samples
            return random.binomial(200, 0.8, pairs) / 200
        return 0.7 + 0.02 * random.standard_t(3, pairs)

    helpful = 0
    for seed in range(NULL_TRIALS):
        random = np.random.default_rng(seed)
        helpful += paired(runs(random), runs(random)).helps
    assert helpful <= (0.05 + slack(0.05, NULL_TRIALS)) * NULL_TRIALS


@pytest.mark.parametrize("pairs", [2, 3, 6])
def test_intervals_hold_the_truth_as_often_as_they_say(pairs):
    held = 0
    for seed in range(NULL_TRIALS):
        random = np.random.default_rng(seed)
        base = random.normal(0.5, 0.2, pairs)  # what a pair shares falls out
        effect = paired(base, base + 0.1 + random.normal(0, 0.05, pairs))
        held += effect.low <= 0.1 <= effect.high
    assert held / NULL_TRIALS == pytest.approx(0.95, abs=slack(0.95, NULL_TRIALS))


def test_welch_is_that_of_scipy():
    """The difference of two means; scipy's interval has fractional degrees of freedom, ours rounds down: a little wider."""
    stats = pytest.importorskip("scipy.stats")
    without, treated = [0.1, 0.2, 0.15, 0.12], [0.5, 0.65, 0.58]
    effect = welch(without, treated)
    theirs = stats.ttest_ind(treated, without, equal_var=False).confidence_interval()
    assert effect.mean == pytest.approx(sum(treated) / 3 - sum(without) / 4)
    assert theirs.low - 0.05 < effect.low <= theirs.low
    assert theirs.high <= effect.high < theirs.high + 0.05


def test_welch_of_one_run_is_infinitely_unsure():
    effect = welch([0.1], [0.5, 0.6])
    assert (effect.low, effect.high, effect.helps) == (-math.inf, math.inf, False)
