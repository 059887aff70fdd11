"""Batches of 8,192 instead of 128 at equal epochs: LAMB and LARS beside SGD and Adam.

A batch 64 times as large makes 64 times fewer updates in the same number of epochs, so each has to go further. The same network is
trained for 30 epochs, all with the same schedule (warm-up over a tenth, then down to zero in a straight line). What one sees:

- **SGD with the rate of the small batch comes nowhere near**: it makes the same steps, 64 times fewer.
- **A larger rate makes up for a part of that** only: what some layers bear is too small for others.
- **LAMB and LARS come within a point of the small batch.** Their step in each layer is a share of the length of the layer's weights, so
  that no layer moves much faster or slower than the others.
- **Adam isn't far behind**: with a rate of its own, which is 50 times its usual one, it loses little more than a point.

Five rates were tried for each of the five ways to train, and the best on a part split off the training data was taken; SGD's were 2 to 64
times that of the small batch, the rules of the square root (8) and of proportion (64) among them. Test data had no part in that. The grids
of LARS and Adam were moved once by a step, as the best was at their upper end, and LARS' coefficient was set to 0.02 after rates that went
with 0.001 were too large for biases. All else (momentum, betas, no decay) is as usual and was not tuned. `--tune` does the grids again.

You et al. 2017 (LARS), You et al. 2020 (LAMB), Goyal et al. 2017 (rates in proportion). Without arguments it runs on the digits that
scikit-learn brings, with batches of 3 and 192, which make as many updates in an epoch; these are easy, and all come near that have a rate
of their own. The figure was made with

    python large_batches.py --fashion FOLDER   # with train-images-idx3-ubyte.gz and the three other files of Fashion-MNIST
"""

from __future__ import annotations

import argparse
import gzip
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unstuck.optim.lamb import Lamb
from unstuck.optim.lars import Lars
from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, VERMILION, save, styled

WARM_UP, HIDDEN, MOMENTUM, SEEDS = 0.1, 64, 0.9, 3
Part = tuple[Tensor, Tensor]
Make = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]


