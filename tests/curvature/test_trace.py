from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unstuck.curvature.lanczos import Krylov
from unstuck.curvature.products import Dense, Hessian
from unstuck.curvature.spectrum import extremes
from unstuck.curvature.trace import FEWEST, diagonal, outside, sign_vector, trace
from unstuck.errors import MisuseError


def spiked(size: int = 300) -> Tensor:
    """Eigenvalues of a trained network: a dozen large, a bulk near zero."""
    bulk = 0.02 * torch.randn(size - 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.cat([50 * 0.7 ** torch.arange(12, dtype=torch.float64), bulk])


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_it_is_exact_where_the_run_is_complete(dtype, tolerance, symmetric):
    found = trace(Dense(symmetric(torch.linspace(-3, 5, 40, dtype=torch.float64)).to(dtype)))
    assert (found.error, found.probes, found.products) == (0.0, 0, 40)
    assert found.value == pytest.approx(40.0, rel=tolerance)  # forty sums in that precision


def test_of_a_trained_network_it_takes_few_products(symmetric):
    operator = Dense(symmetric(spiked()))
    found = trace(operator)
    assert found.products == operator.products <= 65 and found.error <= 0.01 * found.value
    assert found.value == pytest.approx(float(spiked().sum()), rel=0.02)  # twice what it says of itself


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["spiked", "flat", "indefinite"])
def test_the_interval_covers(kind, symmetric):
    values = {"spiked": spiked(), "flat": torch.linspace(0.5, 1.5, 300, dtype=torch.float64),
              "indefinite": torch.linspace(-1, 1.2, 300, dtype=torch.float64)}[kind]  # fmt: skip
    operator, truth = Dense(symmetric(values)), float(values.sum())
    found = [trace(operator, seed=seed) for seed in range(60)]
    covered = sum(abs(f.value - truth) <= f.error for f in found)
    # 95% by Student's distribution, less for stopping when the interval happens to be narrow; of 60 fewer than 51 (85%)
    # would be too few
    assert covered >= 51
    assert abs(sum(f.value for f in found) / 60 - truth) < 0.4 * max(f.error for f in found)  # no bias


def test_what_is_known_of_the_probes_is_that_of_the_slow_way(symmetric):
    from unstuck.curvature.trace import _Probes

    matrix = symmetric(spiked(80))
    krylov, generator = Krylov(Dense(matrix)), torch.Generator().manual_seed(0)
    probes = _Probes(krylov, generator)
    probes.draw(3)
    for _ in range(2):
        for _ in range(7):
            krylov.grow()
        projector = torch.eye(80, dtype=torch.float64) - krylov.basis.T @ krylov.basis
        slow = [float(z @ projector @ matrix @ projector @ z) for z in probes._probes]
        assert probes.samples() == pytest.approx(
            slow, rel=1e-8, abs=1e-10
        )  # float64, with cancellation from 100 to 0.1


def test_a_run_that_was_paid_for_is_used(symmetric):
    operator = Dense(symmetric(spiked()))
    krylov = extremes(operator, top=5).krylov
    made = krylov.products
    found = trace(krylov, basis=0.0)
    assert krylov.products == made and found.products == operator.products == made + found.probes
    assert found.error < 0.1 * found.value


@pytest.mark.slow
def test_of_a_network(build, truth):
    for name in ("mlp", "cnn"):
        objective, _ = build(name)
        found = trace(Hessian(objective, way="fresh", check=False), most=60)
        # twice the interval: one in a thousand would lie outside
        assert abs(found.value - float(truth(name).trace())) < 2 * found.error


def test_it_ends_when_it_may_make_no_more(symmetric):
    operator = Dense(symmetric(torch.linspace(-1, 1, 200)))
    assert trace(operator, most=20).products == operator.products == 20
    with pytest.raises(MisuseError, match="at least"):
        trace(operator, most=FEWEST)


def test_of_zero():
    found = trace(Dense(torch.zeros(200, 200)))
    assert (found.value, found.error) == (0.0, 0.0)


def test_the_diagonal_is_exact_where_the_run_is_complete(symmetric):
    matrix = symmetric(torch.linspace(-1, 2, 15))
    found = diagonal(Dense(matrix), basis=15)
    torch.testing.assert_close(found.values, matrix.diag(), rtol=0, atol=1e-12)  # float64
    assert not found.errors.any() and found.products == 15


def test_the_diagonal_lies_within_its_errors(symmetric):
    matrix = symmetric(spiked())
    found = diagonal(Dense(matrix), probes=100, basis=20)
    off = (found.values - matrix.diag()).abs() / found.errors
    assert found.products == 120
    # of normal errors 95% lie within two standard errors; with 100 probes they nearly are
    assert float((off < 2).double().mean()) > 0.9 and float(off.max()) < 6
    assert float((found.values - matrix.diag()).norm() / matrix.diag().norm()) < 0.05


@pytest.mark.slow
def test_the_diagonal_of_a_network(build, truth):
    objective, _ = build("mlp", dtype=torch.float64)
    found = diagonal(Hessian(objective, check=False), basis=objective.size)
    torch.testing.assert_close(found.values, truth("mlp").diag(), rtol=1e-9, atol=1e-12)


def test_one_probe_has_no_spread():
    with pytest.raises(MisuseError, match="two probes"):
        diagonal(Dense(torch.eye(3)), probes=1)


def test_signs_and_what_is_outside():
    krylov = Krylov(Dense(torch.eye(50, dtype=torch.float64) * 2))
    krylov.grow()
    signs = sign_vector(krylov, torch.Generator().manual_seed(0))
    assert set(signs.tolist()) == {-1.0, 1.0} and signs.dtype == torch.float64
    assert float((krylov.basis @ outside(krylov, signs)).abs().max()) < 1e-14
