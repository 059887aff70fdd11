from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Dataset, TensorDataset

from unstuck.data.bootstrap import bootstrap
from unstuck.data.leak import (
    joined,
    leaks,
    not_after,
    same_rows,
    scaled_on_all,
    shared_groups,
    shared_rows,
    shared_samples,
)
from unstuck.data.scaling import standardization
from unstuck.data.split import Split, hold_out, k_fold
from unstuck.errors import MisuseError

quick = settings(max_examples=60, deadline=None, derandomize=True)
HALVES = Split(np.arange(5), np.arange(5, 10))


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_rows_in_both_parts():
    values = np.arange(30.0).reshape(10, 3)
    assert shared_rows(values, HALVES) is None
    values[[6, 8]] = values[[1, 3]]
    values[2] = values[1]
    found = shared_rows(values, HALVES)
    assert found is not None and (found.kind, found.count, found.total) == ("shared-rows", 2, 5)
    assert found.evaluation.tolist() == [6, 8] and np.array_equal(values[found.train], values[[6, 8]])
    assert found.says.startswith("2 of 5 evaluation samples are equal to a training sample, such as 6 to ")
    values[6] += 1e-5
    near = shared_rows(TensorDataset(torch.from_numpy(values), torch.arange(10)), HALVES, decimals=3)
    assert near is not None and near.count == 2 and "equal to 3 decimals to a training" in near.says


@quick
@given(numbers=st.lists(st.integers(0, 12), min_size=4, max_size=30), seed=st.integers(0, 99))
def test_shared_rows_are_those_of_the_slow_version_and_groups_of_same_rows_keep_them_apart(numbers, seed):
    values = np.array(numbers)[:, None]
    split = hold_out(len(numbers), 0.4, seed=seed)
    expected = [i for i in split.evaluation if any(numbers[j] == numbers[i] for j in split.train)]
    found = shared_rows(values, split)
    assert (found.evaluation.tolist() if found else []) == expected
    if len(set(numbers)) > 1:
        assert shared_rows(values, hold_out(len(numbers), 0.4, groups=same_rows(values), seed=seed)) is None


def test_parts_that_came_apart():
    train, evaluation = np.arange(12.0).reshape(6, 2), np.array([[50.0, 60.0], [2.0, 3.0]])
    for make in (np.asarray, torch.as_tensor, lambda x: TensorDataset(torch.as_tensor(x)), lambda x: Items(list(x))):
        found = shared_rows(*joined(make(train), make(evaluation)))
        assert found is not None and found.evaluation.tolist() == [7] and found.train.tolist() == [1]
    assert isinstance(joined(Items([1]), Items([1]))[0], ConcatDataset)
    with pytest.raises(MisuseError, match=r"shapes \(2,\) and \(3,\)"):
        joined(train, np.zeros((1, 3)))


def test_samples_in_both_parts():
    assert shared_samples(HALVES) is None
    found = shared_samples(Split(np.array([0, 1, 2]), np.array([2, 3])))
    assert found is not None and found.says == "1 of 2 evaluation samples is a training sample too"
    assert found.evaluation.tolist() == found.train.tolist() == [2]
    assert all(shared_samples(split) is None for split in bootstrap(20, 5))
    assert shared_rows(np.arange(4.0), Split(np.array([0, 1, 2]), np.array([2, 3]))) is None  # told as a sample


def test_groups_in_both_parts():
    groups = ["ann", "ann", "bob", "bob", "cy", "cy", "dan", "dan", "eve", "eve"]
    found = shared_groups(groups, HALVES)
    assert found is not None and found.evaluation.tolist() == [5] and found.train.tolist() == [4]
    assert found.says == "1 of 5 evaluation samples is of a group that is trained on (1 group, such as cy)"
    assert shared_groups(groups, Split(np.arange(4), np.arange(4, 10))) is None
    assert all(shared_groups(groups, split) is None for split in k_fold(10, 5, groups=groups))


def test_evaluation_before_the_end_of_training():
    assert not_after(range(10), HALVES) is None
    times = np.array("2024-01-01", "datetime64[D]") + np.array([0, 1, 2, 3, 7, 5, 6, 7, 8, 9])
    found = not_after(times, HALVES)
    assert found is not None and found.evaluation.tolist() == [5, 6, 7] and set(found.train) == {4}
    assert found.says == "3 of 5 evaluation samples are not later than the last training sample (time 2024-01-08)"
    assert all(not_after(times, split) is None for split in k_fold(10, 3, times=times))
    assert not_after(times, hold_out(10, 0.4)) is not None


def scaled(values: np.ndarray, part, correction: int = 0) -> np.ndarray:
    return (values - values[part].mean(axis=0)) / values[part].std(axis=0, ddof=correction)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("correction", [0, 1])
