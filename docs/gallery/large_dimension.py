"""Why minima are rare where there are many dimensions: every one of them would have to curve upwards.

Left: symmetric matrices with random entries (the Gaussian orthogonal ensemble), as the Hessian of a random surface at a critical point of
middling height. If their signs were independent, one in 2ⁿ would have only positive eigenvalues. Eigenvalues repel each other, so it
is far fewer: for large n about exp(−n² ln 3 / 4). With ten dimensions not one in a trillion such points is a minimum.

Right: two-layer networks at the point where all weights are zero, from which nothing learns as the gradient is zero. Each hidden unit adds
one way out for each output that depends on the inputs, exactly: the wider the network, the more ways there are, though only one is needed.

What one sees: in a large network a critical point with a high loss is all but surely a saddle. It doesn't say that minima are always
reached: near the bottom of the loss the share of negative eigenvalues falls (see minimum_ratio.py), and a plateau can be long.

Dean & Majumdar 2006, "Large deviations of extreme eigenvalues of random matrices"; Dauphin et al. 2014.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import mse_loss

from unstuck.curvature.critical import critical_point
from unstuck.curvature.density import eigenvalues
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Hessian
from unstuck.report.pictures import BLUE, FAINT, VERMILION, save, styled

EXACT = {1: 1 / 2, 2: (2 - math.sqrt(2)) / 4, 3: (math.pi - 2 * math.sqrt(2)) / (4 * math.pi)}
OUTPUTS = 2


def share_of_minima(dimensions: int, draws: int, generator: np.random.Generator) -> float:
    """How many of random symmetric matrices have only positive eigenvalues."""
    entries = generator.standard_normal((draws, dimensions, dimensions))
    return float((np.linalg.eigvalsh(entries + entries.transpose(0, 2, 1))[:, 0] > 0).mean())


def ways_out(hidden: int) -> int:
    """Negative eigenvalues of a network's Hessian where all weights are zero."""
    torch.manual_seed(0)
    x = torch.randn(100, 6, dtype=torch.float64)
    y = x @ torch.randn(6, OUTPUTS, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(6, hidden, bias=False), nn.Tanh(), nn.Linear(hidden, OUTPUTS, bias=False)).double()
    for param in net.parameters():
        nn.init.zeros_(param)
    objective = Objective(lambda: mse_loss(net(x), y), net)
    assert critical_point(objective).kind == "saddle"
    values = eigenvalues(Hessian(objective, check=False))
    return int((values < -1e-6 * float(values.abs().max())).sum())


def draw(measured: dict[int, float], counted: dict[int, int], out: Path) -> None:
    """Both."""
    with styled():
        figure = Figure(figsize=(9.6, 4.2))
        left, right = figure.subplots(1, 2)
        known = {n: p for n, p in measured.items() if p > 0}
        line = np.linspace(1, max(known) + 1, 50)
        left.plot(line, 0.5**line, color=FAINT, linestyle="--", label="if signs were independent: 2⁻ⁿ")
        left.plot(
            line,
            np.exp(-(line**2) * math.log(3) / 4),
            color=BLUE,
            label="exp(−n² ln 3 / 4), its leading term for large n",
        )
        left.plot(list(known), list(known.values()), "o", color=VERMILION, markersize=7, label="measured")
        left.set_yscale("log")
        left.set(xlabel="dimensions n", ylabel="share that are minima (log scale)", title="Random critical points")
        left.legend(loc="lower left")
        right.plot(list(counted), list(counted.values()), "o-", color=VERMILION, markersize=6, linewidth=1.5)
        right.set(
            xlabel="hidden units", ylabel="negative eigenvalues", title="Ways out of the saddle at zero", ylim=(0, None)
        )
        right.text(0.05, 0.9, f"{OUTPUTS} for each hidden unit", transform=right.transAxes, color=FAINT)
    save(figure, out)


def main(out: Path, draws: int) -> None:
    """Draws matrices, counts, and draws the figure."""
    generator = np.random.default_rng(0)
    measured = {n: share_of_minima(n, draws, generator) for n in range(1, 6)}
    for n, exact in EXACT.items():
        error = math.sqrt(exact * (1 - exact) / draws)
        print(f"{n} dimensions: {measured[n]:.4f} are minima, exactly {exact:.4f}")
        assert abs(measured[n] - exact) < 5 * error
    counted = {hidden: ways_out(hidden) for hidden in (1, 2, 4, 8, 16, 24)}
    print(f"ways out by hidden units: {counted}")
    assert all(count == OUTPUTS * hidden for hidden, count in counted.items())
    draw(measured, counted, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--draws", type=int, default=200_000, help="random matrices for each number of dimensions")
    options = parser.parse_args()
    main(options.out, options.draws)
