"""Inputs as they are against standardized ones: the same linear model, the same data, another shape of the loss.

Columns of a table come in units that someone chose: grams, years, parts of a million. The loss of a linear model curves along a weight
as the mean square of its column. So the condition number, of the steepest to the flattest curvature, grows with the square of the ratio
of units, and with means far from zero on top. `unstuck.data.scaling.standardization` takes mean and deviation of the training part
only, and scales all parts by them. What one sees, for a linear regression (diabetes) and two logistic ones (wine, breast cancer):

- **The loss becomes a bowl.** In the plane of two weights, with the same unit on both axes, the loss of raw inputs is a ravine with walls
  so steep and a floor so flat that gradient descent, at the best rate that there is for it, gets nowhere. Of standardized inputs it is a
  bowl, and the same method is at the minimum after a few steps.
- **The condition number falls** by a factor of a hundred thousand to thirty million. Dividing by the deviation alone is a part of the
  cure: a column whose mean isn't zero looks like the constant one of the bias.
- **SGD and momentum come to a loss in some steps up to four hundred** that they don't come to in four thousand without, each at the best
  of ten rates. **Adam** divides each coordinate by the size of its own gradient, so it bears bad units better, but neither means nor
  correlations: it comes closer than these without, and standardized inputs make it ten times as fast and more.

Steps are counted on the training part, in batches of 32, over five splits; lines are the best so far, means with the range over splits.
The model can express the same with either inputs, so it isn't that more can be learned: it is learned sooner.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, softplus

from unstuck.data.scaling import standardization
from unstuck.data.split import hold_out
from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, INK, ORANGE, SKY, VERMILION, save, styled

SEEDS, BATCH, STEPS, EVERY, RATES = 5, 32, 4000, 5, 10
PLANE = ("s1", "s5")  # of diabetes: total cholesterol in mg/dl, and the logarithm of triglycerides
ZIGZAG = 30
COLOURS = {"SGD": BLUE, "momentum": VERMILION, "Adam": GREEN}
KINDS = ("as they are", "divided by deviation", "standardized")


@dataclass(frozen=True)
class Table:
    """Numbers in columns, and what is told from them: one number, or yes or no."""

    name: str
    inputs: Tensor
    targets: Tensor
    columns: list[str]
    binary: bool

    @property
    def goal(self) -> float:
        """The loss that is to be reached: of a logistic regression itself, of a linear one as a share of the way to the least."""
        return 0.05 if self.binary else 0.02


@dataclass(frozen=True)
class Part:
    """A split, its inputs scaled in some way and with a column of ones; several splits lie along the first axis."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Race:
    """How one way of training went, at each rate.

    Attributes:
        rates: Shape `(rates,)`.
        losses: On the training part every few steps, `(evaluations, splits, rates)`.
        scores: At the end on the test part, `(splits, rates)`: R2 or accuracy.
        reached: Steps to the goal, infinite where it isn't reached, `(splits, rates)`.
    """

    rates: Tensor
    losses: Tensor
    scores: Tensor
    reached: Tensor

    @property
    def best(self) -> int:
        """The rate with the fewest steps over all splits; if none reaches the goal everywhere, that of the least loss at the end."""
        steps = self.reached.mean(dim=0)
        by = steps if bool(steps.isfinite().any()) else self.losses[-1].mean(dim=0).nan_to_num(math.inf)
        return int(by.argmin())


def tables() -> list[Table]:
    """Real data, as they were measured."""
    diabetes, wine, cancer = load_diabetes(scaled=False), load_wine(), load_breast_cancer()
    return [
        Table(
            "diabetes", torch.tensor(diabetes.data), torch.tensor(diabetes.target), list(diabetes.feature_names), False
        ),
        Table("wine", torch.tensor(wine.data), torch.tensor(wine.target == 1).double(), list(wine.feature_names), True),
        Table(
            "breast cancer",
            torch.tensor(cancer.data),
            torch.tensor(cancer.target).double(),
            list(cancer.feature_names),
            True,
        ),
    ]


def parts(table: Table, kind: str) -> Part:
    """All splits of a table, inputs scaled by what their training parts tell."""
    found = []
    for seed in range(SEEDS):
        split = hold_out(len(table.inputs), 0.25, seed=seed)
        train, test = (table.inputs[torch.tensor(ids)] for ids in (split.train, split.evaluation))
        scaler = standardization(train)
        if kind == "divided by deviation":
            train, test = train / scaler.scale, test / scaler.scale
        elif kind == "standardized":
            train, test = scaler(train), scaler(test)
        targets = [table.targets[torch.tensor(ids)] for ids in (split.train, split.evaluation)]
        if not table.binary:
            scale = standardization(targets[0])
            targets = [scale(each) for each in targets]
        ones = [torch.cat([each, torch.ones(len(each), 1).double()], dim=1) for each in (train, test)]
        found.append((ones[0], targets[0], ones[1], targets[1]))
    x, y, x_test, y_test = (torch.stack(each) for each in zip(*found, strict=True))
    return Part((x, y), (x_test, y_test))


