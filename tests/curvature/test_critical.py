from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstuck.curvature.critical import Escape, Point, critical_point, escape, gradient
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Hessian
from unstuck.errors import MisuseError, NotFiniteError


def drawn(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# ---------------------------------------------------------------------- quadratics of known type

SPECTRA = {
    "minimum": lambda n: torch.linspace(0.1, 10, n),
    "maximum": lambda n: -torch.linspace(0.1, 10, n),
    "saddle": lambda n: torch.linspace(-1, 10, n),
    "barely a saddle": lambda n: torch.cat([torch.tensor([-0.1]), torch.linspace(0.5, 10, n - 1)]),
    "flat valley": lambda n: torch.cat([torch.zeros(n // 2), torch.linspace(0.5, 10, n - n // 2)]),
    "large": lambda n: 1e4 * torch.linspace(0.1, 10, n),
    "small": lambda n: 1e-4 * torch.linspace(0.1, 10, n),
}
TYPES = {"barely a saddle": "saddle", "flat valley": "minimum", "large": "minimum", "small": "minimum"}


def quadratic(spectrum: str, dtype: torch.dtype, seed: int, offset: float, floor: float) -> Objective:
    """A parabola about a random point, some way off its centre."""
    size = 20 + 10 * (seed % 4)
    values = SPECTRA[spectrum](size).double()
    basis, _ = torch.linalg.qr(drawn(size, size, seed=seed, dtype=torch.float64))
    matrix = (basis * values @ basis.T).to(dtype)
    centre = drawn(size, seed=seed + 1, dtype=dtype)
    x = centre + (offset * F.normalize(drawn(size, seed=seed + 2, dtype=dtype), dim=0) if offset else 0)
    return Objective(lambda: (x - centre) @ matrix @ (x - centre) / 2 + floor, [x])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_quadratics_at_their_centre(spectrum, dtype):
    for seed in range(3):
        for floor in (0.0, 1.0):
            point = critical_point(quadratic(spectrum, dtype, seed, 0.0, floor))
            assert point.kind == TYPES.get(spectrum, spectrum), point.says


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_quadratics_off_their_centre(spectrum, dtype):
    for seed, offset in enumerate((0.01, 0.1, 1.0)):
        point = critical_point(quadratic(spectrum, dtype, seed, offset, 0.0))
        assert point.kind == "not critical", point.says


def test_how_far_off_is_off_depends_on_what_the_loss_would_gain():
    # 0.01 off a minimum of height 1 with curvature up to 10: at most 5e-4 to gain; of height 100, 5e-6 of it
    assert critical_point(quadratic("minimum", torch.float64, 0, 0.02, 1.0)).kind == "not critical"
    assert critical_point(quadratic("minimum", torch.float64, 0, 0.02, 100.0)).kind == "minimum"
    near = quadratic("minimum", torch.float64, 0, 0.02, 100.0)
    assert critical_point(near, negligible=1e-9).kind == "not critical"


def test_one_of_each_kind():
    for spectrum in ("minimum", "maximum", "saddle"):
        assert critical_point(quadratic(spectrum, torch.float32, 0, 0.0, 0.0)).kind == spectrum
    assert critical_point(quadratic("minimum", torch.float32, 0, 0.1, 0.0)).kind == "not critical"


# ---------------------------------------------------------------------- small networks

ACTIVATIONS = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}


def network(activation: str, seed: int, dtype: torch.dtype = torch.float32, outputs: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), ACTIVATIONS[activation](), nn.Linear(6, outputs)).to(dtype)


def teacher(activation: str, seed: int, dtype: torch.dtype, sizes: tuple[int, ...], off: float = 0.0) -> Objective:
    """A network whose targets are its own outputs: a minimum of height zero."""
    module = network(activation, seed, dtype)
    batches = [drawn(n, 4, seed=seed + i, dtype=dtype) for i, n in enumerate(sizes)]
    with torch.no_grad():
        targets = {id(b): module(b) for b in batches}
        for i, param in enumerate(module.parameters()):
            param.add_(off * drawn(*param.shape, seed=seed + 100 + i, dtype=dtype))
    return Objective(lambda b: F.mse_loss(module(b), targets[id(b)]), module, batches)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(32,), (20, 11, 1)])
