from __future__ import annotations

import pytest

from unstuck.evidence import Layer, Parameter
from unstuck.remedies.all_parameters import all_parameters
from unstuck.source import EditError


@pytest.mark.parametrize(
    "given", ["net[2].parameters()", "[{'params': net[2].parameters()}]", "filter(lambda p: p.requires_grad, net.parameters())"]
)  # fmt: skip
def test_the_whole_network(script, given):
    made = script(optimizer=f"torch.optim.SGD({given}, lr=0.1)")
    assert made.added(all_parameters) == ["optimizer = torch.optim.SGD(net.parameters(), lr=0.1)"]


def test_a_network_that_a_function_is_given(script):
    made = script("""
        from torch import nn, optim

        def train(model):
            opt = optim.Adam(params=model.head.parameters())

        class Net(nn.Module):
            def __init__(self):
                self.head = nn.Linear(4, 3)

            def forward(self, x):
                return self.head(x)

        train(Net())
    """)
    assert made.added(all_parameters) == ["    opt = optim.Adam(params=model.parameters())"]


def test_a_network_of_a_trainer(script):
    made = script("""
        class Trainer:
            def __init__(self):
                self.net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)).to(device)
                self.opt = optim.Adam(self.net[1].parameters())
    """)
    assert made.added(all_parameters) == ["        self.opt = optim.Adam(self.net.parameters())"]


def test_another_network_that_takes_part(script):
    layers = [Layer("0", "linear", model="encoder"), Layer("1", "linear", model="net")]
    parameters = [Parameter("encoder.weight", (4, 4), ("0",), optimizers=()), Parameter("net.weight", (4, 4), ("1",))]
    made = script(data="encoder = nn.Linear(4, 4)", layers=layers, parameters=parameters)
    line = "optimizer = torch.optim.SGD([*net.parameters(), *encoder.parameters()], lr=0.1)"
    assert made.added(all_parameters) == [line]


def test_given_already(script):
    with pytest.raises(EditError, match="already"):
        all_parameters(script())
