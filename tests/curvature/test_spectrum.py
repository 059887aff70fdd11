from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unstuck.curvature.lanczos import Krylov
from unstuck.curvature.products import Dense, Hessian
from unstuck.curvature.spectrum import Extremes, extremes
from unstuck.errors import MisuseError, NotFiniteError


def normal(count: int, seed: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(seed: int) -> Tensor:
    """Eigenvalues of one of fifty problems, of ten kinds in five sizes."""
    size = (40, 100, 200, 300, 400)[seed // 10]
    bulk = 0.02 * normal(size, seed)
    spikes = 50 * 0.7 ** torch.arange(12, dtype=torch.float64)
    match seed % 10:
        case 0:  # an untrained network: spikes, both signs
            return torch.cat([spikes, -spikes[4:] / 4, bulk])[:size]
        case 1:  # a trained one: spikes, a bulk at zero, hardly anything below
            return torch.cat([spikes, bulk.abs(), torch.tensor([-1e-3, -3e-4])])[-size:].sort(descending=True).values
        case 2:  # as many equal ones as classes
            return torch.cat([torch.full((9,), 10.0).double(), bulk])[:size]
        case 3:  # pairs that are nearly equal
            return torch.cat([spikes, spikes * 0.997, bulk])[:size]
        case 4:  # no gap anywhere
            return torch.linspace(-1, 1, size, dtype=torch.float64)
        case 5:  # a semicircle with one outlier
            return torch.cat([torch.tensor([3.0]).double(), normal(size - 1, seed).clamp(-2, 2)])
        case 6:  # low rank
            return torch.cat([spikes[:5], torch.zeros(size - 5, dtype=torch.float64)])
        case 7:  # a decay by powers
            return torch.arange(1, size + 1, dtype=torch.float64) ** -1.5
        case 8:  # negative ends that hardly stand out
            return torch.cat([spikes, -0.05 - 0.001 * torch.arange(4, dtype=torch.float64), bulk])[:size]
        case _:  # all but two below zero
            return torch.cat([torch.tensor([0.1, 0.05]).double(), -bulk.abs()[2:], -spikes])[:size]


def error(found: Extremes, values: Tensor) -> float:
    """The largest error of what is called converged, relative to the value, or to a thousandth of the largest."""
    values, worst = values.sort().values, 0.0
    floor = 1e-3 * float(values.abs().max())
    for end, true in ((found.top, values.flip(0)), (found.bottom, values)):
        if end.converged:
            worst = max(
                [worst, *(abs(v - float(t)) / max(abs(float(t)), floor) for v, t in zip(end.values, true, strict=False))]
            )  # fmt: skip
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("top, bottom", [(5, 1), (1, 1), (5, 0), (0, 3)])
def test_nothing_that_is_called_converged_is_off(top, bottom, symmetric):
    off, converged = {}, 0
    for seed in range(50):
        values = problem(seed)
        matrix = symmetric(values, seed).to(torch.float32 if seed % 2 else torch.float64)
        found = extremes(Dense(matrix), top=top, bottom=bottom, most=200, seed=seed)
        converged += found.top.converged if top else found.bottom.converged
        if (worst := error(found, values)) > 0.01:
            off[seed] = worst
    assert not off
    assert converged >= 40  # a test in which nothing converges would say nothing


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_there_are_no_ghosts(seed, symmetric):
    values = torch.cat([torch.tensor([50.0, 25, 16, 14, 11, 9]).double(), 0.01 * normal(594, seed)])
    found = extremes(Dense(symmetric(values, seed).float()), top=6, bottom=0, tolerance=1e-6, most=200, seed=seed)
    krylov = found.krylov
    while krylov.products < 200 and krylov.grow():
        pass
    # two hundred products in float32: six eigenvalues above 1, each once
    assert krylov.ritz()[0].flip(0)[:7].tolist()[:6] == pytest.approx(values[:6].tolist(), rel=1e-5)
    assert float(krylov.ritz()[0].flip(0)[6]) < 1


def test_of_small_problems_nothing_is_off(symmetric):
    for seed in range(10):
        values = problem(seed)
        found = extremes(Dense(symmetric(values, seed)), top=3, bottom=1, seed=seed)
        assert error(found, values) <= 0.01


def test_equal_eigenvalues_are_told_from_one(symmetric):
    values = torch.cat([torch.full((4,), 7.0).double(), torch.linspace(-1, 1, 96, dtype=torch.float64)])
    found = extremes(Dense(symmetric(values)), top=4, bottom=1)
    assert found.top.values == pytest.approx([7.0] * 4, rel=0.01) and found.top.converged
    once = torch.cat([torch.tensor([7.0]).double(), torch.linspace(-1, 1, 99, dtype=torch.float64)])
    found = extremes(Dense(symmetric(once)), top=2, bottom=0)
    assert found.top.values == pytest.approx([7.0, 1.0], rel=0.01)


@pytest.mark.slow
def test_of_a_network(build, truth):
    for name in ("mlp", "cnn"):
        objective, _ = build(name)
        found = extremes(Hessian(objective, way="reused", check=False), top=5, bottom=2, tolerance=1e-4)
        values = torch.linalg.eigvalsh(truth(name))
        # the tolerance asked for, and float32's own 1e-6 of the largest
        assert found.top.values == pytest.approx(values.flip(0)[:5].tolist(), rel=1e-4, abs=1e-5)
        assert found.bottom.values == pytest.approx(values[:2].tolist(), rel=1e-4, abs=1e-5)


def test_errors_hold_and_vectors_are_those(symmetric):
    values = problem(0)
    matrix = symmetric(values)
    found = extremes(Dense(matrix), top=3, bottom=2)
    for end in (found.top, found.bottom):
        for value, bound, vector in zip(end.values, end.errors, end.vectors, strict=True):
            assert float((values - value).abs().min()) <= bound + 1e-12
            assert float((matrix @ vector - value * vector).norm()) == pytest.approx(bound, abs=1e-10)


def test_ends_are_in_order():
    found = extremes(Dense(torch.diag(torch.tensor([3.0, -5.0, 1.0, 0.0]))), top=3, bottom=2)
    assert found.top.values == pytest.approx([3.0, 1.0, 0.0], abs=1e-5)
    assert found.bottom.values == pytest.approx([-5.0, 0.0], abs=1e-5)


def test_few_products_are_not_called_converged(symmetric):
    matrix = symmetric(torch.linspace(-1, 1, 200, dtype=torch.float64))
    found = extremes(Dense(matrix), top=5, bottom=1, most=10)
    assert found.products == 10 and not found.top.converged and not found.bottom.converged


def test_a_run_is_gone_on_with(symmetric):
    operator = Dense(symmetric(problem(0)))
    first = extremes(operator, top=1, bottom=0)
    second = extremes(first.krylov, top=3, bottom=1)
    assert second.krylov is first.krylov and operator.products == second.products
    alone = extremes(Dense(symmetric(problem(0))), top=3, bottom=1)
    assert second.products <= alone.products + 6  # what looking for more was paid for twice


@pytest.mark.parametrize("size", [1, 2, 3])
def test_of_tiny_matrices(size):
    found = extremes(Dense(torch.diag(torch.arange(1.0, size + 1))), top=size, bottom=size)
    assert found.top.converged and found.bottom.converged
    assert found.top.values == pytest.approx(list(range(size, 0, -1)), rel=1e-5)
    assert found.bottom.values == pytest.approx(list(range(1, size + 1)), rel=1e-5)


@pytest.mark.parametrize("size", [1, 50, 200])
def test_of_zero(size):
    found = extremes(Dense(torch.zeros(size, size)))
    assert found.top.values == [0.0] and found.bottom.values == [0.0] and found.top.converged
    assert found.products <= 10


def test_what_makes_no_sense_is_said():
    operator = Dense(torch.eye(3))
    for arguments in ({"top": 0, "bottom": 0}, {"top": -1}, {"top": 4}, {"bottom": 4}):
        with pytest.raises(MisuseError):
            extremes(operator, **arguments)
    with pytest.raises(NotFiniteError):
        extremes(Dense(torch.full((3, 3), math.nan)))
    with pytest.raises(NotFiniteError):
        extremes(Dense(torch.diag(torch.tensor([1.0, math.inf, 2.0, 3.0]))), top=2)


def test_explored_vectors_come_from_the_seed(symmetric):
    matrix = symmetric(problem(2))
    first, second, other = (extremes(Dense(matrix), top=2, seed=seed).top.values for seed in (0, 0, 1))
    assert first == second != other
    assert isinstance(extremes(Dense(matrix)).krylov, Krylov)
