"""Averages of weights against the weights themselves, where many training labels are wrong and the rate stays as it is.

Of the training labels 40% are replaced by random ones; test labels are right. One training, and beside it averages of its weights with
several decays, and an equal one of its second half; the same weights make all of them, so that differences are paired. What one sees:

- **Averages score higher than the last weights**, at nearly no cost: single steps go to and fro with the wrong labels of their batches,
  which cancels.
- **The longer the better, once training has got somewhere.** With a decay of 0.999 what is averaged is about the last thousand steps, with
  0.9 the last ten: the former ends higher.
- **A long average lags**: over the first quarter of the epochs it holds weights that were still bad, and one with a decay of 0.99 is ahead.

Dots are seeds, bars 95% intervals (Student's t) of the mean paired difference over the last third of the epochs.

Without arguments it runs on the digits that scikit-learn brings, in some seconds. The figure was made on 10,000 pictures of Fashion-MNIST:

    apt-get install dataset-fashion-mnist
    python weight_average.py --fashion /usr/share/datasets/fashion-mnist

Polyak and Juditsky 1992; Izmailov et al. 2018 for equal averages at a constant rate.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unstuck.optim.weight_average import WeightAverage
from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, INK, PURPLE, VERMILION, save, styled
from unstuck.training import Epoch, Training

WRONG = 0.4
DECAYS = (0.9, 0.99, 0.999)
LOOKS = {
    "weights": FAINT,
    "decay 0.9": GREEN,
    "decay 0.99": BLUE,
    "decay 0.999": VERMILION,
    "equal, from half-way": PURPLE,
}
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """Data and how a network is trained on them."""

    name: str
    train: Pair
    test: Pair
    hidden: int
    rate: float
    epochs: int
    seeds: int
    batch: int = 32

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return -(-len(self.train[0]) // self.batch)


class Shuffled:
    """Batches in another order each epoch."""

    def __init__(self, x: Tensor, y: Tensor, size: int, seed: int) -> None:
        self.x, self.y, self.size = x, y, size
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Pair]:
        for rows in torch.randperm(len(self.x), generator=self.generator).split(self.size):
            yield self.x[rows], self.y[rows]


def digits() -> Task:
    """1,400 digits of 8 x 8 pixels, and 397 to test."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data[order] / 16, dtype=torch.float32), torch.tensor(data.target[order])
    return Task("digits", (x[:1400], y[:1400]), (x[1400:], y[1400:]), 128, 0.02, 18, 6, batch=16)


def pictures(name: str, folder: Path) -> Task:
    """10,000 pictures of MNIST or Fashion-MNIST, and the test set."""

    def read(file: str, header: int) -> np.ndarray:
        plain = folder / file
        raw = plain.read_bytes() if plain.exists() else gzip.decompress((folder / f"{file}.gz").read_bytes())
        return np.frombuffer(raw, np.uint8, offset=header)

    def part(file: str) -> Pair:
        x = read(f"{file}-images-idx3-ubyte", 16).reshape(-1, 784)[:10_000]
        y = read(f"{file}-labels-idx1-ubyte", 8)[:10_000]
        return torch.tensor(x, dtype=torch.float32) / 255, torch.tensor(y).long()

    return Task(name, part("train"), part("t10k"), 128, 0.02, 20, 6)


def spoilt(labels: Tensor, seed: int) -> Tensor:
    """Labels of which so many are drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(len(labels), generator=generator) < WRONG
    return torch.where(chosen, torch.randint(10, labels.shape, generator=generator), labels)


def trained(task: Task, seed: int) -> dict[str, list[float]]:
    """Test accuracy after each epoch, of the weights and of their averages."""
    torch.manual_seed(seed)
    x, y = task.train
    model = nn.Sequential(nn.Linear(x.shape[1], task.hidden), nn.ReLU(), nn.Linear(task.hidden, 10))
    averages = {f"decay {d:g}": WeightAverage(model, decay=d) for d in DECAYS}
    half = task.epochs * task.steps // 2
    averages["equal, from half-way"] = WeightAverage(model, kind="equal", start=half)
    found: dict[str, list[float]] = {name: [] for name in LOOKS}

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(task.test[0]).argmax(1) == task.test[1]).float().mean())

    def look(training: Training, epoch: Epoch) -> None:
        found["weights"].append(accuracy())
        for name, average in averages.items():
            with average.swapped_in():
                found[name].append(accuracy() if average.updates else float("nan"))

    optimizer = torch.optim.SGD(model.parameters(), lr=task.rate, momentum=0.9)
    batches = Shuffled(x, spoilt(y, seed), task.batch, seed)
    training = Training(model, cross_entropy, optimizer, batches, epochs=task.epochs)
    training.on_step += [lambda _, average=average: average.update() for average in averages.values()]
    training.on_epoch.append(look)
    training.run()
    return found


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The mean, and half of its 95% interval."""
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
    return float(differences.mean()), float(half)


