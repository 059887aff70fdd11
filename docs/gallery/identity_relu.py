"""A recurrent network that starts by remembering everything: ReLU units whose recurrent weights start as the identity.

Each unit adds what comes in to what it holds, and passes it on as it is while that is positive. Compared with tanh units that start with
orthogonal weights, and as in torch. What one sees:

- **State.** After one input and silence the ReLU network holds what it holds, to the last bit, for ever. What an orthogonal
  tanh network holds fades as 1/√time, as large values are made smaller; torch's start has forgotten it after some dozen steps.
- **Gradient.** On inputs of the adding problem two thirds of it reach back to the first step: it passes units that are on, and no
  others. Tanh units lose it exponentially, whatever their start.
- **Training.** To add two marked numbers of a hundred is learned by the ReLU network, as far as a tenth of the error that one makes by
  always saying 1, which is 1/6, and further. Tanh networks with the same optimizer stay there.
- **There is a price.** Nothing holds such a network back: in the first 300 updates its loss jumps by up to many decades, though gradients
  are clipped. Le et al. draw input weights with a deviation of 0.001 and train for many thousand updates; here it is 0.3, to go fast.

Le, Jaitly & Hinton 2015, "A simple way to initialize recurrent networks of rectified linear units". All with Adam at a rate of 0.001;
three times or a third of it showed the same with one network each. Without arguments one network of each kind is trained; the figure was
made with --seeds 3.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from unstuck.recurrent.horizon import module_horizon
from unstuck.recurrent.layers import RNN
from unstuck.recurrent.tasks import ADDING
from unstuck.report.pictures import BLANK, BLUE, FAINT, INK, VERMILION, save, styled

UNITS, INPUT_SCALE, LENGTH = 64, 0.3, 100
BATCH, RATE, THRESHOLD, UPDATES, MEDIAN_OF = 16, 1e-3, 1.0, 2000, 50
REACH = 300
Layer = nn.Module


def identity_relu(seed: int) -> Layer:
    """With larger input weights than the paper's."""
    layer, generator = RNN(2, UNITS, nonlinearity="relu", batch_first=True), torch.Generator().manual_seed(seed)
    layer.reset_parameters(generator=generator)
    with torch.no_grad():
        layer.get_parameter("weight_ih_l0").normal_(0, INPUT_SCALE, generator=generator)
    return layer


def orthogonal_tanh(seed: int) -> Layer:
    """As tanh units of this package start."""
    layer = RNN(2, UNITS, batch_first=True)
    layer.reset_parameters(generator=torch.Generator().manual_seed(seed))
    return layer


