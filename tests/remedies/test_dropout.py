from __future__ import annotations

import pytest

from unstuck.remedies.dropout import dropout, propose
from unstuck.source import EditError


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("nn.Dropout(0.9)", "nn.Dropout(0)"),
        ("nn.Dropout(p=0.9)", "nn.Dropout(p=0)"),
        ("nn.Dropout()", "nn.Dropout(p=0)"),
        ("nn.Dropout(rate)", "nn.Dropout(0)"),
        ("nn.Dropout(inplace=True)", "nn.Dropout(inplace=True, p=0)"),
    ],
)
def test_layers(script, written, becomes):
    made = script(net=f"net = nn.Sequential(nn.Linear(4, 8), {written}, nn.Linear(8, 8), {written}, nn.Linear(8, 3))")
    line = f"net = nn.Sequential(nn.Linear(4, 8), {becomes}, nn.Linear(8, 8), {becomes}, nn.Linear(8, 3))"
    assert made.added(dropout, p=0.0) == [line]


def test_a_constant(script):
    made = script(
        data="p = 0.9", net="net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(p), nn.Dropout(p), nn.Linear(8, 3))"
    )
    assert made.added(dropout, p=0.2) == ["p = 0.2"]


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("F.dropout(x, 0.9, self.training)", "F.dropout(x, 0.2, self.training)"),
        ("F.dropout(x, training=self.training)", "F.dropout(x, training=self.training, p=0.2)"),
        ("F.dropout(self.fc1(x), p=0.9)", "F.dropout(self.fc1(x), p=0.2)"),
    ],
)
def test_functions(script, written, becomes):
    made = script(f"""
        class Net(nn.Module):
            def __init__(self):
                self.fc1 = nn.Linear(4, 8)

            def forward(self, x):
                return {written}

        net = Net()
    """)
    assert made.added(dropout, p=0.2) == [f"        return {becomes}"]


def test_there_is_none(script):
    with pytest.raises(EditError, match="no dropout"):
        dropout(script())


def test_of_that_share_already(script):
    with pytest.raises(EditError, match=r"another share than 0\.5"):
        dropout(script(net="net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(p=0.5), nn.Linear(8, 3))"), p=0.5)


def test_what_is_tried(script, found):
    assert propose(script(), found("over-regularized")) == [{"p": 0.0}]
    assert propose(script(), found("overfitting")) == [{"p": 0.5}]
