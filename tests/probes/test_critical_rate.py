from __future__ import annotations

import math

import pytest
import torch

from unstuck.probes.bench import Bench, Clock
from unstuck.probes.critical_rate import critical_rate

CURVATURE = torch.tensor([4.0, 1.0])


def parabola(w, rate, curvature=CURVATURE, steps=1, optimizer=torch.optim.SGD, **settings):
    """A loss of half the curvature times the square of the weights, whose minimum is 0."""
    made = optimizer([w], lr=rate, **settings)

    def script():
        for _ in range(steps):
            made.zero_grad()
            (0.5 * (curvature * w * w).sum()).backward()
            made.step()

    return script


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1e-4, 1e-2, 0.1, 0.4, 0.6, 1.99, 3.0, 1e3])
@pytest.mark.parametrize("curvature", [1.0, 30.0])
def test_it_is_within_a_factor_of_two_of_the_closed_form(bench_of, rate, curvature):
    """Along its gradient a parabola rises again at a step of 2 over the curvature."""
    w = torch.ones(1, requires_grad=True)
    found = critical_rate(bench_of(parabola(w, rate, torch.tensor([curvature]))), Clock(5))
    wanted = 2 / (rate * curvature)
    assert wanted * 0.999 <= found["critical"] <= 2.001 * wanted
    assert wanted / 4 <= found["best"] <= wanted  # the minimum is at half of it; tried are powers of two
    assert found["gain"] > 0.74  # at half of the way to the minimum, where three quarters are gone, or nearer to it
    assert found["rate"] == rate


def test_the_gain_is_that_of_the_best_step(bench_of):
    """With a rate of half the inverse curvature, twice the step leads into the minimum."""
    w = torch.ones(1, requires_grad=True)
    found = critical_rate(bench_of(parabola(w, 0.25, torch.tensor([2.0]))), Clock(5))
    assert found["best"] == 2.0
    assert found["gain"] == pytest.approx(1.0)
    assert found["start_best"] == 2.0


def test_curvature_along_the_gradient_counts(bench_of):
    """In the direction of g the loss rises at 2 g.g / g.H.g: between the inverse curvatures of its parts."""
    w = torch.tensor([1.0, 1.0], requires_grad=True)
    found = critical_rate(bench_of(parabola(w, 1e-3)), Clock(5))
    g = CURVATURE * w.detach()
    wanted = 2 * float(g @ g) / float(g @ (CURVATURE * g)) / 1e-3
    assert wanted <= found["critical"] <= 2 * wanted


def test_the_start_is_told_apart_from_the_end(bench_of):
    """The curvature of w**4 is 12 w**2: small at the end, large at the start; along the gradient 4 w**3 it rises at 2 / (4 w**2)."""
    w = torch.tensor([2.0], requires_grad=True)
    optimizer = torch.optim.SGD([w], 0.01)

    def script():
        for _ in range(20):
            optimizer.zero_grad()
            w.pow(4).sum().backward()
            optimizer.step()

    found = critical_rate(bench_of(script), Clock(5))
    for key, at in (("critical", w.item()), ("start_critical", 2.0)):
        wanted = 2 / (4 * at**2) / 0.01
        assert wanted <= found[key] <= 2 * wanted
    assert found["start_critical"] < found["critical"]


def test_it_goes_along_the_optimizers_own_step(bench_of):
    """Adam's first step is the rate in every direction: from (1, 1) it is at (0, 0) after 1 / rate steps, and as high at twice that."""
    w = torch.ones(2, requires_grad=True)
    training = bench_of(parabola(w, 0.01, optimizer=torch.optim.Adam)).training
    found = critical_rate(Bench(training), Clock(5))
    assert 200 * 0.999 <= found["start_critical"] <= 400
    assert found["start_best"] in (64, 128)


def test_a_loss_without_a_floor_never_rises(bench_of):
    w = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], 0.1)

    def script():
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    assert critical_rate(bench_of(script), Clock(5))["critical"] is None


def test_up_the_hill_every_length_is_too_long(bench_of):
    w = torch.ones(1, requires_grad=True)
    found = critical_rate(bench_of(parabola(w, 0.1, maximize=True)), Clock(5))
    assert found["critical"] < 1e-6
    assert found["best"] == 0 and found["gain"] == 0


def test_a_gradient_of_zero_tells_nothing(bench_of):
    w = torch.zeros(2, requires_grad=True)
    assert critical_rate(bench_of(parabola(w, 0.1)), Clock(5)) is None


def test_a_rate_that_is_not_known_tells_nothing(bench_of):
    w = torch.ones(2, requires_grad=True)
    training = bench_of(parabola(w, 0.1)).training
    unknown = type(training)(**{**vars(training), "rate": math.nan, "first_rate": math.nan})
    assert critical_rate(Bench(unknown), Clock(5)) is None


def test_the_step_of_several_batches_is_along_their_mean(bench_of):
    """Losses (w - 4)**2 / 2 and (w + 4)**2 / 2 in turn: half of the sum of both is w**2 / 2 + 8, whose curvature is 1."""
    w = torch.ones(1, requires_grad=True)
    made = torch.optim.SGD([w], lr=1e-3)

    def script():
        for k in range(4):
            (0.5 * (w - torch.tensor(4.0 * (-1) ** (k + k // 2))) ** 2).sum().backward()
            if k % 2:
                made.step()
                made.zero_grad()

    bench = bench_of(script)
    assert len(bench.batches) > 1
    one, two = (critical_rate(bench, Clock(5), pooled=pooled) for pooled in (1, 2))
    assert one is not None
    assert two is not None
    assert 2000 <= two["critical"] <= 4000
    assert two["gain"] < 0.1 < one["gain"]
