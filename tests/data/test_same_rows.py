from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, Subset, TensorDataset

from unstuck.data import same_rows as room
from unstuck.data.same_rows import same_rows
from unstuck.errors import MisuseError

quick = settings(max_examples=60, deadline=None, derandomize=True)


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def first_equal(rows) -> list[int]:
    """The slow obvious version: NaN is equal to NaN, and 0.0 to -0.0."""
    seen: dict = {}
    found = []
    for i, row in enumerate(rows):
        key = tuple("missing" if value != value else value for value in np.asarray(row).ravel().tolist())
        found.append(seen.setdefault(key, i))
    return found


few = st.sampled_from([0.0, -0.0, 1.0, 2.0, 0.1, float("nan"), float("inf"), 1e300])


@pytest.mark.slow
@quick
@given(rows=st.lists(st.tuples(few, few, few), min_size=1, max_size=30))
@pytest.mark.parametrize("kind", ["float64", "float32", "float16"])
def test_equal_rows_are_those_that_are_looked_up_one_by_one(rows, kind):
    with np.errstate(over="ignore"):
        values = np.array(rows).astype(kind)
    assert same_rows(values).tolist() == first_equal(values)
    assert same_rows(torch.from_numpy(values)).tolist() == first_equal(values)


@quick
@given(data=st.data(), kind=st.sampled_from(["int8", "uint8", "int32", "int64", "bool", "U2", "S1", "datetime64[D]"]))
def test_equal_rows_of_any_kind(data, kind):
    width = data.draw(st.integers(1, 5))
    values = np.array(data.draw(st.lists(st.lists(st.integers(0, 2), min_size=width, max_size=width), min_size=1)))
    values = values.astype(kind)
    assert same_rows(values).tolist() == first_equal(values)


def test_equal_rows_of_mixed_columns_of_half_numbers_and_of_pictures():
    mixed = np.array([["a", 1], ["b", 1], ["a", 1], ["a", 1.5]], dtype=object)
    assert same_rows(mixed).tolist() == [0, 1, 0, 3]
    assert same_rows(torch.tensor([[1.0], [2.0], [1.0]], dtype=torch.bfloat16)).tolist() == [0, 1, 0]
    pictures = np.random.default_rng(0).integers(256, size=(50, 3, 9, 9), dtype=np.uint8)
    pictures[40] = pictures[7]
    assert np.flatnonzero(same_rows(pictures) != np.arange(50)).tolist() == [40]
    assert same_rows(np.zeros((0, 4))).tolist() == [] and same_rows(np.zeros((3, 0))).tolist() == [0, 0, 0]


def test_missing_values_are_equal_whatever_their_bits():
    values = np.array([[1.0, np.nan], [1.0, -np.nan], [1.0, np.nan]])
    assert np.signbit(values[1, 1]) != np.signbit(values[0, 1])
    assert same_rows(values).tolist() == [0, 0, 0]


def test_numbers_are_rounded_before_they_are_compared_where_asked():
    values = np.array([[0.12341, 5], [0.12339, 5], [0.12341, 5], [-0.00001, 0], [0.00001, 0]])
    assert same_rows(values).tolist() == [0, 1, 0, 3, 4]
    assert same_rows(values, decimals=4).tolist() == [0, 0, 0, 3, 3]
    assert same_rows(Items(list(values)), decimals=4).tolist() == [0, 0, 0, 3, 3]


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor, lambda x: TensorDataset(torch.as_tensor(x)), Items])
def test_many_rows_in_whatever_they_are(make):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2000, 33))
    copies = generator.integers(1000, size=300)
    values[1500:1800] = values[copies]
    assert same_rows(make(values)).tolist() == first_equal(values)


def test_rows_whose_hashes_agree_by_chance_are_told_apart(monkeypatch):
    values = np.random.default_rng(0).integers(4, size=(300, 2))
    monkeypatch.setattr(room, "_hashes", lambda rows, decimals: (rows[:, 0] % 2).astype(np.uint64))
    assert same_rows(values).tolist() == first_equal(values)


@pytest.mark.slow
def test_hashes_of_structured_rows_do_not_agree():
    """Small whole numbers in float64 have 44 low bits of zero, which multiplication alone never mixes into the rest."""
    grid = np.stack(np.meshgrid(*[np.arange(60.0)] * 3), axis=-1).reshape(-1, 3)
    for rows in (grid, grid.astype(np.float32), grid.astype(np.int16), np.eye(700), np.tril(np.ones((700, 700), bool))):
        assert len(np.unique(room._hashes(rows, None))) == len(rows)


def test_items_of_different_shapes_and_precisions():
    items = [
        torch.zeros(2, 3),
        torch.zeros(3, 2),
        torch.zeros(2, 3, dtype=torch.float64),
        torch.zeros(6),
        np.zeros((2, 3), np.float32),
    ]
    assert same_rows(Items(items)).tolist() == [0, 1, 0, 3, 0]


def test_a_subset_of_a_dataset():
    values = torch.arange(10.0)[:, None]
    values[9] = values[4]
    dataset = Subset(TensorDataset(values), [9, 0, 1, 4])
    assert same_rows(dataset).tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: same_rows(iter([])), "list_iterator is no array"),
        (lambda: same_rows(np.zeros((2, 2), np.longdouble)), "at most float64"),
    ],
)
def test_what_cannot_be_compared(make, said):
    with pytest.raises(MisuseError, match=said):
        make()