def torch_tanh(seed: int) -> Layer:
    """As torch starts them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.RNN(2, UNITS, batch_first=True)


KINDS: dict[str, tuple[Callable[[int], Layer], str]] = {
    "ReLU, identity": (identity_relu, VERMILION),
    "tanh, orthogonal": (orthogonal_tanh, BLUE),
    "tanh, torch's start": (torch_tanh, INK),
}


@torch.no_grad()
def kept(layer: Layer) -> Tensor:
    """How much of what one input has left in the state is still there by step, in silence since: its length over that at first."""
    first = torch.randn(BATCH, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    silence = torch.zeros(BATCH, REACH, 2, dtype=torch.float64)
    heard, unheard = (layer(torch.cat([x, silence], dim=1))[0] for x in (first, torch.zeros_like(first)))
    lengths = (heard - unheard).flatten(2).norm(dim=(0, 2))
    return lengths / lengths[0]


def gradient(layer: Layer) -> Tensor:
    """By lag, on inputs of the adding problem."""
    inputs, _ = ADDING.draw(BATCH, REACH + 1, torch.Generator().manual_seed(0))
    return 10 ** module_horizon(layer, inputs.double()).log10


def train(layer: Layer, seed: int, updates: int) -> Tensor:
    """Losses of a training on the adding problem."""
    head, generator = nn.Linear(UNITS, 1), torch.Generator().manual_seed(1000 + seed)
    nn.init.normal_(head.weight, std=UNITS**-0.5, generator=generator)
    nn.init.zeros_(head.bias)
    params = [*layer.parameters(), *head.parameters()]
    optimizer, losses = torch.optim.Adam(params, RATE), torch.empty(updates)
    for update in range(updates):
        inputs, sums = ADDING.draw(BATCH, LENGTH, generator)
        loss = ADDING.loss(head(layer(inputs)[0][:, -1]), sums)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(params, THRESHOLD)
        optimizer.step()
        losses[update] = loss.detach()
    return losses


def check(states: dict[str, Tensor], gradients: dict[str, Tensor], losses: dict[str, Tensor]) -> None:
    """What the text says."""
    for name in KINDS:
        ends = losses[name][:, -200:].mean(dim=1).tolist()
        print(
            f"{name:22} state left after 10, 100, 300 steps: {', '.join(f'{float(states[name][t]):.2g}' for t in (10, 100, 300))}; "
            f"gradient: {', '.join(f'{float(gradients[name][t]):.2g}' for t in (10, 100, 300))}; "
            f"last 200 losses: {', '.join(f'{end:.4f}' for end in ends)}; "
            f"highest {float(losses[name].max()):.2g}, above 1 in {int((losses[name] > 1).sum())} updates"
        )
    relu, orthogonal, torchs = KINDS
    assert bool((states[relu] == 1).all())
    fading = states[orthogonal][100] / states[orthogonal][300]
    assert abs(float(fading) / 3**0.5 - 1) < 0.1
    assert float(states[torchs][50]) < 1e-3
    assert float(gradients[relu][REACH]) > 0.1
    assert max(float(gradients[name][REACH]) for name in (orthogonal, torchs)) < 1e-3
    if losses[relu].shape[1] >= UPDATES:
        assert float(losses[relu][:, -200:].mean(dim=1).max()) < 0.06
    baseline = ADDING.baseline(LENGTH)
    assert min(float(losses[name][:, -200:].mean()) for name in (orthogonal, torchs)) > 0.85 * baseline


def draw_over_steps(axes: Axes, curves: dict[str, Tensor], title: str) -> None:
    """Something by step or lag, on a logarithmic scale."""
    for (name, curve), (_, colour) in zip(curves.items(), KINDS.values(), strict=True):
        axes.plot(curve.clamp_min(1e-300), color=colour, linewidth=2, label=name)
    axes.set(yscale="log", ylim=(1e-6, 3), xlim=(0, REACH), title=title)
    axes.grid(axis="y", color=BLANK, linewidth=0.5)


def draw_losses(axes: Axes, losses: dict[str, Tensor]) -> None:
    """Losses of all trainings, the median of some updates at a time."""
    for (name, curves), (_, colour) in zip(losses.items(), KINDS.values(), strict=True):
        for n, curve in enumerate(curves):
            smooth = curve[: len(curve) // MEDIAN_OF * MEDIAN_OF].view(-1, MEDIAN_OF).median(dim=1).values
            at = (np.arange(len(smooth)) + 0.5) * MEDIAN_OF
            axes.plot(at, smooth, color=colour, linewidth=1.5, label=name if n == 0 else None)
    axes.axhline(ADDING.baseline(LENGTH), color=FAINT, linewidth=1, linestyle=":")
    axes.set(yscale="log", xlabel="update", xlim=(0, None), title=f"Adding two of {LENGTH} numbers", ylim=(None, 1))
    axes.set_ylabel(f"squared error, median of {MEDIAN_OF} updates")
    axes.text(UPDATES, ADDING.baseline(LENGTH) * 1.4, "always saying 1", color=FAINT, fontsize=9, ha="right")
    axes.grid(axis="y", color=BLANK, linewidth=0.5)


def main(out: Path, seeds: int, updates: int) -> None:
    """Listens, measures, trains, and draws."""
    states = {name: kept(make(0).double()) for name, (make, _) in KINDS.items()}
    gradients = {name: gradient(make(0).double()) for name, (make, _) in KINDS.items()}
    losses = {
        name: torch.stack([train(make(seed), seed, updates) for seed in range(seeds)])
        for name, (make, _) in KINDS.items()
    }
    check(states, gradients, losses)
    with styled():
        figure = Figure(figsize=(11.4, 4.1))
        left, middle, right = figure.subplots(1, 3)
        draw_over_steps(left, states, "What is left of one input")
        left.set(xlabel="steps of silence", ylabel="length of the state, over that at first")
        draw_over_steps(middle, gradients, "Gradient by time lag")
        middle.set(xlabel="lag in steps", ylabel="gradient, over that at the end")
        draw_losses(right, losses)
        left.legend(loc="center right", fontsize=9)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each kind")
    parser.add_argument("--updates", type=int, default=UPDATES, help="updates of each")
    options = parser.parse_args()
    main(options.out, options.seeds, options.updates)
