"""Loss against minimum ratio: many small networks at points where the gradient vanishes.

The minimum ratio of a critical point is the share of its Hessian's eigenvalues that aren't negative: 1 at a minimum, less at a saddle.
Networks with 53 parameters learn to tell three digits from six principal components. Each is trained for a while, and then
taken to a critical point near by: by Newton-MR, which makes the gradient short and goes to whatever is nearest, or by saddle-free Newton,
which goes down. What one sees:

- **Where the loss is high, what looks like being stuck is a saddle.** There are ways out, some tens of directions of them.
- **The lower the loss, the nearer the ratio is to 1.** Minima are found at the bottom, and their losses differ little.
- Some searches end where the gradient is short and not zero. They are left out: of such a point no type can be told (Frye et al. 2021).

Dauphin et al. 2014, "Identifying and attacking the saddle point problem in high-dimensional non-convex optimization", figure 1, made anew.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from unstuck.curvature.critical import critical_point
from unstuck.curvature.finder import find
from unstuck.curvature.objective import Objective
from unstuck.report.pictures import BLUE, FAINT, VERMILION, save, styled

DECAY = 1e-3  # of the weights, so that minima are points and not valleys


@dataclass(frozen=True)
class Found:
    """A critical point."""

    method: str
    loss: float
    ratio: float


def data(samples: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits modulo three, from the leading principal components of their pixels."""
    digits = load_digits()
    x = torch.tensor(digits.data[:samples] / 16)
    x = x - x.mean(0)
    x = x @ torch.linalg.svd(x, full_matrices=False)[2].T[:, :6]
    return x / x.std(0), torch.tensor(digits.target[:samples]) % 3


def trained(seed: int, updates: int, x: torch.Tensor, y: torch.Tensor) -> Objective:
    """The loss of a network that was trained for a while."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    def loss() -> torch.Tensor:
        return cross_entropy(net(x), y) + DECAY * sum(p.square().sum() for p in net.parameters())

    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    for _ in range(updates):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return Objective(loss, net)


def search(nets: int) -> tuple[list[Found], int]:
    """Critical points, and how many searches ended elsewhere."""
    x, y = data()
    found, missed = [], 0
    for seed in range(nets):
        for method in ("newton-mr", "saddle-free") if seed % 3 == 0 else ("newton-mr",):
            objective = trained(seed, updates=seed % 8 * 12, x=x, y=y)
            find(objective, method=method, steps=60, products=60)
            point = critical_point(objective, count=True)
            if point.is_critical and point.counts is not None:
                found.append(Found(method, point.loss, point.counts.minimum_ratio))
            else:
                missed += 1
    return found, missed


def draw(found: list[Found], missed: int, out: Path) -> None:
    """The scatter."""
    with styled():
        figure = Figure(figsize=(7.2, 4.6))
        axes = figure.subplots()
        looks = {
            "newton-mr": (VERMILION, "o", "nearest critical point (Newton-MR)"),
            "saddle-free": (BLUE, "s", "downhill (saddle-free Newton)"),
        }
        for method, (colour, mark, label) in looks.items():
            chosen = [f for f in found if f.method == method]
            axes.scatter(
                [f.ratio for f in chosen],
                [f.loss for f in chosen],
                c=colour,
                marker=mark,
                s=42,
                alpha=0.75,
                label=label,
                linewidths=0,
            )
        axes.axvline(1, color=FAINT, linewidth=0.8, linestyle=":")
        axes.set(
            xlabel="minimum ratio: share of eigenvalues that aren't negative", ylabel="loss (cross-entropy and weight decay)",
            title=f"{len(found)} critical points of networks with 53 parameters",
        )  # fmt: skip
        axes.legend(loc="upper right")
        axes.text(
            0,
            -0.2,
            f"{missed} searches ended where the gradient isn't zero; they are not shown.",
            transform=axes.transAxes,
            color=FAINT,
        )
    save(figure, out)


def main(out: Path, nets: int) -> None:
    """Searches, tells what was found and draws it."""
    found, missed = search(nets)
    minima = [f for f in found if f.ratio == 1]
    saddles = [f for f in found if f.ratio < 1]
    print(f"{len(minima)} minima, {len(saddles)} saddles, {missed} searches that ended elsewhere")
    assert len(minima) >= 3, "too few minima"
    assert len(saddles) >= 3, "too few saddles"
    lowest, highest = min(f.loss for f in saddles), max(f.loss for f in minima)
    print(f"losses of minima up to {highest:.3f}, of saddles from {lowest:.3f} to {max(f.loss for f in saddles):.3f}")
    assert np.median([f.loss for f in saddles]) > highest, "a typical saddle lies above every minimum"
    ranks = np.argsort(np.argsort([[f.loss for f in found], [f.ratio for f in found]]))
    correlation = float(np.corrcoef(ranks)[0, 1])
    print(f"rank correlation of loss and minimum ratio: {correlation:.2f}")
    assert correlation < -0.5
    draw(found, missed, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument(
        "--nets", type=int, default=12, help="networks that are trained; 120 made the figure, in some minutes"
    )
    options = parser.parse_args()
    main(options.out, options.nets)
