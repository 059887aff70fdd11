from __future__ import annotations

import pytest

from unstuck.evidence import Event, Optimizer
from unstuck.remedies.optimizer import optimizer, propose
from unstuck.source import EditError


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)", "torch.optim.Adam(net.parameters(), lr=0.001)"),
        ("torch.optim.SGD(params=net.parameters(), lr=lr)", "torch.optim.Adam(net.parameters(), lr=0.001)"),
        ("optim.SGD(net.parameters(), 0.1, weight_decay=wd)", "optim.Adam(net.parameters(), lr=0.001, weight_decay=wd)"),
        ("SGD([p for p in net.parameters()], lr=0.1)", "torch.optim.Adam([p for p in net.parameters()], lr=0.001)"),
    ],
)  # fmt: skip
def test_in_its_place(script, given, becomes):
    assert script(optimizer=given).diff(optimizer) == [f"-optimizer = {given}", f"+optimizer = {becomes}"]


def test_over_several_lines(script):
    made = script("""
        from torch import optim
        class Trainer:
            def __init__(self, model):
                self.opt = optim.SGD(
                    model.parameters(),
                    lr=0.1,  # as in the paper
                )
    """)
    assert made.added(optimizer, rate=0.01) == ["        self.opt = optim.Adam(model.parameters(), lr=0.01)"]


def test_sgd_with_momentum(script):
    made = script(optimizer="torch.optim.Adam(net.parameters())").added(
        optimizer, to="SGD", rate=0.1, momentum=0.9, nesterov=True
    )
    assert made == ["optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)"]


def test_groups_with_rates_of_their_own(script):
    with pytest.raises(EditError, match="rates of their own"):
        optimizer(script(optimizer='torch.optim.SGD([{"params": net.parameters(), "lr": 0.1}], lr=0.2)'))


def test_adamw_where_adam_decays_weights(script, found):
    adam = [Optimizer("Adam", settings={"weight_decay": 0.1, "lr": 0.02})]
    made = script(optimizer="torch.optim.Adam(net.parameters(), lr=0.02, weight_decay=0.1)", optimizers=adam)
    assert propose(made, found()) == [{"to": "AdamW", "rate": 0.02}]
    line = "optimizer = torch.optim.AdamW(net.parameters(), lr=0.02, weight_decay=0.1)"
    assert made.added(optimizer, to="AdamW", rate=0.02) == [line]


def test_what_is_tried(script, found):
    assert propose(script(), found()) == [{"to": "Adam", "rate": 1e-3}, {"to": "Adam", "rate": 1e-2}]
    assert propose(script(optimizer="torch.optim.Adam(net.parameters())"), found()) == []


def test_rates_that_did_well_come_first(script, found):
    told = {"name": "from-start", "adam_rates": [0.01, 0.1, 1.0], "adam_losses": [0.5, 0.2, None]}
    rates = [s["rate"] for s in propose(script(events=[Event(9, "probe", data=told)]), found())]
    assert rates == [0.1, 0.01, 1.0]
