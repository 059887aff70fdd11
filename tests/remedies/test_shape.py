from __future__ import annotations

import pytest

from unstuck.remedies.shape import shape
from unstuck.source import EditError

COLUMN = {"output_shape": (64, 1), "target_shape": (64,)}
FLAT = {"output_shape": (64,), "target_shape": (64, 1)}


@pytest.mark.parametrize(
    ("loss", "told", "becomes"),
    [
        ("F.mse_loss(net(x), y)", COLUMN, "F.mse_loss(net(x), y.reshape(-1, 1))"),
        ("F.mse_loss(net(x), y[rows])", FLAT, "F.mse_loss(net(x), y[rows].reshape(-1))"),
        ("F.mse_loss(out, y)", COLUMN, "F.mse_loss(out, y.reshape(out.shape))"),
        ("((net(x) - y) ** 2).mean()", COLUMN, "((net(x) - y.reshape(-1, 1)) ** 2).mean()"),
        ("(net(x) - y).abs().mean()", COLUMN, "(net(x) - y.reshape(-1, 1)).abs().mean()"),
        ("(y * net(x) + (1 - y) * f).mean()", COLUMN, "(y.reshape(-1, 1) * net(x) + (1 - y.reshape(-1, 1)) * f).mean()"),
    ],
)  # fmt: skip
def test_the_target(script, loss, told, becomes):
    made = script(loss=loss, loss_call=told)
    assert made.diff(shape) == [f"-    loss = {loss}", f"+    loss = {becomes}"]


def test_a_criterion(script):
    made = script(data="criterion = nn.MSELoss()", loss="criterion(out.squeeze(), y)", loss_call=FLAT)
    assert made.added(shape) == ["    loss = criterion(out.squeeze(), y.reshape(-1))"]


def test_of_different_size(script):
    with pytest.raises(EditError, match="different size"):
        shape(script(loss="F.mse_loss(net(x), y)", loss_call={"output_shape": (64, 3), "target_shape": (64,)}))


def test_arguments_by_name(script):
    with pytest.raises(EditError, match="two arguments"):
        shape(script(loss="F.mse_loss(input=net(x), target=y)", loss_call=COLUMN))
