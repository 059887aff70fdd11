"""Losses of which several go into an update: their tapes are made the update's, and what they were divided by is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.accumulated import as_update, divided

X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 3
FOUR = torch.tensor(4)


def mean(model):
    return F.cross_entropy(model(X), Y)


def summed(model):
    return F.cross_entropy(model(X), Y, reduction="sum")


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (mean, (False, False)),
        (lambda model: mean(model) / 4, (False, True)),
        (lambda model: mean(model).div(4), (False, True)),
        (lambda model: mean(model) * 0.25, (False, True)),
        (lambda model: 0.25 * mean(model), (False, True)),
        (lambda model: mean(model) / FOUR, (False, True)),
        (lambda model: 2 * (mean(model) / 4), (False, True)),
        (lambda model: mean(model) / 2, (False, False)),
        (lambda model: (mean(model) + model.weight.square().sum()) / 4, (False, True)),
        (lambda model: mean(model) / 4 + model.weight.square().sum(), (False, False)),
        (summed, (False, False)),
        (lambda model: summed(model) / 6, (True, False)),
        (lambda model: summed(model) / 6 / 4, (True, True)),
        (lambda model: summed(model) / 24, (True, True)),
    ],
)
def test_what_a_loss_was_divided_by(sealed, loss, expected):
    model = nn.Linear(2, 3)
    assert divided(sealed(lambda: loss(model)), 6, 4) == expected


def test_one_batch_an_update_needs_no_division(sealed):
    model = nn.Linear(2, 3)
    tape = sealed(lambda: summed(model) / 6)
    assert divided(tape, 6, 1) == (True, False)
    assert as_update(tape, 1) is tape


def test_the_loss_of_an_update_is_as_many_times_that_of_a_batch(sealed):
    model = nn.Linear(2, 3)
    tape = as_update(sealed(lambda: mean(model) / 4), 4)
    loss, _ = tape.replay([model], [], tape.data)
    assert torch.allclose(loss, mean(model))
