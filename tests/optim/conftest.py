"""Schedules of every kind, and a parameter for optimizers that follow them."""

from __future__ import annotations

import pytest

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

ALL = [
    Constant(0.5),
    Step(3, 0.5),
    Steps((2, 5, 5), 0.5),
    Exponential(0.9, floor=0.2),
    InverseTime(10, 0.5),
    Polynomial(20, 2.0, 0.1),
    Cosine(20, 0.1),
    CosineRestarts(5, 2, 0.1, 0.8),
    OneCycle(20),
    OneCycle(20, shape="linear"),
    WarmUp(5, then=Hold(3, then=Cosine(10))),
    WarmUp(5, then=Step(2), shape="exponential"),
]


@pytest.fixture(params=ALL, ids=repr)
def every_schedule(request):
    return request.param
