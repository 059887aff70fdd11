from __future__ import annotations

import pytest

from unstuck.remedies.normalization import normalization, propose
from unstuck.source import EditError


def test_beside_layers_of_a_sequential(script):
    made = script(net="net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))")
    assert made.added(normalization, kind="batch") == [
        "net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), "
        "nn.Linear(8, 3))"
    ]
    assert made.added(normalization, kind="layer")[0].count("nn.LayerNorm(8)") == 2


def test_convolutions(script):
    net = "net = nn.Sequential(\n    nn.Conv2d(1, out_channels=width, kernel_size=3),\n    nn.ReLU(),\n    nn.Linear(8, 3),\n)"
    made = script(net=net)
    assert made.added(normalization) == ["    nn.Conv2d(1, out_channels=width, kernel_size=3), nn.BatchNorm2d(width),"]
    with pytest.raises(EditError, match="size of 'net.0'"):
        normalization(made, kind="layer")


def test_around_layers_of_a_class(script):
    made = script("""
        import torch.nn as nn
        class Net(nn.Module):
            def __init__(self, hidden):
                self.fc1 = nn.Linear(4, hidden)
                self.fc2 = nn.Linear(hidden, 3)

            def forward(self, x):
                return self.fc2(self.fc1(x).relu())

        net = Net()
    """)
    line = "        self.fc1 = nn.Sequential(nn.Linear(4, hidden), nn.BatchNorm1d(hidden))"
    assert made.added(normalization) == [line], "not behind the output"


def test_layers_of_a_loop(script):
    made = script("""
        from torch import nn
        layers = [nn.Linear(4, 4) for _ in range(3)]
        net = nn.Sequential(*layers, nn.Linear(4, 3))
    """, layers=[])  # fmt: skip
    with pytest.raises(EditError, match="no hidden layer"):
        normalization(made)


def test_there_is_none(script):
    with pytest.raises(EditError, match="no hidden layer"):
        normalization(script(net="net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))"))


@pytest.mark.parametrize(
    ("net", "becomes"),
    [
        (
            "nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))",
            "nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))",
        ),
        (
            "nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(num_features=8, momentum=0.01), nn.Flatten(), nn.Linear(8, 3))",
            "nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(1, 8), nn.Flatten(), nn.Linear(8, 3))",
        ),
    ],
)
def test_in_place_of_batch_norm(script, net, becomes):
    assert script(net=f"net = {net}").added(normalization, kind="layer") == [f"net = {becomes}"]


def test_what_is_tried(script, found):
    assert propose(script(batch=32), found()) == [{"kind": "batch"}]
    assert propose(script(batch=2), found()) == [{"kind": "layer"}]
    normed = script(net="net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))")
    assert propose(normed, found()) == [{"kind": "layer"}]
