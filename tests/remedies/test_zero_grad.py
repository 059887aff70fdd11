from __future__ import annotations

import pytest

from unstuck.remedies.zero_grad import zero_grad
from unstuck.source import EditError

LOOP = """
    import torch
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    {before}
    for x, y in batches:
        loss = criterion(net(x), y)
        {lines}
"""


def loop(script, *lines, before="pass"):
    return script(LOOP.format(before=before, lines="\n        ".join(lines)))


def test_before_backward(script):
    made = loop(script, "loss.backward()", "optimizer.step()")
    assert made.diff(zero_grad) == ["+    optimizer.zero_grad()"]
    assert made.main.text[zero_grad(made)[0].start :].lstrip().startswith("loss.backward()")


def test_not_between_backward_and_step(script):
    made = loop(script, "loss.backward()", "optimizer.zero_grad()", "optimizer.step()")
    assert made.diff(zero_grad) == ["+    optimizer.zero_grad()", "-    optimizer.zero_grad()"]


def test_not_of_the_network_either(script):
    made = loop(script, "net.zero_grad()", "loss.backward()", "optimizer.step()")
    assert made.diff(zero_grad) == ["-    net.zero_grad()", "+    optimizer.zero_grad()"]


def test_not_where_it_is_all_that_a_block_does(script):
    made = loop(script, "if rarely:", "    optimizer.zero_grad()", "loss.backward()", "optimizer.step()")
    assert made.diff(zero_grad) == ["-        optimizer.zero_grad()", "+        pass", "+    optimizer.zero_grad()"]


def test_before_training_it_may_stay(script):
    made = loop(script, "loss.backward()", "optimizer.step()", before="optimizer.zero_grad()")
    assert made.diff(zero_grad) == ["+    optimizer.zero_grad()"]


def test_all_on_one_line(script):
    made = loop(script, "loss.backward(); optimizer.zero_grad(); optimizer.step()")
    assert made.added(zero_grad) == ["    optimizer.zero_grad()", "    loss.backward(); pass; optimizer.step()"]


@pytest.mark.parametrize(
    ("step", "name"), [("self.opt.step()", "self.opt"), ("scaler.step(opt)", "opt"), ("opt.step(closure)", "opt")]
)
def test_how_the_optimizer_is_named(script, step, name):
    made = loop(script, "loss.backward()", step)
    assert made.added(zero_grad) == [f"    {name}.zero_grad()"]


def test_an_update_by_hand(script, by_hand):
    made = script("""
        for x, y in batches:
            loss = (x @ w1 @ w2).mean()
            loss.backward()
            w1.data -= 0.1 * w1.grad
    """, **by_hand)  # fmt: skip
    assert made.diff(zero_grad) == ["+    w1.grad = None", "+    w2.grad = None"]
    with pytest.raises(EditError, match="by their names"):
        zero_grad(script(made.main.text))
