from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unstuck.watcher.session import Session
from unstuck.watcher.snapshots import MOST, Snapshots


@pytest.fixture
def snapshots_of(session_of):
    """Runs a script with its curvature wanted, and gives what was kept of it on the way."""
    return lambda script: session_of(script, every=False, curvature={"share": 0.15}).snapshots.kept


def training(steps, optimizer=torch.optim.SGD, seen=None, **settings):
    model = nn.Linear(3, 1)
    made = optimizer(model.parameters(), lr=0.01, **settings)
    x, y = torch.randn(8, 3), torch.randn(8, 1)

    def script():
        for _ in range(steps):
            if seen is not None:
                seen.append([p.detach().clone() for p in model.parameters()])
            made.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            made.step()

    return script


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 7, 8, 9, 30, 200])
def test_there_are_few_and_they_span_the_run(snapshots_of, steps):
    kept = snapshots_of(training(steps))
    assert min(MOST // 2, steps) <= len(kept) <= MOST
    at = [s.step for s in kept]
    assert at == sorted(set(at))
    gaps = [b - a for a, b in itertools.pairwise(at)]
    assert not gaps or max(gaps) <= max(1, steps) / 2
    assert at[-1] >= 0.5 * steps


def test_they_are_copies_of_the_values_at_the_start_of_their_step(snapshots_of):
    seen = []
    for snapshot in snapshots_of(training(40, seen=seen)):
        if snapshot.step < 40:
            assert all(torch.equal(a, b) for a, b in zip(snapshot.values, seen[snapshot.step], strict=True))


def test_what_adam_divides_by_is_kept_and_its_momentum_is_not(snapshots_of):
    snapshot = snapshots_of(training(5, torch.optim.Adam))[-1]
    assert [set(s) for s in snapshot.state] == [{"step", "exp_avg_sq"}] * 2
    assert snapshot.rates == [0.01]


def test_plain_gradient_descent_keeps_nothing_but_values(snapshots_of):
    assert snapshots_of(training(5, momentum=0.9))[-1].state == ()


def test_without_being_asked_nothing_is_kept(tmp_path):
    session = Session(tmp_path / "r.sqlite", budget=1.0, probe_budget=0.15)
    assert session.snapshots is None
    session.capture.close()
    session.writer.close(status="finished")


@pytest.mark.parametrize(("fit", "kept"), [(8.1, 8), (3.1, 3), (0.9, 0)])
def test_memory_has_a_limit_and_says_so(fit, kept):
    model = nn.Linear(3, 1)
    size = 16
    snapshots = Snapshots(most_bytes=int(fit * size))
    tape = SimpleNamespace(modules=[model], trained=[])
    capture = SimpleNamespace(wanted=True, tapes=[tape], step=0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    lead = SimpleNamespace(ref=lambda: optimizer)
    for step in range(1, 9):
        snapshots.look(SimpleNamespace(step=step, capture=capture, optimizers=SimpleNamespace(lead=lead)))
    assert len(snapshots.kept) <= max(kept, 0)
    assert bool(snapshots.note) == (kept < MOST)
    assert (kept == 0) == ("none between start and end" in snapshots.note)
    assert math.isinf(snapshots._next) == (kept == 0)


def test_results_are_the_same_to_the_last_bit(snapshots_of):
    """Dropout draws random numbers, so that a draw of ours would show."""

    def trained():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(50):
            optimizer.zero_grad()
            model(torch.randn(16, 4)).square().mean().backward()
            optimizer.step()
        found.append([*(p.detach().clone() for p in model.parameters()), torch.rand(3)])

    found = []
    trained()
    snapshots_of(trained)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
