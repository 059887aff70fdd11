from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.optim import batch_memory, batch_timing
from unstuck.optim.batch_timing import (
    Line,
    Timing,
    clock_for,
    lines,
    summarized,
    time_batches,
    unchanged,
)

SIZES = (4, 8, 16, 32, 64, 128, 256)


class Clock:
    """Stands in for the time: steps move it on."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(batch_timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(batch_timing, "clock_for", lambda device: lambda: self.now)


def test_times_of_steps_are_found_with_their_line(monkeypatch):
    clock = Clock(monkeypatch)

    def step(size):
        clock.now += 0.01 + 0.001 * size

    found = time_batches(step, SIZES)
    assert found.sizes == SIZES
    assert found.seconds == pytest.approx([0.01 + 0.001 * n for n in SIZES])
    assert found.errors == pytest.approx([0.0] * len(SIZES), abs=1e-12)
    assert found.update(32) == pytest.approx(0.042)
    assert found.update(40) == pytest.approx(0.05)
    assert found.epoch(64, 160) == pytest.approx(2 * 0.074 + 0.042)


def test_warm_up_does_not_count_and_short_steps_are_repeated(monkeypatch):
    clock, calls = Clock(monkeypatch), []

    def step(size):
        calls.append(size)
        clock.now += 1.0 if len(calls) == 1 else 1e-4

    found = time_batches(step, [8], repeats=3, warm_up=3)
    assert found.seconds[0] == pytest.approx(1e-4)
    assert 3 + 3 * 20 <= len(calls) <= 3 + 3 * 21  # until 2 ms are measured at a time


def test_large_sizes_are_left_out_where_time_runs_out(monkeypatch):
    clock = Clock(monkeypatch)

    def step(size):
        clock.now += 0.1 * size

    found = time_batches(step, SIZES, seconds=20.0)
    assert found.sizes[0] == 4
    assert found.sizes[-1] < 64
    assert time_batches(step, SIZES, seconds=0.0, least=64).sizes == (4, 8, 16, 32, 64)


def test_one_slow_repeat_changes_nothing():
    found = summarized({8: [1.0, 1.1, 0.9, 1.0, 50.0]})
    assert found.seconds == (1.0,)
    assert found.errors[0] < 0.1


def test_network_optimizer_and_random_numbers_are_as_before():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters())

    def step(size):
        optimizer.zero_grad()
        scale = random.random() + np.random.rand()
        (scale * model(torch.randn(size, 4)).sum()).backward()
        optimizer.step()

    step(8)
    kept = [t.detach().clone() for t in (*model.parameters(), *model.buffers())]
    grads = [p.grad.clone() for p in model.parameters()]
    moments = [s["exp_avg"].clone() for s in optimizer.state.values()]
    numbers, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    found = time_batches(step, [2, 8], keeps=[model, optimizer], repeats=3)
    assert all(t > 0 for t in found.seconds)
    assert all(torch.equal(a, b) for a, b in zip(kept, (*model.parameters(), *model.buffers()), strict=True))
    assert all(torch.equal(g, p.grad) for g, p in zip(grads, model.parameters(), strict=True))
    assert all(torch.equal(m, s["exp_avg"]) for m, s in zip(moments, optimizer.state.values(), strict=True))
    assert [int(s["step"]) for s in optimizer.state.values()] == [1] * 6
    assert torch.equal(torch.get_rng_state(), numbers)
    assert random.getstate() == python
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy, strict=True))


def test_they_are_so_after_an_exception_too():
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    with pytest.raises(RuntimeError, match="broken"), unchanged(model):
        model.eval()
        model.weight.data.zero_()
        raise RuntimeError("broken")
    assert torch.equal(model.weight, before)
    assert model.training


@pytest.mark.parametrize("sizes", [[], [0, 4]])
def test_sizes_that_can_not_be(sizes):
    with pytest.raises(MisuseError, match="batch sizes are"):
        time_batches(lambda size: None, sizes)


def test_one_thread_is_timed_by_itself(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert clock_for(torch.device("cpu")) is batch_timing.time.thread_time
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert clock_for(torch.device("cpu")) is batch_timing.time.perf_counter


# ---------------------------------------------------------------------- lines


def test_one_line_where_one_fits():
    (found,) = lines(SIZES, [0.5 + 0.02 * n for n in SIZES])
    assert (found.fixed, found.each) == (pytest.approx(0.5), pytest.approx(0.02))
    assert found.upto == math.inf


def test_neither_part_is_below_zero():
    (falling,) = lines(SIZES[:3], [3.0, 2.9, 2.8])
    assert falling.each == 0
    assert falling.fixed == pytest.approx(2.9, rel=0.02)
    (steep,) = lines(SIZES[:3], [1.0, 2.2, 4.6])
    assert steep.fixed == 0
    assert steep.each == pytest.approx(0.27, rel=0.05)


def test_two_lines_where_there_is_a_bend():
    seconds = [1 + 0.001 * n if n <= 32 else 0.2 + 0.05 * n for n in SIZES]
    low, high = lines(SIZES, seconds)
    assert 32 < low.upto < 64
    assert low.fixed == pytest.approx(1.0, rel=0.01)
    assert (high.fixed, high.each) == (pytest.approx(0.2), pytest.approx(0.05))
    assert Timing(SIZES, tuple(seconds), (0.0,) * 7, (low, high)).update(100) == high(100)


def test_what_is_within_the_error_is_no_bend():
    seconds = [1.0, 1.3, 1.0, 1.3, 1.0, 1.3, 1.0]
    assert len(lines(SIZES, seconds, [0.1] * 7)) == 1


def test_a_line_is_called():
    assert Line(1.0, 0.5)(4) == 3.0


def test_what_tells_of_memory_may_be_imported_from_here():
    for name in ("MemoryLimit", "available_memory", "memory_limit", "saved_bytes", "update_bytes"):
        assert getattr(batch_timing, name) is getattr(batch_memory, name)


def test_an_update_of_several_batches_tells_what_each_further_one_saves(monkeypatch):
    """Batches take 0.01 + 0.001 n, and the optimizer's step 0.004 more, once an update."""
    clock = Clock(monkeypatch)

    def step(size, num_batches=1):
        clock.now += num_batches * (0.01 + 0.001 * size) + 0.004

    found = time_batches(step, SIZES, accumulated=(8, 4), seconds=0.0)
    assert found.sizes == (4, 8, 16, 32)  # the update of several, and the same samples in one, are timed in any case
    assert found.saved == pytest.approx(0.004)
    assert found.accumulated is not None
    assert found.update(8, 4) == pytest.approx(4 * 0.018 + 0.004)
    assert found.update(16, 2) == pytest.approx(2 * 0.026 + 0.004)
    assert found.update(16) == pytest.approx(0.030)
    assert found.epoch(8, 76, 4) == pytest.approx(2 * (4 * 0.018 + 0.004) + 0.018 + 0.014 + 0.004)


def test_errors_of_updates_of_several_batches_have_those_of_what_they_are_told_by():
    found = Timing((8, 16), (1.0, 1.5), (0.03, 0.02), (Line(0.5, 0.0625),), 0.0, 0.4, (8, 2, 1.6, 0.08))
    assert found.error(8) == 0.03
    assert found.error(8, 2) == 0.08
    of_saved = math.hypot(2 * 0.03, 0.08)
    assert found.error(16, 3) == pytest.approx(math.hypot(3 * 0.02, 2 * of_saved))
