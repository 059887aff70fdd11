"""The cliff in the loss of a recurrent unit, and what clipping the gradient does there.

One unit that feeds itself, h ← sigmoid(w h + b), fifty times from h = 0.5, and is to end at 0.7: the loss is (h − 0.7)². Where w is above 4
it remembers: it ends high or low, depending on which side of a threshold it starts. There the loss is a cliff, as a small change of w or
b tips the unit over. What one sees:

- **Without clipping one step undoes all others.** Gradient descent comes to the valley that runs along the upper edge of the cliff, and
  steps over the edge. There the gradient is a thousand times as long as it was on the way: the next step throws it far out, onto a
  plateau where the unit is saturated at 1 and hardly any gradient leads back.
- **With clipping it is turned back and stays near.** The direction of the gradient is right, only its length is of no use: it says how
  steep the cliff is, not how far to go. Cut to a length of 0.2, the same step leads back into the valley, and along it to the minimum.
- **It isn't this start alone**, which was chosen for a clear picture. Of 500 starts above the cliff gradient descent without clipping
  loses one in seven to nearly one in three, by the rate; with clipping it loses none. A step is no longer than the rate times the
  threshold, so the two belong together.

Pascanu, Mikolov & Bengio 2013, figure 6 (the cliff) and algorithm 1 (clipping).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from torch import Tensor

from unstuck.recurrent.layers import RNN
from unstuck.report.pictures import BLANK, BLUE, FAINT, INK, VERMILION, save, styled

STEPS_OF_UNIT, FIRST, TARGET = 50, 0.5, 0.7
START, RATE, THRESHOLD, UPDATES = (5.6, -0.9), 0.1, 0.2, 1100
Span = tuple[float, float]
STARTS, RATES, LONG = 500, (0.5, 1.0, 2.0), 1000
SOLVED, STUCK = 1e-3, 0.05
SEEN = 600  # the first update whose loss is drawn: before that both go down the same slope


def unit_loss(w: Tensor, b: Tensor) -> Tensor:
    """The loss, for many weights and biases at once."""
    h = torch.full_like(w, FIRST)
    for _ in range(STEPS_OF_UNIT):
        h = torch.sigmoid(w * h + b)
    return (h - TARGET) ** 2


def layer_loss(w: float, b: float) -> float:
    """The same by a recurrent layer without inputs."""
    layer = RNN(1, 1, nonlinearity="sigmoid", dtype=torch.float64)
    with torch.no_grad():
        for name, value in {"weight_ih_l0": 0.0, "weight_hh_l0": w, "bias_ih_l0": b, "bias_hh_l0": 0.0}.items():
            getattr(layer, name).fill_(value)
        silence, first = torch.zeros(STEPS_OF_UNIT, 1, 1).double(), torch.full((1, 1, 1), FIRST).double()
        return float((layer(silence, first)[0][-1] - TARGET) ** 2)


@dataclass(frozen=True)
class Descent:
    """Gradient descent from several starts.

    Attributes:
        points: Weight and bias before each update and after the last, shape `(updates + 1, starts, 2)`.
        losses: There, `(updates + 1, starts)`.
        gradients: Lengths of the gradient before it was clipped, likewise.
    """

    points: Tensor
    losses: Tensor
    gradients: Tensor


Paths = dict[str, tuple[Descent, str]]


def descend(starts: Tensor, *, rate: float, threshold: float | None, updates: int) -> Descent:
    """Gradient descent, each start by itself; gradients longer than a threshold are cut to it."""
    at, seen = starts.clone(), []
    for update in range(updates + 1):
        point = at.clone().requires_grad_()
        loss = unit_loss(point[:, 0], point[:, 1])
        (gradient,) = torch.autograd.grad(loss.sum(), point)
        length = gradient.norm(dim=1, keepdim=True)
        seen.append((at, loss.detach(), length[:, 0]))
        if threshold is not None:
            gradient = gradient * (threshold / length).clamp(max=1)
        if update < updates:
            at = at - rate * gradient
    return Descent(*(torch.stack(parts) for parts in zip(*seen, strict=True)))


def check(thrown: Descent, kept: Descent) -> None:
    """What happens to the one start that is drawn."""
    for name, one in {"without clipping": thrown, "with clipping": kept}.items():
        worst = int(one.gradients.argmax())
        where, end = one.points[worst, 0].tolist(), one.points[-1, 0].tolist()
        print(
            f"{name}: longest gradient {float(one.gradients.max()):.3g} at update {worst}, w = {where[0]:.2f}, b = {where[1]:.2f}; "
            f"ends at w = {end[0]:.2f}, b = {end[1]:.2f}, loss {float(one.losses[-1, 0]):.2g}"
        )
    assert float(thrown.gradients.max()) > 1000 * float(thrown.gradients[:500].median())
    assert float(thrown.losses[-1, 0]) > 0.08  # 0.09 where the unit is saturated at 1
    assert float(thrown.gradients[-1, 0]) < 1e-3
    assert float(kept.gradients.max()) > 100 * THRESHOLD
    assert float(kept.losses[-1, 0]) < SOLVED
    for w, b in (START, (5.0, -2.49), (5.0, -2.51)):
        at = torch.tensor([w, b], dtype=torch.float64)
        assert abs(layer_loss(w, b) - float(unit_loss(at[0], at[1]))) < 1e-9


def survey() -> None:
    """How often either ends well, from many starts above the cliff."""
    drawn = torch.rand(STARTS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w = 4 + 3 * drawn[:, 0]
    starts = torch.stack([w, -w / 2 + 1.5 * drawn[:, 1]], dim=1)
    for rate in RATES:
        shares = []
        for threshold in (None, 1.0, THRESHOLD):
            losses = descend(starts, rate=rate, threshold=threshold, updates=LONG).losses[-1]
            shares.append((float((losses < SOLVED).double().mean()), float((losses > STUCK).double().mean())))
        print(
            f"rate {rate:g}: of {STARTS} starts at the minimum {shares[0][0]:.1%} without clipping (far from it {shares[0][1]:.1%}), "
            f"{shares[1][0]:.1%} with a threshold of 1, {shares[2][0]:.1%} with one of {THRESHOLD:g}"
        )
        assert shares[0][1] > 0.1
        assert shares[1][0] == shares[2][0] == 1


LEVELS = [0, 0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5]


def draw_contours(axes: Axes, x: Span, y: Span, paths: Paths) -> ContourSet:
    """A part of the surface with the paths on it."""
    w, b = np.meshgrid(np.linspace(*x, 401), np.linspace(*y, 601))
    losses = unit_loss(torch.from_numpy(w), torch.from_numpy(b)).numpy()
    shades = axes.contourf(w, b, np.sqrt(losses), np.sqrt(LEVELS), cmap="viridis")
    edge = [Stroke(linewidth=3.6, foreground=INK), Normal()]
    for name, (one, colour) in paths.items():
        points = one.points[:, 0].numpy()
        axes.plot(*points.T, color=colour, linewidth=2, path_effects=edge, label=name)
        axes.plot(*points[-1], "s", color=colour, markeredgecolor=INK, markersize=8, zorder=5)
    axes.set(xlim=x, ylim=y)
    return shades


def draw_surface(axes: Axes, paths: Paths) -> None:
    """The surface as a whole, and what is near the point from which one path is thrown."""
    shades = draw_contours(axes, (3, 7), (-4, 3), paths)
    bar = axes.figure.colorbar(shades, ax=axes, label="loss (square-root scale)", ticks=np.sqrt(LEVELS[::2]))
    bar.ax.set_yticklabels([f"{level:g}" for level in LEVELS[::2]])
    axes.plot(*START, "o", color="white", markeredgecolor=INK, markersize=9, zorder=5)
    axes.annotate("start", START, (8, 4), textcoords="offset points", color="white", fontweight="bold")
    axes.text(5.95, -3.55, "the cliff", color=INK, fontweight="bold", rotation=-27, ha="center")
    axes.set(xlabel="recurrent weight w", ylabel="bias b", title="Loss of one unit after 50 steps")
    thrown = next(iter(paths.values()))[0]
    w, b = thrown.points[int(thrown.gradients.argmax()), 0].tolist()
    inset = axes.inset_axes((0.04, 0.62, 0.4, 0.35))
    draw_contours(inset, (w - 0.12, w + 0.12), (b - 0.12, b + 0.12), paths)
    inset.set(xticks=[], yticks=[])
    for spine in inset.spines.values():
        spine.set(visible=True, color="white", linewidth=1.5)
    axes.indicate_inset_zoom(inset, edgecolor="white", alpha=1)


def draw_course(above: Axes, below: Axes, paths: Paths) -> None:
    """Loss and length of the gradient by update."""
    for name, (one, colour) in paths.items():
        above.plot(one.losses[:, 0], color=colour, linewidth=1.2, label=name)
        below.plot(one.gradients[:, 0], color=colour, linewidth=1.2)
    below.axhline(THRESHOLD, color=FAINT, linewidth=1, linestyle=":")
    below.text(SEEN, THRESHOLD * 1.2, f" threshold {THRESHOLD:g}", color=FAINT, fontsize=9, va="bottom")
    above.set(title="Loss", yscale="log", xlim=(SEEN, UPDATES))
    above.legend(loc="lower left", fontsize=9)
    below.set(title="Length of the gradient before clipping", yscale="log", xlabel="update", xlim=(SEEN, UPDATES))
    for axes in (above, below):
        axes.grid(axis="y", color=BLANK, linewidth=0.5)


def main(out: Path) -> None:
    """Goes down with and without clipping, from one start and from many, and draws it."""
    start = torch.tensor([START], dtype=torch.float64)
    thrown = descend(start, rate=RATE, threshold=None, updates=UPDATES)
    kept = descend(start, rate=RATE, threshold=THRESHOLD, updates=UPDATES)
    check(thrown, kept)
    survey()
    paths = {"without clipping": (thrown, VERMILION), f"gradient clipped to {THRESHOLD:g}": (kept, BLUE)}
    with styled():
        figure = Figure(figsize=(10.6, 5.4))
        panels = figure.subplot_mosaic([["plane", "loss"], ["plane", "gradient"]], width_ratios=(1.15, 1))
        draw_surface(panels["plane"], paths)
        draw_course(panels["loss"], panels["gradient"], paths)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    main(parser.parse_args().out)
