"""Layers beside torch's for shapes, lengths and settings that nobody thought of."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from unstuck.recurrent.layers import GRU, LSTM, RNN

PAIRS = {"lstm": (nn.LSTM, LSTM), "gru": (nn.GRU, GRU), "rnn": (nn.RNN, RNN)}
SIZES = st.integers(1, 9)


@st.composite
def cases(draw):
    """A kind of layer, its settings, the padded steps, the lengths, and a backend."""
    found = {
        "bidirectional": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "num_layers": draw(st.integers(1, 3)),
    }
    steps = draw(st.integers(1, 12))
    lengths = draw(st.lists(st.integers(0, steps), min_size=1, max_size=6))
    kind, backend = draw(st.sampled_from(sorted(PAIRS))), draw(st.sampled_from(["c", "torch", "plain"]))
    return kind, (draw(SIZES), draw(SIZES)), found, steps, lengths, backend


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(cases())
def test_any_layer_on_any_sequences_gives_what_torchs_gives_on_each_of_them(case):
    kind, (inputs, hidden), given_settings, steps, lengths, backend = case
    theirs, ours = PAIRS[kind]
    torch.manual_seed(0)
    theirs = theirs(inputs, hidden, **given_settings, dtype=torch.float64)
    ours = ours(inputs, hidden, **given_settings, dtype=torch.float64, backend=backend)
    ours.load_state_dict(theirs.state_dict())
    first = given_settings["batch_first"]
    x = torch.randn((len(lengths), steps, inputs) if first else (steps, len(lengths), inputs), dtype=torch.float64)
    x.requires_grad_()
    output, last = ours(x, lengths=lengths)
    found = torch.autograd.grad(output.sin().sum(), [x, *ours.parameters()])

    there = [b for b, length in enumerate(lengths) if length]  # torch knows no empty sequences
    true = torch.zeros_like(output)
    if there:
        some = x[there] if first else x[:, there]
        packed = pack_padded_sequence(some, torch.tensor(lengths)[there], first, enforce_sorted=False)
        rows, end = theirs(packed)
        padded, _ = pad_packed_sequence(rows, first, total_length=steps)
        true = true.index_copy(0 if first else 1, torch.tensor(there), padded)
        for a, b in zip(*((s,) if isinstance(s, torch.Tensor) else s for s in (last, end)), strict=True):
            torch.testing.assert_close(a[:, there], b, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output, true, rtol=1e-10, atol=1e-12)
    if there:
        expected = torch.autograd.grad(true.sin().sum(), [x, *theirs.parameters()])
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
