"""Backpropagation written out by hand, and four ways to find out whether it is right.

A multilayer perceptron on scikit-learn's digits in nothing but numpy: forward, backward through softmax, cross-entropy and three
activations, and gradient descent with momentum. With h₀ the pictures, hₗ = f(Wₗ hₗ₋₁ + bₗ), δₗ the gradient by what goes into f in layer l,
p the softmax of the last layer and y the target as one-hot, all of it is four lines:

    δ_last = (p − y)/n      ∂/∂Wₗ = δₗ hₗ₋₁ᵀ      ∂/∂bₗ = δₗ summed over the batch      δₗ₋₁ = Wₗᵀ δₗ · f'(hₗ₋₁)

What one sees:

- **Finite differences are right to few digits, and only with the right step.** A long step errs by the curvature, a short one by
  rounding: with a difference to one side half of the digits are lost at best, with one to both sides a third. In float32 three or four
  are left, so gradients are to be checked in float64. A step into the imaginary numbers takes no difference, and has no such limit.
- **Autograd agrees to the last digits**, with all three activations, in every weight of every layer.
- **Errors tell where the mistake is.** With the slope of the second layer forgotten the gradients of the third are right and all
  before it wrong. They still point downhill: with tanh the training works, and nobody sees that it does less well than it could.
- **Trained side by side with torch** the weights are the same to eleven digits and more after 600 updates.

Rumelhart, Hinton & Williams 1986; Squire & Trapp 1998 (the step into the imaginary numbers).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, VERMILION, save, styled

Array = NDArray[Any]
Parameters = list[Array]  # weight and bias of each layer, one after the other; weights have the shape (outputs, inputs)
SIZES = (64, 32, 16, 10)
TRAINING, BATCH, UPDATES, RATE, MOMENTUM = 1400, 50, 600, 0.1, 0.9
CHECKED = 50  # pictures that gradients are checked on
PICKED = 8  # weights of each layer that finite differences are taken of
STEPS = 10.0 ** np.arange(-15, 0.26, 0.25)
EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Activation:
    """A function, and its slope by what the function gave."""

    function: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    module: type[nn.Module]


# The ReLU is written so that it takes complex numbers too.
ACTIVATIONS = {
    "tanh": Activation(np.tanh, lambda h: 1 - h**2, nn.Tanh),
    "sigmoid": Activation(lambda z: 1 / (1 + np.exp(-z)), lambda h: h * (1 - h), nn.Sigmoid),
    "ReLU": Activation(lambda z: z * (z.real > 0), lambda h: 1.0 * (h > 0), nn.ReLU),
}
COLOURS = {"tanh": BLUE, "sigmoid": VERMILION, "ReLU": GREEN}

# ---------------------------------------------------------------------- the network


def initial(rng: np.random.Generator) -> Parameters:
    """Weights after Glorot and Bengio 2010, and small biases, so that none is checked at zero."""
    parameters = []
    for inputs, outputs in itertools.pairwise(SIZES):
        parameters += [rng.normal(0, (2 / (inputs + outputs)) ** 0.5, (outputs, inputs)), rng.normal(0, 0.1, outputs)]
    return parameters


def forward(parameters: Parameters, x: Array, activation: Activation) -> list[Array]:
    """What goes into the first layer and comes out of each; the last gives logits."""
    outputs = [x]
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        z = outputs[-1] @ weight.T + bias
        outputs.append(z if len(outputs) == len(SIZES) - 1 else activation.function(z))
    return outputs


def probabilities(logits: Array) -> Array:
    """The softmax of each row."""
    powers = np.exp(logits - logits.real.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def mean_loss(logits: Array, targets: Array) -> Any:
    """The cross-entropy with classes, a mean over the batch."""
    return -np.log(probabilities(logits)[np.arange(len(targets)), targets]).mean()


def backward(parameters: Parameters, outputs: list[Array], targets: Array, slopes: Sequence[Callable]) -> Parameters:
    """The gradient by each of the parameters; slopes are those of the hidden layers."""
    delta = probabilities(outputs[-1])
    delta[np.arange(len(targets)), targets] -= 1
    delta /= len(targets)
    gradients: Parameters = []
    for layer in reversed(range(len(SIZES) - 1)):
        gradients = [delta.T @ outputs[layer], delta.sum(axis=0), *gradients]
        if layer:
            delta = delta @ parameters[2 * layer] * slopes[layer - 1](outputs[layer])
    return gradients


def gradient(parameters: Parameters, x: Array, targets: Array, activation: Activation) -> Parameters:
    """Forward and backward."""
    return backward(parameters, forward(parameters, x, activation), targets, [activation.slope] * 2)


# ---------------------------------------------------------------------- the checks


def torch_network(parameters: Parameters, activation: Activation) -> nn.Sequential:
    """The same network by torch."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(SIZES):
        layers += [nn.Linear(inputs, outputs, dtype=torch.float64), activation.module()]
    network = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for theirs, ours in zip(network.parameters(), parameters, strict=True):
            theirs.copy_(torch.from_numpy(ours))
    return network