def sgd(params: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """With momentum."""
    return torch.optim.SGD(params, rate, momentum=MOMENTUM)


def lars(params: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """With the coefficient that is usual beside rates of about 1; with 0.001 rates are 20 times that, and too large for biases."""
    return Lars(params, rate, momentum=MOMENTUM, trust=0.02)


@dataclass(frozen=True)
class Way:
    """A way to train.

    Attributes:
        name: Of the optimizer.
        make: Makes it, with a rate.
        large: Whether batches are large.
        tried: Rates that were tried; those of SGD with large batches are multiples of the one of small batches.
        colour: Of its line.
    """

    name: str
    make: Make
    large: bool
    tried: tuple[float, ...]
    colour: str


SMALL = Way("SGD", sgd, False, (0.005, 0.01, 0.02, 0.05, 0.1), INK)
MULTIPLES = (2, 4, 8, 16, 64)
TUNED = (
    Way("LAMB", Lamb, True, (0.01, 0.02, 0.035, 0.05, 0.1), VERMILION),
    Way("LARS", lars, True, (0.25, 0.5, 1, 2, 4), ORANGE),
    Way("Adam", torch.optim.Adam, True, (0.005, 0.01, 0.02, 0.05, 0.1), BLUE),
    Way("SGD", sgd, True, MULTIPLES, GREEN),
)


@dataclass(frozen=True)
class Task:
    """Data, the two sizes of batch, and the rates that `--tune` found.

    Attributes:
        name: Of the data.
        train: Inputs and labels; the last sixth is what tuning evaluates on.
        test: Likewise.
        batches: The small and the large one.
        epochs: Of every training.
        easy: Whether all ways come near with a rate of their own, so that they are in no order.
        rates: For SGD with small batches, then in the order of `TUNED`.
    """

    name: str
    train: Part
    test: Part
    batches: tuple[int, int]
    epochs: int
    easy: bool
    rates: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """Accuracies of some trainings with different seeds, by epoch, `(seeds, epochs)`."""

    label: str
    colour: str
    accuracies: np.ndarray

    @property
    def last(self) -> float:
        """Mean over seeds after the last epoch, in percent."""
        return 100 * float(self.accuracies[:, -1].mean())


def scaled(train: Part, test: Part) -> tuple[Part, Part]:
    """Shuffles what is trained on, and scales both by its mean and spread."""
    order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(0))
    mean, spread = train[0].mean(), train[0].std()
    return ((train[0][order] - mean) / spread, train[1][order]), ((test[0] - mean) / spread, test[1])


def digits() -> Task:
    """1,400 digits of 8 x 8 pixels, and 397 to test."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = torch.tensor(data.data[order], dtype=torch.float32), torch.tensor(data.target[order])
    train, test = scaled((x[:1400], y[:1400]), (x[1400:], y[1400:]))
    return Task("digits", train, test, (3, 192), 10, True, (0.02, 0.05, 1, 0.05, 8))


def fashion(folder: Path) -> Task:
    """60,000 pictures of clothes, and 10,000 to test."""

    def read(name: str, header: int) -> Tensor:
        return torch.tensor(
            np.frombuffer(gzip.decompress((folder / f"{name}.gz").read_bytes()), np.uint8, offset=header)
        )

    def part(name: str) -> Part:
        pictures = read(f"{name}-images-idx3-ubyte", 16).reshape(-1, 784).float() / 255
        return pictures, read(f"{name}-labels-idx1-ubyte", 8).long()

    return Task(
        "Fashion-MNIST", *scaled(part("train"), part("t10k")), (128, 8192), 30, False, (0.02, 0.05, 2, 0.05, 16)
    )


def accuracy(net: nn.Module, part: Part) -> float:
    """Share that is right."""
    with torch.no_grad():
        return float((net(part[0]).argmax(1) == part[1]).float().mean())


def trained(train: Part, test: Part, make: Make, rate: float, batch: int, *, epochs: int, seed: int) -> list[float]:
    """Trains with batches of one size, and tells the accuracy after each epoch."""
    torch.manual_seed(seed)
    (x, y), seen = train, []
    net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
    optimizer = make(net.parameters(), rate)
    updates = epochs * math.ceil(len(x) / batch)
    warm_up = WARM_UP * updates
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min((done + 1) / warm_up, (updates - done) / (updates - warm_up), 1)
    )
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            cross_entropy(net(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()
        seen.append(accuracy(net, test))
    return seen


def tune(task: Task) -> None:
    """Tries all rates on a sixth split off the training data, one seed each."""
    cut = len(task.train[0]) * 5 // 6
    train, held = ((task.train[0][:cut], task.train[1][:cut]), (task.train[0][cut:], task.train[1][cut:]))
    best = 0.0
    for way in (SMALL, *TUNED):
        rates = [best * m for m in MULTIPLES] if way.tried is MULTIPLES else way.tried
        batch = task.batches[way.large]
        scores = [trained(train, held, way.make, rate, batch, epochs=task.epochs, seed=0)[-1] for rate in rates]
        best = rates[int(np.argmax(scores))] if way is SMALL else best
        listed = ", ".join(f"{rate:g}: {score:.4f}" for rate, score in zip(rates, scores, strict=True))
        print(f"{task.name}, {way.name}, batch {batch}: {listed}", flush=True)


def compete(task: Task) -> list[Result]:
    """Trains in all ways: small batches first, then LAMB, LARS, Adam, SGD, and SGD with the rate of the small batches."""
    small, large = task.batches
    first, *others = task.rates
    ways = [(f"SGD, batch {small}", SMALL, first, small)]
    for way, rate in zip(TUNED, others, strict=True):
        ways.append((way.name, way, rate * first if way.tried is MULTIPLES else rate, large))
    ways.append(("SGD, rate as it was", Way("SGD", sgd, True, (), PURPLE), first, large))
    results = []
    for label, way, rate, batch in ways:
        began = time.process_time()
        runs = [
            trained(task.train, task.test, way.make, rate, batch, epochs=task.epochs, seed=seed)
            for seed in range(SEEDS)
        ]
        results.append(Result(label, way.colour, np.array(runs)))
        lasts = ", ".join(f"{100 * run[-1]:.2f}" for run in runs)
        seconds = time.process_time() - began
        print(
            f"{label:20} batch {batch:5}, rate {rate:<6g} {results[-1].last:.2f} % ({lasts}), {seconds:.0f} s",
            flush=True,
        )
    return results


def check(task: Task, results: list[Result]) -> None:
    """Holds what was measured against what is claimed."""
    small, lamb, lars_, adam, sgd_, same = (result.last for result in results)
    print(f"lost to small batches, in points: LAMB {small - lamb:.2f}, LARS {small - lars_:.2f}, Adam {small - adam:.2f}, "
          f"SGD {small - sgd_:.2f}, SGD with the rate as it was {small - same:.2f}")  # fmt: skip
    assert small - lamb <= 1, "LAMB loses at most one point"
    assert small - same > (2 if task.easy else 5), "SGD with the rate of small batches loses more than five"
    assert same < sgd_, "a larger rate makes up for a part"
    assert small - lars_ <= 1, "LARS loses at most one point"
    assert task.easy or lamb > max(adam, sgd_), "LAMB comes nearer than Adam, and that nearer than SGD"
    assert task.easy or adam > sgd_ + 1, "SGD stays behind with any rate"


def draw_course(axes: Axes, results: list[Result], floor: float) -> None:
    """Accuracy by epoch, mean over seeds."""
    for result in results:
        style: dict[str, Any] = {"linestyle": "--", "zorder": 3} if result is results[0] else {}
        course = 100 * result.accuracies.mean(0)
        axes.plot(range(1, len(course) + 1), course, color=result.colour, linewidth=1.8, **style)
    axes.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(floor, None), xlim=(0, None))
    axes.grid(axis="y", color=BLANK, linewidth=0.5)


def draw_ends(axes: Axes, results: list[Result], floor: float) -> None:
    """Where each ends, a dot for each seed, beside what small batches reach less one point and less five."""
    reference = results[0].last
    for lost in (1, 5):
        axes.axvline(reference - lost, color=FAINT, linewidth=1, linestyle=":")
        axes.text(reference - lost, len(results) - 0.36, f" −{lost}", color=FAINT, ha="left", va="bottom", fontsize=9)
    for row, result in enumerate(results):
        ends = 100 * result.accuracies[:, -1]
        axes.plot(ends, [row] * len(ends), "o", color=result.colour, alpha=0.75, markeredgewidth=0, markersize=7)
        axes.text(
            max(result.last, floor),
            row + 0.36,
            f"{result.last:.1f}",
            color=result.colour,
            ha="center",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(results)), [result.label for result in results])
    for tick, result in zip(axes.get_yticklabels(), results, strict=True):
        tick.set_color(result.colour)
    axes.set(xlabel="test accuracy after the last epoch, %", ylim=(len(results) - 0.3, -0.7), xlim=(floor, None))


def draw(task: Task, results: list[Result], out: Path) -> None:
    """Courses on the left, ends on the right."""
    floor = min(result.last for result in results) - 6
    with styled():
        figure = Figure(figsize=(10.6, 4.4))
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        draw_course(left, results, floor)
        draw_ends(right, results, floor + 4)
        left.set_title(f"{task.name}: batches of {task.batches[1]:,}, dashed of {task.batches[0]}")
        right.set_title(f"After {task.epochs} epochs; each dot a seed")
    save(figure, out)


def main(task: Task, out: Path) -> None:
    """Trains in all ways, checks and draws."""
    results = compete(task)
    check(task, results)
    draw(task, results, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--fashion", type=Path, help="folder with the gzipped idx files of Fashion-MNIST")
    parser.add_argument("--tune", action="store_true", help="try rates and print what they reach; draws nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = fashion(options.fashion) if options.fashion else digits()
    tune(chosen) if options.tune else main(chosen, options.out)
