from __future__ import annotations

import pytest

from unstuck.remedies.l1 import l1, propose
from unstuck.source import EditError

OF_NET = "sum(p.abs().sum() for p in net.parameters())"


def test_a_loss_with_a_name(script):
    assert script().diff(l1, value=1e-3) == [f"+    loss = loss + 0.001 * {OF_NET}"]


@pytest.mark.parametrize(
    ("backward", "becomes"),
    [
        ("F.mse_loss(net(x), y).backward()", f"(F.mse_loss(net(x), y) + 0.001 * {OF_NET}).backward()"),
        ("scaler.scale(f(x)).backward()", f"scaler.scale((f(x) + 0.001 * {OF_NET})).backward()"),
        ("(loss / 4).backward()", f"loss = loss + 0.001 * {OF_NET}"),
        ("scaler.scale(loss).backward()", f"loss = loss + 0.001 * {OF_NET}"),
        ("accelerator.backward(loss)", f"loss = loss + 0.001 * {OF_NET}"),
    ],
)
def test_backward(script, backward, becomes):
    made = script(f"""
        import torch
        net = torch.nn.Linear(4, 3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in batches:
            {backward}
    """)
    assert made.added(l1, value=1e-3) == [f"    {becomes}"]


def test_a_function_that_is_given_the_network(script):
    made = script("""
        import torch
        def train(model, optimizer):
            loss = model(x).mean()
            loss.backward()

        net = torch.nn.Linear(4, 3)
        train(net, torch.optim.SGD(net.parameters(), lr=0.1))
    """)
    assert made.added(l1, value=1e-3) == [f"    loss = loss + 0.001 * {OF_NET}"], (
        "the script's own names are known in functions"
    )
    made = script("""
        import torch
        def train(model, optimizer):
            loss = model(x).mean()
            loss.backward()

        def main():
            net = torch.nn.Linear(4, 3)
            train(net, torch.optim.SGD(net.parameters(), lr=0.1))

        main()
    """)
    assert made.added(l1, value=1e-3) == ["    loss = loss + 0.001 * sum(p.abs().sum() for p in model.parameters())"]


def test_plain_tensors(script, by_hand):
    made = script("""
        for step in range(10):
            loss = (x @ w1 @ w2).mean()
            loss.backward()
    """, **by_hand)  # fmt: skip
    assert made.added(l1, value=0.1) == ["    loss = loss + 0.1 * sum(p.abs().sum() for p in [w1, w2])"]


def test_what_is_not_needed_becomes_zero(script):
    made = script(
        data="torch.manual_seed(0)\nx = torch.randn(64, 4)\ny = x[:, :1]",
        net="net = nn.Linear(4, 1)",
        loss="F.mse_loss(net(x), y)",
    )
    with_it, without = (made.run(l1, value=value)["net"].weight[0, 1:].abs().sum() for value in (0.05, 0.0))
    assert with_it < 0.7 * without


def test_no_backward(script):
    with pytest.raises(EditError):
        l1(script("print()\n"))


def test_what_is_tried(script, found):
    assert propose(script(), found("overfitting")) == [{"value": 1e-3}, {"value": 1e-4}]
    assert propose(script(), found()) == []
