from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.bench import Clock
from unstuck.probes.modes import modes
from unstuck.recurrent.layers import GRU


def training(model, rate=0.0, count=4):
    optimizer = torch.optim.SGD(model.parameters(), rate)

    def script():
        generator = torch.Generator().manual_seed(1)
        for _ in range(count):
            x = 3 + 2 * torch.randn(64, 4, generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(x), (x[:, 0] > 3).long()).backward()
            optimizer.step()

    return script


def test_networks_without_modes_are_left_out(bench_of):
    assert modes(bench_of(training(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)))), Clock(1)) is None


def test_recurrent_layers_of_ours_know_modes(bench_of):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurs, self.head = GRU(4, 8, zoneout=0.5, batch_first=True), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.recurs(x[:, None])[0][:, -1])

    found = modes(bench_of(training(Net())), Clock(1))
    assert found is not None and found["train"] != found["eval"]


def test_both_modes_are_the_scripts_own(bench_of):
    """Dropout of all but the bias: in training the loss is that of the bias, in evaluation that of the network."""
    linear = nn.Linear(4, 2)
    bench = bench_of(training(nn.Sequential(nn.Dropout(1.0), linear)))
    found = modes(bench, Clock(1))
    batches = [(t.data[t.inputs[0]], t.data[t.targets[0]]) for t in bench.tapes]
    train = [F.cross_entropy(linear.bias.expand(64, 2), y).item() for _, y in batches]
    evaluated = [F.cross_entropy(linear(x), y).item() for x, y in batches]
    right = [(linear(x).argmax(1) == y).float().mean().item() for x, y in batches]
    assert math.isclose(found["train"], sum(train) / 4, rel_tol=1e-6)
    assert math.isclose(found["eval"], sum(evaluated) / 4, rel_tol=1e-6)
    assert math.isclose(found["score_eval"], sum(right) / 4, rel_tol=1e-6)


def test_running_statistics_that_are_behind_show(bench_of):
    norm = nn.BatchNorm1d(4, momentum=0.0)  # they stay at 0 and 1; the inputs are at 3 with a deviation of 2
    found = modes(bench_of(training(nn.Sequential(norm, nn.Linear(4, 2)), rate=0.5, count=40)), Clock(1))
    assert found["eval"] > found["train"] + 0.3
    assert found["score_eval"] < found["score_train"] - 0.2


def test_what_was_trained_in_evaluation_mode_is_the_same_in_both(bench_of):
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)).eval()
    found = modes(bench_of(training(model)), Clock(1))
    assert found["train"] == found["eval"]
