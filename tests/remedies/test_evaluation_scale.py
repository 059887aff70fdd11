"""Evaluation's data get what training's get, under names that tell which is which."""

import numpy as np
import pytest
import torch

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


NAMES = """
import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
x, y = torch.randn(64, 4), torch.randint(3, (64,))
x_train = (5 * x + torch.arange(4)).numpy()
x_test = x_train[:32].copy()
"""
MEAN = "mean, std = x_train.mean(0), x_train.std(0)\n"
SCALER = "scaler = StandardScaler()\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "diff"),
    [
        (
            SCALER + "x_train = scaler.fit_transform(x_train)",
            ["+x_test = scaler.transform(x_test)"],
        ),
        (
            SCALER + "scaler.fit(x_train)\nx_train = torch.tensor(scaler.transform(x_train))",
            ["+x_test = scaler.transform(x_test)"],
        ),
        (
            SCALER + "inputs = torch.tensor(scaler.fit_transform(x_train), dtype=torch.float32)",
            ["+x_test = scaler.transform(x_test)"],
        ),
        (
            "x_train = StandardScaler().fit_transform(x_train)",
            ["+x_test = StandardScaler().fit(x_train).transform(x_test)"],
        ),
        (
            "x_train = StandardScaler().fit(x_train).transform(x_train)",
            ["+x_test = StandardScaler().fit(x_train).transform(x_test)"],
        ),
        (
            SCALER + "x_train[:, :2] = scaler.fit_transform(x_train[:, :2])",
            ["+x_test[:, :2] = scaler.transform(x_test[:, :2])"],
        ),
        (MEAN + "x_train = (x_train - mean) / std", ["+x_test = (x_test - mean) / std"]),
        (
            MEAN + "x_train = torch.tensor((x_train - mean) / (std + 1e-8))",
            ["+x_test = (x_test - mean) / (std + 1e-8)"],
        ),
        (
            "x_train = (x_train - x_train.mean(0)) / x_train.std(0)",
            ["+x_test = (x_test - x_train.mean(0)) / x_train.std(0)"],
        ),
        (
            "x_train = (x_train - np.mean(x_train, axis=0)) / np.std(x_train, axis=0)",
            ["+x_test = (x_test - np.mean(x_train, axis=0)) / np.std(x_train, axis=0)"],
        ),
        (
            "lowest, highest = x_train.min(0), x_train.max(0)\nx_train = (x_train - lowest) / (highest - lowest)",
            ["+x_test = (x_test - lowest) / (highest - lowest)"],
        ),
        (
            "x_train -= x_train.mean(0)\nx_train /= x_train.std(0)",
            ["+x_test -= x_train.mean(0)", "+x_test /= x_train.std(0)"],
        ),
    ],
)
def test_numbers_found_in_the_training_data_scale_the_other_too(script, lines, diff):
    written = script(data=NAMES + lines)
    assert written.diff(evaluation_scale) == diff
    names = written.run(evaluation_scale)
    scaled = names.get("inputs", names["x_train"])
    np.testing.assert_allclose(names["x_test"], scaled[:32], atol=1e-5)  # the same rows, raw


@pytest.mark.parametrize(
    ("lines", "diff"),
    [
        (
            SCALER + "scaler.fit(x_train)\nx_test = scaler.transform(x_test)",
            ["+x_train = scaler.transform(x_train)"],
        ),
        (
            SCALER + "scaler.fit(x_train)\nrows = torch.tensor(x_train)\nscores = scaler.transform(x_test)",
            ["+x_train = scaler.transform(x_train)"],
        ),
        (
            SCALER + "x_test = scaler.fit_transform(x_test)",
            ["-x_test = scaler.fit_transform(x_test)", "+x_train = scaler.fit_transform(x_train)", "+x_test = scaler.transform(x_test)"],
        ),
        (MEAN + "x_test = (x_test - mean) / std", ["+x_train = (x_train - mean) / std"]),
        ("x_test = x_test / 255", ["+x_train = x_train / 255"]),
    ],
)  # fmt: skip
def test_what_is_scaled_for_evaluation_alone_is_for_training_too(script, lines, diff):
    written = script(data=NAMES + lines)
    assert written.diff(evaluation_scale) == diff
    names = written.run(evaluation_scale)
    np.testing.assert_allclose(names.get("scores", names["x_test"]), names["x_train"][:32], atol=1e-5)


