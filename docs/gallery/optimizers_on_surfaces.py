"""Five optimizers on four surfaces of two numbers. Stars are minima, the white dot is the start, lines of equal loss are grey.

What one sees:

- **Saddle**, x² − y² + y⁴/4. All begin a thousandth beside the ridge, where there is next to no slope to the sides. Gradient
  descent, momentum and Nesterov are drawn to the saddle and wait there, while the distance from the ridge grows by a constant factor
  a step. RMSprop and Adam divide each coordinate by the size of its own gradient, so a small slope is as good as a large one: they
  turn off at once.
- **Ravine**, (x² + 100 y²)/2. The walls bear no rate of gradient descent above 2/100, and with less than that it crawls along the
  floor, which is a hundred times flatter. Momentum adds up the small slope and is through sooner.
- **Beale.** Steep walls around a flat floor: the gradient at the start is over ten times that on the way, and the rate has to suit
  both.
- **Rosenbrock.** A bent ravine. In 120 steps gradient descent doesn't get around the bend.

For each optimizer and surface it takes the rate, of 13 from 0.001 to 1, that ends lowest without leaving the picture. With 120
steps and one start this ranks nothing: it shows what the shapes do.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unstuck.curvature.landscapes import BEALE, RAVINE, ROSENBROCK, SADDLE, Landscape, descend
from unstuck.report.animation import Race, animate

STEPS = 120
RATES = np.geomspace(1e-3, 1, 13).tolist()
Make = Callable[[list[Tensor], float], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "SGD": lambda params, rate: torch.optim.SGD(params, lr=rate),
    "momentum": lambda params, rate: torch.optim.SGD(params, lr=rate, momentum=0.9),
    "Nesterov": lambda params, rate: torch.optim.SGD(params, lr=rate, momentum=0.9, nesterov=True),
    "RMSprop": lambda params, rate: torch.optim.RMSprop(params, lr=rate),
    "Adam": lambda params, rate: torch.optim.Adam(params, lr=rate),
}


def end(landscape: Landscape, path: np.ndarray) -> float:
    """The loss at the end of a path."""
    return float(landscape.loss(torch.from_numpy(path[-1])))


def slope(landscape: Landscape, x: float, y: float) -> float:
    """The length of the gradient at a point."""
    point = torch.tensor([x, y], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(landscape.loss(point), point)
    return float(gradient.norm())


def best(landscape: Landscape, make: Make) -> tuple[float, np.ndarray]:
    """The rate that ends lowest without leaving the picture, and its path."""
    low, high = np.array(landscape.domain).T
    paths = {rate: descend(landscape, lambda params, rate=rate: make(params, rate), steps=STEPS) for rate in RATES}
    inside = [rate for rate in RATES if ((paths[rate] >= low) & (paths[rate] <= high)).all()]
    rate = min(inside, key=lambda rate: end(landscape, paths[rate]))
    return rate, paths[rate]


def check(rates: dict[tuple[str, str], float], paths: dict[tuple[str, str], np.ndarray]) -> None:
    """What the docstring claims, with numbers."""
    off = {name: int(np.argmax(np.abs(paths["saddle", name][:, 1]) > 0.1)) for name in OPTIMIZERS}
    factor = 1 + 2 * rates["saddle", "SGD"]  # of the distance from the ridge, while y⁴ is nothing
    assert abs(off["SGD"] - math.ceil(math.log(0.1 / 1e-3) / math.log(factor))) <= 1
    assert max(off["RMSprop"], off["Adam"]) * 4 < min(off["SGD"], off["momentum"], off["Nesterov"])

    crawl = 2 * (1 - rates["ravine", "SGD"]) ** STEPS  # how far from the minimum, along the floor
    assert rates["ravine", "SGD"] < 2 / 100
    assert math.isclose(end(RAVINE, paths["ravine", "SGD"]), crawl**2 / 2, rel_tol=1e-3)
    assert end(RAVINE, paths["ravine", "momentum"]) < 1e-3 * end(RAVINE, paths["ravine", "SGD"])

    on_the_way = paths["Beale", "momentum"][STEPS // 3]
    assert slope(BEALE, *BEALE.start) > 10 * slope(BEALE, *on_the_way)
    assert all(end(BEALE, paths["Beale", name]) < 0.01 for name in OPTIMIZERS)

    assert paths["Rosenbrock", "SGD"][-1, 0] < 0 < 0.6 < paths["Rosenbrock", "momentum"][-1, 0]


def main(out: Path) -> None:
    """Runs all, checks what is claimed, and writes the animation."""
    rates, paths, races = {}, {}, []
    for landscape in (SADDLE, RAVINE, BEALE, ROSENBROCK):
        for name, make in OPTIMIZERS.items():
            key = landscape.name, name
            rates[key], paths[key] = best(landscape, make)
            print(f"{landscape.name:10s} {name:8s} rate {rates[key]:.3f}: loss {end(landscape, paths[key]):.2g}")
        minima = [(point.x, point.y) for point in landscape.minima]
        drawn = {name: paths[landscape.name, name] for name in OPTIMIZERS}
        races.append(Race(landscape.name.capitalize(), landscape.plane(), drawn, minima))
    check(rates, paths)
    animate(races, out, title="Downhill on four surfaces")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(". ")[0] + ".")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".gif"), help="where the picture goes")
    main(parser.parse_args().out)