def told(task: Task, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Prints what was measured, holds it against what is claimed, and returns differences to the weights by seed, in points."""
    last = {name: 100 * values[:, -task.epochs // 3 :].mean(1) for name, values in found.items()}
    gains = {name: values - last["weights"] for name, values in last.items() if name != "weights"}
    print(
        f"{task.name}, {WRONG:.0%} of {len(task.train[0])} labels drawn anew, {task.seeds} seeds, {task.epochs} epochs"
    )
    print(f"  weights: {last['weights'].mean():.1f}% over the last third")
    for name, gain in gains.items():
        low, high = between(f"{name}: {last[name].mean():.1f}%", gain)
        assert low > 0, "an average scores higher"
    low, high = between("decay 0.999 against 0.9, last third", gains["decay 0.999"] - gains["decay 0.9"])
    assert low > 0, "the longer one ends higher"
    first = 100 * (found["decay 0.999"] - found["decay 0.99"])[:, : task.epochs // 4].mean(1)
    low, high = between("decay 0.999 against 0.99, first quarter", first)
    assert high < 0, "the longer one lags"
    return gains


def between(what: str, differences: np.ndarray) -> tuple[float, float]:
    """Prints a paired difference, and returns its interval."""
    mean, half = interval(differences)
    print(f"  {what}, {mean:+.2f} points [{mean - half:+.2f}, {mean + half:+.2f}]")
    return mean - half, mean + half


def draw_course(axes: Axes, task: Task, found: dict[str, np.ndarray]) -> None:
    """Accuracy by epoch, each seed faint."""
    epochs = np.arange(1, task.epochs + 1)
    for name, colour in LOOKS.items():
        values = 100 * found[name]
        axes.plot(epochs, values.mean(0), color=colour, linewidth=2.2, label=name, zorder=3)
        low, high = values.min(0), values.max(0)
        axes.fill_between(epochs, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set(title=f"Test accuracy, {task.name}", xlabel="epoch", ylabel="%", xticks=range(0, task.epochs + 1, 4))
    axes.legend(fontsize=9)


def draw_gains(axes: Axes, gains: dict[str, np.ndarray]) -> None:
    """Paired differences."""
    for row, (name, gain) in enumerate(gains.items()):
        mean, half = interval(gain)
        axes.plot(gain, np.full(len(gain), row), "o", color=LOOKS[name], alpha=0.45, markersize=5)
        axes.errorbar(mean, row + 0.2, xerr=half, fmt="s", color=LOOKS[name], capsize=4, markeredgecolor=INK)
        axes.text(mean, row + 0.32, f"{mean:+.1f}", ha="center", fontsize=9)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(gains)), list(gains))
    axes.set(title="Against the weights", xlabel="points of accuracy, last third", ylim=(-0.4, len(gains) - 0.3))
    axes.grid(axis="x", color=BLANK, linewidth=0.5)


def main(task: Task, out: Path) -> None:
    """Trains with each seed, tells and draws."""
    runs = [trained(task, seed) for seed in range(task.seeds)]
    found = {name: np.array([run[name] for run in runs]) for name in LOOKS}
    gains = told(task, found)
    with styled():
        figure = Figure(figsize=(10.6, 4.4))
        left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
        draw_course(left, task, found)
        draw_gains(right, gains)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--fashion", type=Path, help="folder with the idx files of Fashion-MNIST")
    parser.add_argument("--mnist", type=Path, help="folder with the idx files of MNIST")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.fashion:
        chosen = pictures("Fashion-MNIST", options.fashion)
    else:
        chosen = pictures("MNIST", options.mnist) if options.mnist else digits()
    main(chosen, options.out)
