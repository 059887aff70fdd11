"""Running statistics that are measured anew are the means over batches, and nothing else is changed."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from unstuck.errors import MisuseError
from unstuck.optim.batch_norm import update_batch_norm
from unstuck.optim.weight_average import WeightAverage

BATCHES = [(x,) for x in torch.randn(5, 16, 3, generator=torch.Generator().manual_seed(0))]


def net(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), nn.Dropout(dropout), nn.BatchNorm1d(4), nn.Tanh(), nn.BatchNorm1d(4, momentum=None)
    )


def statistics(model):
    return [b.clone() for b in model.buffers() if b.is_floating_point()]


def test_they_are_means_over_batches_as_those_of_torch():
    one, other = net(), net()
    with torch.no_grad():
        one[2].running_mean.fill_(float("nan"))  # a training that went wrong
    update_batch_norm(one, BATCHES)
    update_bn(BATCHES, other)
    expected = torch.stack([one[0](x).mean(0) for (x,) in BATCHES]).mean(0)
    torch.testing.assert_close(one[2].running_mean, expected.detach())
    for a, b in zip(statistics(one), statistics(other), strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_stays_off():
    one, other = net(0.5), net()
    update_batch_norm(one, BATCHES)
    update_batch_norm(other, BATCHES)
    assert all(map(torch.equal, statistics(one), statistics(other)))


def test_modes_momenta_and_counts_are_as_before_also_after_an_error():
    model = net()
    model(BATCHES[0][0])
    model[2].eval()
    for forward in (None, lambda m, batch: m(batch[0]) / (1 // 0)):
        with pytest.raises(ZeroDivisionError) if forward else contextlib.nullcontext():
            update_batch_norm(model, BATCHES, forward=forward)
        assert [m.training for m in model] == [True, True, False, True, True]
        assert [model[2].momentum, model[4].momentum] == [0.1, None]
        assert [int(model[i].num_batches_tracked) for i in (2, 4)] == [1, 1]


def test_of_an_average_that_is_swapped_in_they_are_its_own():
    model = net()
    average = WeightAverage(model, kind="equal")
    for value in (1.0, 3.0):
        nn.init.constant_(model[0].bias, value)
        model(BATCHES[0][0])
        average.update()
    own = statistics(model)
    with average.swapped_in():
        update_batch_norm(model, BATCHES)
        measured = statistics(model)
    assert all(map(torch.equal, own, statistics(model)))
    assert torch.equal(average.averages()["2.running_mean"], measured[0])
    weight = model[0].weight.detach()
    expected = torch.stack([(x @ weight.t() + 2).mean(0) for (x,) in BATCHES]).mean(0)
    torch.testing.assert_close(measured[0], expected)


def test_without_batches_nothing_is_forgotten():
    model = net()
    before = statistics(model)
    with pytest.raises(MisuseError, match="no batches to measure"):
        update_batch_norm(model, [])
    assert all(map(torch.equal, before, statistics(model)))
    update_batch_norm(nn.Linear(3, 3), [])  # nothing to measure
