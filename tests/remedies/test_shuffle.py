from __future__ import annotations

import pytest

from unstuck.remedies.shuffle import shuffle
from unstuck.source import EditError

LOADER = """
    from torch.utils.data import DataLoader, TensorDataset
    loader = {loader}
    for x, y in loader:
        loss.backward()
"""


@pytest.mark.parametrize(
    ("loader", "becomes"),
    [
        ("DataLoader(data, batch_size=32)", "DataLoader(data, batch_size=32, shuffle=True)"),
        ("DataLoader(TensorDataset(x, y), 32, False)", "DataLoader(TensorDataset(x, y), 32, True)"),
        ("DataLoader((data), shuffle=False)", "DataLoader((data), shuffle=True)"),
    ],
)
def test_a_loader(script, loader, becomes):
    assert script(LOADER.format(loader=loader)).added(shuffle) == [f"loader = {becomes}"]


def test_a_loader_with_a_sampler(script):
    with pytest.raises(EditError, match="by a sampler"):
        shuffle(script(LOADER.format(loader="DataLoader(data, sampler=sampler)")))


@pytest.mark.parametrize(
    ("inputs", "labels"), [("x", "y"), ("X_train", "y_train"), ("train_x", "train_y"), ("inputs", "targets"), ("data", "labels")]
)  # fmt: skip
def test_variables(script, inputs, labels):
    made = script(f"""
        import torch
        {inputs}, {labels} = load()
        for epoch in range(3):
            for i in range(0, 64, 8):
                loss.backward()
    """, inputs={"variable": inputs})  # fmt: skip
    assert made.diff(shuffle) == [
        f"+order = torch.randperm(len({inputs}))",
        f"+{inputs}, {labels} = {inputs}[order], {labels}[order]",
    ]


def test_variables_that_a_function_uses(script):
    made = script("""
        import torch
        x = torch.randn(64, 4)
        y = x.sum(1)
        order = 2

        def main():
            for i in range(0, 64, 8):
                loss.backward()

        main()
    """, inputs={})  # fmt: skip
    assert made.diff(shuffle) == ["+shuffled = torch.randperm(len(x))", "+x, y = x[shuffled], y[shuffled]"]
    assert made.main.text[: shuffle(made)[0].start].endswith("y = x.sum(1)\n")


def test_no_variables(script):
    with pytest.raises(EditError, match="which variables"):
        shuffle(script())
    with pytest.raises(EditError, match="which variables"):
        shuffle(script("for i in range(3):\n    loss.backward()\n", inputs={"variable": "everything"}))
