from __future__ import annotations

import pytest

from unstuck.evidence import Optimizer
from unstuck.remedies.reduction import reduction
from unstuck.source import EditError

SUM = {"reduction": "sum"}


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
    made = script(loss="a.sum() + b.sum()", loss_call={"output_shape": (64, 10), **SUM})
    assert made.diff(reduction) == ["+    loss = loss / 640"]


def test_a_loss_without_a_name(script):
    made = script(
        "for x, y in batches:\n    F.mse_loss(net(x), y).backward()\n", loss_call={"output_shape": (64, 1), **SUM}
    )
    assert made.added(reduction) == ["    (F.mse_loss(net(x), y) / 64).backward()"]


def test_by_the_batch_where_no_shape_is_known(script):
    assert script(loss="total(net(x), y)", loss_call=SUM).added(reduction) == ["    loss = loss / 64"]
    with pytest.raises(EditError, match="how many samples"):
        reduction(script(loss="total(net(x), y)", loss_call=SUM, batch=1))


@pytest.mark.parametrize("loss", ["F.mse_loss(net(x), y)", 'F.mse_loss(net(x), y, reduction="mean")'])
def test_a_mean_is_not_divided(script, loss):
    with pytest.raises(EditError, match="a mean already"):
        reduction(script(loss=loss, loss_call={"output_shape": (64, 1)}))


def test_a_mean_that_is_added_up_over_several_calls_of_backward(script):
    four = {"optimizers": [Optimizer("SGD", backwards_per_step=4.0)]}
    assert script(loss="F.mse_loss(net(x), y)", **four).diff(reduction) == ["+    loss = loss / 4"]
    made = script("""
        for x, y in batches:
            loss = F.mse_loss(net(x), y)
            (loss / 4).backward()
    """, **four)  # fmt: skip
    with pytest.raises(EditError, match="a mean already"):
        reduction(made)


def test_what_is_not_reduced(script):
    made = script(loss='F.mse_loss(net(x), y, reduction="none").sum()', loss_call=SUM)
    assert made.added(reduction) == ['    loss = F.mse_loss(net(x), y, reduction="none").mean()']
