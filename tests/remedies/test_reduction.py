from __future__ import annotations

import pytest

from unstuck.remedies.reduction import reduction
from unstuck.source import EditError


@pytest.mark.parametrize(
    ("loss", "becomes"),
    [
        ('F.mse_loss(net(x), y, reduction="sum")', 'F.mse_loss(net(x), y, reduction="mean")'),
        ("((net(x) - y) ** 2).sum()", "((net(x) - y) ** 2).mean()"),
        ("torch.sum((net(x) - y) ** 2)", "torch.mean((net(x) - y) ** 2)"),
    ],
)
def test_where_it_is_summed(script, loss, becomes):
    assert script(loss=loss).added(reduction) == [f"    loss = {becomes}"]


def test_a_criterion(script):
    made = script(data="criterion = nn.MSELoss(reduction='sum')", loss="criterion(net(x), y)")
    assert made.diff(reduction) == [
        "-criterion = nn.MSELoss(reduction='sum')",
        '+criterion = nn.MSELoss(reduction="mean")',
    ]


def test_several_sums_are_divided_by_the_numbers_of_the_output(script):
    made = script(loss="a.sum() + b.sum()", loss_call={"output_shape": (64, 10)})
    assert made.diff(reduction) == ["+    loss = loss / 640"]


def test_a_loss_without_a_name(script):
    made = script("for x, y in batches:\n    F.mse_loss(net(x), y).backward()\n", loss_call={"output_shape": (64, 1)})
    assert made.added(reduction) == ["    (F.mse_loss(net(x), y) / 64).backward()"]


def test_by_the_batch_where_no_shape_is_known(script):
    assert script(loss="total(net(x), y)").added(reduction) == ["    loss = loss / 64"]
    with pytest.raises(EditError, match="how many samples"):
        reduction(script(loss="total(net(x), y)", batch=1))
