from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.bench import Bench, Clock
from unstuck.probes.step_sizes import FACTORS, LEAST, from_start, step_sizes

pytestmark = pytest.mark.slow

FOREVER = 1e6


def parabola(w, rate, steps=12):
    optimizer = torch.optim.SGD([w], rate)

    def script():
        for _ in range(steps):
            optimizer.zero_grad()
            (0.5 * w * w).sum().backward()
            optimizer.step()

    return script


def classes(rate, steps=30, optimizer=torch.optim.SGD, model=None, **settings):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    made = optimizer(model.parameters(), lr=rate, **settings)

    def script():
        generator = torch.Generator().manual_seed(1)
        for _ in range(steps):
            x = torch.randn(32, 8, generator=generator)
            made.zero_grad()
            F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            made.step()

    return script


def by_factor(found, key):
    return dict(zip(found["factors"], found[key], strict=True))


# ---------------------------------------------------------------------- the closed form


@pytest.mark.parametrize("rate", [1e-3, 0.1])
def test_every_rate_does_what_it_does_on_a_parabola(bench_of, rate):
    """Half of w squared: each step multiplies w by 1 - rate."""
    w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    bench = bench_of(parabola(w, rate))
    for found, start in ((step_sizes(bench, Clock(10)), w.item()), (from_start(bench, Clock(10)), 1.0)):
        assert found["factors"] == sorted(FACTORS)
        assert found["before"] == pytest.approx(0.5 * start**2)
        wanted = {f: 0.5 * (start * (1 - f * rate) ** found["steps"]) ** 2 for f in FACTORS}
        losses = by_factor(found, "losses")
        assert losses == {f: pytest.approx(v, rel=1e-6, abs=1e-300) for f, v in wanted.items()}
        assert found["rate"] == rate
        assert found["batches"] == 1


def test_what_diverges_has_no_loss(bench_of):
    w = torch.ones(1, requires_grad=True)
    losses = by_factor(step_sizes(bench_of(parabola(w, 1.5)), Clock(10)), "losses")
    assert losses[100.0] is None
    assert losses[1.0] == pytest.approx(0, abs=1e-3)
    assert losses[10.0] is None or losses[10.0] > 1e6


# ---------------------------------------------------------------------- what is found


def test_a_rate_that_is_a_hundred_times_too_low_is_found(bench_of):
    bench = bench_of(classes(0.003))
    for experiment in (step_sizes, from_start):
        found = experiment(bench, Clock(20))
        scores, losses = by_factor(found, "scores"), by_factor(found, "losses")
        assert scores[100.0] > 0.75 > 0.6 > scores[1.0] > scores[0.01] - 0.1
        assert losses[100.0] < 0.7 * losses[1.0]


def test_a_rate_that_is_a_hundred_times_too_high_is_found(bench_of):
    scores = by_factor(from_start(bench_of(classes(30.0)), Clock(20)), "scores")
    assert (scores[1.0] or 0.0) < 0.7 < 0.75 < max(scores[0.1], scores[0.01])


def test_a_good_rate_is_among_the_best(bench_of):
    losses = by_factor(from_start(bench_of(classes(0.3)), Clock(20)), "losses")
    best = min(v for v in losses.values() if v is not None)
    assert losses[1.0] < 1.25 * best


def test_adam_goes_where_one_rate_does_not(bench_of):
    """Two directions whose curvatures are ten thousand apart: steps that the steep one bears don't move the flat one.

    Gradient descent diverges above a rate of 1 / 100, and below it the flat one keeps (1 - 0.02 / 100) ** 100 = 0.98 of its way.
    """
    w = torch.tensor([0.11, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], 1e-3)
    curvature = torch.tensor([1e2, 1e-2], dtype=torch.float64)

    def script():
        for _ in range(100):
            optimizer.zero_grad()
            (curvature * (w - 0.1).abs().pow(2)).sum().backward()
            optimizer.step()

    found = from_start(bench_of(script), Clock(20))
    flat = 1e-2 * 0.9**2
    assert min(v for v in found["losses"] if v is not None) > 0.95 * flat
    assert min(found["adam_losses"]) < 0.5 * flat
    assert found["adam_rates"] == [1e-3, 1e-2]


# ---------------------------------------------------------------------- fairness


def test_all_rates_begin_at_the_same_place_with_the_same_moments(bench_of):
    bench = bench_of(classes(0.01, optimizer=torch.optim.Adam))
    first = step_sizes(bench, Clock(FOREVER), most=25)
    assert by_factor(first, "losses")[1.0] == continued(bench, 25)
    assert step_sizes(bench, Clock(FOREVER), most=25) == first


def continued(bench, steps):
    bench.restore()
    bench.train(bench.optimizer(), bench.fitted, steps)
    return bench.loss(bench.held[-8:])


def test_it_is_looked_at_other_batches_than_it_is_trained_on(bench_of):
    bench = bench_of(classes(0.1, steps=6))
    assert not set(bench.fitted) & set(bench.held)
    assert sorted((*bench.fitted, *bench.held)) == list(bench.batches)
    found = step_sizes(bench, Clock(FOREVER), most=50)
    assert by_factor(found, "own_losses")[1.0] < by_factor(found, "losses")[1.0]


# ---------------------------------------------------------------------- limits


@pytest.mark.parametrize(("most", "steps"), [(25, 25), (100, 100)])
def test_updates_are_limited(bench_of, most, steps):
    w = torch.ones(1, requires_grad=True)
    bench = bench_of(parabola(w, 0.01))
    assert step_sizes(bench, Clock(FOREVER), most=most)["steps"] == steps


@pytest.mark.parametrize(("made", "steps"), [(4, 10), (30, 30), pytest.param(300, 200, marks=pytest.mark.slow)])
def test_from_the_start_there_are_no_more_updates_than_the_script_made(bench_of, made, steps):
    w = torch.ones(1, requires_grad=True)
    assert from_start(bench_of(parabola(w, 0.01, made)), Clock(FOREVER))["steps"] == steps


def test_too_few_updates_tell_nothing(bench_of):
    bench = bench_of(parabola(torch.ones(1, requires_grad=True), 0.01))
    assert step_sizes(bench, Clock(FOREVER), most=LEAST)["steps"] == LEAST
    assert step_sizes(bench, Clock(FOREVER), most=LEAST - 1) is None


def test_too_little_time_tells_nothing(bench_of):
    w = torch.ones(1, requires_grad=True)
    bench = bench_of(parabola(w, 0.01))
    assert step_sizes(bench, Clock(1e-4)) is None
    assert from_start(bench, Clock(1e-4)) is None


def test_a_start_that_is_not_known_tells_nothing(bench_of):
    w = torch.ones(1, requires_grad=True)
    training = bench_of(parabola(w, 0.01)).training
    assert from_start(Bench(type(training)(**{**vars(training), "initial": ()})), Clock(5)) is None


def test_a_rate_that_is_not_known_tells_nothing(bench_of):
    w = torch.ones(1, requires_grad=True)
    training = bench_of(parabola(w, 0.01)).training
    assert (
        step_sizes(Bench(type(training)(**{**vars(training), "rate": math.nan, "first_rate": math.nan})), Clock(5))
        is None
    )
