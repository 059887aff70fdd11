from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.bench import Clock
from unstuck.probes.permuted_labels import permuted_labels


def training(follow, count=24, size=32):
    """The label is the sign of the first input, or a coin's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def script():
        generator = torch.Generator().manual_seed(1)
        for _ in range(count):
            x = torch.randn(size, 6, generator=generator)
            y = (x[:, 0] > 0).long() if follow else torch.randint(2, (size,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    return script


def test_labels_that_follow_are_learned_for_others_too(bench_of):
    found = permuted_labels(bench_of(training(follow=True)), Clock(10))
    _, real, permuted = found["scores"]
    assert real > 0.9
    assert abs(permuted - 0.5) < 0.15
    assert found["losses"][1] < found["losses"][0]


@pytest.mark.slow
def test_a_coin_is_learned_for_nobody_else(bench_of):
    found = permuted_labels(bench_of(training(follow=False)), Clock(10))
    assert all(abs(score - 0.5) < 0.12 for score in found["scores"][1:])


def test_with_a_single_batch_there_are_no_others(bench_of):
    assert permuted_labels(bench_of(training(follow=True, count=1)), Clock(10)) is None


def test_without_time_nothing_is_tried(bench_of):
    assert permuted_labels(bench_of(training(follow=True)), Clock(0.0)) is None


@pytest.mark.slow
def test_labels_of_the_bench_stay_as_they_are(bench_of):
    bench = bench_of(training(follow=True))
    before = [t.clone() for tape in bench.tapes for t in tape.data]
    permuted_labels(bench, Clock(10))
    assert all(torch.equal(a, b) for a, b in zip(before, (t for tape in bench.tapes for t in tape.data), strict=True))
