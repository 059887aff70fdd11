"""Evaluation's data get what training's get, under names that tell which is which."""

import pytest

from unstuck.remedies.evaluation_scale import evaluation_scale
from unstuck.source import EditError


@pytest.mark.parametrize(
    ("line", "other", "added"),
    [
        ("x_train = x_train / 255", "x_test", "x_test = x_test / 255"),
        ("x_train, y_train = x_train / 255, y_train", "x_val", "x_val = x_val / 255"),
        ("X_train /= 255", "X_test", "X_test /= 255"),
        ("train_x = (train_x.float() - 0.5) / 0.5", "test_x", "test_x = (test_x.float() - 0.5) / 0.5"),
        ("trainX = trainX.astype('float32') / 255.0", "testX", "testX = testX.astype('float32') / 255.0"),
        ("TRAIN = TRAIN / 255", "TEST", "TEST = TEST / 255"),
    ],
)
def test_it_is_done_to_the_other_too(script, line, other, added):
    written = script(data=f"{other} = torch.randn(64, 4)\n{line}")
    assert written.diff(evaluation_scale) == [f"+{added}"]


@pytest.mark.parametrize(
    "text",
    [
        "x_test = torch.randn(4)\nx_train = x_train / 255\nx_test = x_test / 255",  # both are
        "x_train = x_train / 255",  # there is no other
        "x_train = x_train / 255\nx_test = torch.randn(4)",  # it isn't there yet
        "x_test = torch.randn(4)\nx = x / 255",  # it can't be told what it is for
        "y_test = torch.randn(4)\ny_train = y_train / 255",  # of targets
        "constraint_test = 3\nconstraint = constraint / 255",
    ],
)
def test_what_is_as_it_should_be_or_unclear_is_left_alone(script, text):
    with pytest.raises(EditError, match="no input is scaled for training alone"):
        script(data=text).diff(evaluation_scale)
