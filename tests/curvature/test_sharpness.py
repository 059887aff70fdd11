from __future__ import annotations

import math

import pytest
import torch

from unstuck.curvature.objective import Objective
from unstuck.curvature.sharpness import sharpness
from unstuck.errors import MisuseError


def parabola(curvatures: list[float], at: list[float]) -> tuple[Objective, torch.Tensor]:
    x, h = torch.tensor(at, dtype=torch.float64), torch.tensor(curvatures, dtype=torch.float64)
    return Objective(lambda: (h * x**2).sum() / 2, [x]), x


def test_along_the_gradient_of_a_parabola():
    objective, x = parabola([2.0, 2.0], [3.0, 4.0])
    found = sharpness(objective, radius=0.1)
    # f = r^2 at r = 5: a step of 0.1 outwards
    assert found.loss == 25 and found.sam == pytest.approx(5.1**2 - 25, rel=1e-9)
    assert x.tolist() == [3.0, 4.0]


def test_relative_to_the_size_of_each_number():
    objective, _ = parabola([2.0, 0.0], [3.0, 7.0])
    # only the first counts: T g / |Tg| is its direction, a step of 0.1 times its size
    assert sharpness(objective, radius=0.1).adaptive == pytest.approx(3.3**2 - 9, rel=1e-9)


def test_rescaling_that_keeps_the_function_leaves_the_adaptive_one():
    x, y = (torch.tensor([v], dtype=torch.float64) for v in (2.0, 0.5))
    objective = Objective(lambda: ((x * y - 0.9) ** 2).sum(), [x, y])
    before = sharpness(objective, radius=0.01)
    x *= 5
    y /= 5
    after = sharpness(objective, radius=0.01)
    assert after.adaptive == pytest.approx(before.adaptive, rel=1e-9) and abs(after.sam / before.sam - 1) > 0.5


def test_the_box_of_keskar_is_met_at_its_corner():
    objective, _ = parabola([2.0, 1.0], [0.0, 0.0])
    found = sharpness(objective, epsilon=0.1)
    # half-widths 0.1 (0 + 1): at a corner 0.01 + 0.005 above 0, in percent of 1 + 0
    assert found.keskar == pytest.approx(1.5, rel=1e-9)
    objective, _ = parabola([2.0], [1.0])
    assert sharpness(objective, epsilon=0.1).keskar == pytest.approx(100 * (1.2**2 - 1) / 2, rel=1e-9)


def test_at_the_bottom_there_is_no_gradient_to_follow():
    objective, _ = parabola([2.0], [0.0])
    found = sharpness(objective)
    assert found.sam == found.adaptive == 0 and found.keskar > 0 and math.isfinite(found.keskar)


def test_what_is_sharper_is_called_so():
    measures = [sharpness(parabola([h], [0.1])[0]) for h in (1.0, 10.0)]
    for name in ("sam", "adaptive", "keskar"):
        assert getattr(measures[1], name) > 5 * getattr(measures[0], name)


@pytest.mark.parametrize("options", [{"radius": 0.0}, {"epsilon": -1.0}, {"steps": 0}])
def test_what_makes_no_sense_is_said(options):
    with pytest.raises(MisuseError):
        sharpness(parabola([1.0], [1.0])[0], **options)
