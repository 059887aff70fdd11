from __future__ import annotations

import pytest

from unstuck.remedies.wider import propose, wider
from unstuck.source import EditError


@pytest.mark.parametrize(
    ("net", "becomes"),
    [
        (
            "nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))",
            "nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))",
        ),
        (
            "nn.Sequential(nn.Linear(4, out_features=8), nn.BatchNorm1d(8), nn.Linear(8, 3))",
            "nn.Sequential(nn.Linear(4, out_features=32), nn.BatchNorm1d(32), nn.Linear(32, 3))",
        ),
        (
            "nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(64, 3))",
            "nn.Sequential(nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 3), nn.Flatten(), nn.Linear(64, 3))",
        ),
        (
            "nn.Sequential(nn.Embedding(100, 8), nn.LSTM(8, 16), nn.Linear(16, 3))",
            "nn.Sequential(nn.Embedding(100, 32), nn.LSTM(32, 64), nn.Linear(64, 3))",
        ),
    ],
)
def test_a_sequential_on_one_line(script, net, becomes):
    assert script(net=f"net = {net}").added(wider, times=4) == [f"net = {becomes}"]


def test_constants(script):
    made = script(data="hidden = 8", net="net = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3))")
    assert made.diff(wider, times=0.5) == ["-hidden = 8", "+hidden = 4"]


def test_a_class(script):
    made = script("""
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc1 = nn.Linear(4, 8)
                self.fc2 = nn.Linear(8, 3)

            def forward(self, x):
                return self.fc2(self.fc1(x).relu())

        net = Net()
    """)
    assert made.added(wider) == ["        self.fc1 = nn.Linear(4, 32)", "        self.fc2 = nn.Linear(32, 3)"]


def test_the_argument_of_a_class(script):
    made = script("""
        from torch import nn
        class Net(nn.Module):
            def __init__(self, hidden=8):
                self.fc1 = nn.Linear(4, hidden)
                self.fc2 = nn.Linear(hidden, 3)

            def forward(self, x):
                return self.fc2(self.fc1(x).relu())

        net = Net()
    """)
    assert made.added(wider) == ["    def __init__(self, hidden=32):"]


@pytest.mark.parametrize(
    "net",
    [
        "nn.Linear(4, 3)",
        "nn.Sequential(nn.Linear(4, a), nn.Linear(a, 3))",
        "nn.Sequential(nn.Linear(4, 16), nn.Flatten(), nn.Linear(32, 3))",
        "nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(a), nn.Linear(8, 3))",
        "nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=8))",
    ],
)
def test_sizes_that_are_not_known(script, net):
    with pytest.raises(EditError, match="plain numbers"):
        wider(script(net=f"net = {net}"))


def test_what_is_tried(script, found):
    assert propose(script(), found("too-little-capacity")) == [{"times": 4}]
    assert propose(script(), found("overfitting")) == [{"times": 0.5}]
