"""How far back a recurrent network remembers before it has learned anything: its gradient by time lag, for every cell and many starts.

The gradient of the output at the end by the states d steps before, over that by the output itself. Where it has fallen below a thousandth
lies the *memory horizon*: nothing further back can be learned in reasonable time. All have 128 units and read random numbers, ten a step.
Both scales are logarithmic, so that an exponential bends down. What one sees:

- **Torch's start forgets.** LSTM, GRU and tanh units alike have lost all but a thousandth after a dozen steps, and ten decades after
  fifty: the gates of a new LSTM are half open, so that half of the content goes at each step.
- **One number of the start is worth a factor of five, or of a hundred.** A forget bias of 1 remembers for some dozens of steps, one of 2 or
  the chrono rule for more than the thousand that are looked at. Orthogonal weights nearly double what a forget bias of 1 gives.
- **Keeping can turn into growing.** What keeps nearly all and adds to it at each step, such as an LSTM with a forget bias of 3 or a layer
  normalised one, ends with gradients that grow over hundreds of steps; so does 1.05 times the identity, by 5 percent a step.
- **Sigmoid units forget fastest**, see tanh_and_sigmoid.py.

Hochreiter 1991; Bengio, Simard & Frasconi 1994; Le et al. 2015 (identity); Jozefowicz et al. 2015 (forget bias of 1); Tallec & Ollivier
2018 (chrono). One draw of weights each; for some of the LSTM's two more are printed, which differ little.
"""

from __future__ import annotations

import argparse
import math
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import nn

from unstuck.recurrent import cells
from unstuck.recurrent.horizon import Horizon, module_horizon
from unstuck.recurrent.layers import Recurrent
from unstuck.report.pictures import BLANK, FAINT, INK, LOOKS, save, styled

UNITS, INPUTS, BATCH, LAGS, RATIO = 128, 10, 16, 1000, 1e-3
Make = Callable[[int], nn.Module]


def ours(cell: str, *, horizon: int | None = None, **settings: Any) -> Make:
    """A layer of this package: orthogonal recurrences unless its cell says otherwise."""

    def make(seed: int) -> nn.Module:
        layer = Recurrent(cell, INPUTS, UNITS, batch_first=True, dtype=torch.float64, backend="plain", **settings)
        layer.reset_parameters(horizon=horizon, generator=torch.Generator().manual_seed(seed))
        return layer

    return make


def torchs(kind: Callable[..., nn.RNNBase], *, bias: float | None = None, **settings: Any) -> Make:
    """A layer of torch as it starts; with a bias, that of the gate that keeps (the second of both LSTM and GRU), and no others."""

    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layer = kind(INPUTS, UNITS, batch_first=True, **settings).double()
        if bias is not None:
            with torch.no_grad():
                layer.get_parameter("bias_ih_l0").zero_()
                layer.get_parameter("bias_hh_l0").zero_()
                layer.get_parameter("bias_ih_l0")[UNITS : 2 * UNITS] = bias
        return layer

    return make


TORCH = "torch's start"
DRAWN: dict[str, dict[str, Make]] = {
    "Simple units": {
        f"tanh, {TORCH}": torchs(nn.RNN),
        "sigmoid, orthogonal": ours("rnn", nonlinearity="sigmoid"),
        "tanh, orthogonal": ours("rnn"),
        "tanh, identity": ours("rnn", identity=1.0),
        "ReLU, each unit by itself": ours("indrnn"),
        "ReLU, identity": ours("rnn", nonlinearity="relu"),
        "ReLU, 1.05 × identity": ours("rnn", nonlinearity="relu", identity=1.05),
    },
    "LSTM": {
        TORCH: torchs(nn.LSTM),
        "forget bias 1": ours("lstm", forget_bias=1.0),
        "forget bias 2": ours("lstm", forget_bias=2.0),
        "forget bias 3": ours("lstm", forget_bias=3.0),
        "chrono, 1000 steps": ours("lstm", horizon=1000),
        "no forget gate (1997)": ours("lstm", forget=False),
        "layer-normalised, bias 1": ours("layer-norm-lstm"),
    },
    "GRU and minimal gated units": {
        f"GRU, {TORCH}": torchs(nn.GRU),
        "GRU, update bias 1": ours("gru", update_bias=1.0),
        "GRU, update bias 3": ours("gru", update_bias=3.0),
        "GRU, chrono, 1000 steps": ours("gru", horizon=1000),
        "minimal gated, forget bias −1": ours("minimal-gated"),
        "minimal gated, forget bias −3": ours("minimal-gated", forget_bias=-3.0),
        "minimal gated, chrono, 1000 steps": ours("minimal-gated", horizon=1000),
    },
}
LISTED: dict[str, dict[str, Make]] = {
    "Only printed": {
        "ReLU, torch's start": torchs(nn.RNN, nonlinearity="relu"),
        "fully connected, sigmoid": ours("fully-connected"),
        "fully connected, tanh": ours("fully-connected", nonlinearity="tanh"),
        "tanh, each unit by itself": ours("indrnn", nonlinearity="tanh"),
        "LSTM, coupled gates, forget bias 1": ours("lstm", coupled=True),
        "LSTM, peepholes, forget bias 1": ours("lstm", peephole=True),
        "LSTM, torch's weights, forget bias 1": torchs(nn.LSTM, bias=1.0),
        "LSTM, torch's weights, forget bias 2": torchs(nn.LSTM, bias=2.0),
        "LSTM, torch's weights, forget bias 3": torchs(nn.LSTM, bias=3.0),
        "GRU, torch's weights, update bias 1": torchs(nn.GRU, bias=1.0),
        "GRU, torch's weights, update bias 3": torchs(nn.GRU, bias=3.0),
        "GRU, state reset before the map": ours("gru", reset_after=False),
    }
}
AGAIN = (TORCH, "forget bias 1", "forget bias 2", "forget bias 3")
SHOWN = (10, 50, 100, 200, 500, 1000)


