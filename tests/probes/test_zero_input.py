from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.bench import Clock
from unstuck.probes.zero_input import zero_input


def training(model, samples=8, target=lambda x: x[:, 0], rate=0.0):
    """The target is the first input; batches are of samples i, i + 1, ..."""
    optimizer = torch.optim.SGD(model.parameters(), rate)

    def script():
        for i in range(3):
            x = torch.stack([torch.arange(samples) + i, torch.ones(samples)], 1).float()
            optimizer.zero_grad()
            F.mse_loss(model(x)[:, 0], target(x)).backward()
            optimizer.step()

    return script


def linear(*weights):
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([weights])
    return model


def test_a_network_that_uses_its_inputs_is_worse_without_them(bench_of):
    """Perfect on its own inputs; zeroed the loss is the mean square of the targets, exchanged that of half the batch's size."""
    found = zero_input(bench_of(training(linear(1.0, 0.0))), Clock(1))
    squares = [sum((i + k) ** 2 for k in range(8)) / 8 for i in range(3)]
    assert found["loss"] == 0.0
    assert found["zeroed"] == sum(squares) / 3
    assert found["exchanged"] == 4.0**2
    assert found["score"] == 1.0 > found["score_exchanged"]


def test_a_network_that_ignores_its_inputs_is_no_worse_with_others(bench_of):
    found = zero_input(bench_of(training(linear(0.0, 0.5))), Clock(1))
    assert found["exchanged"] == found["loss"] != found["zeroed"]


def test_data_of_the_bench_stay_as_they_are(bench_of):
    bench = bench_of(training(linear(1.0, 0.0)))
    before = [t.clone() for tape in bench.tapes for t in tape.data]
    zero_input(bench, Clock(1))
    assert all(torch.equal(a, b) for a, b in zip(before, (t for tape in bench.tapes for t in tape.data), strict=True))


def test_inputs_that_are_targets_too_tell_nothing(bench_of):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def autoencoder():
        for _ in range(3):
            x = torch.randn(8, 2)
            F.mse_loss(model(x), x).backward()
            optimizer.step()

    assert zero_input(bench_of(autoencoder), Clock(1)) is None


def test_targets_that_are_not_told_from_inputs_tell_nothing(bench_of):
    """A network that computes its own loss is given both; zeroing both would be another task."""

    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(2, 1)

        def forward(self, x, y):
            return F.mse_loss(self.one(x), y + 0.0)

    model = WithLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def script():
        for _ in range(3):
            x = torch.randn(8, 2)
            model(x, x[:, :1].clone()).backward()
            optimizer.step()

    assert zero_input(bench_of(script), Clock(1)) is None


def test_a_single_sample_cannot_be_exchanged(bench_of):
    found = zero_input(bench_of(training(linear(1.0, 0.0), samples=1)), Clock(1))
    assert math.isnan(found["exchanged"]) and math.isnan(found["score_exchanged"])
    assert found["zeroed"] > 0
