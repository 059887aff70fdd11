"""The test surfaces are what is known of them on paper, and optimizers go down on them as by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unstuck.curvature.landscapes import BEALE, LANDSCAPES, PRODUCT, RAVINE, ROSENBROCK, SADDLE, descend, landscape
from unstuck.errors import MisuseError, NotFoundError

POINTS = [(surface, point) for surface in LANDSCAPES.values() for point in surface.critical]


def hessian(surface, x: float, y: float) -> torch.Tensor:
    at = torch.tensor([x, y], dtype=torch.float64)
    return torch.autograd.functional.hessian(surface.loss, at)  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("surface, point", POINTS, ids=lambda v: getattr(v, "name", None) or f"{v.x:.2g},{v.y:.2g}")
def test_critical_points_are_what_they_are_called(surface, point):
    at = torch.tensor([point.x, point.y], dtype=torch.float64)
    assert torch.autograd.functional.jacobian(surface.loss, at).abs().max() < 1e-12
    low, high = torch.linalg.eigvalsh(hessian(surface, point.x, point.y)).tolist()
    if point.kind == "saddle":
        assert low < -1e-9 < 1e-9 < high
    else:
        assert high > 1e-9 and (abs(low) < 1e-12 if point.kind == "valley" else low > 1e-9)


@pytest.mark.parametrize("surface", LANDSCAPES.values(), ids=lambda s: s.name)
def test_nothing_in_the_picture_is_below_the_minima_and_all_is_in_it(surface):
    lowest = min(float(surface.loss(torch.tensor([p.x, p.y]))) for p in surface.minima)
    plane = surface.plane(num=101)
    assert plane.losses.min() >= lowest - 1e-6  # float32 of √2
    (left, right), (low, high) = surface.domain
    for x, y in [surface.start, *((p.x, p.y) for p in surface.critical)]:
        assert left < x < right and low < y < high


@pytest.mark.parametrize("surface", LANDSCAPES.values(), ids=lambda s: s.name)
def test_the_plane_is_the_function(surface):
    plane = surface.plane(num=5)
    for i, y in enumerate(plane.y):
        for j, x in enumerate(plane.x):
            assert plane.losses[i, j] == pytest.approx(float(surface.loss(torch.tensor([x, y]))), rel=1e-12)


def test_hessians_as_on_paper():
    assert torch.equal(hessian(SADDLE, 0, 0), torch.tensor([[2.0, 0], [0, -2]], dtype=torch.float64))
    assert torch.equal(hessian(RAVINE, 0, 0), torch.tensor([[1.0, 0], [0, 100]], dtype=torch.float64))
    assert torch.allclose(hessian(ROSENBROCK, 1, 1), torch.tensor([[802.0, -400], [-400, 200]], dtype=torch.float64))
    assert torch.allclose(hessian(BEALE, 0, 1), torch.tensor([[0, 27.75], [27.75, 0]], dtype=torch.float64))
    assert torch.equal(hessian(PRODUCT, 0, 0), torch.tensor([[0.0, -1], [-1, 0]], dtype=torch.float64))


def test_gradient_descent_goes_down_the_ravine_as_by_hand():
    path = descend(RAVINE, lambda params: torch.optim.SGD(params, lr=0.015), steps=50)
    steps = np.arange(51)
    assert np.allclose(path[:, 0], -2 * 0.985**steps, rtol=1e-12)
    assert np.allclose(path[:, 1], 0.4 * (-0.5) ** steps, rtol=1e-9)


@pytest.mark.slow
def test_gradient_descent_diverges_above_two_over_the_largest_curvature():
    far = descend(RAVINE, lambda params: torch.optim.SGD(params, lr=0.0201), steps=2000)
    near = descend(RAVINE, lambda params: torch.optim.SGD(params, lr=0.0199), steps=2000)
    assert abs(far[-1, 1]) > 1e6 and abs(near[-1, 1]) < 1e-6


def test_a_path_that_leaves_the_numbers_is_kept_as_it_is():
    path = descend(ROSENBROCK, lambda params: torch.optim.SGD(params, lr=1.0), steps=20)
    assert path.shape == (21, 2) and np.isfinite(path[1]).all() and not np.isfinite(path[-1]).any()


def test_no_steps_is_the_start_and_fewer_are_misuse():
    make = lambda params: torch.optim.Adam(params)  # noqa: E731
    assert descend(BEALE, make, steps=0).tolist() == [[1.0, 1.5]]
    with pytest.raises(MisuseError, match="isn't negative, as -1 is"):
        descend(BEALE, make, steps=-1)


def test_names():
    assert landscape("Beale") is BEALE
    with pytest.raises(NotFoundError, match="no test surface 'ackley'; there are saddle, ravine"):
        landscape("ackley")