# ---------------------------------------------------------------------- the loss and its shape


def outputs(x: Tensor, w: Tensor) -> Tensor:
    """Of all splits and rates, `(splits, samples, rates)`; weights are `(splits, features, rates)`."""
    return x @ w


def losses(table: Table, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Mean over samples, `(splits, rates)`."""
    z = outputs(x, w)
    each = softplus(z) - y[..., None] * z if table.binary else (z - y[..., None]).square()
    return each.mean(dim=1)


def gradients(table: Table, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Of these, by the weights."""
    z = outputs(x, w)
    slope = z.sigmoid() - y[..., None] if table.binary else 2 * (z - y[..., None])
    return x.mT @ slope / x.shape[1]


def curvatures(table: Table, x: Tensor) -> Tensor:
    """Eigenvalues of the Hessian where all weights are 0, from the largest on, by the singular values of the inputs: exact."""
    return torch.linalg.svdvals(x).square() / x.shape[-2] * (0.25 if table.binary else 2.0)


def check_shape(table: Table, x: Tensor, y: Tensor) -> None:
    """Gradient and Hessian against autograd."""

    def loss(w: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(x @ w, y) if table.binary else mse_loss(x @ w, y)

    w = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(loss(w), w)
    torch.testing.assert_close(gradients(table, x[None], y[None], w.detach()[None, :, None])[0, :, 0], expected)
    hessian = torch.autograd.functional.hessian(loss, w.detach())
    top = float(torch.linalg.eigvalsh(hessian)[-1])
    assert abs(float(curvatures(table, x)[0]) / top - 1) < 1e-9


# ---------------------------------------------------------------------- training


def race(table: Table, part: Part, method: str) -> Race:
    """Trains at ten rates and on all splits at once."""
    x, y = part.train
    rates = candidates(table, x, method)
    w = torch.zeros(SEEDS, x.shape[2], RATES, dtype=torch.float64)
    first, second, seen = torch.zeros_like(w), torch.zeros_like(w), [losses(table, x, y, w)]
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(SEEDS)[:, None]
    for step in range(1, STEPS + 1):
        chosen = torch.randint(x.shape[1], (SEEDS, BATCH), generator=generator)
        g = gradients(table, x[rows, chosen], y[rows, chosen], w)
        if method == "SGD":
            w = w - rates * g
        elif method == "momentum":
            first = 0.9 * first + g
            w = w - rates * first
        else:
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
            w = w - rates * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        if step % EVERY == 0:
            seen.append(losses(table, x, y, w))
    found = torch.stack(seen)
    return Race(rates, found, scores(table, *part.test, w), steps_to(table, part, found))


def candidates(table: Table, x: Tensor, method: str) -> Tensor:
    """Ten rates, each 0.4 of the one before: from eight times what the curvature bears; of Adam, whose steps are as long as it, from 2."""
    bears = float(2 / curvatures(table, x).max())
    return (2.0 if method == "Adam" else 8 * bears) * 0.4 ** torch.arange(RATES).double()


def least(table: Table, part: Part) -> Tensor:
    """The least loss of each split: of a linear regression by least squares, of a logistic one 0 is a bound."""
    if table.binary:
        return torch.zeros(SEEDS, dtype=torch.float64)
    x, y = part.train
    return losses(table, x, y, torch.linalg.lstsq(x, y[..., None], driver="gelsd").solution)[:, 0]


def apart(table: Table, part: Part, found: Tensor) -> Tensor:
    """How far losses are from the least, as a share of where they started; a logistic loss as it is."""
    floor = least(table, part)[:, None]
    return found if table.binary else (found - floor) / (found[0] - floor)


def steps_to(table: Table, part: Part, found: Tensor) -> Tensor:
    """Steps to the goal, infinite where it isn't reached."""
    there = apart(table, part, found) <= table.goal
    first = there.double().argmax(dim=0) * EVERY
    return torch.where(there.any(dim=0), first.double(), math.inf)


def scores(table: Table, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """R2 of a linear regression, accuracy of a logistic one, `(splits, rates)`."""
    z = outputs(x, w)
    if table.binary:
        return ((z > 0) == (y[..., None] > 0.5)).double().mean(dim=1)
    return 1 - (z - y[..., None]).square().mean(dim=1) / y.var(dim=1, unbiased=False)[:, None]


# ---------------------------------------------------------------------- two weights


@dataclass(frozen=True)
class Bowl:
    """The loss by two weights, which is a quadratic, and gradient descent on it at the best rate that there is."""

    x: Tensor
    y: Tensor
    points: Tensor
    minimum: Tensor
    condition: float


def bowl(table: Table, *, scaled: bool) -> Bowl:
    """Linear regression on two columns, without a bias; one split."""
    x, y = parts(table, "standardized" if scaled else "as they are").train
    x, y = x[0][:, [table.columns.index(name) for name in PLANE]], y[0]
    values = curvatures(table, x)
    rate = 2 / (values[0] + values[-1])
    w, points = torch.zeros(2, dtype=torch.float64), []
    for _ in range(ZIGZAG + 1):
        points.append(w)
        w = w - rate * gradients(table, x[None], y[None], w[None, :, None])[0, :, 0]
    return Bowl(
        x, y, torch.stack(points), torch.linalg.lstsq(x, y[:, None]).solution[:, 0], float(values[0] / values[-1])
    )


def draw_bowl(axes: Axes, found: Bowl, title: str) -> None:
    """Contours with the same unit on both axes, and the path."""
    reach = 1.35 * float((found.minimum - found.points[0]).norm())
    middle = (found.minimum + found.points[0]) / 2
    side = [np.linspace(float(m) - reach, float(m) + reach, 401) for m in middle]
    first, second = np.meshgrid(*side)
    w = torch.tensor(np.stack([first.ravel(), second.ravel()]))
    loss = (found.x @ w - found.y[:, None]).square().mean(dim=0).reshape(first.shape).numpy()
    low = float((found.x @ found.minimum - found.y).square().mean())
    axes.contourf(first, second, np.log10(loss - low + 1e-3 * (1 - low)), 24, cmap="viridis")
    axes.plot(
        *found.points.T,
        color="white",
        linewidth=2.2,
        marker="o",
        markersize=4,
        markeredgecolor=INK,
        markeredgewidth=0.5,
    )
    axes.plot(*found.points[0], "o", color="white", markeredgecolor=INK, markersize=9)
    axes.plot(*found.minimum, "*", color=ORANGE, markeredgecolor=INK, markersize=16, zorder=5)
    axes.set(
        title=f"{title}\ncondition number {found.condition:,.0f}",
        xlabel=f"weight of {PLANE[0]}",
        ylabel=f"weight of {PLANE[1]}",
        aspect="equal",
    )


# ---------------------------------------------------------------------- the whole


Races = dict[str, dict[tuple[str, str], Race]]


def told(table: Table, conditions: dict[str, Tensor], races: dict[tuple[str, str], Race]) -> None:
    """Prints what was measured, and holds it against what is claimed."""
    medians = {kind: float(values.median()) for kind, values in conditions.items()}
    print(f"{table.name}: condition number " + ", ".join(f"{value:.3g} {kind}" for kind, value in medians.items()))
    steps = {key: one.reached[:, one.best] for key, one in races.items()}
    for (method, kind), one in races.items():
        count = steps[method, kind]
        mean = f"{float(count.mean()):.0f} steps ({float(count.min()):.0f} to {float(count.max()):.0f})"
        words = (
            mean
            if bool(count.isfinite().all())
            else f"not within {STEPS} steps in {int((~count.isfinite()).sum())} of {SEEDS} splits"
        )
        print(
            f"  {method:8} {kind:13}: {words}, at {float(one.rates[one.best]):.2g} (number {one.best}); "
            f"test score at the end {float(one.scores[:, one.best].mean()):.3f}"
        )
    raw, divided, standard = (medians[kind] for kind in KINDS)
    assert raw > 1e5 * standard, "the condition number falls by a factor of more than a hundred thousand"
    assert raw > 100 * divided > 1000 * standard, "dividing alone is a part of it"
    for method in COLOURS:
        before, after = steps[method, KINDS[0]], steps[method, KINDS[2]]
        assert bool(after.isfinite().all()) and float(after.mean()) < 450, "standardized, the goal is reached soon"
        assert float(before.mean()) > 10 * float(after.mean()), "without, it takes more than ten times as long"
        assert method == "Adam" or not bool(before.isfinite().any()), "SGD and momentum don't come there at all"
    last = {method: races[method, KINDS[0]].losses[-1, :, races[method, KINDS[0]].best].mean() for method in COLOURS}
    assert last["Adam"] < min(last["SGD"], last["momentum"]), "of raw inputs Adam makes the most"


def draw_conditions(axes: Axes, found: dict[str, dict[str, Tensor]]) -> None:
    """A bar for each table and kind."""
    for i, (kind, colour) in enumerate(zip(KINDS, (VERMILION, ORANGE, SKY), strict=True)):
        heights = [float(values[kind].median()) for values in found.values()]
        bars = axes.bar(np.arange(len(found)) + 0.27 * (i - 1), heights, 0.25, color=colour, label=kind)
        axes.bar_label(
            bars, [f"{h:.0e}".replace("e+0", "e").replace("e+", "e") for h in heights], fontsize=8, padding=2
        )
    axes.set(title="Condition number of the Hessian\nat the start", yscale="log", ylim=(1, 1e14))
    axes.set_xticks(range(len(found)), list(found))
    axes.legend(fontsize=9, loc="upper left")


def draw_races(axes: Axes, table: Table, part: dict[str, Part], races: dict[tuple[str, str], Race]) -> None:
    """Losses by step at the best rate, all splits."""
    for (method, kind), one in races.items():
        shown = apart(table, part[kind], one.losses)[:, :, one.best].cummin(dim=0).values
        line = "-" if kind == KINDS[2] else (0, (4, 1.5))
        x = np.arange(1, len(shown)) * EVERY
        axes.plot(x, shown[1:].mean(dim=1), color=COLOURS[method], linestyle=line, linewidth=1.6)
        axes.fill_between(
            x, shown[1:].amin(dim=1), shown[1:].amax(dim=1), color=COLOURS[method], alpha=0.12, linewidth=0
        )
    axes.axhline(table.goal, color=FAINT, linewidth=1, linestyle=":")
    axes.text(STEPS, table.goal, "goal ", color=FAINT, fontsize=9, va="bottom", ha="right")
    what = "loss" if table.binary else "loss above the least, share of the first"
    axes.set(
        title=f"{table.name[0].upper()}{table.name[1:]}",
        xscale="log",
        yscale="log",
        xlabel="step",
        ylabel=what,
        xlim=(EVERY, STEPS),
        ylim=(table.goal / 6, 1.5),
    )
    axes.grid(axis="y", color=BLANK, linewidth=0.5)


def main(out: Path) -> None:
    """Trains all, tells and draws."""
    found, all_parts, races = {}, {}, {}
    for table in tables():
        scaled = {kind: parts(table, kind) for kind in KINDS}
        check_shape(table, scaled[KINDS[2]].train[0][0], scaled[KINDS[2]].train[1][0])
        values = {kind: curvatures(table, part.train[0]) for kind, part in scaled.items()}
        found[table.name] = {kind: each[:, 0] / each[:, -1] for kind, each in values.items()}
        races[table.name] = {
            (method, kind): race(table, scaled[kind], method) for method in COLOURS for kind in (KINDS[2], KINDS[0])
        }
        all_parts[table.name] = scaled
        told(table, found[table.name], races[table.name])
    bowls = {name: bowl(tables()[0], scaled=scaled) for name, scaled in (("Raw inputs", False), ("Standardized", True))}
    left = {name: float((b.points[-1] - b.minimum).norm() / b.minimum.norm()) for name, b in bowls.items()}
    print(", ".join(f"{name}: {share:.1%} of the way left after {ZIGZAG} steps" for name, share in left.items()))
    assert left["Raw inputs"] > 0.99 and left["Standardized"] < 0.01
    with styled():
        figure = Figure(figsize=(12, 7.6))
        above, below = figure.subplots(2, 3)
        for axes, (name, each) in zip(above, bowls.items(), strict=False):
            draw_bowl(axes, each, name)
        start = bowls["Raw inputs"].points[0].tolist()
        words = f"the start,\nand {ZIGZAG} steps on"
        above[0].annotate(words, start, (14, -8), textcoords="offset points", color=INK, fontsize=9, va="top")
        draw_conditions(above[2], found)
        for axes, table in zip(below, tables(), strict=True):
            draw_races(axes, table, all_parts[table.name], races[table.name])
        marks = [Line2D([], [], color=colour, label=name) for name, colour in COLOURS.items()]
        marks += [
            Line2D([], [], color=INK, label="standardized"),
            Line2D([], [], color=INK, linestyle=(0, (4, 1.5)), label="as they are"),
        ]
        figure.legend(handles=marks, loc="outside lower center", ncols=5)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    torch.set_num_threads(1)
    main(parser.parse_args().out)
