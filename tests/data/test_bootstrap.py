from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unstuck.data.bootstrap import bootstrap, bootstrap_estimate, no_information_accuracy
from unstuck.data.split import Split
from unstuck.errors import MisuseError

quick = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**40)


def same(one: Split, other: Split) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@quick
@given(num_samples=st.integers(2, 60), seed=seeds)
def test_a_resample_is_as_large_as_the_whole_and_the_rest_is_out_of_bag(num_samples, seed):
    for split in bootstrap(num_samples, 3, seed=seed):
        assert len(split.train) == num_samples and len(split.evaluation)
        assert np.array_equal(np.setdiff1d(np.arange(num_samples), split.train), split.evaluation)
        assert np.all(np.diff(split.train) >= 0)


def test_out_of_bag_is_what_it_is_on_paper():
    shares = [len(split.evaluation) / 50 for split in bootstrap(50, 2000)]
    # (1 - 1/50)^50 = 0.36417; one share deviates by less than 0.05, so the mean of 2000 by 0.0012
    assert abs(np.mean(shares) - (1 - 1 / 50) ** 50) < 4 * 0.05 / 2000**0.5
    drawn = Counter(i for split in bootstrap(5, 2000, seed=1) for i in split.train)
    assert max(abs(count - 2000) for count in drawn.values()) < 4 * 40  # variance of a count is 1600


def test_a_resample_is_the_same_however_many_there_are():
    few, many = list(bootstrap(30, 2, seed=3)), list(bootstrap(30, 5, seed=3))
    assert all(same(a, b) for a, b in zip(few, many[:2], strict=True))
    assert len({tuple(split.train) for split in many}) == 5


def test_a_bootstrap_by_labels_or_groups():
    labels = np.array([0] * 20 + [1] * 5)
    for split in bootstrap(25, 10, labels=labels):
        assert np.bincount(labels[split.train]).tolist() == [20, 5]
    groups = np.repeat(np.arange(8), [1, 2, 3, 4, 5, 6, 7, 8])
    for split in bootstrap(36, 10, groups=groups):
        assert not set(groups[split.train]) & set(groups[split.evaluation])
        counts = np.bincount(split.train, minlength=36)
        drawn = [set(counts[groups == group]) for group in range(8)]
        assert all(len(each) == 1 for each in drawn) and sum(each.pop() for each in drawn) == 8


def efron_and_tibshirani(error: float, error_oob: float, gamma: float) -> float:
    """Section 3, in errors: relative overfitting rate, weight, and estimate, the error out of bag cut at gamma."""
    error_oob_cut = min(error_oob, gamma)
    rate = (error_oob_cut - error) / (gamma - error) if error_oob_cut > error and gamma > error else 0
    if rate == 0:
        return 0.368 * error + 0.632 * error_oob
    weight = 0.632 / (1 - 0.368 * rate)
    return (1 - weight) * error + weight * error_oob_cut


@quick
@given(error=st.floats(0, 1), error_oob=st.floats(0, 1), gamma=st.floats(0.01, 1))
def test_the_estimate_with_no_information_is_that_of_the_paper(error, error_oob, gamma):
    if error > gamma:  # a model that is worse than none: outside of what the paper is about
        return
    expected = pytest.approx(efron_and_tibshirani(error, error_oob, gamma), abs=1e-9)
    assert bootstrap_estimate(error, error_oob, no_information=gamma) == expected
    # scores are errors turned around: the estimate turns with them
    assert 1 - bootstrap_estimate(1 - error, 1 - error_oob, no_information=1 - gamma) == pytest.approx(
        efron_and_tibshirani(error, error_oob, gamma), abs=1e-6
    )


def test_the_estimate_on_paper():
    assert bootstrap_estimate([0.9, 1.0], np.array([0.7, 0.8, 0.9])) == pytest.approx(0.368 * 0.95 + 0.632 * 0.8)
    # rate 1/2: the weight is 0.632 / 0.816
    assert bootstrap_estimate(0.0, 0.25, no_information=0.5) == pytest.approx(0.25 * 0.632 / 0.816)
    assert bootstrap_estimate(0.3, 0.3, no_information=0.5) == pytest.approx(0.3)
    assert bootstrap_estimate(0.5, 0.4, no_information=0.5) == pytest.approx(0.368 * 0.5 + 0.632 * 0.4)
    for bad in (float("nan"), [], [1.0, float("inf")]):
        with pytest.raises(MisuseError, match="oob_score"):
            bootstrap_estimate(1.0, bad)


def test_accuracy_without_information_is_the_mean_over_all_pairs():
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(4, size=50), generator.integers(1, 6, size=50)
    assert no_information_accuracy(labels, predictions) == pytest.approx(np.mean(labels[:, None] == predictions))
    with pytest.raises(MisuseError, match=r"shape \(2,\) and predictions of shape \(1,\)"):
        no_information_accuracy([1, 2], [1])


def test_the_estimate_of_a_nearest_neighbor_on_labels_at_random():
    """The example for which .632+ was made: true accuracy is 1/2, training accuracy 1, and .632 says 0.684."""
    generator = np.random.default_rng(0)
    inputs, labels = generator.normal(size=(300, 2)), generator.integers(2, size=300)
    distances = np.linalg.norm(inputs[:, None] - inputs, axis=2)
    scores = []
    for split in bootstrap(300, 30):
        nearest = split.train[distances[np.ix_(split.evaluation, split.train)].argmin(axis=1)]
        scores.append(np.mean(labels[nearest] == labels[split.evaluation]))
    chance = no_information_accuracy(labels, labels)
    assert (
        abs(bootstrap_estimate(1.0, scores, no_information=chance) - 0.5) < 0.08
    )  # the sample's own luck: 1/sqrt(300)
    assert bootstrap_estimate(1.0, scores) > 0.63


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: bootstrap(10, 0), "0 resamples"),
        (lambda: bootstrap(3, labels=[0, 0, 1]), "class 1 has 1"),
        (lambda: bootstrap(3, groups=[0, 0, 0]), "1 groups"),
        (lambda: bootstrap(3, groups=[0, 0, 1], labels=[0, 0, 0]), "at once"),
    ],
)
def test_what_cannot_be_drawn(make, said):
    with pytest.raises(MisuseError, match=said):
        make()


def test_resamples_need_no_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    assert len(list(bootstrap(8, 2, labels=[0, 1] * 4))) == 2
