from __future__ import annotations

import pytest

from unstuck.evidence import Optimizer
from unstuck.remedies.weight_decay import propose, weight_decay
from unstuck.source import EditError

HEAVY = {"optimizers": [Optimizer("SGD", settings={"weight_decay": 0.5})]}


@pytest.mark.parametrize(
    ("given", "becomes"),
    [("lr=0.1, weight_decay=0.5", "lr=0.1, weight_decay=0"), ("lr=0.1, weight_decay=wd", "lr=0.1, weight_decay=0")],
)
def test_none(script, given, becomes):
    made = script(optimizer=f"torch.optim.SGD(net.parameters(), {given})", **HEAVY)
    assert made.added(weight_decay, value=0.0) == [f"optimizer = torch.optim.SGD(net.parameters(), {becomes})"]


def test_some(script):
    line = "optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.01)"
    assert script().added(weight_decay, value=0.01) == [line]


@pytest.mark.parametrize(
    ("loss", "becomes"),
    [
        ("F.mse_loss(net(x), y) + 0.1 * norm", "F.mse_loss(net(x), y) + 0.0 * norm"),
        ("f(x) + norm * 1e-1 + 0.3 * other", "f(x) + norm * 0.0 + 0.0 * other"),
        ("0.5 * f(x) + 0.3 * norm", "0.5 * f(x) + 0.0 * norm"),
        ("0.3 * norm + f(x)", "0.0 * norm + f(x)"),
    ],
)
def test_penalties(script, loss, becomes):
    assert script(loss=loss).added(weight_decay, value=0.0) == [f"    loss = {becomes}"]


def test_penalties_on_lines_of_their_own(script):
    made = script("""
        lam = 0.5
        for x, y in batches:
            loss = f(net(x), y)
            for p in net.parameters():
                loss += lam * p.pow(2).sum()
            loss.backward()
            total_loss += 64 * loss.item()
    """)
    assert made.diff(weight_decay, value=0.0) == ["-lam = 0.5", "+lam = 0.0"]


def test_there_is_none(script):
    with pytest.raises(EditError, match="no weight decay"):
        weight_decay(script(), value=0.0)


def test_what_is_tried(script, found):
    assert propose(script(), found("over-regularized")) == [{"value": 0.0}]
    assert propose(script(), found("overfitting")) == [{"value": 0.01}, {"value": 0.001}]