def by_autograd(parameters: Parameters, x: Array, targets: Array, activation: Activation) -> Parameters:
    """The gradient by torch's autograd."""
    network = torch_network(parameters, activation)
    loss = cross_entropy(network(torch.from_numpy(x)), torch.from_numpy(targets))
    return [g.numpy() for g in torch.autograd.grad(loss, list(network.parameters()))]


def errors(found: Parameters, right: Parameters) -> list[float]:
    """Largest difference over largest magnitude, for each parameter."""
    return [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, right, strict=True)]


def shifted(parameters: Parameters, which: int, place: int, step: complex) -> Parameters:
    """A copy in which one number is changed."""
    moved = [np.array(p, np.result_type(p, type(step))) for p in parameters]
    moved[which].reshape(-1)[place] += step
    return moved


METHODS = {
    "to one side": lambda loss, at, h: (loss(at(h)) - loss(at(0.0))) / h,
    "to both sides": lambda loss, at, h: (loss(at(h)) - loss(at(-h))) / (2 * h),
    "imaginary step": lambda loss, at, h: loss(at(1j * h)).imag / h,
}


def picked(gradients: Parameters, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Some numbers of each parameter: which parameter, and its place. Those whose gradient is next to nothing are left out."""
    chosen = []
    for which, values in enumerate(gradients):
        flat = np.abs(values).reshape(-1)
        places = np.flatnonzero(flat > 0.1 * flat.max())
        chosen += [(which, int(place)) for place in rng.permutation(places)[:PICKED]]
    return chosen


def difference_errors(
    method: Callable, parameters: Parameters, x: Array, targets: Array, activation: Activation, steps: Array
) -> Array:
    """Relative errors of finite differences, shape `(steps, numbers)`, held against our gradient in float64."""
    right = gradient([p.astype(np.float64) for p in parameters], x.astype(np.float64), targets, activation)

    def loss(moved: Parameters) -> Any:
        return mean_loss(forward(moved, x, activation)[-1], targets)

    def error(step: float, which: int, place: int) -> float:
        true = float(right[which].reshape(-1)[place])
        found = method(loss, lambda h: shifted(parameters, which, place, h), parameters[0].dtype.type(step))
        return abs(float(found) - true) / abs(true)

    chosen = picked(right, np.random.default_rng(1))
    return np.array([[error(float(step), *one) for one in chosen] for step in steps])


def forgotten(parameters: Parameters, x: Array, targets: Array, activation: Activation) -> Parameters:
    """The gradient by someone who forgot the slope of the second layer."""
    slopes = [activation.slope, np.ones_like]
    return backward(parameters, forward(parameters, x, activation), targets, slopes)


def cosine(found: Parameters, right: Parameters) -> float:
    """Of the angle between two gradients."""
    a, b = (np.concatenate([p.reshape(-1) for p in one]) for one in (found, right))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


# ---------------------------------------------------------------------- training


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    parameters: Parameters
    losses: list[float]
    accuracy: float


Data = tuple[Array, Array, Array, Array]


def digits() -> Data:
    """Pictures and classes to train on, and to test."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = data.data[order] / 16, data.target[order]
    return x[:TRAINING], y[:TRAINING], x[TRAINING:], y[TRAINING:]


def batches(seed: int) -> list[Array]:
    """The pictures of each update."""
    rng, per_epoch = np.random.default_rng(seed), TRAINING // BATCH
    return [b for _ in range(UPDATES // per_epoch + 1) for b in rng.permutation(TRAINING).reshape(-1, BATCH)][:UPDATES]


def trained(data: Data, activation: Activation, seed: int, gradient_of: Callable = gradient) -> Trained:
    """Gradient descent with momentum, by hand."""
    x, y, test_x, test_y = data
    parameters = initial(np.random.default_rng(seed))
    speeds, losses = [np.zeros_like(p) for p in parameters], []
    for batch in batches(seed):
        losses.append(float(mean_loss(forward(parameters, x[batch], activation)[-1], y[batch])))
        found = gradient_of(parameters, x[batch], y[batch], activation)
        speeds = [MOMENTUM * v + g for v, g in zip(speeds, found, strict=True)]
        parameters = [p - RATE * v for p, v in zip(parameters, speeds, strict=True)]
    right = forward(parameters, test_x, activation)[-1].argmax(axis=1) == test_y
    return Trained(parameters, losses, float(right.mean()))


def trained_by_torch(data: Data, activation: Activation, seed: int) -> Trained:
    """The same by torch."""
    x, y, test_x, test_y = (torch.from_numpy(part) for part in data)
    network = torch_network(initial(np.random.default_rng(seed)), activation)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM)
    losses = []
    for batch in batches(seed):
        optimizer.zero_grad()
        loss = cross_entropy(network(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        right = network(test_x).argmax(1) == test_y
    return Trained([p.detach().numpy() for p in network.parameters()], losses, float(right.double().mean()))


# ---------------------------------------------------------------------- what is claimed

Curves = dict[str, Array]
KINDS = ("weights 1", "biases 1", "weights 2", "biases 2", "weights 3", "biases 3")
FLOAT32 = "to both sides, float32"


def difference_curves(parameters: Parameters, x: Array, targets: Array) -> Curves:
    """Relative errors of all ways to take differences, by the step, for tanh."""
    tanh = ACTIVATIONS["tanh"]
    curves = {n: difference_errors(m, parameters, x, targets, tanh, STEPS) for n, m in METHODS.items()}
    coarse = [p.astype(np.float32) for p in parameters]
    curves[FLOAT32] = difference_errors(
        METHODS["to both sides"], coarse, x.astype(np.float32), targets, tanh, STEPS[24:]
    )
    return curves


def slope(steps: Array, found: Array, low: float, high: float) -> float:
    """The power of the step that errors go by, between two steps."""
    chosen = (steps > low) & (steps < high)
    return float(np.polyfit(np.log(steps[chosen]), np.log(found[chosen]), 1)[0])


def check_differences(curves: Curves) -> None:
    """Powers of the errors on both sides of the best step, and what the best is."""
    medians = {name: np.median(found, axis=1) for name, found in curves.items()}
    best = {name: (STEPS[-len(m) :][m.argmin()], m.min()) for name, m in medians.items()}
    for name, (step, least) in best.items():
        print(f"{name}: median error {least:.1g} at best, with a step of {step:.1g}")
    one, both, imaginary = (medians[name] for name in METHODS)
    powers = [
        slope(STEPS, one, 1e-6, 1e-2), slope(STEPS, one, 1e-13, 1e-9), slope(STEPS, both, 1e-3, 1e-1), slope(STEPS, both, 1e-13, 1e-7),
        slope(STEPS, imaginary, 1e-5, 1e-1),
    ]  # fmt: skip
    print("errors go by the step to the power of", ", ".join(f"{p:.2f}" for p in powers))
    assert np.allclose(powers, [1, -1, 2, -1, 2], atol=0.15)
    for name, power in {
        "to one side": 1 / 2,
        "to both sides": 1 / 3,
    }.items():  # where loss and derivatives are of size one
        assert EPSILON**power / 30 < best[name][0] < EPSILON**power * 30
    assert best["to one side"][1] < 1e-6
    assert best["to both sides"][1] < 1e-8
    assert imaginary[STEPS < 1e-9].max() < 1e-14
    assert best[FLOAT32][1] > 1e-5


def check_gradients(parameters: Parameters, x: Array, targets: Array) -> dict[str, list[float]]:
    """Errors by parameter: against autograd, and of a gradient with a mistake."""
    found = {}
    for name, activation in ACTIVATIONS.items():
        ours = gradient(parameters, x, targets, activation)
        found[name] = errors(ours, by_autograd(parameters, x, targets, activation))
        print(f"{name}: largest error against autograd {max(found[name]):.1g}")
        assert max(found[name]) < 1e-14
    tanh = ACTIVATIONS["tanh"]
    wrong, ours = forgotten(parameters, x, targets, tanh), gradient(parameters, x, targets, tanh)
    found["mistake"] = errors(wrong, ours)
    print(f"slope forgotten: errors {[f'{e:.2g}' for e in found['mistake']]}, cosine {cosine(wrong, ours):.3f}")
    assert min(found["mistake"][:4]) > 0.1
    assert found["mistake"][4:] == [0, 0]
    assert cosine(wrong, ours) > 0.9
    return found


def check_training(data: Data) -> list[Trained]:
    """The same weights as torch's, with all activations; what a mistake costs. Gives the first run by hand, by torch and with it."""
    for name, activation in ACTIVATIONS.items():
        ours, theirs = trained(data, activation, 0), trained_by_torch(data, activation, 0)
        apart = max(errors(ours.parameters, theirs.parameters))
        print(f"{name}: after {UPDATES} updates weights are apart by {apart:.1g}; test accuracy {ours.accuracy:.3f}")
        assert apart < 1e-9
        assert ours.accuracy == theirs.accuracy > 0.95
    tanh, seeds = ACTIVATIONS["tanh"], range(5)
    right = [trained(data, tanh, seed) for seed in seeds]
    wrong = [trained(data, tanh, seed, forgotten) for seed in seeds]
    means = [float(np.mean([run.accuracy for run in runs])) for runs in (right, wrong)]
    print(f"tanh, mean of {len(seeds)} seeds: accuracy {means[0]:.3f}, with the slope forgotten {means[1]:.3f}")
    assert means[1] > 0.9  # nobody would look for a mistake
    assert all(a.accuracy > b.accuracy for a, b in zip(right, wrong, strict=True))
    return [right[0], trained_by_torch(data, tanh, 0), wrong[0]]


# ---------------------------------------------------------------------- the figure


def draw_differences(axes: Axes, curves: Curves) -> None:
    """Errors by the step."""
    looks = {"to one side": VERMILION, "to both sides": BLUE, FLOAT32: PURPLE, "imaginary step": GREEN}
    for name, colour in looks.items():
        steps = STEPS[-len(curves[name]) :]
        low, middle, high = np.quantile(np.clip(curves[name], 3e-17, None), (0.25, 0.5, 0.75), axis=1)
        axes.plot(steps, middle, color=colour, linewidth=2, label=name)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    for step, height, words in ((4e-11, 1.5e-2, "rounding: ε/h"), (2.5e-4, 4e-4, "h"), (1.2e-2, 2e-6, "h²")):
        axes.text(step, height, words, color=INK, fontsize=9, ha="center")
    axes.set(xscale="log", yscale="log", ylim=(3e-17, 3), xlim=(1e-15, 1.2), xlabel="step h", ylabel="relative error")
    axes.set_title("Finite differences against backpropagation")
    axes.legend(loc="lower right", fontsize=8.5)


def draw_errors(axes: Axes, found: dict[str, list[float]], curves: Curves) -> None:
    """Errors by layer."""
    places = np.arange(len(KINDS))
    both = curves["to both sides"]
    best = np.median(both, axis=1).argmin()
    for kind in places:
        spots = both[best, kind * PICKED : (kind + 1) * PICKED]
        axes.plot(np.full(len(spots), kind), spots, "_", color=FAINT, markersize=9)
    axes.plot([], [], "_", color=FAINT, markersize=9, label="differences to both sides, best step")
    for name, mark, shift in zip(ACTIVATIONS, "os^", (-0.15, 0, 0.15), strict=True):
        axes.plot(places + shift, found[name], mark, color=COLOURS[name], markersize=5, label=f"autograd, {name}")
    wrong = np.array(found["mistake"])
    axes.plot(places[wrong > 0], wrong[wrong > 0], "X", color=ORANGE, markersize=8, label="slope of layer 2 forgotten")
    axes.text(4.5, 1.5e-1, "right: none", color=ORANGE, fontsize=9, ha="center")
    axes.set_xticks(places, [k.replace(" ", "\n") for k in KINDS], fontsize=8.5)
    axes.set(yscale="log", ylim=(3e-17, 3), ylabel="relative error", title="Errors by layer")
    axes.legend(loc="center", bbox_to_anchor=(0.5, 0.7), fontsize=8.5)


def draw_learning(above: Axes, below: Axes, runs: list[Trained]) -> None:
    """Losses side by side, and how far apart they are."""
    ours, theirs, wrong = (np.array(run.losses) for run in runs)
    updates = np.arange(UPDATES)
    window = np.ones(TRAINING // BATCH) / (TRAINING // BATCH)
    above.plot(updates, ours, color=BLUE, linewidth=2.2, label=f"by hand: {runs[0].accuracy:.1%} right in the test")
    above.plot(updates[::15], theirs[::15], "o", color=INK, markersize=3.2, label=f"torch: {runs[1].accuracy:.1%}")
    smooth = np.convolve(wrong, window, "valid")
    label = f"slope forgotten (mean of an epoch): {runs[2].accuracy:.1%}"
    above.plot(updates[: len(smooth)] + len(window) // 2, smooth, color=ORANGE, linewidth=1.5, label=label)
    above.set(yscale="log", ylabel="loss", title="Training, by hand and by torch", xlim=(0, UPDATES), ylim=(2e-4, 4))
    above.tick_params(labelbottom=False)
    above.legend(loc="lower left", fontsize=8.5)
    below.plot(updates, np.clip(np.abs(ours - theirs), 1e-18, None), ".", color=BLUE, markersize=2)
    below.set(yscale="log", ylabel="apart by", xlabel="update", xlim=(0, UPDATES), ylim=(1e-18, 1e-13))
    below.yaxis.set_major_locator(LogLocator(numticks=4))


def draw_weights(axes: Axes, weights: Array) -> None:
    """What each unit of the first layer has learned to look for, as a picture."""
    tiles = np.full((4 * 9 + 1, 8 * 9 + 1), np.nan)
    for unit, picture in enumerate(weights.reshape(-1, 8, 8)):
        row, column = 9 * (unit // 8) + 1, 9 * (unit % 8) + 1
        tiles[row : row + 8, column : column + 8] = picture
    most = float(np.quantile(np.abs(weights), 0.995))
    shades = axes.imshow(tiles, cmap="RdBu", vmin=-most, vmax=most)
    axes.figure.colorbar(shades, ax=axes, label="weight, end less start", shrink=0.75)
    axes.set(xticks=[], yticks=[], title="What the first layer has learned, one picture a unit")
    axes.spines[:].set_visible(False)


def main(out: Path) -> None:
    """Checks, trains and draws."""
    data, parameters = digits(), initial(np.random.default_rng(0))
    x, y = data[0][:CHECKED], data[1][:CHECKED]
    curves = difference_curves(parameters, x, y)
    check_differences(curves)
    found = check_gradients(parameters, x, y)
    runs = check_training(data)
    with styled():
        figure = Figure(figsize=(11.6, 7.6))
        panels = figure.subplot_mosaic(
            [["v", "errors"], ["loss", "weights"], ["apart", "weights"]], height_ratios=(1.25, 0.85, 0.35)
        )
        draw_differences(panels["v"], curves)
        draw_errors(panels["errors"], found, curves)
        draw_learning(panels["loss"], panels["apart"], runs)
        draw_weights(panels["weights"], runs[0].parameters[0] - initial(np.random.default_rng(0))[0])
        for name in ("v", "errors"):
            panels[name].yaxis.set_major_locator(LogLocator(base=1000, numticks=8))
            panels[name].yaxis.set_minor_locator(NullLocator())
            panels[name].grid(axis="y", color=BLANK, linewidth=0.5)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    main(options.out)
