from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import IterableDataset, TensorDataset

from unstuck.data.bootstrap import bootstrap
from unstuck.data.split import (
    Split,
    hold_out,
    k_fold,
    nested,
    subsets,
)
from unstuck.errors import MissingError, MisuseError

quick = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**40)


def parts_of(split: Split) -> tuple[set[int], set[int]]:
    for part in split:
        assert part.dtype == np.int64 and np.all(np.diff(part) > 0)
    return set(split.train.tolist()), set(split.evaluation.tolist())


def same(one: Split, other: Split) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@quick
@given(num_samples=st.integers(2, 300), share=st.floats(0.01, 0.99), seed=seeds)
def test_a_hold_out_has_each_sample_in_one_part_and_the_share_in_evaluation(num_samples, share, seed):
    if not 0 < round(share * num_samples) < num_samples:
        with pytest.raises(MisuseError, match="leaves 0 in a part"):
            hold_out(num_samples, share, seed=seed)
        return
    split = hold_out(num_samples, share, seed=seed)
    train, evaluation = parts_of(split)
    assert not train & evaluation and train | evaluation == set(range(num_samples))
    assert len(evaluation) == round(share * num_samples)
    assert same(split, hold_out(num_samples, share, seed=seed))


def test_every_sample_is_as_likely_to_be_held_out():
    counts = np.zeros(20)
    for seed in range(2000):
        counts[hold_out(20, 0.25, seed=seed).evaluation] += 1
    # chi-square with 19 degrees, less than that for draws without replacement: its 99.9% quantile is 43.8
    assert np.sum((counts - 500) ** 2 / 500) < 43.8


@quick
@given(sizes=st.lists(st.integers(4, 40), min_size=2, max_size=5), share=st.floats(0.3, 0.7), seed=seeds)
def test_a_hold_out_by_labels_has_each_class_in_its_share(sizes, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    train, evaluation = parts_of(split := hold_out(len(labels), share, labels=labels, seed=seed))
    assert not train & evaluation and train | evaluation == set(range(len(labels)))
    held = np.bincount(labels[split.evaluation], minlength=len(sizes))
    # both roundings, of the part and of the class, move a count by less than one
    assert np.all(np.abs(held - share * np.array(sizes)) < 2)


@quick
@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=30), share=st.floats(0.1, 0.9), seed=seeds)
def test_a_hold_out_by_groups_keeps_them_whole_and_comes_near_its_share(sizes, share, seed):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    held = round(share * len(groups))
    if not 0 < held < len(groups):
        return
    train, evaluation = parts_of(split := hold_out(len(groups), share, groups=groups, seed=seed))
    assert train and evaluation and train | evaluation == set(range(len(groups)))
    assert not set(groups[split.train]) & set(groups[split.evaluation])
    assert abs(len(evaluation) - held) <= max(sizes)


def test_a_large_group_is_passed_over_where_it_would_make_the_share_too_large():
    groups = np.repeat([0, 1, 2, 3], [900, 50, 50, 50])
    assert {len(hold_out(1050, 0.1, groups=groups, seed=seed).evaluation) for seed in range(20)} == {100}
    assert {len(hold_out(2, 0.6, groups=["a", "b"], seed=seed).evaluation) for seed in range(5)} == {1}
    assert {len(hold_out(10, 0.1, groups=[0] * 6 + [1] * 4, seed=seed).evaluation) for seed in range(5)} == {4}


@quick
@given(times=st.lists(st.integers(0, 30), min_size=4, max_size=80), share=st.floats(0.1, 0.9))
def test_a_hold_out_by_time_evaluates_on_what_is_later(times, share):
    column = np.array(times)
    cut = len(times) - round(share * len(times))
    if not 0 < cut < len(times) or np.sort(column)[cut] == column.min():
        with pytest.raises(MisuseError):
            hold_out(len(times), share, times=times)
        return
    train, evaluation = parts_of(split := hold_out(len(times), share, times=times))
    assert train | evaluation == set(range(len(times)))
    assert column[split.train].max() < column[split.evaluation].min() == np.sort(column)[cut]


@quick
@given(num_samples=st.integers(2, 120), num_folds=st.integers(2, 10), seed=seeds)
def test_each_sample_evaluates_in_one_fold(num_samples, num_folds, seed):
    if num_folds > num_samples:
        with pytest.raises(MisuseError, match=f"{num_folds} folds of {num_samples} samples"):
            k_fold(num_samples, num_folds, seed=seed)
        return
    splits = k_fold(num_samples, num_folds, seed=seed)
    evaluated = [i for split in splits for i in split.evaluation]
    assert sorted(evaluated) == list(range(num_samples)) and len(splits) == num_folds
    assert all(set.union(*parts_of(split)) == set(range(num_samples)) for split in splits)
    sizes = [len(split.evaluation) for split in splits]
    assert max(sizes) - min(sizes) <= 1


