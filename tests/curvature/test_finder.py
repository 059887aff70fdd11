from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstuck.curvature.critical import critical_point
from unstuck.curvature.finder import find
from unstuck.curvature.objective import Objective
from unstuck.errors import MisuseError

METHODS = ("newton-mr", "gradient-norm", "saddle-free")


def quadratic(values: Tensor) -> tuple[Objective, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = len(values)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    matrix, centre = basis * values.double() @ basis.T, torch.randn(size, generator=generator, dtype=torch.float64)
    x = torch.randn(size, generator=generator, dtype=torch.float64)
    return Objective(lambda: (x - centre) @ matrix @ (x - centre) / 2 + 1, [x]), x, centre


def regression() -> Objective:
    """A small smooth network on data that it can't fit."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(40, 3, dtype=torch.float64)
    y = torch.sin(2 * x[:, :1]) + 0.3 * torch.randn(40, 1, dtype=torch.float64)
    return Objective(lambda b: F.mse_loss(module(b[0]), b[1]), module, [(x[:25], y[:25]), (x[25:], y[25:])])


@pytest.mark.parametrize("method", ["newton-mr", "saddle-free"])
def test_newton_s_steps_solve_a_parabola_at_once(method):
    objective, x, centre = quadratic(torch.linspace(0.5, 5, 12))
    search = find(objective, method=method)
    assert search.ended == "gradient vanishes" and len(search.norms) <= 5
    torch.testing.assert_close(x, centre, rtol=0, atol=1e-6)  # a gradient 1e-8 of the first


@pytest.mark.slow
def test_the_gradient_s_norm_goes_down_to_a_parabola_s_centre():
    objective, x, centre = quadratic(torch.linspace(1, 3, 12))
    search = find(objective, method="gradient-norm", steps=300, tolerance=1e-6)
    assert search.ended == "gradient vanishes" and search.norms[-1] <= 1e-6 * search.norms[0]
    torch.testing.assert_close(x, centre, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["newton-mr", "gradient-norm"])
def test_a_saddle_is_found_by_what_goes_down_the_gradient(method):
    objective, x, centre = quadratic(torch.tensor([-2.0, -1.0, 1.0, 2.0, 3.0]))
    search = find(objective, method=method, steps=300, tolerance=1e-6)
    assert search.ended == "gradient vanishes"
    torch.testing.assert_close(x, centre, rtol=0, atol=1e-4)
    assert critical_point(objective).kind == "saddle"


def test_past_a_saddle_the_loss_goes_down():
    x = torch.tensor([0.01, 0.02], dtype=torch.float64)
    objective = Objective(lambda: (1 - x[0] * x[1]) ** 2 + 0.01 * (x**2).sum(), [x])
    search = find(objective, method="saddle-free")
    assert search.ended == "gradient vanishes" and search.losses[-1] < 0.05 < search.losses[0]
    assert critical_point(objective).kind == "minimum"
    # 1 - s + 0.02 s, with s = x0 x1 at its best 1 - 0.01
    assert float(x[0] * x[1]) == pytest.approx(0.99, abs=1e-6)


@pytest.mark.slow
def test_a_network_is_brought_to_a_critical_point_and_back_to_it():
    objective = regression()
    search = find(objective, method="saddle-free", steps=200, tolerance=1e-6)
    point = critical_point(objective)
    assert search.ended == "gradient vanishes" and point.kind == "minimum", point.says
    generator = torch.Generator().manual_seed(5)
    objective.move(0.01 * torch.randn(objective.size, generator=generator, dtype=torch.float64))
    assert critical_point(objective, negligible=1e-6).kind == "not critical"
    # from near by: from afar it mostly ends where the gradient is all but in the kernel of the Hessian
    search = find(objective, method="newton-mr", steps=100, tolerance=1e-5)
    assert search.ended == "gradient vanishes" and critical_point(objective, negligible=1e-6).kind == "minimum"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_it_ends_with_a_reason_and_tells_its_way(method):
    objective = regression()
    search = find(objective, method=method, steps=3)
    assert search.ended == "out of steps" and len(search.norms) == len(search.losses) == 4
    key = search.losses if method == "saddle-free" else search.norms
    assert all(b < a for a, b in itertools.pairwise(key))  # every step that is taken helps
    slope = objective.gradient()
    assert search.norms[-1] == pytest.approx(float(slope.norm()), rel=1e-9)
    assert search.losses[-1] == pytest.approx(objective.value(), rel=1e-9) and search.products > 0


def test_at_the_goal_it_stays():
    objective, x, centre = quadratic(torch.linspace(0.5, 5, 4))
    x.copy_(centre)
    search = find(objective)
    assert search.ended == "gradient vanishes" and len(search.norms) == 1 and torch.equal(x, centre)


def test_where_no_step_helps_it_says_so():
    x = torch.tensor([1.0], dtype=torch.float64)
    search = find(Objective(lambda: x.sum(), [x]), method="gradient-norm")
    assert search.ended == "no step helps" and x.tolist() == [1.0]  # a plane: the gradient is the same everywhere


def test_there_is_no_such_method(unchecked):
    x = torch.ones(1)
    with pytest.raises(MisuseError, match="no method 'newton'"):
        find(Objective(lambda: x.sum(), [x]), method="newton")  # pyright: ignore
