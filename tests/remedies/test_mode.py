from __future__ import annotations

import textwrap

import pytest

from unstuck.remedies.mode import mode, propose
from unstuck.source import EditError
from unstuck.verdict import Evidence, Finding, Verdict

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
    assert made.diff(mode) == ["+    model.train()"]
    assert made.main.text[mode(made)[0].start :].startswith("    for x, y")


def test_no_loop(script):
    with pytest.raises(EditError, match="in no loop"):
        mode(script("import torch\nopt = torch.optim.SGD(net.parameters(), lr=0.1)\nloss.backward()\n"))


FUNCTION = """
    import torch
    from torch import nn

    def train(model, opt):
        for i in range(2):
            model(x).sum().backward()
            opt.step()
            opt.zero_grad()

    @torch.no_grad()
    def evaluate(net, x):
        \"\"\"How good it is.\"\"\"
        modes.append(net.training)
        return net(x).sum()

    modes, x = [], torch.ones(8, 4)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 1))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(3):
        train(model, opt)
        modes.append(model.training)
        evaluate(model, x)
"""


def test_evaluation_in_place(script):
    evaluation = (
        "with torch.no_grad():\n            out = net(x)\n        with torch.no_grad():\n            last = net(x)"
    )
    made = script(
        "import torch\n" + textwrap.dedent(TRAINING).format(within="pass", after=evaluation.replace("        ", "    "))
    )
    assert made.diff(mode, of="evaluation") == ["+    net.train()", "+    net.eval()"], "once for both"
    (edit,) = [e for e in mode(made, of="evaluation") if "eval" in e.text]
    assert made.main.text[edit.start :].startswith("    with torch.no_grad():\n        out")


def test_evaluation_by_a_function(script):
    made = script(FUNCTION)
    assert made.diff(mode, of="evaluation") == ["+    model.train()", "+    net.eval()"]
    assert made.run(mode, of="evaluation")["modes"] == [True, False] * 3


def test_evaluation_when_training_is_over(script):
    made = script(TRAINING.format(within="pass", after="pass") + "\n    print(net(x))\n    print(net(x).argmax(1))")
    assert made.diff(mode, of="evaluation") == ["+net.eval()"]


def test_evaluation_that_has_its_mode(script):
    after = "net.eval()\n        print(net(x))"
    with pytest.raises(EditError, match="already"):
        mode(script(TRAINING.format(within="net.train()", after=after)), of="evaluation")


def test_what_is_tried(script, found):
    assert propose(script(), found("mode-mismatch")) == [{"of": "training"}]
    evidence = (Evidence("in_train_mode", "", 10, 1.0),)
    seen = Verdict("sick", (Finding("mode-mismatch", "mode-mismatch", "warning", 0.9, "", evidence=evidence),))
    assert propose(script(), seen) == [{"of": "evaluation"}]
