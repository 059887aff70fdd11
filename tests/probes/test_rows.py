"""Rows of tensors behind data sets: which they are, against what the data sets themselves give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset, random_split

from unstuck.probes.rows import Rows, rows_of

X = torch.arange(40.0)[:, None] * torch.tensor([1.0, -1.0])
Y = torch.arange(40) % 3
WHOLE, OTHER = TensorDataset(X, Y), TensorDataset(X[:7] + 100, Y[:7] + 3)


class Augmented(TensorDataset):
    def __getitem__(self, index):
        raise AssertionError("no sample may be asked for")


class Transformed(Subset):
    def __getitem__(self, index):
        raise AssertionError("no sample may be asked for")

    def __getitems__(self, indices):
        raise AssertionError("no sample may be asked for")


class Own(Dataset):
    tensors = (X, Y)

    def __getitem__(self, index):
        raise AssertionError("no sample may be asked for")

    def __len__(self):
        return len(X)


READ_ONLY = np.array([7, 1, 30])
READ_ONLY.flags.writeable = False
KNOWN = {
    "array": Subset(WHOLE, READ_ONLY),
    "whole": WHOLE,
    "subset": Subset(WHOLE, [5, 3, -1, 8]),
    "tensor": Subset(WHOLE, torch.tensor([5, 3, 8])),
    "range": Subset(WHOLE, range(10, 20)),
    "nested": Subset(Subset(WHOLE, range(10, 30)), [3, 19, 0]),
    "split": random_split(WHOLE, [30, 10], torch.Generator().manual_seed(0))[0],
    "joined": ConcatDataset([WHOLE, OTHER]),
    "joined parts": ConcatDataset([Subset(WHOLE, [4, 2]), OTHER, Subset(OTHER, [6])]),
    "part of joined": Subset(ConcatDataset([WHOLE, ConcatDataset([OTHER, WHOLE])]), [46, 0, 47, 40, -1, 39]),
    "none of it": Subset(WHOLE, []),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_they_are_what_the_data_set_gives(kind):
    dataset = KNOWN[kind]
    inputs, targets = rows_of(dataset)
    assert len(inputs) == len(targets) == len(dataset)
    numbers = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    samples = [dataset[i] for i in numbers.tolist()]
    assert inputs[numbers].tolist() == [x.tolist() for x, _ in samples]
    assert targets[numbers].tolist() == [int(y) for _, y in samples]
    assert inputs.first(3).tolist() == [dataset[i][0].tolist() for i in range(min(3, len(dataset)))]
    assert inputs.places is targets.places, "they lie side by side"


def test_some_of_them():
    inputs, targets = rows_of(ConcatDataset([WHOLE, OTHER]), [41, 7])
    assert len(inputs) == 2
    assert inputs[torch.tensor([0, 1])][:, 0].tolist() == [101, 7]
    assert targets[torch.tensor([1, 0])].tolist() == [7 % 3, 1 + 3]


@pytest.mark.parametrize("dataset", [
    Augmented(X, Y), Transformed(WHOLE, [1, 2, 3]), Subset(Augmented(X, Y), [0, 1]), ConcatDataset([WHOLE, Augmented(X, Y)]),
    Own(), Subset(Own(), [0]), ConcatDataset([WHOLE, TensorDataset(X)]), [1, 2], None,
], ids=["augmented", "transformed", "part", "joined", "own", "part of own", "unlike", "list", "none"])  # fmt: skip
def test_code_of_ones_own_is_not_looked_through(dataset):
    assert rows_of(dataset) == []


@pytest.mark.parametrize("kind", ["whole", "subset", "joined"])
def test_tensors_that_were_written_into_are_told(kind):
    x = X.clone()
    whole = TensorDataset(x, Y)
    found = rows_of({"whole": whole, "subset": Subset(whole, [1]), "joined": ConcatDataset([OTHER, whole])}[kind])
    assert all(rows.fresh for rows in found)
    x[0] = 3.0
    assert [rows.fresh for rows in found] == [False, True]


def test_a_whole_tensor_is_told_and_shared():
    inputs, _ = rows_of(WHOLE)
    assert inputs.whole.data_ptr() == inputs.first(5).data_ptr() == X.data_ptr()
    assert rows_of(KNOWN["subset"])[0].whole is None
    assert len(Rows.of(torch.tensor(3.0))) == 0


def test_what_fits_them():
    inputs, targets = rows_of(KNOWN["joined"])
    assert inputs.fit(X[:3])
    assert targets.fit(Y[:3])
    assert not inputs.fit(X[:3].double())
    assert not inputs.fit(X[:3, :1])
    assert not targets.fit(Y[0])


def test_nothing_is_drawn_and_nothing_looked_up_before_it_is_asked_for():
    """A look at a training step costs the same for a part of any size."""

    class Slow(list):
        def __iter__(self):
            raise AssertionError("looked up")

        __array__ = __getitem__ = __iter__

    state = torch.get_rng_state()
    rows = rows_of(Subset(Subset(WHOLE, Slow(range(20))), range(5)))
    assert len(rows[0]) == 5
    assert torch.equal(torch.get_rng_state(), state)
