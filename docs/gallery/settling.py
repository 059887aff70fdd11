"""SGD on one sample at a time doesn't settle: where it hovers, and what makes it settle.

Linear regression of how diabetes went on in 442 patients, on ten measurements each (scikit-learn's diabetes), by SGD on batches of 1 and 10
samples drawn at random. The ten inputs are made uncorrelated and of equal spread, so that the loss is a round bowl and all directions
go equally fast. Drawn is by how much the loss over all patients is above the lowest there is, mean over 128 runs. What one sees:

- **With a fixed rate the loss falls to a floor and stays there.** At the minimum the gradients of single samples aren't zero, only their
  mean is: each update throws the weights off by as much as the last ones brought them nearer. A tenth of the rate hovers a tenth as high,
  and takes ten times as long to get there; so does a batch of ten at the same rate, counted in samples.
- **The floor is in proportion to rate / batch**: r tr(C) / (4 B), where C is the covariance of the gradients of single samples at the
  minimum. With larger rates it is above that line, as gradients are noisier off the minimum; the exact value is the solution of a linear
  equation for the covariance of the weights, and what is measured lies on it.
- **A rate that falls as 1/t settles**: the loss goes on falling as 1/t. It must not fall too fast: with rate × steps (here 1/10) below
  half of one over the curvature (here 1) it is stuck on the way, as t to the power -2/10.
- **So does the mean of the weights** of a run with a fixed rate (Polyak & Juditsky 1992): each hovers around the minimum, their mean
  is near it, by the same law, without a schedule that needs to know the curvature.

Bottou et al. 2018, theorems 4.6 and 4.7.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes
from torch import Tensor

from unstuck.optim.schedules import Constant, InverseTime, Schedule
from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, VERMILION, save, styled

RUNS, UPDATES, RATE = 128, 20_000, 0.02
FROM = 300  # samples after which weights are averaged: a run has come down by then
FLOOR_RATES = {1: (0.002, 0.005, 0.01, 0.02, 0.04), 10: (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)}


@dataclass(frozen=True)
class Task:
    """Linear regression with inputs of unit covariance.

    Attributes:
        x: Inputs, shape `(samples, inputs)`.
        errors: What is left of each target at the minimum, `(samples,)`.
        best: The weights there, `(inputs,)`.
    """

    x: Tensor
    errors: Tensor
    best: Tensor

    def covariance(self, spread: Tensor | None = None) -> Tensor:
        """Second moments of the gradients of single samples at the minimum, or at weights spread around it, `(inputs, inputs)`."""
        size = self.errors**2
        if spread is not None:
            size = size + torch.einsum("ni,ij,nj->n", self.x, spread, self.x)
        return torch.einsum("n,ni,nj->ij", size, self.x, self.x) / len(self.x)

    def spread(self, rate: float, batch: int) -> Tensor:
        """The covariance of the weights that SGD ends with, for any rate that it bears.

        An update turns the covariance S into (1 - r)² S + r²/B (M(S) - S + C), where M(S) is the mean of x xᵀ S x xᵀ; it stays as it is
        where S is the solution of a linear equation.
        """
        n = self.x.shape[1]
        fourth = torch.einsum("ni,nj,nk,nl->ijkl", self.x, self.x, self.x, self.x).reshape(n * n, n * n) / len(self.x)
        kept = 2 * rate - rate**2 * (1 - 1 / batch)
        left = kept * torch.eye(n * n, dtype=torch.float64) - rate**2 / batch * fourth
        return torch.linalg.solve(left, rate**2 / batch * self.covariance().reshape(-1)).reshape(n, n)


def diabetes() -> Task:
    """The patients."""
    data = load_diabetes()
    x, y = torch.tensor(data.data), torch.tensor(data.target)
    x, y = x - x.mean(0), (y - y.mean()) / y.std(correction=0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    x = x @ vectors / values.sqrt()
    best = x.T @ y / len(x)
    return Task(x, y - x @ best, best)


def descend(
    task: Task, rates: Sequence[tuple[float, Schedule]], *, batch: int, updates: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """SGD with several rates on the same samples, many runs at once.

    Returns:
        By how much the loss is above the lowest, mean over the runs, after each update, shape `(updates, rates)`: of the weights, and
        of the mean of the weights since a number of samples.
    """
    drawn = torch.Generator().manual_seed(seed)
    bases, schedules = torch.tensor([rate for rate, _ in rates], dtype=torch.float64), [s for _, s in rates]
    off = (-task.best).repeat(len(rates), RUNS, 1)  # weights, less the best ones
    mean, above, above_mean = torch.zeros_like(off), [], []
    for update in range(updates):
        chosen = torch.randint(len(task.x), (RUNS, batch), generator=drawn)
        x, errors = task.x[chosen], task.errors[chosen]
        wrong = torch.einsum("cbi,rci->rcb", x, off) - errors
        gradient = torch.einsum("rcb,cbi->rci", wrong, x) / batch
        rate = bases * torch.tensor([schedule(update) for schedule in schedules], dtype=torch.float64)
        off = off - rate[:, None, None] * gradient
        count = max(update + 1 - FROM // batch, 1)
        mean = mean + (off - mean) / count
        above.append((off**2).sum(-1).mean(-1) / 2)
        above_mean.append((mean**2).sum(-1).mean(-1) / 2)
    return torch.stack(above).numpy(), torch.stack(above_mean).numpy()


def floors(task: Task) -> dict[int, list[tuple[float, float, float]]]:
    """Rate, measured floor and the exact one, for batches of both sizes."""
    found: dict[int, list[tuple[float, float, float]]] = {}
    for batch, rates in FLOOR_RATES.items():
        found[batch] = []
        for several in (rates[:2], rates[2:]):  # small rates need long
            updates = math.ceil(12 / several[0])
            above, _ = descend(task, [(r, Constant()) for r in several], batch=batch, updates=updates, seed=batch)
            for i, rate in enumerate(several):
                exact = float(task.spread(rate, batch).trace()) / 2
                found[batch].append((rate, float(above[updates // 2 :, i].mean()), exact))
    trace = float(task.covariance().trace())
    for batch, rows in found.items():
        for rate, measured, exact in rows:
            line = rate * trace / (4 * batch)
            print(
                f"batch {batch:2d}, rate {rate:<6g}: hovers at {measured:.3e}, exactly {exact:.3e}, r tr(C) / (4B) = {line:.3e}"
            )
            assert math.isclose(measured, exact, rel_tol=0.06)
            assert line < exact
            assert exact < 1.1 * line or rate > 0.005
    return found


def slope(above: np.ndarray, begin: int) -> float:
    """The power of t that a curve follows from an update on."""
    t = np.arange(begin, len(above))
    return float(np.polyfit(np.log(t), np.log(above[begin:]), 1)[0])


def courses(task: Task) -> dict[str, tuple[np.ndarray, np.ndarray, str]]:
    """Curves over the samples seen, with their colours; what is claimed of them is checked."""
    kinds: list[tuple[float, Schedule]] = [
        (RATE, Constant()), (RATE / 10, Constant()),
        (RATE, InverseTime(round(1 / RATE))), (RATE, InverseTime(round(0.1 / RATE))),
    ]  # fmt: skip
    above, means = descend(task, kinds, batch=1, updates=UPDATES, seed=0)
    ten, _ = descend(task, kinds[:1], batch=10, updates=UPDATES // 10, seed=0)
    spread, trace = task.spread(RATE, 1), float(task.covariance().trace())
    end, half = above[-2000:].mean(0), UPDATES // 2
    averaged = float((task.covariance(spread) - spread).trace()) / (2 * (UPDATES - FROM))
    print(
        f"at the end, batch 1: {end[0]:.2e} at a rate of {RATE:g}, {end[1]:.2e} at a tenth; batch 10: {ten[-200:].mean():.2e}"
    )
    print(
        f"decayed: {end[2]:.2e} (as t to the power {slope(above[:, 2], 1000):.2f}), in theory {trace / 2 / UPDATES:.2e} at the last"
    )
    print(f"decayed too fast: {end[3]:.2e} (as t to the power {slope(above[:, 3], 1000):.2f})")
    print(
        f"mean of the weights at the fixed rate: {means[-1, 0]:.2e} (power {slope(means[:, 0], 3000):.2f}), in theory {averaged:.2e}"
    )
    assert abs(math.log(above[half:, 0].mean() / above[half // 2 : half, 0].mean())) < 0.05, "it doesn't go on falling"
    assert 9 < end[0] / end[1] < 13 and 9 < end[0] / ten[-500:].mean() < 13
    assert abs(slope(above[:, 2], 1000) + 1) < 0.1 and abs(slope(above[:, 3], 1000) + 0.2) < 0.1
    assert math.isclose(above[-1, 2], trace / 2 / UPDATES, rel_tol=0.25)
    assert math.isclose(means[-1, 0], averaged, rel_tol=0.25)
    assert end[0] > 50 * max(end[2], means[-1, 0])
    seen, seen_ten = np.arange(1, UPDATES + 1), 10 * np.arange(1, UPDATES // 10 + 1)
    return {
        f"rate {RATE:g}": (seen, above[:, 0], VERMILION),
        f"rate {RATE / 10:g}": (seen, above[:, 1], ORANGE),
        f"rate {RATE:g}, batch 10": (seen_ten, ten[:, 0], PURPLE),
        "1/t, too fast": (seen, above[:, 3], FAINT),
        "1/t": (seen, above[:, 2], BLUE),
        "mean of weights": (seen[2 * FROM :], means[2 * FROM :, 0], GREEN),
    }


def draw_courses(axes: Axes, curves: dict[str, tuple[np.ndarray, np.ndarray, str]], start: float) -> None:
    """Loss above the lowest, over samples."""
    for name, (seen, above, colour) in curves.items():
        axes.plot(seen, above, color=colour, linewidth=1.4, linestyle="--" if "batch" in name else "-", label=name)
    axes.set(xscale="log", yscale="log", xlabel="samples seen", ylabel="loss above the lowest", xlim=(10, UPDATES))
    axes.set_ylim(2e-5, 2 * start)
    axes.set_title("With a fixed rate it hovers, and otherwise settles")
    axes.legend(loc="lower left", fontsize=9)


def draw_floors(axes: Axes, found: dict[int, list[tuple[float, float, float]]], trace: float) -> None:
    """Where it hovers, over rate / batch."""
    for (batch, rows), colour, look in zip(
        found.items(), (VERMILION, PURPLE), ({"marker": "o"}, {"marker": "s", "fillstyle": "none"}), strict=True
    ):
        rates, measured, exact = np.array(rows).T
        axes.plot(rates / batch, exact, color=colour, linewidth=1.2)
        axes.plot(
            rates / batch,
            measured,
            **look,
            linestyle="",
            color=colour,
            markersize=5 + batch / 2,
            label=f"batch {batch}",
        )
    span = np.array([1e-4, 0.06])
    axes.plot(span, span * trace / 4, color=INK, linewidth=1, linestyle="--", label="r tr(C) / (4 B)")
    axes.plot([], [], color=FAINT, linewidth=1.2, label="exact")
    axes.set(xscale="log", yscale="log", xlabel="rate / batch", ylabel="loss above the lowest")
    axes.set_title("Where it hovers")
    axes.legend(loc="upper left", fontsize=9)


def main(out: Path) -> None:
    """Runs, checks and draws."""
    task = diabetes()
    found, curves = floors(task), courses(task)
    with styled():
        figure = Figure(figsize=(11, 4.3))
        left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
        draw_courses(left, curves, float((task.best**2).sum() / 2))
        draw_floors(right, found, float(task.covariance().trace()))
        for axes in (left, right):
            axes.grid(color=BLANK, linewidth=0.5)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    torch.set_num_threads(1)
    main(parser.parse_args().out)