def test_as_many_folds_as_samples_leave_one_out():
    assert sorted(split.evaluation.tolist() for split in k_fold(7, 7)) == [[i] for i in range(7)]


@quick
@given(sizes=st.lists(st.integers(5, 30), min_size=2, max_size=4), num_folds=st.integers(2, 5), seed=seeds)
def test_folds_by_labels_have_each_class_in_its_share(sizes, num_folds, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    splits = k_fold(len(labels), num_folds, labels=torch.as_tensor(labels), seed=seed)
    assert sorted(i for split in splits for i in split.evaluation) == list(range(len(labels)))
    for split in splits:
        counts = np.bincount(labels[split.evaluation], minlength=len(sizes))
        assert np.all(np.abs(counts - np.array(sizes) / num_folds) <= 1)


@quick
@given(sizes=st.lists(st.integers(1, 9), min_size=5, max_size=30), num_folds=st.integers(2, 5), seed=seeds)
def test_folds_by_groups_keep_them_whole_and_are_balanced(sizes, num_folds, seed):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    splits = k_fold(len(groups), num_folds, groups=groups, seed=seed)
    assert sorted(i for split in splits for i in split.evaluation) == list(range(len(groups)))
    assert all(not set(groups[split.train]) & set(groups[split.evaluation]) for split in splits)
    held = [len(split.evaluation) for split in splits]
    assert max(held) - min(held) <= max(sizes)  # each group goes to the smallest fold, the largest first


def test_folds_by_groups_depend_on_the_seed_and_on_nothing_else():
    groups = np.repeat(np.arange(12), 3)
    np.random.seed(1)
    torch.manual_seed(1)
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    one = [k_fold(36, 4, groups=groups, seed=0), k_fold(36, 4, labels=groups % 3, seed=0), list(bootstrap(36, 4))]
    assert np.array_equal(np.random.get_state()[1], numpy_before) and torch.equal(torch.get_rng_state(), torch_before)
    np.random.seed(2)
    again = [k_fold(36, 4, groups=groups, seed=0), k_fold(36, 4, labels=groups % 3, seed=0), list(bootstrap(36, 4))]
    assert all(same(a, b) for few, others in zip(one, again, strict=True) for a, b in zip(few, others, strict=True))
    assert not all(same(a, b) for a, b in zip(one[0], k_fold(36, 4, groups=groups, seed=1), strict=True))


def test_folds_by_labels_and_groups():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    labels = (generator.random(40) < 0.3).astype(int)[groups]
    splits = k_fold(200, 4, labels=labels, groups=groups)
    assert sorted(i for split in splits for i in split.evaluation) == list(range(200))
    for split in splits:
        assert not set(groups[split.train]) & set(groups[split.evaluation])
        assert abs(labels[split.evaluation].mean() - labels.mean()) < 0.1  # one group is 0.1 of a fold


@quick
@given(num_samples=st.integers(6, 100), num_folds=st.integers(2, 5), seed=seeds)
def test_forward_chaining_is_that_of_scikit_learn_where_all_times_differ(num_samples, num_folds, seed):
    from sklearn.model_selection import TimeSeriesSplit

    order = np.random.default_rng(seed).permutation(num_samples)
    times = np.empty(num_samples)
    times[order] = np.arange(num_samples) * 0.5
    splits = k_fold(num_samples, num_folds, times=times)
    expected = TimeSeriesSplit(num_folds).split(order)
    for split, (train, evaluation) in zip(splits, expected, strict=True):
        assert split.train.tolist() == sorted(order[train]) and split.evaluation.tolist() == sorted(order[evaluation])


@quick
@given(times=st.lists(st.integers(0, 40), min_size=12, max_size=80), gap=st.integers(0, 5))
def test_forward_chaining_keeps_equal_times_together_and_the_gap_free(times, gap):
    column = np.array(times, dtype="datetime64[D]")
    try:
        splits = k_fold(len(times), 3, times=column, gap=np.timedelta64(gap, "D"))
    except MisuseError:  # one of the three reasons there are
        ordered = np.sort(times)
        cuts = [ordered[len(times) - len(times) // 4 * i] for i in (3, 2, 1)]
        assert len(set(cuts)) < 3 or not np.any(ordered < cuts[0] - gap)
        return
    for split in splits:
        assert set(column[split.train]) <= set(column) and len(split.train)
        first = column[split.evaluation].min()
        assert np.array_equal(split.train, np.flatnonzero(column < first - np.timedelta64(gap, "D")))
    evaluated = np.concatenate([split.evaluation for split in splits])
    assert np.array_equal(np.sort(evaluated), np.flatnonzero(column >= column[splits[0].evaluation].min()))
    assert [column[s.evaluation].max() < column[t.evaluation].min() for s, t in itertools.pairwise(splits)] == [
        True
    ] * 2


def test_nested_splits_choose_only_by_what_the_outer_one_trains_on():
    labels = np.arange(60) % 3
    found = nested(60, 4, 3, labels=labels, seed=5)
    assert sorted(i for each in found for i in each.outer.evaluation) == list(range(60))
    for each in found:
        train = set(each.outer.train.tolist())
        assert sorted(i for split in each.inner for i in split.evaluation) == sorted(train) and len(each.inner) == 3
        for split in each.inner:
            assert set(split.train) | set(split.evaluation) == train and not set(split.train) & set(split.evaluation)
            assert np.ptp(np.bincount(labels[split.evaluation])) <= 1
    with pytest.raises(MisuseError, match="class 0 has 3 of 15 samples"):
        nested(20, 4, 4, labels=np.arange(20) % 5)


def test_inner_splits_of_one_outer_split_are_not_those_of_another():
    places = {
        tuple(np.searchsorted(each.outer.train, split.evaluation)) for each in nested(60, 4, 3) for split in each.inner
    }
    assert len(places) == 12


def test_nested_splits_by_time_and_by_groups():
    for each in nested(60, 3, 3, times=np.arange(60)[::-1]):
        for split in [each.outer, *each.inner]:
            assert split.train.min() > split.evaluation.max()  # times run backwards
    groups = np.arange(60) // 4
    for each in nested(60, 3, 3, groups=groups):
        for split in [each.outer, *each.inner]:
            assert not set(groups[split.train]) & set(groups[split.evaluation])


def test_splits_are_what_scikit_learn_takes_as_cv():
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import cross_val_score

    inputs = np.arange(20.0)[:, None]
    scores = cross_val_score(LinearRegression(), inputs, 3 * inputs[:, 0], cv=k_fold(20, 4))
    assert scores == pytest.approx(np.ones(4))


def test_subsets_hold_the_samples_of_a_split():
    inputs, labels = torch.arange(20.0).reshape(10, 2), torch.arange(10)
    split = hold_out(10, 0.3)
    read_only = inputs.numpy().copy()
    read_only.flags.writeable = False
    for dataset in (TensorDataset(inputs, labels), (inputs, labels), (read_only, labels.tolist())):
        for part, indices in zip(subsets(dataset, split), split, strict=True):
            assert [int(label) for _, label in part] == indices.tolist()
            assert torch.equal(torch.stack([x for x, _ in part]), inputs[indices])
    (alone,) = subsets(inputs, split)[1][0]
    assert torch.equal(alone, inputs[split.evaluation[0]])


def test_subsets_of_what_cannot_be_split():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(MisuseError, match="has sample 9, and the dataset 5 samples"):
        subsets(torch.zeros(5), Split(np.array([0]), np.array([9])))
    with pytest.raises(MisuseError, match="Stream is a stream"):
        subsets(Stream(), hold_out(10))
    with pytest.raises(MisuseError, match=r"arrays of \[3, 2\] samples"):
        subsets((torch.zeros(3), torch.zeros(2)), hold_out(3, 0.4))
    with pytest.raises(MisuseError, match="ndarray of type <U1 holds no numbers; give a dataset"):
        subsets((np.array(["a", "b", "c"]), torch.zeros(3)), hold_out(3, 0.4))


def test_a_split_of_ones_own_may_be_lists_or_masks():
    for split in (Split([0, 2], [1]), Split([True, False, True], np.array([False, True, False])), Split((0, 2), [1])):
        assert [part.tolist() for part in split] == [[0, 2], [1]]
        assert all(part.dtype == np.int64 for part in split)
    assert [len(part) for part in Split([], np.zeros(0))] == [0, 0]
    for wrong in ([-1], [0.5], [[0, 1]], ["a"]):
        with pytest.raises(MisuseError, match=r"evaluation is an array of .* but must be numbers of samples from 0 on"):
            Split([0], wrong)


NAN = float("nan")


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: hold_out(1), "1 samples can't be split"),
        (lambda: hold_out(10, 0), "a share of 0"),
        (lambda: hold_out(10, 1.5), "a share of 1.5"),
        (lambda: hold_out(10, 0.01), "leaves 0 in a part"),
        (lambda: hold_out(10, "0.2"), "a share of '0.2'"),
        (lambda: hold_out(np.zeros((10, 2)), 0.2), r"num_samples is of type ndarray, but must be .* such as len\(x\)"),
        (lambda: hold_out(10.0, 0.2), "num_samples is 10.0"),
        (lambda: hold_out(10, seed=None), "seed is None, but must be a whole number"),
        (lambda: hold_out(4, 0.5, labels=["a", None, "a", "b"]), "1 of 4 labels are missing"),
        (lambda: hold_out(10, seed=-1), "a seed of -1"),
        (lambda: hold_out(4, 0.5, labels=[0, 0, 0, 1]), "class 1 has 1 of 4 samples"),
        (lambda: hold_out(6, 0.2, labels=[0, 0, 1, 1, 2, 2]), "3 classes, and only 1 samples in a part"),
        (lambda: hold_out(4, 0.5, labels=[0.1, 0.2, 0.3, 0.4]), "np.digitize"),
        (lambda: hold_out(4, 0.5, labels=[0, 1, 0]), r"labels of shape \(3,\)"),
        (lambda: hold_out(4, 0.5, labels=[0, 1, 0, 1], groups=[0, 0, 1, 1]), "labels and groups at once"),
        (lambda: hold_out(4, 0.5, groups=[1, 1, 1, 1]), "1 groups; at least 2"),
        (lambda: hold_out(4, 0.5, groups=[1.0, NAN, 1, 1]), r"1 of 4 groups are missing"),
        (lambda: hold_out(4, 0.5, times=[1, 2, NAN, NAN]), r"2 of 4 times are missing \(NaN\)"),
        (lambda: hold_out(2, 0.5, times=np.array(["2020-01-01", "NaT"], "datetime64[D]")), "1 of 2 times"),
        (lambda: hold_out(2, 0.5, times=[1, float("inf")]), "infinite"),
        (lambda: hold_out(2, 0.5, times=["2020", "2021"]), "datetime64"),
        (lambda: hold_out(2, 0.5, times=[1, 2], labels=[0, 1]), "times together with labels"),
        (lambda: hold_out(4, 0.5, times=[1, 1, 1, 1]), "1 different times"),
        (lambda: hold_out(4, 0.5, times=[1, 2, 3, 4], gap=5), "a gap of 5 leaves no sample"),
        (lambda: hold_out(4, 0.5, times=np.arange(4, dtype=np.uint8), gap=5), "a gap of 5 leaves no sample"),
        (lambda: hold_out(4, 0.5, times=[1, 2, 3, 4], gap=-1), "can't be negative"),
        (lambda: hold_out(4, 0.5, times=[1, 2, 3, 4], gap="a day"), "in their unit"),
        (lambda: hold_out(4, 0.5, gap=1), "a gap without times"),
        (lambda: k_fold(10, 1), "1 folds; at least 2"),
        (lambda: k_fold(10, 11), "11 folds of 10 samples"),
        (lambda: k_fold(10, 2.0), "num_folds is 2.0"),
        (lambda: k_fold(3, 3, times=[1, 2, 3]), "at most 2"),
        (lambda: k_fold(6, 3, labels=[0, 0, 0, 0, 1, 1]), "class 1 has 2 of 6 samples; a split into 3 folds needs 3"),
        (lambda: k_fold(6, 3, groups=[0, 0, 0, 1, 1, 1]), "2 groups; at least 3"),
        (lambda: k_fold(6, 3, times=[1, 1, 1, 2, 2, 2]), "2 different times are too few"),
    ],
)
def test_what_cannot_be_split(make, said):
    with pytest.raises(MisuseError, match=said):
        make()


def test_without_scikit_learn_what_needs_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    for make in (
        lambda: hold_out(8, 0.5, labels=[0, 1] * 4),
        lambda: k_fold(8, 2, labels=[0, 1] * 4),
        lambda: k_fold(8, 2, groups=[0, 1] * 4),
    ):
        with pytest.raises(MissingError, match="pip install scikit-learn"):
            make()
    hold_out(8, 0.5), hold_out(8, 0.5, groups=[0, 1] * 4), hold_out(8, 0.5, times=range(8))
    k_fold(8, 2), k_fold(8, 2, times=range(8)), nested(8, 2, 2)
