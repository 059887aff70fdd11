"""The penalty is the distance to the start, and has its gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import unstuck
from unstuck.errors import MisuseError
from unstuck.warm_start.freezing import freeze
from unstuck.warm_start.toward_start import toward_start


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)).double()


def moved(model: nn.Module) -> dict[str, torch.Tensor]:
    """Moves all, and says from where."""
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return start


def test_value_and_gradient_are_those_of_the_formula():
    model = network()
    penalty = toward_start(model, alpha=0.3, beta=0.05, new="1")
    assert penalty(model).item() == pytest.approx(0.05 / 2 * model[1].weight.square().sum().item())
    start = moved(model)
    value = penalty(model)
    apart = sum((p - start[f"0.{name}"]).square().sum() for name, p in model[0].named_parameters())
    assert value.item() == pytest.approx((0.3 / 2 * apart + 0.05 / 2 * model[1].weight.square().sum()).item())
    value.backward()
    torch.testing.assert_close(model[0].weight.grad, 0.3 * (model[0].weight - start["0.weight"]))
    torch.testing.assert_close(model[1].weight.grad, 0.05 * model[1].weight)
    assert model[1].bias.grad is None


def test_what_is_frozen_takes_no_gradient():
    model = network()
    penalty = toward_start(model)
    freeze(model, "0")
    start = moved(model)
    value = penalty(model)
    assert value.item() == pytest.approx(
        0.05 * sum((p - start[n]).square().sum().item() for n, p in model.named_parameters() if n[0] == "1")
    )
    value.backward()
    assert model[0].weight.grad is None


def test_in_a_training_weights_end_where_pull_and_loss_balance():
    """(w - 3)**2 and (w - 1)**2 / 2 are least together at 7/3; with weight decay of the same strength at 2."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    penalty = toward_start(model, alpha=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = [(torch.ones(1, 1), torch.full((1, 1), 3.0))]
    made = unstuck.Training(model, mse_loss, optimizer, batches, epochs=100, penalty=penalty)
    other = made.copy()
    made.run()
    assert model.weight.item() == pytest.approx(7 / 3, abs=1e-5)
    assert other.model.weight.item() == 1.0
    other.run()  # a copy is drawn to the same start
    assert other.model.weight.item() == pytest.approx(7 / 3, abs=1e-5)


def test_it_holds_for_a_copy_and_for_no_other_model():
    model = network()
    penalty = toward_start(model)
    assert penalty(copy.deepcopy(model)).item() == 0
    with pytest.raises(MisuseError, match=r"2\.weight wasn't in the model"):
        penalty(nn.Sequential(*model, nn.Linear(2, 2)))
    for wrong in ({"alpha": -1.0}, {"beta": float("nan")}, {"new": "head"}):
        with pytest.raises(MisuseError):
            toward_start(model, **wrong)
