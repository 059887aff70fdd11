from __future__ import annotations

import pytest

from unstuck.evidence import Optimizer
from unstuck.remedies.gradient_clipping import gradient_clipping, propose
from unstuck.source import EditError


def test_before_the_step(script):
    assert script().diff(gradient_clipping, norm=0.5) == ["+    nn.utils.clip_grad_norm_(net.parameters(), 0.5)"]


def test_it_stands_before_the_step(script):
    text = script(loss="F.cross_entropy(net(x), y)")
    lines = text.main.text.splitlines()
    (edit,) = gradient_clipping(text)
    assert text.main.text[edit.start :].lstrip().startswith("optimizer.step()")
    assert "optimizer.step()" in lines[-1]


def test_a_step_on_a_line_with_others(script):
    made = script("""
        import torch
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in batches:
            opt.zero_grad(); loss(net(x), y).backward(); opt.step()
    """)
    clipped = "torch.nn.utils.clip_grad_norm_(net.parameters(), 1)"
    assert made.added(gradient_clipping) == [f"    opt.zero_grad(); loss(net(x), y).backward(); {clipped}; opt.step()"]


@pytest.mark.parametrize(
    ("step", "name"), [("opt.step()", "opt"), ("scaler.step(opt)", "opt"), ("opt.step(closure)", "opt")]
)
def test_a_step_in_a_function(script, step, name):
    made = script(f"""
        import torch

        def train(opt):
            {step}

        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        train(optimizer)
    """)
    numbers = f'[p for group in {name}.param_groups for p in group["params"]]'
    unscaled = ["+    scaler.unscale_(opt)"] * step.startswith("scaler")
    assert made.diff(gradient_clipping) == [*unscaled, f"+    torch.nn.utils.clip_grad_norm_({numbers}, 1)"]


def test_within_what_the_step_calls(script):
    made = script("""
        import torch

        def closure():
            loss = net(x).mean()
            loss.backward()
            return loss

        net = torch.nn.Linear(4, 3)
        optimizer = torch.optim.LBFGS(net.parameters())
        for i in range(3):
            optimizer.step(closure)
    """, optimizers=[Optimizer("LBFGS", closure=True)])  # fmt: skip
    assert made.added(gradient_clipping)[0].startswith("    torch.nn.utils.clip_grad_norm_(")
    assert made.main.text[: gradient_clipping(made)[0].start].endswith("loss.backward()\n")


def test_values(script):
    assert script().added(gradient_clipping, value=0.5) == ["    nn.utils.clip_grad_value_(net.parameters(), 0.5)"]
    largest = max(p.grad.abs().max() for p in script().run(gradient_clipping, value=1e-3)["net"].parameters())
    assert largest.item() == pytest.approx(1e-3)


def test_groups_of_parameters(script):
    made = script(optimizer="torch.optim.SGD([{'params': net.parameters()}], lr=0.1)")
    assert 'in optimizer.param_groups for p in group["params"]' in made.added(gradient_clipping)[0]


def test_an_update_by_hand(script, by_hand):
    made = script("""
        import torch
        for step in range(10):
            loss = (x @ w1 @ w2).mean()
            loss.backward()
            w1.data -= 0.1 * w1.grad
    """, **by_hand)  # fmt: skip
    assert made.diff(gradient_clipping) == ["+    torch.nn.utils.clip_grad_norm_([w1, w2], 1)"]


def test_a_network_that_is_updated_by_hand(script):
    made = script("""
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 3))
        for step in range(10):
            net(x).mean().backward()
            for p in net.parameters():
                p.data -= 0.1 * p.grad
    """)
    assert made.added(gradient_clipping) == ["    nn.utils.clip_grad_norm_(net.parameters(), 1)"]


def test_parameters_without_names(script):
    with pytest.raises(EditError, match="by their names"):
        gradient_clipping(script("for i in range(3):\n    loss.backward()\n"))


def test_what_is_tried(script, found):
    assert propose(script(), found()) == [{"norm": 1.0}]
    series = {("grad_norm", ""): [5.0] * 3, ("grad_max", "w"): [0.1, 0.2, 9.0]}
    assert propose(script(series=series), found("exploding-gradient")) == [{"norm": 1.0}, {"norm": 5.0}, {"value": 0.2}]
    assert propose(script(series={("grad_norm", ""): [0.01, 0.02, 1e9]}), found()) == [{"norm": 1.0}, {"norm": 0.02}]
