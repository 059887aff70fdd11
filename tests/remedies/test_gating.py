from __future__ import annotations

import pytest

from unstuck.evidence import Layer
from unstuck.remedies.gating import gating, propose
from unstuck.source import EditError

NETWORK = """
    import torch
    from torch import nn
    from torch.nn import RNN

    class Net(nn.Module):
        def __init__(self):
            self.rnn = {cell}
            self.head = nn.Linear(8, 1)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    net = Net()
    opt = torch.optim.Adam(net.parameters())
"""


@pytest.mark.parametrize(
    ("cell", "becomes"),
    [
        ("nn.RNN(4, 8, batch_first=True)", "nn.GRU(4, 8, batch_first=True)"),
        ("nn.RNNCell(4, 8)", "nn.GRUCell(4, 8)"),
        ("RNN(4, 8)", "nn.GRU(4, 8)"),
    ],
)
def test_a_gated_cell(script, cell, becomes):
    made = script(NETWORK.format(cell=cell))
    assert made.diff(gating, to="GRU") == [f"-        self.rnn = {cell}", f"+        self.rnn = {becomes}"]


def test_open_forget_gates(script):
    made = script(NETWORK.format(cell="nn.LSTM(4, 8)"))
    assert made.added(gating, to="open")[0] == "for name, parameter in net.named_parameters():"


def test_what_it_can_not_be_put_in_place_of(script):
    with pytest.raises(EditError, match="nonlinearity"):
        gating(script(NETWORK.format(cell='nn.RNN(4, 8, nonlinearity="relu")')))
    with pytest.raises(EditError, match="no simple recurrent layer"):
        gating(script())


def test_what_is_tried(script, found):
    assert propose(script(layers=[Layer("rnn", "rnn")]), found()) == [{"to": "GRU"}]
    assert propose(script(layers=[Layer("lstm", "lstm")]), found()) == [{"to": "open"}]
    assert propose(script(), found()) == []
