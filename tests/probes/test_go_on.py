from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.bench import Bench, Clock
from unstuck.probes.go_on import go_on

RATE, CURVATURE = 0.05, 1.0


def parabola(steps, w):
    """w falls by the factor 1 - RATE * CURVATURE each step."""
    optimizer = torch.optim.SGD([w], RATE)

    def script():
        for _ in range(steps):
            optimizer.zero_grad()
            (0.5 * CURVATURE * w * w).sum().backward()
            optimizer.step()

    return script


@pytest.mark.parametrize("steps", [8, 20])
def test_it_goes_on_as_the_script_would(bench_of, steps):
    """A parabola: after n more steps the loss is the one before times (1 - rate * curvature) ** 2 n."""
    w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    found = go_on(bench_of(parabola(steps, w)), Clock(10))
    before = 0.5 * w.item() ** 2
    shrunk = [before * (1 - RATE * CURVATURE) ** (2 * n) for n in range(0, steps + 1, steps // 4)]
    assert found["steps"] == steps
    assert found["losses"] == pytest.approx(shrunk)
    assert found["own_losses"] == pytest.approx(shrunk), "there is only one batch"


def regression(count, optimizer=torch.optim.SGD, rate=0.1, **settings):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    made = optimizer(model.parameters(), lr=rate, **settings)

    def script():
        generator = torch.Generator().manual_seed(1)
        for _ in range(count):
            x = torch.randn(16, 4, generator=generator)
            made.zero_grad()
            F.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
            made.step()

    script.model, script.optimizer = model, made
    return script


def test_unfinished_training_gets_further_on_batches_between(bench_of):
    bench = bench_of(regression(8, rate=0.05))
    found = go_on(bench, Clock(10))
    assert found["losses"][0] == bench_loss(bench, bench.held)
    assert all(b < a for a, b in zip(found["losses"], found["losses"][1:], strict=False))
    assert found["losses"][-1] < 0.4 * found["losses"][0]
    assert found["scores"][-1] > found["scores"][0]
    assert found["own_losses"][-1] < 0.4 * found["own_losses"][0]


def bench_loss(bench, batches):
    bench.restore()
    return bench.loss(batches)


@pytest.mark.slow
def test_finished_training_gets_no_further(bench_of):
    found = go_on(bench_of(regression(100)), Clock(10))
    assert found["losses"][-1] == pytest.approx(found["losses"][0], abs=1e-4)


def test_samples_of_which_nothing_holds_for_others_only_help_themselves(bench_of):
    model = nn.Linear(30, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)

    def script():
        generator = torch.Generator().manual_seed(1)
        for _ in range(4):
            x, y = torch.randn(8, 30, generator=generator), torch.randn(8, 1, generator=generator)
            optimizer.zero_grad()
            F.mse_loss(model(x), y).backward()
            optimizer.step()

    found = go_on(bench_of(script), Clock(10), share=50.0)
    assert found["own_losses"][-1] < 0.1 * found["own_losses"][0]
    assert found["losses"][-1] > found["losses"][0]


@pytest.mark.slow
@pytest.mark.parametrize(("share", "most", "steps"), [(1.0, 2000, 20), (2.0, 2000, 40), (1.0, 8, 8), (0.01, 2000, 4)])
def test_how_far_it_goes(bench_of, share, most, steps):
    w = torch.ones(1, requires_grad=True)
    assert go_on(bench_of(parabola(20, w)), Clock(10), share=share, most=most)["steps"] == steps


def test_time_ends_each_quarter(bench_of):
    found = go_on(bench_of(regression(40)), Clock(0))
    assert found["steps"] == 4
    assert len(found["losses"]) == 5


def test_it_begins_at_the_end_whatever_was_done_before(bench_of):
    bench = bench_of(regression(8))
    first = go_on(bench, Clock(10))
    bench.step(bench.optimizer(100.0), 0)
    assert go_on(bench, Clock(10)) == first


def test_updates_that_are_not_known_cannot_be_continued(bench_of):
    training = bench_of(regression(8)).training
    unknown = type(training)(**{**vars(training), "rate": 0.0, "first_rate": 0.0})
    assert go_on(Bench(unknown), Clock(1)) is None
