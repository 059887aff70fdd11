from __future__ import annotations

import pytest

from unstuck.evidence import Optimizer
from unstuck.remedies.momentum import momentum, propose
from unstuck.source import EditError


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("SGD(net.parameters(), lr=0.1)", "SGD(net.parameters(), lr=0.1, momentum=0.9)"),
        ("SGD(net.parameters(), 0.1, 0.5)", "SGD(net.parameters(), 0.1, 0.9)"),
        ("SGD(net.parameters(), lr=0.1, momentum=args.m)", "SGD(net.parameters(), lr=0.1, momentum=0.9)"),
        ("RMSprop(net.parameters(), 0.1, 0.99)", "RMSprop(net.parameters(), 0.1, 0.99, momentum=0.9)"),
    ],
)
def test_of_the_optimizer(script, given, becomes):
    made = script(optimizer=f"torch.optim.{given}")
    assert made.added(momentum, momentum=0.9) == [f"optimizer = torch.optim.{becomes}"]


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("SGD(net.parameters(), lr=0.1)", "SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)"),
        ("SGD(net.parameters(), momentum=0.5, lr=0.1)", "SGD(net.parameters(), momentum=0.9, lr=0.1, nesterov=True)"),
        ("SGD(net.parameters(), lr=0.1, nesterov=False)", "SGD(net.parameters(), lr=0.1, nesterov=True, momentum=0.9)"),
    ],
)
def test_of_nesterov(script, given, becomes):
    made = script(optimizer=f"torch.optim.{given}")
    assert made.added(momentum, momentum=0.9, nesterov=True) == [f"optimizer = torch.optim.{becomes}"]
    made.run(momentum, momentum=0.9, nesterov=True)


def test_none_takes_nesterov_away(script):
    made = script(optimizer="torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)")
    line = "optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0, nesterov=False)"
    assert made.added(momentum, momentum=0.0) == [line]
    with pytest.raises(EditError, match="Nesterov"):
        momentum(script(optimizer="torch.optim.RMSprop(net.parameters())"), nesterov=True)


def test_of_one_without(script):
    with pytest.raises(EditError, match="Adam takes no momentum"):
        momentum(script(optimizer="torch.optim.Adam(net.parameters())"))


def test_what_is_tried(script, found):
    assert propose(script(), found()) == [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}]
    some = script(optimizers=[Optimizer("SGD", settings={"momentum": 0.9})])
    assert propose(some, found()) == [{"momentum": 0.0}]
    assert propose(script(optimizer="torch.optim.Adam(net.parameters())"), found()) == []
