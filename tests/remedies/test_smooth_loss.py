from __future__ import annotations

import pytest
import torch

from unstuck.remedies.smooth_loss import propose, smooth_loss
from unstuck.source import EditError

IN_01 = {"output": {"min": 0.1, "max": 0.9}}
LOGITS = {"output": {"min": -3.0, "max": 2.0}}
FUNCTION = """
    import torch
    import torch.nn.functional as F
    from torch import nn

    def dice_loss(p, y):
        {sigmoid}
        return 1 - 2 * (p * y).sum() / (p.sum() + y.sum() + 1e-6)

    torch.manual_seed(0)
    x = torch.randn(16, 1, 8, 8)
    y = (x > 3).float()
    net = nn.Sequential(nn.Conv2d(1, 1, 1){last})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for epoch in range(10):
        optimizer.zero_grad()
        loss = dice_loss(net(x), y)
        loss.backward()
        optimizer.step()
"""


def test_probabilities(script):
    made = script(FUNCTION.format(sigmoid="", last=", nn.Sigmoid()"), loss_call={"site": "train.py:7", **IN_01})
    assert made.added(smooth_loss) == [
        "    out = net(x)",
        "    loss = dice_loss(out, y) + F.binary_cross_entropy(out, y.float())",
    ]


def test_logits(script):
    made = script(FUNCTION.format(sigmoid="p = p.sigmoid()", last=""), loss_call={"site": "train.py:7", **IN_01})
    assert made.added(smooth_loss)[1].endswith(" + F.binary_cross_entropy_with_logits(out, y.float())"), (
        "it squashes them itself"
    )


@pytest.mark.parametrize("indent", ["", "    "])
def test_what_is_trained_and_not_what_is_evaluated(script, indent):
    evaluation = f"    {indent}with torch.no_grad():\n        {indent}print(dice_loss(net(x), y))\n"
    made = script(
        FUNCTION.format(sigmoid="", last=", nn.Sigmoid()") + evaluation, loss_call={"site": "train.py:7", **IN_01}
    )
    assert made.diff(smooth_loss)[0] == "-    loss = dice_loss(net(x), y)"


def test_it_has_a_slope_where_masks_are_empty(script):
    text = FUNCTION.format(sigmoid="", last=", nn.Sigmoid()").replace("x > 3", "x > 30")
    made = script(text, loss_call={"site": "train.py:7", **IN_01})
    before = {}
    exec(compile(made.main.text, "train.py", "exec"), before)
    after = made.run(smooth_loss)
    assert not before["net"][0].weight.grad.any(), "there is nothing to overlap with"
    assert after["net"][0].weight.grad.abs().sum() > 1e-3
    assert torch.isfinite(after["loss"])


@pytest.mark.parametrize(
    ("loss", "becomes"),
    [
        ("-2 * (out * y).sum() / (out + y).sum()  # dice", None),
        ("1 - dice(out, y)", "1 - dice(out, y) + F.binary_cross_entropy_with_logits(out, y.float())"),
        ("1 - intersection / (out + y).sum()", "1 - intersection / (out + y).sum() + F.binary_cross_entropy_with_logits(out, y.float())"),
    ],
)  # fmt: skip
def test_in_place(script, loss, becomes):
    made = script(f"""
        import torch
        import torch.nn.functional as F
        net = torch.nn.Linear(4, 3)
        for x, y in batches:
            out = net(x)
            loss = {loss}
            loss.backward()
    """, loss_call=LOGITS)  # fmt: skip
    if becomes is None:
        with pytest.raises(EditError, match="isn't known as one of overlap"):
            smooth_loss(made)
    else:
        assert made.added(smooth_loss) == [f"    loss = {becomes}"]


def test_other_losses(script):
    with pytest.raises(EditError, match="cross_entropy is no loss of overlap"):
        smooth_loss(script())
    text = FUNCTION.format(sigmoid="", last="").replace("+ 1e-6)", "+ 1e-6) + F.binary_cross_entropy(p, y)")
    made = script(text, loss_call={"name": "hand-written", "site": "train.py:7"})
    with pytest.raises(EditError, match="already"):
        smooth_loss(made)


def test_what_is_tried(script, found):
    assert propose(script(), found()) == []
    assert propose(script(FUNCTION.format(sigmoid="", last=""), loss_call={"site": "train.py:7"}), found()) == [{}]
