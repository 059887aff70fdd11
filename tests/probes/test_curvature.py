from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.errors import MisuseError
from unstuck.probes.bench import Clock
from unstuck.probes.curvature import Ground, curvature


def quadratic(hessian, w, *, dtype=torch.float64, slope=0.0):
    """A loss with this Hessian everywhere."""
    optimizer = torch.optim.SGD([w], 1e-3)

    def script():
        optimizer.zero_grad()
        (0.5 * w @ hessian @ w + slope * w.sum()).backward()
        optimizer.step()

    return script


def symmetric(values, seed=0):
    """A symmetric matrix with these eigenvalues."""
    random = torch.randn(len(values), len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    basis, _ = torch.linalg.qr(random)
    return basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T


@pytest.mark.slow
@pytest.mark.parametrize("values", [[5.0, 1.0, 0.5, 0.1], [3.0, 1.0, 0.0, -2.0], [-1.0, -2.0, -3.0], [7.0]])
def test_extremes_of_a_small_hessian_are_exact(bench_of, values):
    """With as many products as directions, Lanczos is a change of basis: only rounding is left."""
    w = torch.ones(len(values), dtype=torch.float64, requires_grad=True)
    found = curvature(bench_of(quadratic(symmetric(values), w)), Clock(5))
    assert found["top"] == pytest.approx(max(values), abs=1e-9)
    assert found["bottom"] == pytest.approx(min(values), abs=1e-9)
    assert found["top_error"] < 1e-6 and found["bottom_error"] < 1e-6
    assert found["iterations"] <= len(values)


def test_extremes_of_a_large_hessian_lie_within_their_errors(bench_of):
    """200 eigenvalues between 0 and 1, and two outside. A residual bounds the distance to some eigenvalue; half a percent was asked for."""
    values = [10.0, -4.0, *torch.linspace(0, 1, 198).tolist()]
    w = torch.ones(200, dtype=torch.float64, requires_grad=True)
    found = curvature(bench_of(quadratic(symmetric(values), w)), Clock(5))
    assert abs(found["top"] - 10) <= found["top_error"] + 1e-9 < 0.05
    assert abs(found["bottom"] + 4) <= found["bottom_error"] + 1e-9 < 0.02
    assert 6 <= found["iterations"] <= 60
    assert found["converged"]


def test_a_saddle_has_a_negative_eigenvalue_and_no_gradient(bench_of):
    """x**2 - y**2 at its saddle."""
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    found = curvature(bench_of(quadratic(torch.diag(torch.tensor([2.0, -2.0], dtype=torch.float64)), w)), Clock(5))
    assert (found["top"], found["bottom"]) == (pytest.approx(2), pytest.approx(-2))
    assert found["gradient"] == 0


def test_the_gradient_is_that_of_the_mean_loss(bench_of):
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    bench = bench_of(quadratic(torch.eye(4, dtype=torch.float64), w, slope=3.0))
    found = curvature(bench, Clock(5))
    at = w.detach()
    assert found["gradient"] == pytest.approx(float((at + 3.0).norm()))
    assert found["loss"] == pytest.approx(float(0.5 * at @ at + 3 * at.sum()))


@pytest.mark.slow
def test_a_network_against_the_whole_hessian(bench_of):
    """The oracle is `torch.autograd.functional.hessian` over all weights of the mean loss."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    batches = [(x, (x[:, 0] > 0).long()) for x in torch.randn(3, 10, 2, dtype=torch.float64)]

    def script():
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    found = curvature(bench_of(script), Clock(5))
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(flat):
        parts = [v.view(s) for v, s in zip(flat.split(sizes), shapes, strict=True)]
        outs = [torch.func.functional_call(model, dict(zip(names, parts, strict=True)), x) for x, _ in batches]
        return sum(F.cross_entropy(out, y) for out, (_, y) in zip(outs, batches, strict=True)) / 3

    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))
    assert found["top"] == pytest.approx(float(values[-1]), rel=1e-6)
    assert found["bottom"] == pytest.approx(float(values[0]), abs=1e-6)


def test_a_loss_that_is_linear_is_flat(bench_of):
    w = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], 0.1)

    def script():
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    found = curvature(bench_of(script), Clock(5))
    assert (found["top"], found["bottom"]) == (0, 0)
    assert found["gradient"] == pytest.approx(math.sqrt(3))


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("derivative for this is not implemented")


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return Doubled.apply(ctx.saved_tensors[0]) * grad


class Square(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))

    def forward(self):
        return Once.apply(self.w).sum()


def test_what_cannot_be_differentiated_twice_is_measured_by_differences(bench_of):
    """The Hessian of the sum of squares is 2 in every direction; finite differences in float32 know it to a part in a thousand."""
    model = Square()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def script():
        model().backward()
        optimizer.step()

    found = curvature(bench_of(script), Clock(5))
    assert found["way"] == "difference"
    assert "not implemented" in found["passed_over"]["reused"]
    assert found["top"] == pytest.approx(2, rel=1e-3)


def test_time_ends_it_after_six_products(bench_of):
    w = torch.ones(50, dtype=torch.float64, requires_grad=True)
    bench = bench_of(quadratic(symmetric(torch.linspace(-1, 1, 50).tolist()), w))
    found = curvature(bench, Clock(0))
    assert found["iterations"] == 6
    assert "kind" not in found and "stable_rate" not in found


@pytest.mark.parametrize(
    ("values", "kind"),
    [([3.0, 1.0, 0.5], "minimum"), ([3.0, 1.0, -2.0], "saddle"), ([-1.0, -2.0, -3.0], "maximum")],
)
def test_the_kind_of_point_and_its_proof(bench_of, values, kind):
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    found = curvature(bench_of(quadratic(symmetric(values), w)), Clock(5))
    assert found["kind"] == kind
    assert kind in found["says"]
    assert found["typical"] == pytest.approx(sum(map(abs, values)) / 3)


def test_on_a_slope_there_is_no_critical_point(bench_of):
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    found = curvature(bench_of(quadratic(symmetric([3.0, 2.0, 1.0]), w)), Clock(5))
    assert found["kind"] == "not critical"
    at = w.detach()  # the whole of a parabola's loss goes on the way to its minimum
    assert found["gain"] == pytest.approx(found["loss"], rel=1e-6)
    assert found["loss"] == pytest.approx(float(0.5 * at @ symmetric([3.0, 2.0, 1.0]) @ at))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "bound"), [({}, 2.0), ({"momentum": 0.9}, 3.8), ({"momentum": 0.5, "nesterov": True}, 1.5)]
)
def test_the_rate_it_bears_is_that_of_the_scripts_own_optimizer(bench_of, settings, bound):
    """In closed form: the bound over the largest eigenvalue, which is 4."""
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], 0.1, **settings)
    hessian = symmetric([4.0, 1.0, 0.5])

    def script():
        optimizer.zero_grad()
        (0.5 * w @ hessian @ w).backward()
        optimizer.step()

    found = curvature(bench_of(script), Clock(5))
    assert found["stable_rate"] == pytest.approx(bound / 4)
    assert found["rate"] == pytest.approx(0.1)
    assert found["edge"] == pytest.approx(0.1 * 4 / bound)


def test_a_network_too_large_for_the_vectors_is_left_out(bench_of, monkeypatch):
    w = torch.ones(50, dtype=torch.float64, requires_grad=True)
    bench = bench_of(quadratic(symmetric(torch.linspace(-1, 1, 50).tolist()), w))
    monkeypatch.setattr("unstuck.probes.curvature.MEMORY", 11 * 50 * 8)
    assert curvature(bench, Clock(5)) is None
    with pytest.raises(MisuseError, match="50 numbers to learn, and 12 vectors of that size"):
        Ground(bench, bench.batches, Clock(5))
