"""Labels that were divided are whole numbers again; inputs are left alone."""

import pytest

from unstuck.remedies.target_scale import target_scale
from unstuck.source import EditError


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("x, y = x / 255, y / 255", "x, y = x / 255, y"),
        ("y_train = y_train / 255.0", "y_train = y_train"),
        ("labels = (labels - 128) / 128", "labels = labels"),
        ("train_labels = train_labels.astype('float32') / 255", "train_labels = train_labels.astype('float32')"),
    ],
)
def test_it_is_not_divided(script, line, becomes):
    assert script(data=line).diff(target_scale) == [f"-{line}", f"+{becomes}"]


def test_a_division_in_place_is_gone(script):
    written = script(data="x, y = torch.randn(64, 4), torch.randint(3, (64,))\nx /= 255\ny /= 255")
    assert written.diff(target_scale) == ["-y /= 255"]


@pytest.mark.parametrize("line", ["x = x / 255", "y = y / y.max()", "loss = loss / 4", "y = 2"])
def test_what_is_no_target_or_not_divided_by_a_number_is_left_alone(script, line):
    with pytest.raises(EditError, match="no target is divided"):
        script(data=line).diff(target_scale)
