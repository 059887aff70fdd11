from __future__ import annotations

import pytest
import torch

from unstuck.probes.bench import Clock
from unstuck.probes.larger_batch import larger_batch

RATE, COUNT = 0.5, 64


def noisy(size=1, count=COUNT, rate=RATE):
    """One parameter is to find the mean of numbers of deviation 1, from single ones: with rate r it ends with a variance of r / (2 - r)."""
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], rate)
    numbers = torch.randn(count, size, 1, generator=torch.Generator().manual_seed(0))

    def script():
        for x in numbers:
            optimizer.zero_grad()
            (0.5 * (w - x).square()).mean().backward()
            optimizer.step()

    return script


def test_the_mean_of_several_batches_is_less_noisy(bench_of):
    bench = bench_of(noisy())
    found = larger_batch(bench, Clock(10), times=4, most=50)
    assert found["steps"] == 50 and found["times"] == 4
    single, several = found["losses"][1:]
    assert several < single


@pytest.mark.slow
def test_one_update_on_several_batches_is_one_on_their_mean(bench_of):
    """A step of rate r goes r of the way to the mean of all numbers in it."""
    bench = bench_of(noisy())
    bench.restore(start=True)
    numbers = [bench.tapes[b].data[-1] for b in (0, 1, 2)]
    bench.step(bench.optimizer(), 0, 1, 2)
    assert bench.learned[0].item() == pytest.approx(RATE * float(torch.stack(numbers).mean()), rel=1e-5)


@pytest.mark.slow
def test_updates_that_diverge_are_told(bench_of):
    found = larger_batch(bench_of(noisy(rate=1.9)), Clock(10), times=4, most=20)
    assert all(loss is not None for loss in found["losses"])


def test_nothing_is_asked_of_large_batches_or_of_few(bench_of):
    assert larger_batch(bench_of(noisy()), Clock(10), small=0) is None
    assert larger_batch(bench_of(noisy(count=14)), Clock(10)) is None
