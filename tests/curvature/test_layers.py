"""The curvature of layers against blocks of the whole Hessian, which torch computes in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unstuck.curvature.layers import layers
from unstuck.curvature.objective import Objective
from unstuck.errors import MisuseError


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def measured(net, **settings):
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 2, dtype=torch.float64)
    groups = {"first": list(net[0].parameters()), "last": list(net[2].parameters())}

    def objective_of(tensors):
        return Objective(lambda: nn.functional.mse_loss(net(x), y), tensors, modules=[net])

    whole = torch.autograd.functional.hessian(lambda flat: _loss(net, flat, x, y), _flat(net))
    return list(layers(objective_of, groups, **settings)), whole


def _flat(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def _loss(net, flat, x, y):
    parts = flat.split([p.numel() for p in net.parameters()])
    named = {name: part.view_as(p) for (name, p), part in zip(net.named_parameters(), parts, strict=True)}
    return nn.functional.mse_loss(torch.func.functional_call(net, named, x), y)


def test_a_layer_has_the_eigenvalues_of_its_own_block(net):
    """Eigenvalues were asked for to nine digits. The rest of the trace is estimated: its interval four times."""
    found, whole = measured(net, tolerance=1e-9)
    for layer, block in zip(found, (whole[:20, :20], whole[20:, 20:]), strict=True):
        values = torch.linalg.eigvalsh(block)
        assert layer.top == pytest.approx(float(values[-1]), rel=1e-6)
        assert layer.bottom == pytest.approx(float(values[0]), abs=1e-6)
        assert layer.trace == pytest.approx(float(values.sum()), abs=max(1e-6, 4 * layer.trace_error))
    assert [(layer.name, layer.size) for layer in found] == [("first", 20), ("last", 12)]


def test_no_block_is_steeper_than_the_whole(net):
    found, whole = measured(net)
    assert max(layer.top for layer in found) <= float(torch.linalg.eigvalsh(whole)[-1]) * (1 + 1e-9)


def test_it_ends_where_no_products_are_left(net):
    left = iter([40, 11])
    found, _ = measured(net, most=lambda: next(left))
    assert [layer.name for layer in found] == ["first"]


@pytest.mark.parametrize("groups", [{}, {"a": []}])
def test_no_layer_is_misuse(groups):
    with pytest.raises(MisuseError, match="at least one layer"):
        list(layers(lambda tensors: Objective(lambda: tensors[0].sum(), tensors), groups))
