"""Schedules as functions, against those of torch."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch.optim import SGD, lr_scheduler

from unstuck.errors import MisuseError
from unstuck.optim.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    Hold,
    InverseTime,
    OneCycle,
    Polynomial,
    Step,
    Steps,
    WarmUp,
)

RATE = 0.7


def parameter():
    return torch.zeros(1, requires_grad=True)


def of_torch(make, steps):
    optimizer = SGD([parameter()], lr=RATE)
    schedule = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def of_ours(schedule, steps):
    return [RATE * schedule(step) for step in range(steps)]


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Step(7, 0.3), lambda o: lr_scheduler.StepLR(o, 7, 0.3)),
        (Steps((4, 9, 9), 0.3), lambda o: lr_scheduler.MultiStepLR(o, [4, 9, 9], 0.3)),
        (Exponential(0.93), lambda o: lr_scheduler.ExponentialLR(o, 0.93)),
        (Polynomial(20, 2.5), lambda o: lr_scheduler.PolynomialLR(o, 20, 2.5)),
        (Polynomial(20, floor=0.25), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.25, 20)),
        (WarmUp(6, start=0.2), lambda o: lr_scheduler.LinearLR(o, 0.2, 1.0, 6)),
        (CosineRestarts(5, floor=0.1), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 1, 0.1 * RATE)),
        (CosineRestarts(5, 3), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 3)),
        (InverseTime(4, 0.5), lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / math.sqrt(1 + t / 4))),
    ],
    ids=lambda value: repr(value) if not callable(value) or hasattr(value, "__dataclass_fields__") else "",
)
def test_it_is_the_schedule_of_torch(schedule, make):
    assert of_ours(schedule, 40) == pytest.approx(of_torch(make, 40), abs=1e-12, rel=1e-12)


def test_cosine_is_that_of_torch_up_to_its_end_and_stays_there():
    ours = of_ours(Cosine(20, 0.1), 40)
    assert ours[:21] == pytest.approx(
        of_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, 20, 0.1 * RATE), 21), abs=1e-12
    )
    assert ours[20:] == [0.1 * RATE] * 20


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_one_cycle_is_that_of_torch_with_its_momentum(shape):
    optimizer = SGD([parameter()], lr=RATE, momentum=0.9)
    theirs = lr_scheduler.OneCycleLR(
        optimizer, RATE, 30, pct_start=0.4, div_factor=10, final_div_factor=50, base_momentum=0.8, max_momentum=0.93,
        anneal_strategy="cos" if shape == "cosine" else "linear",
    )  # fmt: skip
    cycle = OneCycle(30, rise=0.4, start=0.1, end=0.1 / 50, shape=shape)
    momentum = cycle.momentum(0.8, 0.93)
    for step in range(30):
        group = optimizer.param_groups[0]
        assert RATE * cycle(step) == pytest.approx(group["lr"], abs=1e-12), step
        assert momentum(step) == pytest.approx(group["momentum"], abs=1e-12), step
        optimizer.step()
        if step < 29:
            theirs.step()
    assert cycle(29) == pytest.approx(0.1 / 50) and cycle(1000) == cycle(29)


def test_it_is_plain_data(every_schedule):
    again = pickle.loads(pickle.dumps(every_schedule))
    assert again == every_schedule
    assert [again(t) for t in range(60)] == [every_schedule(t) for t in range(60)]
    assert every_schedule(10**9) >= 0


@pytest.mark.parametrize(
    ("schedule", "end"),
    [(Polynomial(20, 2.0, 0.1), 20), (Cosine(20, 0.1), 20), (OneCycle(20), 19), (WarmUp(5, Hold(3, Cosine(10))), 18)],
    ids=repr,
)
def test_over_the_end_it_holds(schedule, end):
    assert {schedule(t) for t in range(end, end + 100)} == {schedule(end)}
    assert schedule(end - 1) > schedule(end)


def test_warm_up_rises_to_where_the_next_begins():
    linear, exponential = WarmUp(4, Step(2), 0.2), WarmUp(4, Constant(0.5), 0.0625, "exponential")
    assert [linear(t) for t in range(8)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 0.1, 0.1])
    assert [exponential(t) for t in range(6)] == pytest.approx([0.03125, 0.0625, 0.125, 0.25, 0.5, 0.5])
    assert WarmUp(0, Step(2))(0) == 1
    assert WarmUp(4, OneCycle(20))(4) == OneCycle(20)(0)


def test_hold_then_fall():
    trapezoid = WarmUp(2, Hold(3, Polynomial(2)), start=0.5)
    assert [trapezoid(t) for t in range(9)] == pytest.approx([0.5, 0.75, 1, 1, 1, 1, 0.5, 0, 0])


def test_restarts_may_start_lower_each_time():
    schedule = CosineRestarts(4, 2, floor=0.1, peak=0.5)
    assert [schedule(t) for t in (0, 4, 12)] == pytest.approx([1, 0.1 + 0.9 / 2, 0.1 + 0.9 / 4])


# ---------------------------------------------------------------------- misuse


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step(0), "every is 0"),
        (lambda: Cosine(10.5), "steps is 10.5"),
        (lambda: Steps((3, 2)), "must ascend"),
        (lambda: CosineRestarts(5, 0), "growth is 0"),
        (lambda: OneCycle(1), "from 2 on"),
        (lambda: OneCycle(10, rise=1.5), "rise is 1.5"),
        (lambda: OneCycle(10, rise=0.1), "more than one of them"),
        (lambda: OneCycle(10, shape="round"), '"cosine" or "linear"'),
        (lambda: WarmUp(-1), "from 0 on"),
        (lambda: WarmUp(5, start=0.0), "above 0"),
        (lambda: WarmUp(5, shape="cosine"), '"linear" or "exponential"'),
    ],
)
def test_it_says_what_is_wrong(make, message):
    with pytest.raises(MisuseError, match=message):
        make()
