"""Why recurrent units have a tanh and no sigmoid: its slope is 1 at most where a sigmoid's is a quarter.

The gradient through one step of h ← f(W h + V x) is multiplied by Wᵀ diag f'(u), with u what goes into f. An orthogonal W changes no
length, so what is left is the slope: its root mean square over the units is the factor for each step. Where u is spread like a normal
distribution with variance q it can be computed, with q from q = E[f(u)²] + (spread of V x)², the mean field of wide networks:

    factor = √E[f'(u)²]      tanh: 1 at best, where u = 0      sigmoid: 1/4 at best, where u = 0

What one sees:

- **A sigmoid loses a decade in less than two steps**, whatever its inputs. Its best is 0.25ᵈ after d steps, and needs a bias that holds
  u at 0. After a dozen steps float32 sees no more of it beside what the last step gave.
- **tanh loses nothing where its inputs are small**, and more the larger they are, as units saturate: it is 1 at best, not by itself.
- **It is a matter of scale, not of the shape.** sigmoid(u) = (1 + tanh(u/2))/2, so that a sigmoid network with four times the weights
  and a bias that takes its mean away has the gradients of the tanh network to the last digits. No common start makes it so.

Pascanu, Mikolov & Bengio 2013, section 2.2 (the bounds); Poole et al. 2016 and Chen, Pennington & Schoenholz 2018 (the mean field).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray
from torch import Tensor

from unstuck.recurrent.horizon import module_horizon
from unstuck.recurrent.layers import RNN
from unstuck.report.pictures import BLANK, BLUE, FAINT, INK, VERMILION, save, styled

Function = Literal["tanh", "sigmoid"]
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
FUNCTIONS: dict[Function, Curve] = {"tanh": np.tanh, "sigmoid": lambda u: 1 / (1 + np.exp(-u))}
SLOPES: dict[Function, Curve] = {
    "tanh": lambda u: 1 - np.tanh(u) ** 2,
    "sigmoid": lambda u: FUNCTIONS["sigmoid"](u) * (1 - FUNCTIONS["sigmoid"](u)),
}
BEST: dict[Function, float] = {"tanh": 1.0, "sigmoid": 0.25}
COLOURS: dict[Function, str] = {"tanh": BLUE, "sigmoid": VERMILION}
UNITS, LAGS, WARM = 256, 30, 70  # measured after the first steps, when states have settled
SPREADS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
DRAWN = (0.0, 0.3, 1.0)


def layer(function: Function, spread: float) -> RNN:
    """Orthogonal recurrences, and inputs that come to each unit with a given spread; no bias."""
    made = RNN(UNITS, UNITS, nonlinearity=function, batch_first=True, dtype=torch.float64, backend="plain")
    made.reset_parameters(generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.nn.init.eye_(made.get_parameter("weight_ih_l0")).mul_(spread)
    return made


def gradients(made: RNN, start: float = 0.0) -> Tensor:
    """Decimal logarithms of the gradient by lag, from 0, of a network whose units start with a value."""
    inputs = torch.randn(8, WARM + LAGS, UNITS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    states = torch.full((1, 8, UNITS), start, dtype=torch.float64)
    return module_horizon(made, inputs, states, max_lag=LAGS).log10


def centred(made: RNN) -> RNN:
    """With a bias that takes the mean of a sigmoid's outputs, which is a half, away."""
    with torch.no_grad():
        made.get_parameter("bias_ih_l0").copy_(-made.get_parameter("weight_hh_l0").sum(dim=1) / 2)
    return made


def rescaled(spread: float) -> RNN:
    """The sigmoid network that is a tanh network: weights four times as large, inputs twice."""
    made = layer("sigmoid", 2 * spread)
    with torch.no_grad():
        made.get_parameter("weight_hh_l0").mul_(4)
    return centred(made)