def test_scaling_that_was_fitted_on_all(kind, correction):
    values = np.random.default_rng(0).gamma(2.0, size=(1000, 5)) * [1, 10, 100, 1, 1] + [0, 50, 0, 0, 0]
    values[:, 3] = 4.0  # stays as it is
    split = hold_out(1000, 0.2)
    with np.errstate(invalid="ignore"):
        on_all, on_train = scaled(values, slice(None), correction), scaled(values, split.train, correction)
    for each in (on_all, on_train):
        each[:, 3] = 0
    found = scaled_on_all(on_all.astype(kind), split)
    assert found is not None and (found.kind, found.count, found.total) == ("scaling", 4, 5)
    assert found.says.startswith(
        "4 of 5 features have mean 0 and deviation 1 over both parts together, but not over the"
    )
    worst = int(found.says.split("in feature ")[1][0])
    mean = on_all[split.train, worst].mean()
    assert f"({mean:.3g} and " in found.says
    assert scaled_on_all(on_train.astype(kind), split) is None
    assert scaled_on_all(values.astype(kind), split) is None


def test_scaling_of_pictures_by_channel_and_of_datasets():
    generator = np.random.default_rng(0)
    pictures = (generator.gamma(2.0, size=(200, 3, 1, 1)) + generator.normal(size=(200, 3, 6, 6))).astype(np.float32)
    split = hold_out(200, 0.25)
    right, wrong = standardization(pictures[split.train])(pictures), standardization(pictures)(pictures)
    for make in (np.asarray, torch.as_tensor, lambda x: TensorDataset(torch.as_tensor(x)), lambda x: Items(list(x))):
        assert scaled_on_all(make(right), split) is None
        found = scaled_on_all(make(wrong), split)
        assert found is not None and found.count == 3
    found = scaled_on_all(standardization(pictures, axis=None)(pictures), split, axis=None)
    assert found is not None and found.says.startswith("1 of 1 features has ")


def test_data_that_have_mean_0_and_deviation_1_by_nature_are_not_taken_for_scaled():
    values = np.random.default_rng(0).normal(size=(20_000, 200))
    assert scaled_on_all(values, hold_out(20_000, 0.2)) is None


def test_a_training_part_that_is_hardly_farther_off_than_the_whole_is_none_either():
    split = Split(np.arange(80), np.arange(80, 100))
    signs = np.tile([1.0, -1.0], 50)
    for off, found in ((3e-4, False), (3e-3, True)):  # the whole is 0.9e-4 off in both, just inside the tolerance
        values = signs + np.where(np.arange(100) < 80, off, (0.9e-4 - 0.8 * off) / 0.2)
        assert (scaled_on_all(values[:, None], split) is not None) is found


def test_all_checks_at_once():
    generator = np.random.default_rng(0)
    values, groups = generator.normal(size=(100, 4)) + 5, np.arange(100) // 10
    clean = Split(np.arange(80), np.arange(80, 100))
    assert leaks(values, clean, groups=groups, times=range(100)) == []
    values[90] = values[3]
    dirty = Split(np.arange(81), np.arange(80, 100))
    found = leaks(standardization(values)(values), dirty, groups=groups, times=range(100))
    assert [each.kind for each in found] == ["shared-samples", "shared-rows", "shared-groups", "times", "scaling"]
    assert [each.count for each in found] == [1, 1, 10, 1, 4]
    assert all(len(each.evaluation) == len(each.train) == each.count for each in found[:-1])
    assert leaks(np.array([["a"], ["b"], ["a"]]), Split(np.array([0, 1]), np.array([2])))[0].count == 1


def test_missing_values_do_not_keep_rows_from_being_compared():
    values = np.array([[1.0, np.nan], [2.0, 3.0], [1.0, np.nan]])
    split = Split(np.array([0, 1]), np.array([2]))
    assert shared_rows(values, split) is not None
    assert [leak.kind for leak in leaks(values, split)] == ["shared-rows"]


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor, lambda x: Items(list(x))])
def test_features_with_missing_values_are_left_out_of_what_is_said_of_scaling(make):
    values = np.random.default_rng(0).normal(size=(200, 3))
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    split = hold_out(200, 0.3)
    values[split.evaluation[3], 1] = np.nan
    values[split.train[5], 2] = np.inf
    before = values.copy()
    (leak,) = leaks(make(values), split)
    assert (leak.kind, leak.count, leak.total) == ("scaling", 1, 3)
    assert np.array_equal(values, before, equal_nan=True)
    values[0, 0] = np.nan
    assert leaks(make(values), split) == []


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: leaks(np.zeros((5, 2)), HALVES), "has sample 9, and there are 5 samples"),
        (lambda: shared_rows(np.zeros((5, 2)), HALVES), "has sample 9"),
        (lambda: shared_groups([1, 2], HALVES), r"groups of shape \(2,\) for samples 0 to 9"),
        (lambda: not_after([1.0, float("nan")] * 5, HALVES), r"5 of 10 times are missing \(NaN\)"),
        (lambda: not_after(np.zeros((10, 1)), HALVES), r"times of shape \(10, 1\)"),
        (lambda: shared_groups(["a", None] * 5, HALVES), "5 of 10 groups are missing"),
    ],
)
def test_what_cannot_be_checked(make, said):
    with pytest.raises(MisuseError, match=said):
        make()
