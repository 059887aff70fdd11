"""L0: gates are drawn as on paper, are settled in evaluation, and close where nothing is learned."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.regularization.l0 import L0, Gates, gate, gates_of, ungate
from unstuck.regularization.penalties import L2, weights
from unstuck.regularization.pruning import sparsity
from unstuck.training import Training

pytestmark = pytest.mark.slow


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("logit", [-2.0, 0.0, 1.5])
def test_gates_are_zero_and_one_as_often_as_on_paper(logit):
    """P(gate <= z) is sigmoid(temperature * logit of z in the stretch - logits); here at 0, at 1, and at a half."""
    draws = 40_000
    gates = Gates(torch.ones(draws, 1), generator=seeded())
    nn.init.constant_(gates.logits, logit)
    drawn = gates.drawn()
    assert ((drawn >= 0) & (drawn <= 1)).all()

    def cumulative(z):
        inside = (z + 0.1) / 1.2
        return 1 / (1 + math.exp(-(2 / 3 * math.log(inside / (1 - inside)) - logit)))

    for z, seen in ((0.0, drawn == 0), (0.5, drawn <= 0.5), (1 - 1e-6, drawn < 1)):
        share = cumulative(z)
        assert float(seen.float().mean()) == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / draws))
    torch.testing.assert_close(gates.opened(), torch.full((draws, 1), 1 - cumulative(0.0)))


def test_the_penalty_is_the_expected_count_and_its_gradient_that_of_the_count():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2))
    gate(model, opened=0.7, generator=seeded())
    expected = L0(1.0)(model).item()
    assert expected == pytest.approx(0.7 * 40, rel=0.01)  # but for the noise of the start
    draws = torch.stack([sum((g.drawn() > 0).sum() for _, g in gates_of(model)) for _ in range(2000)]).float()
    assert float(draws.mean()) == pytest.approx(expected, abs=5 * math.sqrt(40 * 0.21 / 2000))
    L0(2.0)(model).backward()
    for _, gates in gates_of(model):
        p = gates.opened().detach()
        torch.testing.assert_close(gates.logits.grad, 2 * p * (1 - p))


def test_a_gate_may_be_for_a_unit_and_counts_all_its_weights():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 5), nn.ConvTranspose1d(2, 6, 3))
    shapes = {"output": [(3, 1, 1, 1), (5, 1), (1, 6, 1)], "input": [(1, 2, 1, 1), (1, 4), (2, 1, 1)]}
    for by, expected in shapes.items():
        one = copy.deepcopy(model)
        assert [tuple(g.logits.shape) for g in gate(one, by=by)] == expected
        assert L0(1.0)(one).item() == pytest.approx(0.9 * (54 + 20 + 36), rel=0.01)


def test_gates_are_no_weights_and_random_in_training_only():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)), torch.randn(4, 6)
    before = [tuple(w.shape) for w in weights(model)]
    numbers = torch.get_rng_state()
    gate(model, by="output", generator=seeded(1), spare=("2",))
    assert torch.equal(torch.get_rng_state(), numbers)
    assert [tuple(w.shape) for w in weights(model)] == before
    assert L2(1.0)(model).item() > 0
    assert not torch.equal(model[0](x), model[0](x))
    again = copy.deepcopy(model)  # with its generator
    assert torch.equal(again[0](x), model[0](x))
    model.eval()
    assert torch.equal(model(x), model(x))
    settled = (1.2 * torch.sigmoid(model[0].parametrizations.weight[0].logits) - 0.1).clamp(0, 1)
    torch.testing.assert_close(model[0].weight, settled * model[0].parametrizations.weight.original)


def test_weights_that_do_nothing_are_closed_and_the_others_stay():
    """Two of eight inputs count."""
    x = torch.randn(256, 8, generator=seeded())
    y = x[:, :1] - x[:, 1:2]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 1))
    (gates,) = gate(model, opened=0.9, generator=seeded(2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    training = Training(model, nn.functional.mse_loss, optimizer, [(x, y)], epochs=600, penalty=L0(0.02))
    training.run()
    assert sparsity(model).zeros == 6
    assert (gates.settled() > 0).tolist() == [[True, True] + [False] * 6]
    parameter, outputs = model[0].parametrizations.weight.original, model.eval()(x)
    ungate(model)
    assert set(model.state_dict()) == {"0.weight", "0.bias"}
    assert model[0].weight is parameter  # which the optimizer has
    torch.testing.assert_close(model(x), outputs)
    assert sparsity(model).zeros == 6
    assert nn.functional.mse_loss(outputs, y) < 0.05


def test_what_cannot_be():
    with pytest.raises(MisuseError, match="the model has none: put them in by gate"):
        L0(1.0)(nn.Linear(2, 2))
    with pytest.raises(MisuseError, match="no dense or convolutional layers"):
        gate(nn.LSTM(2, 2))
    with pytest.raises(MisuseError, match="probability 1"):
        gate(nn.Linear(2, 2), opened=1)
    model = nn.Linear(2, 2)
    gate(model)
    with pytest.raises(MisuseError, match="gates already"):
        gate(model)
    nn.utils.parametrizations.spectral_norm(model)
    with pytest.raises(MisuseError, match="other parametrizations than gates"):
        ungate(model)
