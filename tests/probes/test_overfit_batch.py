from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.bench import Clock
from unstuck.probes.overfit_batch import overfit_batch

pytestmark = pytest.mark.slow


def training(model, loss=F.cross_entropy, size=40, rate=0.01, labels=None):
    optimizer = torch.optim.SGD(model.parameters(), rate)

    def script():
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            x = torch.randn(size, 6, generator=generator)
            y = torch.randint(4, (size,), generator=generator) if labels is None else labels(x)
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()

    return script


def mlp(hidden=64, *, dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, hidden), nn.Dropout(dropout), nn.ReLU(), nn.Linear(hidden, 4))


def test_a_sound_network_learns_random_labels_by_heart(bench_of):
    found = overfit_batch(bench_of(training(mlp())), Clock(20), most=150)
    assert found["samples"] == 32
    assert found["score_before"] < 0.6 < 0.99 < found["score_after"]
    assert found["after"] < 0.1 < found["before"]
    assert found["start_score_after"] > 0.99
    assert found["steps"] == 150


class Counted:
    """A clock with time for so many looks at it."""

    def __init__(self, looks):
        self.looks = looks

    def part(self, share):
        return Counted(self.looks)

    @property
    def left(self):
        self.looks -= 1
        return max(0, self.looks)


@pytest.mark.parametrize("steps", [5, 40])
def test_a_try_that_is_cut_short_says_that_its_loss_still_fell(bench_of, steps):
    torch.manual_seed(0)
    found = overfit_batch(
        bench_of(training(nn.Linear(6, 4), labels=lambda x: (x[:, 0] > 0).long())), Counted(steps + 1), most=5000
    )
    assert found["steps"] == steps
    assert found["falling"]


def test_what_levelled_off_is_not_falling_however_early_it_was_cut(bench_of):
    """A constant fits random labels no better after the first steps."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return self.logits.expand(len(x), 4)

    found = overfit_batch(bench_of(training(Constant())), Counted(61), most=400)
    assert found["steps"] == 60
    assert "falling" not in found


def test_a_linear_network_does_not(bench_of):
    """Six numbers and a bias can't tell 32 samples with random labels of four classes."""
    torch.manual_seed(0)
    found = overfit_batch(bench_of(training(nn.Linear(6, 4))), Clock(20), most=150)
    assert found["score_after"] < 0.8 and found["start_score_after"] < 0.8


def test_a_broken_network_does_not(bench_of):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = mlp(), nn.Linear(4, 4)

        def forward(self, x):
            return self.two(self.one(x).detach() * 0.0)

    found = overfit_batch(bench_of(training(Cut())), Clock(20), most=150)
    assert found["score_after"] < 0.6


def test_dropout_is_switched_off_and_on_again(bench_of):
    bench = bench_of(training(mlp(dropout=0.9)))
    found = overfit_batch(bench, Clock(20), most=150)
    assert found["score_after"] > 0.99
    assert [m.p for m in bench.modules[0].modules() if isinstance(m, nn.Dropout)] == [0.9]


def test_dropout_is_on_again_after_a_failure(bench_of, monkeypatch):
    bench = bench_of(training(mlp(dropout=0.9)))
    monkeypatch.setattr(bench, "step", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        overfit_batch(bench, Clock(20), most=150)
    assert [m.p for m in bench.modules[0].modules() if isinstance(m, nn.Dropout)] == [0.9]


@pytest.mark.parametrize(("size", "samples"), [(16, 16), (32, 32), (33, 32), (100, 32)])
def test_how_many_samples_are_fitted(bench_of, size, samples):
    found = overfit_batch(bench_of(training(mlp(), size=size)), Clock(20), most=2)
    assert found["samples"] == samples


def test_a_network_that_wants_its_batch_size_gets_it(bench_of):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            return self.net(x.view(40, 6))

    found = overfit_batch(bench_of(training(Fixed())), Clock(20), most=2)
    assert found["samples"] == 40 and math.isfinite(found["after"])


def test_regression_has_its_score(bench_of):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 1))
    found = overfit_batch(bench_of(training(model, F.mse_loss, labels=lambda x: x[:, :1] ** 2)), Clock(20), most=150)
    assert found["score_after"] > 0.9 > found["score_before"]


def test_the_better_of_two_rates_is_told(bench_of):
    """Full steps of 0.01 can't settle on a target that is 1e-4 away; steps of 0.001 come nearer."""
    model = nn.Linear(6, 1, bias=False)
    model.weight.data = torch.full((1, 6), 1e-4)
    found = overfit_batch(
        bench_of(training(model, F.l1_loss, labels=lambda x: 0 * x[:, :1], rate=0.0)), Clock(20), most=3
    )
    assert found["after"] < 0.01


def test_time_is_shared_out(bench_of):
    found = overfit_batch(bench_of(training(mlp())), Clock(0.0))
    assert found["steps"] == 0 and found["after"] == found["before"]
