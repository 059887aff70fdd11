from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstuck.curvature.density import matrix
from unstuck.curvature.gauss_newton import Fisher, GaussNewton
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Hessian
from unstuck.curvature.spectrum import extremes

OTHERS = ("cnn", "pooled", "transformer", "lstm")
NAMES = ("mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS))


def jacobian(outputs: Tensor, params: list[Tensor]) -> Tensor:
    """Row by row, of flattened outputs."""
    rows = [torch.autograd.grad(o, params, retain_graph=True, allow_unused=True) for o in outputs.reshape(-1)]
    return torch.stack([
        torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(row, params, strict=True)]) for row in rows
    ])  # fmt: skip


def loss(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(outputs, batch[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gauss_newton_is_the_dense_one(name, build):
    objective, module = build(name, dtype=torch.float64)
    found = matrix(GaussNewton(objective, lambda b: module(b[0]), loss))
    truth = torch.zeros_like(found)
    with objective.fixed():
        for weight, (x, y) in zip(objective.weights, objective.batches, strict=True):
            outputs = module(x)
            curved = torch.autograd.functional.hessian(lambda o, y=y: F.cross_entropy(o, y), outputs.detach())
            across = jacobian(outputs, objective.params)
            truth += weight * across.T @ curved.reshape(outputs.numel(), -1) @ across  # pyright: ignore
    assert float((found - truth).norm() / truth.norm()) < 1e-12  # float64
    # no negative eigenvalue but for rounding
    assert float(torch.linalg.eigvalsh(found)[0]) > -1e-12 * float(found.norm())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_fisher_is_the_dense_one(name, build):
    objective, module = build(name, dtype=torch.float64)
    found = matrix(Fisher(objective, lambda b: F.cross_entropy(module(b[0]), b[1], reduction="none")))
    truth = torch.zeros_like(found)
    with objective.fixed():
        for weight, (x, y) in zip(objective.weights, objective.batches, strict=True):
            across = jacobian(F.cross_entropy(module(x), y, reduction="none"), objective.params)
            truth += weight * across.T @ across / len(x)
    assert float((found - truth).norm() / truth.norm()) < 1e-12  # float64


def test_of_a_linear_model_with_squared_error_gauss_newton_is_the_hessian():
    torch.manual_seed(0)
    module = nn.Linear(4, 2).double()
    batches = [(torch.randn(n, 4).double(), torch.randn(n, 2).double()) for n in (3, 8)]
    objective = Objective(lambda b: F.mse_loss(module(b[0]), b[1]), module, batches)
    found = GaussNewton(objective, lambda b: module(b[0]), lambda o, b: F.mse_loss(o, b[1]))
    torch.testing.assert_close(matrix(found), matrix(Hessian(objective)), rtol=1e-12, atol=1e-12)


def test_in_single_precision(build):
    objective, module = build("mlp")
    double, twin = build("mlp", dtype=torch.float64)
    vector = torch.randn(objective.size, generator=torch.Generator().manual_seed(1))
    ours = GaussNewton(objective, lambda b: module(b[0]), loss) @ vector
    truth = GaussNewton(double, lambda b: twin(b[0]), loss) @ vector.double()
    assert ours.dtype == torch.float32 and float((ours - truth).norm() / truth.norm()) < 1e-5  # seven digits


@pytest.mark.slow
def test_they_are_operators(build):
    objective, module = build("mlp")
    for operator in (
        GaussNewton(objective, lambda b: module(b[0]), loss),
        Fisher(objective, lambda b: F.cross_entropy(module(b[0]), b[1], reduction="none")),
    ):
        found = extremes(operator)
        assert found.top.converged and operator.products == found.products
        assert found.top.values[0] == pytest.approx(float(torch.linalg.eigvalsh(matrix(operator))[-1]), rel=0.01)
        assert found.bottom.values[0] > -1e-5  # rounding in float32


def test_dropout_is_the_same_in_every_product_and_nothing_is_changed():
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)), torch.randn(6, 4)
    objective = Objective(lambda b: module(b).square().mean(), module, [x])
    vector, state, versions = torch.ones(objective.size), torch.get_rng_state(), [b._version for b in module.buffers()]
    for operator in (
        GaussNewton(objective, module, lambda o, b: o.square().mean()),
        Fisher(objective, lambda b: module(b).square().mean(1)),
    ):
        assert torch.equal(operator @ vector, operator @ vector)
    assert torch.equal(torch.get_rng_state(), state)
    assert [b._version for b in module.buffers()] == versions


def test_outputs_that_depend_on_nothing_and_losses_that_are_flat():
    w, other = torch.ones(2), torch.ones(3)
    objective = Objective(lambda: w.sum(), [w, other])
    assert not (GaussNewton(objective, lambda _: torch.ones(4), lambda o, _: o.square().mean()) @ torch.ones(5)).any()
    assert not (GaussNewton(objective, lambda _: w * 2, lambda o, _: o.sum()) @ torch.ones(5)).any()
    assert not (Fisher(objective, lambda _: torch.ones(4)) @ torch.ones(5)).any()


def test_frozen_tensors_can_be_asked_for():
    module = nn.Linear(2, 1, bias=False).requires_grad_(False)
    x = torch.tensor([[1.0, 2.0]])
    objective = Objective(lambda b: module(b).square().mean(), list(module.parameters()), [x], modules=[module])
    found = GaussNewton(objective, module, lambda o, _: o.square().mean())
    assert (found @ torch.tensor([1.0, 0.0])).tolist() == [2.0, 4.0]  # 2 x x^T