def mean_field(function: Function, spread: float) -> float:
    """The factor for each step where what goes into the units is normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    weights = weights / weights.sum()
    q = 1.0
    for _ in range(2000):
        q = float(weights @ FUNCTIONS[function](np.sqrt(q) * nodes) ** 2) + spread**2
    return float(np.sqrt(weights @ SLOPES[function](np.sqrt(q) * nodes) ** 2))


def check(curves: dict[Function, dict[float, Tensor]], factors: dict[Function, dict[float, float]]) -> None:
    """Bounds, the mean field, and the tanh network as a sigmoid network."""
    lags = torch.arange(LAGS + 1, dtype=torch.float64)
    for name, best in BEST.items():
        for curve in curves[name].values():
            assert bool((curve <= lags * np.log10(best) + 1e-9).all())
    assert float(curves["tanh"][0.0].abs().max()) < 1e-12
    assert torch.allclose(gradients(centred(layer("sigmoid", 0.0)), 0.5), lags * np.log10(0.25), atol=1e-9)
    for spread in DRAWN:
        assert torch.allclose(gradients(rescaled(spread), 0.5), curves["tanh"][spread], atol=1e-9)
    print("spread of inputs    tanh: measured, mean field    sigmoid: measured, mean field")
    for spread in SPREADS:
        row = [(factors[name][spread], mean_field(name, spread)) for name in FUNCTIONS]
        print(f"{spread:16.1f}" + "".join(f"{found:20.4f}{theory:12.4f}" for found, theory in row))
        assert all(abs(found / theory - 1) < 0.02 for found, theory in row if spread > 0.0)


def draw_slopes(axes: Axes) -> None:
    """The derivatives."""
    u = np.linspace(-5, 5, 201)
    for name, height in zip(FUNCTIONS, (0.94, 0.22), strict=True):
        axes.plot(u, SLOPES[name](u), color=COLOURS[name], linewidth=2)
        axes.text(5.6, height, f"{name}:\n{BEST[name]:g} at best", color=COLOURS[name], ha="right")
    axes.set(xlabel="what goes in, u", ylabel="slope f'(u)", title="Slope of a unit", ylim=(0, 1.1))


def draw_curves(axes: Axes, curves: dict[Function, dict[float, Tensor]]) -> None:
    """Gradients by lag, with what theory says."""
    lags = np.arange(LAGS + 1)
    for name, best in BEST.items():
        axes.plot(lags, best**lags, color=INK, linewidth=1, linestyle="--")
        for spread, mark in zip(DRAWN, "os^", strict=True):
            if spread:
                axes.plot(lags, mean_field(name, spread) ** lags, color=COLOURS[name], linewidth=1)
            found = 10 ** curves[name][spread].numpy()
            axes.plot(lags[::2], found[::2], mark, color=COLOURS[name], markersize=4)
    for mark, spread in zip("os^", DRAWN, strict=True):
        axes.plot([], [], mark, color=FAINT, markersize=5, label=f"measured, inputs of spread {spread:g}")
    axes.plot([], [], color=FAINT, linewidth=1, label="mean field")
    axes.plot([], [], color=INK, linewidth=1, linestyle="--", label="at best: 1 and 0.25ᵈ")
    axes.text(20, 1e-9, "sigmoid", color=VERMILION)
    axes.text(20, 3e-7, "tanh", color=BLUE)
    axes.set(xlabel="lag d in steps", ylabel="gradient (log scale)", title="Gradient by time lag", yscale="log")
    axes.set(ylim=(1e-19, 30), xlim=(0, LAGS))
    axes.yaxis.set_major_locator(LogLocator(base=1000, numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(loc="lower left", fontsize=8)


def draw_factors(axes: Axes, factors: dict[Function, dict[float, float]]) -> None:
    """What is left after each step, by how large the inputs are."""
    spreads = np.linspace(0, max(SPREADS), 61)
    for name in FUNCTIONS:
        axes.plot(spreads, [mean_field(name, s) for s in spreads], color=COLOURS[name], linewidth=1.5)
        axes.plot(SPREADS, list(factors[name].values()), "o", color=COLOURS[name], markersize=6)
    axes.text(0.75, 0.72, "tanh", color=BLUE)
    axes.text(1.45, 0.13, "sigmoid", color=VERMILION)
    axes.plot([], [], "o", color=FAINT, label="measured")
    axes.plot([], [], color=FAINT, label="mean field")
    axes.set(xlabel="spread of the inputs to a unit", ylabel="factor", title="Factor for each step", ylim=(0, 1.1))
    axes.legend(loc="upper right", fontsize=9)


def main(out: Path) -> None:
    """Measures, compares with theory, and draws."""
    curves: dict[Function, dict[float, Tensor]] = {
        name: {spread: gradients(layer(name, spread)) for spread in SPREADS} for name in FUNCTIONS
    }
    factors: dict[Function, dict[float, float]] = {
        n: {s: float(10 ** (c[-1] / LAGS)) for s, c in found.items()} for n, found in curves.items()
    }
    check(curves, factors)
    with styled():
        figure = Figure(figsize=(11.4, 4.2))
        left, middle, right = figure.subplots(1, 3, width_ratios=(0.85, 1.3, 1))
        draw_slopes(left)
        draw_curves(middle, curves)
        draw_factors(right, factors)
        for axes in (left, middle, right):
            axes.grid(axis="y", color=BLANK, linewidth=0.5)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    main(parser.parse_args().out)