def test_a_teacher_is_at_its_minimum(activation, dtype, sizes):
    for seed in range(2):
        point = critical_point(teacher(activation, seed, dtype, sizes))
        assert point.kind == "minimum" and point.is_critical, point.says


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("off", [0.01, 0.1, 1.0])
def test_near_a_teacher_is_not_critical(activation, off):
    for seed in range(3):
        point = critical_point(teacher(activation, seed, torch.float32, (20, 12), off))
        assert point.kind == "not critical", point.says


def classification(activation: str, seed: int, sizes=(40, 24), dtype=torch.float32) -> tuple[Objective, nn.Module]:
    module = network(activation, seed, dtype, outputs=3)
    batches = []
    for i, size in enumerate(sizes):
        x = drawn(size, 4, seed=50 * seed + i, dtype=dtype)
        batches.append((x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()))
    return Objective(lambda b: F.cross_entropy(module(b[0]), b[1]), module, batches), module


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("steps", [0, 20, 100])
def test_on_the_way_is_not_critical(activation, steps):
    for seed in range(2):
        objective, module = classification(activation, seed)
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        for _ in range(steps):
            for x, y in objective.batches:
                optimizer.zero_grad()
                F.cross_entropy(module(x), y).backward()
                optimizer.step()
        point = critical_point(objective)
        assert point.kind == "not critical" and not point.is_critical, point.says


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_zeros_are_a_saddle(activation, dtype):
    """All weights zero, and targets of mean zero: no slope, and a product of two layers that can go up or down."""
    module = network(activation, 0, dtype, outputs=1)
    x = drawn(60, 4, seed=1, dtype=dtype)
    y = x @ drawn(4, 1, seed=2, dtype=dtype)
    y = y - y.mean()
    with torch.no_grad():
        for param in module.parameters():
            param.zero_()
    point = critical_point(Objective(lambda b: F.mse_loss(module(b), y), module, [x]))
    assert point.kind == "saddle", point.says
    assert "below zero beyond its error" in point.says


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_of_two_weights_is_a_saddle(dtype):
    """y = w1 w2 x: at zero the Hessian is -2 E[xy] times an exchange of the two."""
    w1, w2 = torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    x = drawn(30, seed=0, dtype=dtype)
    point = critical_point(Objective(lambda: F.mse_loss(w1 * w2 * x, 3 * x), [w1, w2]))
    curvature = 6 * float((x**2).mean())
    assert point.kind == "saddle"
    assert point.top.values[0] == pytest.approx(curvature, rel=1e-5)
    assert point.bottom.values[0] == pytest.approx(-curvature, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dead_units_are_flat(dtype):
    module = network("relu", 0, dtype)
    with torch.no_grad():
        module[0].bias.fill_(-100)
        module[2].requires_grad_(False)
    x = drawn(20, 4, seed=1, dtype=dtype)
    point = critical_point(Objective(lambda b: module(b).square().mean() + 1, module, [x]))
    assert point.kind == "flat" and point.gradient.norm == 0, point.says


def test_dead_units_below_a_fitted_bias_are_a_minimum():
    """All hidden units dead, the last bias at the mean: a minimum in the biases, flat in all else."""
    module = network("relu", 0, torch.float64, outputs=1)
    x, y = drawn(20, 4, seed=1, dtype=torch.float64), drawn(20, 1, seed=2, dtype=torch.float64)
    with torch.no_grad():
        module[0].bias.fill_(-100)
        module[2].bias.fill_(float(y.mean()))
    assert critical_point(Objective(lambda b: F.mse_loss(module(b), y), module, [x])).kind == "minimum"


@pytest.mark.parametrize("sign, kind", [(1, "minimum"), (-1, "maximum")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_logistic_regression_at_its_minimum(sign, kind, dtype):
    for seed in range(2):
        x = drawn(80, 3, seed=seed, dtype=torch.float64)
        y = ((x[:, 0] + drawn(80, seed=seed + 9, dtype=torch.float64)) > 0).double()
        w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        for _ in range(30):  # Newton's method, to rounding
            loss = F.binary_cross_entropy_with_logits(x @ w, y)
            (slope,) = torch.autograd.grad(loss, w)
            share = torch.sigmoid(x @ w.detach())
            w = (w.detach() - torch.linalg.solve(x.T * (share * (1 - share)) @ x / 80, slope)).requires_grad_(True)
        at, data, labels = w.detach().to(dtype), x.to(dtype), y.to(dtype)

        def loss_at(at=at, data=data, labels=labels) -> Tensor:
            return sign * F.binary_cross_entropy_with_logits(data @ at, labels)

        point = critical_point(Objective(loss_at, [at]))
        assert point.kind == kind, point.says


def test_a_slope_in_the_kernel_of_the_hessian_is_gradient_flat():
    for dtype in (torch.float32, torch.float64):
        for slope in (0.01, 1.0):
            x = drawn(6, seed=0, dtype=dtype) * 1e-3
            x[0] = 0

            def loss(x=x, slope=slope) -> Tensor:
                return slope * x[0] + (x[1:] ** 2).sum() * 1e-3

            point = critical_point(Objective(loss, [x]))
            assert point.kind == "gradient-flat" and not point.is_critical, point.says


def test_a_plane_is_gradient_flat_and_a_plateau_is_flat():
    x = torch.ones(3)
    assert critical_point(Objective(lambda: x.sum(), [x])).kind == "gradient-flat"
    assert critical_point(Objective(lambda: 0 * x.sum() + 2, [x])).kind == "flat"
    assert critical_point(Objective(lambda: torch.tensor(2.0), [x])).kind == "flat"


# ---------------------------------------------------------------------- its parts


def test_the_noise_of_a_gradient_is_the_standard_error_of_its_mean():
    w = torch.zeros(5, dtype=torch.float64)
    batches = [drawn(10, 5, seed=i, dtype=torch.float64) + 1 for i in range(400)]
    found = gradient(Objective(lambda b: (b * w).sum() / len(b), [w], batches))
    # gradients are means of ten normal vectors of five numbers: the mean of 400 has variance 5 / 4000
    assert found.noise == pytest.approx(math.sqrt(5 / 4000), rel=0.1)
    assert found.norm == pytest.approx(math.sqrt(5), rel=0.05) and not found.vanishes(sampled=True)
    assert math.isnan(gradient(Objective(lambda b: (b * w).sum(), [w], batches[:1])).noise)


@pytest.mark.slow
def test_the_noise_holds_for_unequal_batches():
    w, sizes = torch.zeros(5, dtype=torch.float64), [5, 20, 1, 50, 24]
    noises, norms = [], []
    for seed in range(200):
        batches = [drawn(n, 5, seed=1000 * seed + i, dtype=torch.float64) for i, n in enumerate(sizes)]
        found = gradient(Objective(lambda b: (b * w).sum() / len(b), [w], batches))
        noises.append(found.noise**2), norms.append(found.norm**2)
    # no slope in truth: the squared length is the squared noise in the mean; each of 200 scatters by a half. Weights make the
    # estimate too large by a quarter here, since small batches scatter more.
    assert 0.8 < sum(norms) / sum(noises) < 1.1


def test_of_a_sample_a_slope_within_its_noise_vanishes():
    w = torch.zeros(5, dtype=torch.float64)
    batches = [drawn(10, 5, seed=i, dtype=torch.float64) for i in range(8)]
    objective = Objective(lambda b: ((b - w) ** 2).sum() / len(b), [w], batches)
    assert critical_point(objective).kind == "not critical"  # of these 80 samples it could be less
    assert critical_point(objective, sampled=True).kind == "minimum"  # of all of them zero is the best


@pytest.mark.slow
def test_counts_come_on_demand(build, truth):
    objective, _ = build("mlp")
    values = torch.linalg.eigvalsh(truth("mlp"))
    assert critical_point(objective).counts is None
    found = critical_point(objective, count=True).counts
    assert found is not None and found.error == 0
    assert found.negative == pytest.approx(float((values < -1e-3 * values.abs().max()).double().mean()), abs=0.02)


def test_products_are_counted_and_nothing_moves(build):
    objective, module = build("mlp")
    hessian, before = Hessian(objective), [p.detach().clone() for p in module.parameters()]
    made = hessian.products
    point = critical_point(objective, hessian=hessian)
    assert point.products == hessian.products - made > 0
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
    assert point.stated == "modules in the modes they had"


def test_all_verdicts_can_be_said():
    x = torch.zeros(2)
    point = critical_point(Objective(lambda: (x**2).sum(), [x]))
    for kind in ("minimum", "saddle", "maximum", "flat", "gradient-flat", "not critical"):
        said = Point(kind, *[getattr(point, f) for f in list(Point.__dataclass_fields__)[1:]]).says  # pyright: ignore
        assert (
            said.startswith({"minimum": "a ", "saddle": "a ", "maximum": "a "}.get(kind, "")) and "eigenvalues" in said
        )


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(number):
    x = torch.ones(2)
    with pytest.raises(NotFiniteError):
        critical_point(Objective(lambda: x.sum() * number, [x]))
    zero = torch.zeros(2)
    with pytest.raises(NotFiniteError):
        critical_point(Objective(lambda: zero.sqrt().sum(), [zero]))  # the loss is 0, its slope infinite


# ---------------------------------------------------------------------- the way out


def escaped(loss: Callable[[], Tensor], x: Tensor) -> tuple[Escape, Objective]:
    objective = Objective(loss, [x])
    return escape(objective, critical_point(objective)), objective


def test_out_of_a_saddle_the_loss_falls():
    x = torch.zeros(2, dtype=torch.float64)
    out, objective = escaped(lambda: (1 - x[0] * x[1]) ** 2, x)
    # along (1, 1) the loss is (1 - s^2/2)^2: steps are doubled from 1e-6, so that the best is within a factor 2 of sqrt 2
    assert out.taken and out.before == 1 and out.after == objective.value() < 0.3
    assert out.gain == pytest.approx(1 - out.after) and out.eigenvalue == pytest.approx(-2, rel=1e-6)
    assert abs(out.length) == pytest.approx(float(x.norm()), rel=1e-9)
    assert out.predicted == pytest.approx(out.length**2, rel=1e-6)
    assert float(out.direction.norm()) == pytest.approx(1, rel=1e-9)


def test_it_takes_the_side_that_falls_further():
    x = torch.zeros(2, dtype=torch.float64)
    out, _ = escaped(lambda: x[1] ** 2 - x[0] ** 2 + 0.2 * x[0] ** 3 + 0.1 * x[0] ** 4, x)
    assert out.taken and float(x[0]) < 0  # the cubic helps on the left


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_out_of_zeros_a_network_gets_going(activation):
    module = network(activation, 0, outputs=1)
    x = drawn(60, 4, seed=1)
    y = x @ drawn(4, 1, seed=2)
    y = y - y.mean()
    with torch.no_grad():
        for param in module.parameters():
            param.zero_()
    objective = Objective(lambda b: F.mse_loss(module(b), y), module, [x])
    out = escape(objective, critical_point(objective))
    assert out.taken and out.after < 0.8 * out.before and objective.value() == out.after


def test_where_the_loss_falls_nowhere_all_is_as_it_was():
    x = torch.tensor([0.5, 0.25])
    fallen = Objective(lambda: x[1] ** 2 - x[0] ** 2, [x])
    point = critical_point(fallen)
    wall = Objective(lambda: x.abs().sum() * 0 + ((x - torch.tensor([0.5, 0.25])) ** 2).sum(), [x])
    out = escape(wall, point)
    assert not out.taken and out.length == 0 and out.gain == 0
    assert x.tolist() == [0.5, 0.25]


def test_it_puts_things_back_after_an_error():
    x = torch.zeros(2)
    point = critical_point(Objective(lambda: x[1] ** 2 - x[0] ** 2, [x]))

    def loss() -> Tensor:
        if x.any():
            raise RuntimeError("no such place")
        return (x**2).sum()

    with pytest.raises(RuntimeError, match="no such place"):
        escape(Objective(loss, [x]), point)
    assert x.tolist() == [0.0, 0.0]


def test_at_a_minimum_there_is_no_way_out():
    x = torch.zeros(2)
    with pytest.raises(MisuseError, match="no curvature is negative"):
        escaped(lambda: (x**2).sum(), x)
