"""Clipping of weights and of gradients by unit: what is beyond a limit is brought to it, all else stays to the last bit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.regularization.clipping import AdaptiveClipping, ClipValues, MaxNorm
from unstuck.training import Training


def model_of(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 3, 2), nn.Flatten(),
        nn.Linear(75, 5), nn.Linear(5, 2, dtype=torch.float64),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, dtype=parameter.dtype))
    return model


def test_values_beyond_the_limit_are_brought_to_it():
    model = model_of()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ClipValues(0.5, spare=("4",)).apply(model)
    for name, parameter in model.named_parameters():
        clipped = name in ("0.weight", "2.weight", "5.weight")
        assert torch.equal(parameter, before[name].clamp(-0.5, 0.5) if clipped else before[name])


@pytest.mark.parametrize("by", ["output", "input"])
def test_the_norm_of_each_unit_is_held_as_torchs_renorm_has_it(by):
    model = model_of(0.3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    MaxNorm(1.2, by=by).apply(model)
    touched = 0
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(parameter, before[name])
            continue
        axis = (name == "2.weight") ^ (by == "input")
        # renorm divides by the norm plus 1e-7, we by the norm
        torch.testing.assert_close(parameter.detach(), before[name].renorm(2, int(axis), 1.2), rtol=2e-6, atol=0)
        within = before[name].movedim(int(axis), 0).flatten(1).norm(dim=1) <= 1.2
        kept, was = (t.movedim(int(axis), 0)[within] for t in (parameter, before[name]))
        assert torch.equal(kept, was)
        touched += int((~within).sum())
    assert 3 <= touched < 80


def test_units_that_are_zero_stay_zero():
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    MaxNorm(1.0).apply(layer)
    assert torch.equal(layer.weight, torch.zeros(2, 3))


# ---------------------------------------------------------------------- gradients


def by_hand(weight, gradient, axis, share, least):
    """Equation 3 of Brock et al. 2021, unit by unit."""
    found = gradient.clone()
    units = range(weight.shape[axis]) if axis is not None else [slice(None)]
    for unit in units:
        place = (slice(None),) * (axis or 0) + (unit,)
        g, w = float(gradient[place].norm()), max(float(weight[place].norm()), least)
        if g > share * w:
            found[place] *= share * w / g
    return found


def test_gradients_are_clipped_by_unit_as_on_paper():
    model = model_of(0.3)
    gradients = {}
    for name, parameter in model.named_parameters():
        parameter.grad = 0.1 * torch.randn(parameter.shape, dtype=parameter.dtype)
        gradients[name] = parameter.grad.clone()
    with torch.no_grad():
        model[0].weight[1] = 0  # counts as the least
    AdaptiveClipping(0.3, least=0.01, spare=("5",)).apply(model)
    same = 0
    for name, parameter in model.named_parameters():
        axis = None if parameter.dim() == 1 else int(name == "2.weight")
        weight = parameter.detach()
        expected = gradients[name] if name.startswith("5") else by_hand(weight, gradients[name], axis, 0.3, 0.01)
        torch.testing.assert_close(parameter.grad, expected)
        same += torch.equal(parameter.grad, gradients[name])
    assert 2 <= same < 8
    assert float(model[0].weight.grad[1].norm()) == pytest.approx(0.3 * 0.01, rel=1e-5)


def test_parameters_without_gradient_are_left_out():
    model = model_of()
    AdaptiveClipping().apply(model)
    assert all(p.grad is None for p in model.parameters())
    scale = nn.Parameter(torch.tensor(2.0))
    scale.grad = torch.tensor(5.0)
    AdaptiveClipping(0.1).apply(nn.ParameterList([scale]))
    assert scale.grad.item() == pytest.approx(0.2)


def trained(*, on_gradients=(), on_step=()):
    """Weights before and after five steps with a rate that is far too high."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    batches = [(10 * torch.randn(8, 3), 10 * torch.randn(8, 2))] * 5
    training = Training(model, nn.functional.mse_loss, torch.optim.SGD(model.parameters(), lr=1.0), batches)
    before = model.weight.detach().clone()
    training.on_gradients.extend(on_gradients)
    training.on_step.extend(on_step)
    training.run()
    return before, model.weight.detach()


def test_they_are_hooks_of_a_training():
    before, after = trained(on_step=[ClipValues(0.6), MaxNorm(0.7)])
    assert after.abs().max() <= 0.6
    assert (after.norm(dim=1) <= 0.7 * (1 + 1e-6)).all()
    before, after = trained(on_gradients=[AdaptiveClipping(0.01)])
    most = (1.01**5 - 1) * before.norm(dim=1)  # a hundredth of the unit at each step, which may grow by as much
    moved = (after - before).norm(dim=1)
    assert ((moved > 0) & (moved <= most)).all()
    before, after = trained()
    assert (after - before).norm() > 1e3


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_what_is_no_limit(value):
    for make in (ClipValues, MaxNorm, AdaptiveClipping):
        with pytest.raises(MisuseError, match="must be above 0"):
            make(value)


def test_paths_and_units_that_are_not_there():
    with pytest.raises(MisuseError, match="'9' is to be spared"):
        AdaptiveClipping(spare=("9",)).apply(model_of())
    with pytest.raises(MisuseError, match="'9' is to be spared"):
        ClipValues(1.0, spare=("9",)).apply(model_of())
    with pytest.raises(MisuseError, match="a unit by 'row'"):
        MaxNorm(1.0, by="row")
