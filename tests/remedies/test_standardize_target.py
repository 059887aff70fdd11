from __future__ import annotations

import pytest

from unstuck.evidence import Task
from unstuck.remedies.standardize_target import propose, standardize_target
from unstuck.source import EditError


def hook(shifted):
    return f"net.register_forward_hook(lambda module, args, output: {shifted})"


def test_the_output_is_scaled_and_the_loss_is_scaled_back(script):
    made = script(loss="F.mse_loss(net(x), y)")
    assert made.diff(standardize_target, mean=150.0, std=20.0) == [
        f"+{hook('output * 20 + 150')}",
        "+    loss = loss / 400",
    ]


def test_a_loss_that_grows_with_the_deviation(script):
    made = script(loss="F.l1_loss(net(x), y)")
    assert made.added(standardize_target, mean=-3.0, std=20.0) == [hook("output * 20 - 3"), "    loss = loss / 20"]


def test_a_loss_without_a_name(script):
    made = script("""
        import torch
        net = torch.nn.Linear(4, 1)
        criterion = torch.nn.MSELoss()
        opt = torch.optim.Adam(net.parameters())
        for x, y in batches:
            criterion(net(x), y).backward()
    """)
    assert made.added(standardize_target, mean=1.0, std=2.0)[1] == "    (criterion(net(x), y) / 4).backward()"


def test_no_module(script):
    with pytest.raises(EditError, match="no module"):
        standardize_target(script("criterion = nn.MSELoss()\nloss = criterion(x @ w, y)\n"), mean=1.0, std=2.0)


def test_what_is_tried(script, found):
    task = Task("regression", target_mean=152.13348, target_std=77.09)
    assert propose(script(task=task), found()) == [{"mean": 152.1, "std": 77.09}]
    assert propose(script(task=Task("regression", target_mean=1.0, target_std=0.0)), found()) == []
    assert propose(script(), found()) == []
