"""Packed rows beside torch's own packing."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from unstuck.errors import MisuseError
from unstuck.recurrent.packing import by_lengths, by_sizes, full

LENGTHS = [[3, 5, 1], [5, 5, 5], [2, 2, 4], [1, 1, 1]]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_rows_are_those_of_torch(lengths):
    padded = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    expected = pack_padded_sequence(padded, torch.tensor(lengths), enforce_sorted=False)
    found = by_lengths(lengths, 5, 3)
    assert torch.equal(found.pack(padded), expected.data)
    assert list(found.layout.sizes) == expected.batch_sizes.tolist()


@pytest.mark.parametrize("lengths", [*LENGTHS, [0, 2, 0], [0, 0, 0]])
def test_unpacked_they_are_what_they_were_and_zero_after_the_end(lengths):
    padded = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    packed = by_lengths(lengths, 5, 3)
    for b, length in enumerate(lengths):
        padded[length:, b] = 0
    assert torch.equal(packed.unpack(packed.pack(padded), 5), padded)


@pytest.mark.parametrize("lengths", [*LENGTHS, [0, 4, 2]])
def test_reversed_every_sequence_is_turned_round_within_its_length(lengths):
    padded = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    packed = by_lengths(lengths, 5, 3)
    turned = packed.unpack(packed.reverse(packed.pack(padded)), 5)
    for b, length in enumerate(lengths):
        assert torch.equal(turned[:length, b], padded[:length, b].flip(0))
    assert torch.equal(packed.reverse(packed.reverse(packed.pack(padded))), packed.pack(padded))


def test_states_go_to_packed_order_and_back_and_along_rows():
    packed = by_lengths([1, 3, 0, 2], 3, 4)
    states = torch.arange(8.0).view(2, 4, 1)
    assert packed.sorted(states)[0, :, 0].tolist() == [1, 3, 0, 2]
    assert torch.equal(packed.unsorted(packed.sorted(states)), states)
    assert packed.by_row(torch.tensor([[1.0], [3.0], [0.0], [2.0]]))[:, 0].tolist() == [1, 3, 0, 1, 3, 1]
    assert full(2, 2).by_row(torch.tensor([[1.0], [2.0]]))[:, 0].tolist() == [1, 2, 1, 2]


def test_sizes_alone_suffice_for_what_is_packed_already():
    packed, known = by_sizes([3, 2, 1], None), by_lengths([3, 2, 1], 3, 3)
    assert packed.layout == known.layout and torch.equal(packed.backward, known.backward)
    assert by_sizes([2, 2], None).backward is None


@pytest.mark.parametrize("lengths", [[1, 2], [1, 2, 6], [1, -1, 2], torch.tensor([1.0, 2.0, 3.0])])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(MisuseError, match="lengths"):
        by_lengths(lengths, 5, 3)
