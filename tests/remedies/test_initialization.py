from __future__ import annotations

import pytest
import torch

from unstuck.evidence import Layer
from unstuck.remedies.initialization import SCHEMES, initialization, propose
from unstuck.source import EditError


def test_layers_before_the_optimizer(script):
    assert script().diff(initialization, scheme="he") == [
        "+for module in net.modules():",
        "+    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):",
        '+        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")',
        "+        if module.bias is not None:",
        "+            nn.init.zeros_(module.bias)",
    ]


def test_as_torch_draws(script):
    assert script().added(initialization, scheme="default") == [
        "for module in net.modules():",
        '    if hasattr(module, "reset_parameters"):',
        "        module.reset_parameters()",
    ]


def test_each_scheme_can_be_written(script):
    schemes = [s for s in SCHEMES if s != "identity"]
    assert len({tuple(script(inputs={}).added(initialization, scheme=s)) for s in schemes}) == len(schemes)


RECURRENT = """
    import torch
    from torch import nn
    torch.manual_seed(0)
    net = nn.{cell}(4, 8)
    optimizer = torch.optim.Adam(net.parameters())
"""


def test_an_orthogonal_recurrence_gate_by_gate(script):
    made = script(RECURRENT.format(cell="LSTM"), layers=[Layer("lstm", "lstm")], models=[])
    assert made.added(initialization, scheme="orthogonal")[1:3] == [
        '    if "weight_hh" in name:',
        "        for gate in parameter.data.split(parameter.shape[1]):",
    ]
    weight = made.run(initialization, scheme="orthogonal")["net"].weight_hh_l0.data
    for gate in weight.split(8):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8))


def test_a_recurrence_that_leaves_the_state_as_it_is(script):
    made = script(RECURRENT.format(cell="RNN"), layers=[Layer("rnn", "rnn")], models=[])
    net = made.run(initialization, scheme="identity")["net"]
    assert torch.equal(net.weight_hh_l0.data, torch.eye(8))
    assert not net.bias_hh_l0.any()
    with pytest.raises(EditError, match="without gates"):
        initialization(script(RECURRENT.format(cell="GRU"), layers=[Layer("gru", "gru")], models=[]), scheme="identity")
    with pytest.raises(EditError, match="no recurrent layer"):
        initialization(script(), scheme="identity")


def test_by_the_data(script):
    net = "net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))\nfor p in net.parameters():\n    p.data *= 100"
    made = script(net=net, inputs={}, optimizer="torch.optim.SGD(net.parameters(), lr=0.0)")
    assert made.added(initialization, scheme="lsuv")[-3:] == [
        "    net(x[:256])",
        "for hook in hooks:",
        "    hook.remove()",
    ]
    ran = made.run(initialization, scheme="lsuv")
    with torch.no_grad():
        first = ran["net"][0](ran["x"])
        assert first.std().item() == pytest.approx(1, abs=1e-5)
        assert ran["net"](ran["x"]).std().item() == pytest.approx(1, abs=1e-5)


def test_by_the_data_of_a_loader(script):
    made = script("""
        import torch
        from torch.utils.data import DataLoader
        device = "cpu"
        net = torch.nn.Linear(4, 3).to(device)
        batches = DataLoader(data, batch_size=8)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    """)
    assert "    net(next(iter(batches))[0].to(device))" in made.added(initialization, scheme="lsuv")
    with pytest.raises(EditError, match="no DataLoader"):
        initialization(script(), scheme="lsuv")


def test_in_a_method(script):
    made = script("""
        import torch
        class Trainer:
            def fit(self):
                self.net = Net()
                self.opt = torch.optim.Adam(self.net.parameters())

        class Net(torch.nn.Module):
            def forward(self, x):
                return x
    """)
    assert made.added(initialization, scheme="default")[0] == "        for module in self.net.modules():"


@pytest.mark.parametrize("net", ["nn.Linear(4, 3)", "nn.Sequential(nn.Linear(4, 3))"])
def test_a_network_without_an_optimizer(script, net):
    made = script(f"""
        from torch import nn
        criterion = nn.MSELoss()
        net = {net}
        for step in range(10):
            criterion(net(x), y).backward()
    """)
    assert made.added(initialization, scheme="glorot")[2] == "        nn.init.xavier_uniform_(module.weight)"


TENSORS = """
    import torch
    criterion = torch.nn.MSELoss()
    w1 = torch.zeros(4, 8, requires_grad=True)
    w2 = torch.zeros(8, 3, requires_grad=True)
    for step in range(10):
        for xb, yb in batches:
            loss = criterion(xb @ w1 @ w2, yb)
            loss.backward()
"""


def test_plain_tensors_before_the_loop(script, by_hand):
    assert script(TENSORS, **by_hand).diff(initialization, scheme="glorot") == [
        "+with torch.no_grad():",
        "+    w1.normal_(0, 0.5)",
        "+    w2.normal_(0, 0.3536)",
    ]
    assert script(TENSORS, **by_hand).added(initialization, scheme="he")[2] == "    w2.normal_(0, 0.5)"


def test_tensors_without_names(script):
    with pytest.raises(EditError, match="no optimizer"):
        initialization(script(TENSORS))
    held = script("""
        import torch
        opt = torch.optim.SGD(weights, lr=0.1)
        for x, y in batches:
            f(x, weights).backward()
    """)
    assert held.added(initialization, scheme="he")[:2] == [
        "with torch.no_grad():",
        "    for group in opt.param_groups:",
    ]


def test_what_is_tried(script, found):
    assert propose(script(), found()) == [{"scheme": "glorot"}, {"scheme": "default"}], "there is a tanh"
    relu = script(net="net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))")
    assert propose(relu, found())[0] == {"scheme": "he"}
    assert propose(relu, found("bad-initialization"))[-1] == {"scheme": "lsuv"}
    recurrent = script(layers=[Layer("rnn", "rnn", parameters=("w", "v")), Layer("fc", "linear", parameters=("u",))])
    assert propose(recurrent, found()) == [{"scheme": s} for s in ("orthogonal", "identity", "default")]
