"""Dropout in evaluation: mean and spread are those on paper, norms stay as they are in evaluation, modes are put back."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.recurrent.layers import LSTM
from unstuck.regularization.dropout import Dropout
from unstuck.regularization.monte_carlo import monte_carlo, sampled


def test_what_is_sampled_drops_and_is_in_evaluation_otherwise():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), Dropout(0.5), nn.Linear(4, 4)).eval()
    model[3].train()
    with sampled(model):
        assert [m.training for m in model] == [False, True, True, False]
    with pytest.raises(ZeroDivisionError), sampled(model):
        1 / 0  # noqa: B018
    assert [m.training for m in model] == [False, False, False, True]
    with (
        pytest.raises(MisuseError, match="nothing in the model drops"),
        sampled(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0))),
    ):
        pass


@pytest.mark.slow
def test_mean_and_spread_are_those_on_paper():
    """One output of ten units, each 1 or 0: mean 10, variance 10 (1 - keep) / keep, and the same as of a list of all samples."""
    model = nn.Sequential(Dropout(0.8), nn.Linear(10, 1, bias=False, dtype=torch.float64))
    nn.init.ones_(model[1].weight)
    x, samples = torch.ones(1, 10, dtype=torch.float64), 4000
    torch.manual_seed(0)
    mean, spread = monte_carlo(model, lambda: model(x), samples=samples)
    assert float(mean) == pytest.approx(10, abs=5 * math.sqrt(2.5 / samples))
    assert float(spread) == pytest.approx(math.sqrt(2.5), rel=5 / math.sqrt(2 * samples))
    torch.manual_seed(0)
    with sampled(model), torch.no_grad():
        seen = torch.stack([model(x) for _ in range(samples)])
    torch.testing.assert_close(mean, seen.mean(0))
    torch.testing.assert_close(spread, seen.std(0))
    with pytest.raises(MisuseError, match="1 samples"):
        monte_carlo(model, lambda: model(x), samples=1)


@pytest.mark.parametrize("make", [
    lambda: nn.LSTM(4, 4, num_layers=2, dropout=0.5, batch_first=True),
    lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True),
])  # fmt: skip
def test_layers_of_torch_that_drop_by_themselves_are_known(make):
    torch.manual_seed(0)
    model, x = make().eval(), torch.ones(2, 3, 4)
    _, spread = monte_carlo(model, lambda: model(x)[0], samples=10)
    assert (spread > 0).any()
    assert not model.training


def test_layers_of_another_kind_are_named():
    torch.manual_seed(0)
    model, x = LSTM(4, 4, num_layers=2, dropout=0.5).eval(), torch.ones(3, 2, 4)
    _, spread = monte_carlo(model, lambda: model(x)[0], samples=10, also=(LSTM,))
    assert (spread > 0).any()
