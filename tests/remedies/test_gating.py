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


def test_a_gated_layer_of_ours_in_place_of_one_of_ours(script):
    text = NETWORK.replace("from torch.nn import RNN", "from unstuck.recurrent.layers import RNN").format(
        cell="RNN(4, 8)"
    )
    added = script(text).added(gating, to="GRU")
    assert sorted(added) == ["        self.rnn = GRU(4, 8)", "from unstuck.recurrent.layers import GRU"]


def test_a_nonlinearity_that_it_does_not_have(script):
    for cell in (
        'nn.RNN(4, 8, nonlinearity="relu", batch_first=True)',
        'nn.RNN(4, 8, batch_first=True, nonlinearity="relu")',
    ):
        made = script(NETWORK.format(cell=cell))
        assert made.added(gating, to="GRU") == ["        self.rnn = nn.GRU(4, 8, batch_first=True)"]


@pytest.mark.parametrize("use", ["self.rnn(x)[0]", "out"])
def test_an_lstm(script, use):
    text = NETWORK.format(cell="nn.RNN(4, 8)").replace(
        "return self.head(self.rnn(x)[0])", "{}return self.head(" + use + ")"
    )
    made = script(text.format("" if use != "out" else "out, state = self.rnn(x)\n            "))
    assert made.added(gating, to="LSTM") == ["        self.rnn = nn.LSTM(4, 8)"]


@pytest.mark.parametrize("call", ["self.rnn(x)[1]", "self.rnn(x, state)[0]", "take(self.rnn(x))"])
def test_an_lstm_whose_state_would_be_another(script, call):
    with pytest.raises(EditError, match="state"):
        gating(script(NETWORK.format(cell="nn.RNN(4, 8)").replace("self.rnn(x)[0]", call)), to="LSTM")


def test_gates_by_the_length_of_the_sequences(script):
    made = "def __init__(self):\n            super().__init__()"
    text = NETWORK.format(cell="nn.LSTM(4, 8, batch_first=True)").replace("def __init__(self):", made)
    made = script(text, layers=[Layer("rnn", "lstm", out_shape=(64, 50, 8))])
    assert "        forget = torch.log(1 + 48 * torch.rand(size, device=parameter.device))" in made.added(
        gating, to="chrono"
    )
    bias = made.run(gating, to="chrono")["net"].rnn.bias_ih_l0.data
    assert (bias[8:16] == -bias[:8]).all()
    assert bias[8:16].min() > 0
    packed = {"layers": [Layer("rnn", "lstm", out_shape=(3200, 8))], "vectors": {("lag_grad", "rnn"): [[1.0] * 30]}}
    assert "        forget = torch.log(1 + 28 * torch.rand(size, device=parameter.device))" in script(
        text, **packed
    ).added(gating, to="chrono")
    with pytest.raises(EditError, match="known length"):
        gating(script(text), to="chrono")


def test_open_forget_gates(script):
    made = script(NETWORK.format(cell="nn.LSTM(4, 8)"))
    assert made.added(gating, to="open")[0] == "for name, parameter in net.named_parameters():"


def test_what_it_can_not_be_put_in_place_of(script):
    with pytest.raises(EditError, match="nonlinearity"):
        gating(script(NETWORK.format(cell='nn.RNN(4, 8, 1, "relu")')))
    with pytest.raises(EditError, match="nonlinearity"):
        gating(script(NETWORK.format(cell="nn.RNN(4, 8, **settings)")))
    with pytest.raises(EditError, match="no simple recurrent layer"):
        gating(script())


def test_what_is_tried(script, found):
    assert propose(script(layers=[Layer("rnn", "rnn")]), found()) == [{"to": "GRU"}, {"to": "LSTM"}]
    assert propose(script(layers=[Layer("lstm", "lstm")]), found()) == [{"to": "open"}, {"to": "chrono"}]
    assert propose(script(), found()) == []