def test_it_is_scaled_before_it_goes_into_training(script):
    """As soon as the numbers are known, and not where evaluation's are scaled."""
    lines = (
        SCALER
        + "scaler.fit(x_train)\nx = torch.tensor(x_train)\nfor _ in range(2):\n    scores = scaler.transform(x_test)"
    )
    names = script(data=NAMES + lines).run(evaluation_scale)
    np.testing.assert_allclose(names["scores"], names["x"][:32], atol=1e-5)


def test_it_is_scaled_before_it_becomes_a_tensor(script):
    """Of which a scaler makes an array."""
    lines = (
        SCALER + "scaler.fit(x_train)\nx_train = torch.tensor(x_train)\nx_test = torch.tensor(scaler.transform(x_test))"
    )
    names = script(data=NAMES + lines).run(evaluation_scale)
    assert isinstance(names["x_train"], torch.Tensor)
    np.testing.assert_allclose(names["x_test"], names["x_train"][:32], atol=1e-5)


def test_batches_that_are_scaled_one_by_one(script):
    """Nothing is said of what is to be done to the others, of which no batches are known."""
    lines = (
        SCALER + "scaler.fit(x_train)\nfor i in range(2):\n    rows = scaler.transform(x_train[32 * i : 32 * i + 32])"
    )
    with pytest.raises(EditError):
        script(data=NAMES + lines).diff(evaluation_scale)


@pytest.mark.parametrize("names", ["table, test_table", "a, b", "X, X_val"])
def test_names_that_were_split_or_are_plain(script, names):
    table, other = names.split(", ")
    split = f"{names}, y, y_other = train_test_split(x_train, y.numpy(), random_state=0)\ny = torch.tensor(y)\n"
    lines = f"{split}scaler = StandardScaler().fit({table})\nx = torch.tensor(scaler.transform({table}))"
    assert script(data=NAMES + lines).diff(evaluation_scale) == [f"+{other} = scaler.transform({other})"]


def test_all_that_is_evaluated_on(script):
    lines = "x_val = x_test\n" + SCALER + "x_train = scaler.fit_transform(x_train)"
    added = ["+x_test = scaler.transform(x_test)", "+x_val = scaler.transform(x_val)"]
    assert sorted(script(data=NAMES + lines).diff(evaluation_scale)) == added


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [
        SCALER + "x_train = scaler.fit_transform(x_train)\nx_test = scaler.transform(x_test)",
        SCALER + "x_train = scaler.fit_transform(x_train)\nscores = torch.tensor(scaler.transform(x_test))",
        SCALER + "x_train, x_test = scaler.fit_transform(x_train), StandardScaler().fit_transform(x_test)",
        MEAN + "x_train, x_test = (x_train - mean) / std, (x_test - mean) / std",
        "x_train -= x_train.mean(0)\nx_test -= x_test.mean(0)",
        "x_test = (x_test - x_test.mean(0)) / x_test.std(0)",  # the training data are not to be scaled by these
        "labels_train, labels_test = x_train, x_test\n" + SCALER + "labels_train = scaler.fit_transform(labels_train)",
        SCALER
        + "x_train = scaler.fit_transform(x_train)\nx_val = torch.randn(8, 4)\nx_test = scaler.transform(x_test)",
        "delta = x_train - y.numpy()[:, None]",
    ],
)
def test_what_both_get_is_left_alone(script, lines):
    with pytest.raises(EditError):
        script(data=NAMES + lines).diff(evaluation_scale)


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
    with pytest.raises(EditError, match="no input is scaled for training alone, or for evaluation alone"):
        script(data=text).diff(evaluation_scale)
