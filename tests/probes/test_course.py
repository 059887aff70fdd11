from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from unstuck.evidence import Series
from unstuck.probes.bench import Bench, Clock, Snapshot
from unstuck.probes.course import course, in_order, stalls


def quartic(steps=20, optimizer=torch.optim.SGD, rate=0.01, **settings):
    """A loss of the sum of w**4, whose curvature is 12 w**2: the values it went through, and a script that goes through them."""
    w = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    made = optimizer([w], lr=rate, **settings)
    way = [w.detach().clone()]

    def script():
        for _ in range(steps):
            made.zero_grad()
            w.pow(4).sum().backward()
            made.step()
            way.append(w.detach().clone())

    return way, script


def with_snapshots(bench, way, steps, **given):
    snapshots = tuple(Snapshot(s, [way[s]], rates=(0.01,), **given) for s in steps)
    return Bench(dataclasses.replace(bench.training, snapshots=snapshots))


def test_the_curvature_at_every_step_is_that_of_the_values_then(bench_of):
    """The rate that 12 w**2 bears is 2 over it."""
    way, script = quartic()
    bench = with_snapshots(bench_of(script), way, [3, 10])
    found = dict(course(bench, Clock(10)))
    assert sorted(found) == [0, 3, 10, 20]
    for step, numbers in found.items():
        top, bottom = 12 * float(way[step].max()) ** 2, 12 * float(way[step].min()) ** 2
        assert numbers["hessian_top"] == pytest.approx(top)
        assert numbers["hessian_bottom"] == pytest.approx(bottom)
        assert numbers["stable_rate"] == pytest.approx(2 / top)
        assert numbers["edge"] == pytest.approx(0.01 * top / 2)


def test_adam_feels_the_curvature_through_what_it_kept_then(bench_of):
    """Preconditioned by a second moment of 4, whose root is 2: half the curvature, at a bound of 38."""
    way, script = quartic(optimizer=torch.optim.Adam)
    state = [{"step": torch.tensor(1e9), "exp_avg_sq": torch.full((2,), 4.0, dtype=torch.float64)}]
    bench = with_snapshots(bench_of(script), way, [5], state=state)
    found = dict(course(bench, Clock(10)))[5]
    top = 12 * float(way[5].max()) ** 2
    assert found["sharpness"] == pytest.approx(top / 2, rel=1e-6)
    assert found["stable_rate"] == pytest.approx(38 / (top / 2), rel=1e-6)
    assert found["hessian_top"] == pytest.approx(top)


def test_the_bench_is_left_as_it_was(bench_of):
    way, script = quartic()
    bench = with_snapshots(bench_of(script), way, [3])
    list(course(bench, Clock(10)))
    assert torch.equal(bench.learned[0].detach(), way[-1])


def test_the_start_comes_first_then_what_lies_in_a_stall(bench_of):
    way, script = quartic()
    bench = with_snapshots(bench_of(script), way, [2, 9, 16])
    assert [s.step for s in in_order(bench, [(15, 19)])] == [0, 16, 9, 2]
    assert [s.step for s in in_order(bench, [])] == [0, 9, 16, 2]


def test_time_ends_it(bench_of):
    way, script = quartic()
    assert [step for step, _ in course(with_snapshots(bench_of(script), way, [3]), Clock(0))] == [20]


FALLING = np.exp(-np.arange(100) / 20)


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (FALLING, []),
        (np.concatenate([FALLING, np.full(100, FALLING[-1])]), [(110, 199)]),
        (np.full(200, 2.3), [(10, 199)]),
        (np.concatenate([FALLING[:50], np.full(100, FALLING[49]), FALLING[50:]]), [(60, 149)]),
        (FALLING[:79], []),
    ],
)
def test_stalls_are_where_the_loss_no_longer_falls(loss, found):
    """By spans of ten steps, each against the median of those before: the first flat one still lies below."""
    assert stalls(Series.of(loss)) == found


def test_a_loss_that_was_not_measured_stalls_nowhere():
    assert stalls(Series.of(np.full(200, np.nan))) == []
