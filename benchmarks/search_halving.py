"""How many epochs halving takes to find the best child that training all to the end finds, on learning curves of real trainings.

    python benchmarks/search_halving.py [--children 60] [--epochs 81] [--pool 27] [--draws 200]

Networks with one to three hidden layers, of any width, activation, rate, momentum and batch size, are trained on scikit-learn's digits to
the end, and evaluated after each epoch on samples that weren't trained on. Then pools are drawn from them, and halved as a search halves
its children: by their scores at the ends of the stages, one after the other. What is told: the share of the epochs that training all of the
pool would have taken; how often the child that is best at the end was found; and by how much the one that was found falls short of it.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from measure import machine, machine_line, table
from unstuck.search.halving import Halving, stages
from unstuck.search.space import Draw, Space
from unstuck.training import Training

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


def space(draw: Draw) -> dict[str, Any]:
    """A network, and how it is trained."""
    return {
        "widths": [draw.integer("width", 4, 128, log=True, of=i) for i in range(draw.depth("layers", 1, 3))],
        "activation": draw.choice("activation", ["sigmoid", "tanh", "relu"]),
        "rate": draw.number("rate", 1e-4, 3.0, log=True),
        "momentum": draw.choice("momentum", [0.0, 0.5, 0.9, 0.95]),
        "batch": draw.choice("batch", [16, 32, 64, 128, 256]),
    }


def curve(chosen: dict[str, Any], epochs: int) -> list[float]:
    """Accuracy on held-out samples after each epoch."""
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    torch.manual_seed(0)
    sizes = [64, *chosen["widths"]]
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), ACTIVATIONS[chosen["activation"]]())]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=chosen["rate"], momentum=chosen["momentum"])
    batches = DataLoader(TensorDataset(x[:1200], y[:1200]), batch_size=chosen["batch"], shuffle=True)
    training = Training(model, nn.functional.cross_entropy, optimizer, batches, epochs=epochs)
    scores: list[float] = []

    def evaluate(_training: Any, _epoch: Any) -> None:
        with torch.no_grad():
            scores.append(float((model(x[1200:]).argmax(1) == y[1200:]).float().mean()))

    training.on_epoch.append(evaluate)
    training.run()
    return scores


def halved(curves: list[list[float]]) -> tuple[float, int]:
    """Share of all epochs that halving takes, and the child that it finds."""
    ends, halving, spent = stages(len(curves[0])), Halving(), 0
    reached: dict[int, tuple[int, float]] = {}

    def go(child: int, stage: int) -> None:
        nonlocal spent
        spent += ends[stage] - (ends[stage - 1] if stage else 0)
        score = curves[child][ends[stage] - 1]
        reached[child] = (stage, score)
        if stage + 1 < len(ends):
            halving.note(child, stage, score)

    for child in range(len(curves)):
        go(child, 0)
    while (found := halving.next(over=math.inf)) is not None:
        halving.went_on(*found)
        go(found[0], found[1] + 1)
    return spent / (len(curves) * len(curves[0])), max(reached, key=lambda c: reached[c])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--children", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=81)
    parser.add_argument("--pool", type=int, default=27)
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine_line(machine()), "\n")
    rng, made = random.Random(0), Space(space)
    curves = [curve(made.random(rng).chosen, options.epochs) for _ in range(options.children)]
    rows = []
    for epochs in (27, options.epochs):
        cut = [c[:epochs] for c in curves]
        shares, hits, short = [], 0, []
        for _ in range(options.draws):
            pool = rng.sample(range(len(cut)), options.pool)
            share, found = halved([cut[i] for i in pool])
            best, got = max(cut[i][-1] for i in pool), cut[pool[found]][-1]
            shares.append(share)
            hits += got == best
            short.append(best - got)
        rows.append([
            epochs, " ".join(map(str, stages(epochs))), f"{statistics.mean(shares):.1%}", f"{hits / options.draws:.0%}",
            f"{100 * statistics.mean(short):.2f}", f"{100 * max(short):.2f}",
        ])  # fmt: skip
    print(
        table(["epochs", "stages", "share of the epochs", "the best was found", "points short, mean", "at most"], rows)
    )


if __name__ == "__main__":
    main()