def measured(make: Make, seed: int = 0) -> Horizon:
    """The gradient by lag, on the same inputs for all."""
    inputs = torch.randn(BATCH, LAGS + 1, INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return module_horizon(make(seed), inputs, ratio=RATIO)


def said(found: Horizon) -> str:
    """The horizon in words."""
    steps = f"≥ {found.steps}" if found.at_least else str(found.steps)
    return f"{steps}, grows" if float(found.log10[-1]) > 1 else steps


def listed(groups: dict[str, dict[str, Make]]) -> dict[str, dict[str, Horizon]]:
    """Measures all, and prints them as decimal logarithms."""
    found: dict[str, dict[str, Horizon]] = {}
    for group, starts in groups.items():
        print(f"{group:36}{'horizon':>18}" + "".join(f"{lag:>9}" for lag in SHOWN))
        found[group] = {name: measured(make) for name, make in starts.items()}
        for name, one in found[group].items():
            print(f"  {name:34}{said(one):>18}" + "".join(f"{float(one.log10[lag]):9.2f}" for lag in SHOWN))
    return found


def check(simple: dict[str, Horizon], lstm: dict[str, Horizon], gated: dict[str, Horizon]) -> None:
    """What the text above says."""
    for forgets in (simple[f"tanh, {TORCH}"], lstm[TORCH], gated[f"GRU, {TORCH}"]):
        assert 8 <= forgets.steps <= 20
        assert float(forgets.log10[50]) < -9.5
    assert 20 < lstm["forget bias 1"].steps < 200
    for keeps in (
        lstm["chrono, 1000 steps"],
        gated["GRU, chrono, 1000 steps"],
        simple["ReLU, identity"],
        simple["tanh, identity"],
    ):
        assert keeps.at_least
        assert -1.5 < float(keeps.log10[-1]) < 0
    assert lstm["forget bias 2"].at_least
    for grows in (lstm["forget bias 3"], lstm["layer-normalised, bias 1"]):
        assert float(grows.log10[-1]) > 1
    five_percent = simple["ReLU, 1.05 × identity"].log10
    assert abs(float(five_percent[500] - five_percent[0]) / 500 - math.log10(1.05)) < 1e-3
    sigmoid = simple["sigmoid, orthogonal"].log10
    assert bool((sigmoid <= math.log10(0.25) * torch.arange(LAGS + 1) + 1e-9).all())
    assert bool((simple["tanh, orthogonal"].log10 <= 1e-9).all())
    assert gated["GRU, update bias 1"].steps < gated["GRU, update bias 3"].steps < LAGS


def draw_group(axes: Axes, group: str, found: dict[str, Horizon]) -> None:
    """Curves of a few starts, with their horizons below."""
    looks = [(INK, "--"), *((colour, "-") for colour, _ in LOOKS)]
    for (name, one), (colour, line) in zip(found.items(), looks, strict=True):
        sizes = 10.0 ** np.clip(one.log10.numpy()[1:], -300, 300)
        axes.plot(range(1, LAGS + 1), sizes, line, color=colour, linewidth=1.9, label=f"{name}: {said(one)}")
    axes.axhline(RATIO, color=FAINT, linewidth=1, linestyle=":")
    axes.set(xscale="log", yscale="log", xlim=(1, LAGS), ylim=(1e-6, 1e4), title=group, xlabel="lag d in steps")
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    axes.yaxis.set_major_locator(LogLocator(numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=BLANK, linewidth=0.5)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.03, -0.16), fontsize=9, title="horizon in steps", alignment="left")


def draw(found: dict[str, dict[str, Horizon]], out: Path) -> None:
    """All groups side by side."""
    with styled():
        figure = Figure(figsize=(11.4, 5.9))
        panels = figure.subplots(1, len(found), sharey=True)
        for axes, (group, ones) in zip(panels, found.items(), strict=True):
            draw_group(axes, group, ones)
        panels[1].text(1.1, RATIO * 0.8, "a thousandth", color=FAINT, fontsize=9, va="top")
        panels[0].set_ylabel("gradient by the states d steps back,\nover that by the output")
    save(figure, out)


def main(out: Path) -> None:
    """Measures, compares several draws of weights, and draws."""
    layers = [make(0) for starts in (DRAWN | LISTED).values() for make in starts.values()]
    measured_cells = {layer.definition.__name__ for layer in layers if isinstance(layer, Recurrent)}
    assert measured_cells == {found.name for found in pkgutil.iter_modules(cells.__path__)}
    drawn = listed(DRAWN)
    check(*drawn.values())
    others = listed(LISTED)["Only printed"]
    assert torch.equal(others["fully connected, tanh"].log10, drawn["Simple units"]["tanh, orthogonal"].log10)
    for name in AGAIN:
        again = [measured(DRAWN["LSTM"][name], seed) for seed in (1, 2)]
        print(f"LSTM, {name}, two other draws: {'; '.join(said(one) for one in again)}")
    draw(drawn, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    main(parser.parse_args().out)
