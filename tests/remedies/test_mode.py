from __future__ import annotations

import pytest

from unstuck.remedies.mode import mode
from unstuck.source import EditError

TRAINING = """
    from torch import nn, optim
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 3))
    opt = optim.Adam(net.parameters())
    for epoch in range(3):
        for x, y in batches:
            loss = criterion(net(x), y)
            loss.backward()
            opt.step()
            {within}
        {after}
"""


def line(script, **lines):
    """Where the network is put into training mode: the line before it."""
    made = script(TRAINING.format(**{"within": "pass", "after": "pass", **lines}))
    (edit,) = mode(made)
    assert edit.text.strip() == "net.train()"
    assert made.diff(mode) == [f"+{edit.text.rstrip()}"]
    return made.main.text[: edit.start].splitlines()[-1].strip()


def test_at_the_start_of_a_pass(script):
    assert line(script, after="net.eval()") == "for epoch in range(3):"


def test_at_the_start_of_a_step_where_it_is_evaluated_after_each(script):
    assert line(script, within="net.eval()") == "for x, y in batches:"


def test_one_loop(script):
    made = script("""
        import torch
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        while step < 10:
            model(x).backward()
    """)
    assert made.diff(mode) == ["+    model.train()"]


def test_passes_in_a_function(script):
    made = script("""
        import torch

        def train(model, opt):
            for x, y in batches:
                model(x).backward()

        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(3):
            train(model, opt)
    """)
    assert made.diff(mode) == ["+        model.train()"], "where the name is known"


def test_no_loop(script):
    with pytest.raises(EditError, match="in no loop"):
        mode(script("import torch\nopt = torch.optim.SGD(net.parameters(), lr=0.1)\nloss.backward()\n"))
