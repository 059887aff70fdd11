from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstuck.curvature.density import Density, counted, counts, density, eigenvalues, matrix
from unstuck.curvature.lanczos import Krylov
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Dense, Hessian
from unstuck.errors import MisuseError


def mixed(size: int = 300) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    bulk = torch.randn(size - 10, generator=generator, dtype=torch.float64)
    return torch.cat([0.02 * bulk, torch.linspace(1, 10, 10, dtype=torch.float64)])


@pytest.mark.parametrize("name", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_the_whole_matrix_and_all_eigenvalues(name, build, truth):
    objective, _ = build(name, dtype=torch.float64)
    operator = Hessian(objective, way="fresh", check=False)
    torch.testing.assert_close(matrix(operator), truth(name), rtol=1e-9, atol=1e-12)  # float64
    torch.testing.assert_close(eigenvalues(operator), torch.linalg.eigvalsh(truth(name)), rtol=1e-9, atol=1e-12)
    assert operator.products == 2 * objective.size


def test_with_as_many_products_as_eigenvalues_it_is_exact(symmetric):
    values = torch.linspace(-1, 2, 12, dtype=torch.float64)
    found = density(Dense(symmetric(values)), probes=1, steps=12)
    np.testing.assert_allclose(found.points[0], values.numpy(), atol=1e-9)  # float64
    assert found.weights[0].sum() == pytest.approx(1, abs=1e-12) and found.size == 12 and found.products == 12


def test_moments_are_those_of_the_spectrum(symmetric):
    values = mixed()
    found = density(Dense(symmetric(values)), probes=40, steps=10)
    for power in (1, 2, 3):
        ours = [float(w @ p**power) for p, w in zip(found.points, found.weights, strict=True)]
        truth = float((values**power).mean())
        # exact for each vector up to power 19; the vectors scatter: four standard errors of their mean
        assert abs(np.mean(ours) - truth) < 4 * np.std(ours) / math.sqrt(40)


def test_the_share_below_lies_within_its_error(symmetric):
    values = mixed()
    found = density(Dense(symmetric(values)), probes=10, steps=40)
    for value in (-0.05, -0.02, -0.005, 0.0, 0.005, 0.02, 0.05, 0.5, 5.5, 20.0, -1.0):
        share, error = found.below(value)
        assert abs(share - float((values < value).double().mean())) <= error
    assert found.below(20.0)[0] == pytest.approx(1) and found.below(-1.0)[0] == 0


def test_the_curve_has_area_one_and_lies_where_the_eigenvalues_are(symmetric):
    found = density(Dense(symmetric(mixed())), probes=3, steps=30)
    grid, height = found.curve(num=4000)
    assert np.trapezoid(height, grid) == pytest.approx(1, abs=0.01)  # the ends of the bells are cut at five deviations
    assert 9 < found.high < 10.001 and -0.1 < found.low < 0
    flat, bell = Density([np.array([2.0])], [np.array([1.0])], 1, 1).curve()
    assert flat[0] < 2 < flat[-1] and np.isfinite(bell).all()


def test_a_run_that_was_made_counts_as_the_first(symmetric):
    operator = Dense(symmetric(mixed()))
    krylov = Krylov(operator)
    for _ in range(20):
        krylov.grow()
    krylov.explore(5)
    found = density(operator, probes=2, steps=20, krylov=krylov)
    assert operator.products == 25 + 20 and found.products == 20
    assert len(found.points[0]) == 20  # what came from other vectors isn't of this one


def test_counts_of_known_eigenvalues():
    found = counted(torch.tensor([-4.0, -0.003, 0.0, 0.003, 1.0, 2.0, 3.0, 3.5]))
    assert (found.positive, found.zero, found.negative, found.error) == (0.5, 0.375, 0.125, 0.0)
    assert found.minimum_ratio == 0.875 and found.size == 8


def test_small_matrices_are_counted_whole(symmetric):
    found = counts(Dense(symmetric(mixed())))
    values = mixed()
    assert found.error == 0 and found.positive == float((values > 0.01).double().mean())


def test_of_zero_all_vanish():
    found = counts(Dense(torch.zeros(20, 20)))
    assert (found.positive, found.zero, found.negative) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("arguments", [{"probes": 0}, {"steps": 0}])
def test_without_a_vector_there_is_nothing(arguments):
    with pytest.raises(MisuseError):
        density(Dense(torch.eye(3)), **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("steps", [0, 100, 600])
def test_shares_of_a_network_are_near_or_their_error_covers(activation, steps):
    torch.manual_seed(0)
    x = torch.randn(300, 64, dtype=torch.float64)
    y = (x[:, :10] + 0.3 * torch.randn(300, 10, dtype=torch.float64)).argmax(1)
    module = nn.Sequential(nn.Linear(64, 17), activation(), nn.Linear(17, 10)).double()
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    operator = Hessian(Objective(lambda b: F.cross_entropy(module(b), y), module, [x]), check=False)
    dense = counts(operator)  # 1,285 parameters: all of them
    found = counts(operator, dense=0)
    for ours, truth in ((found.positive, dense.positive), (found.zero, dense.zero), (found.negative, dense.negative)):
        assert abs(ours - truth) <= max(0.02, 2 * found.error)  # the middle share has the errors of two ends
    assert abs(found.negative - dense.negative) <= max(0.02, found.error)
    assert found.error < 0.4  # where a third of all eigenvalues vanish, one point of the quadrature holds them all
