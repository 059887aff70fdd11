"""What is learned of the data."""

import pytest
import torch
from torch import nn

from unstuck.recurrent.layers import GRU
from unstuck.watcher.data import DataBook


@pytest.mark.parametrize(
    ("module", "batch"),
    [
        (nn.GRU(3, 4), 7),
        (nn.GRU(3, 4, batch_first=True), 5),
        (GRU(3, 4), 7),
        (GRU(3, 4, batch_first=True), 5),
        (nn.Sequential(nn.Linear(3, 2)), 5),
    ],
)
def test_batches_are_counted_along_the_axis_that_recurrent_layers_have_them_on(module, batch):
    book = DataBook()
    book.saw_input(module, torch.zeros(5, 7, 3))
    assert book.batch_size == batch
