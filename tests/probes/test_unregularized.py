from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.bench import Clock
from unstuck.probes.unregularized import unregularized


def training(model, *, steps=20, rate=0.1, **settings):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), rate, **settings)

    def script():
        generator = torch.Generator().manual_seed(1)
        for _ in range(steps):
            x = torch.randn(32, 8, generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            optimizer.step()

    return script


def mlp(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 3))


def test_without_dropout_and_decay_there_is_nothing_to_leave_out(bench_of):
    assert unregularized(bench_of(training(nn.Linear(8, 3))), Clock(5)) is None


def test_decay_that_keeps_the_weights_small(bench_of):
    """A decay of 1 at a rate of 0.1 takes a tenth of the weights at each step."""
    bench = bench_of(training(nn.Linear(8, 3), weight_decay=1.0))
    found = unregularized(bench, Clock(20), most=60)
    assert found["steps"] == 60
    assert found["without"] < 0.7 * found["kept"]
    assert found["own_without"] < 0.7 * found["own_kept"]
    assert bench.optimizer().param_groups[0]["weight_decay"] == 1.0


@pytest.mark.slow
def test_decay_that_hardly_matters(bench_of):
    found = unregularized(bench_of(training(mlp(), weight_decay=1e-6)), Clock(20), most=20)
    assert found["without"] == pytest.approx(found["kept"], rel=1e-3)


@pytest.mark.slow
def test_dropout_that_is_in_the_way(bench_of):
    bench = bench_of(training(mlp(dropout=0.95)))
    found = unregularized(bench, Clock(20), most=100)
    assert found["without"] < 0.9 * found["kept"]
    assert found["score_without"] > found["score_kept"]
    assert [m.p for m in bench.modules[0].modules() if isinstance(m, nn.Dropout)] == [0.95]


@pytest.mark.slow
def test_both_begin_at_the_same_place(bench_of):
    bench = bench_of(training(mlp(), weight_decay=1e-6))
    first = unregularized(bench, Clock(20), most=10)
    assert unregularized(bench, Clock(20), most=10) == first
