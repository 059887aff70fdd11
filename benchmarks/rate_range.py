"""How good the learning-rate range test is: is what it suggests near the best rate, and does it say so where none helps?

Grid: small networks on scikit-learn's digits in batches of 32. `rate_range` is given three quarters of the batches; beside it the same
network is trained on them from the same start, for `--steps` updates at each of eleven rates. The best of the grid is that of the lowest
loss on the last quarter, which neither has trained on. A suggestion is *near* within a factor of three of it. *Steepest* is that of the
sweep alone, which other range tests suggest. *Above the best* is what the suggested rate loses by as many updates: median and largest,
less than 0 where it beats the whole grid.

Hopeless: trainings in which nothing can be learned, because no gradient gets there or since there is nothing to learn. Any rate that
is suggested is wrong. A cell is how many got one.

    python benchmarks/rate_range.py                                             # both, seeds 0 to 4, about four minutes of one core
    python benchmarks/rate_range.py --only grid --networks mlp --seeds 20 --json mlp.json
    python benchmarks/rate_range.py --only hopeless --seeds 4 --first-seed 100  # fresh ones
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim import SGD, Adam, Optimizer

from measure import machine, machine_line, share, table, write_json
from unstuck.optim.rate_range import rate_range

NEAR = 3.0
BATCH = 32
Batches = list[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


class Rows(nn.Module):
    """An LSTM that reads a picture row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.view(-1, 8, 8))[0][:, -1])


def mlp(outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "cnn": cnn, "lstm": Rows}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "SGD": lambda p, rate=0.01: SGD(p, rate),
    "momentum": lambda p, rate=0.01: SGD(p, rate, momentum=0.9),
    "Adam": lambda p, rate=0.001: Adam(p, rate),
}
SPANS = {"SGD": (0.03, 10.0), "momentum": (0.003, 3.0), "Adam": (5e-4, 0.2)}  # of the grid


def digits(seed: int) -> Batches:
    """All of them, shuffled."""
    pictures, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(pictures / 16, dtype=torch.float32), torch.tensor(classes)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return [(x[rows], y[rows]) for rows in order.split(BATCH)]


# ---------------------------------------------------------------------- beside a grid


@dataclass(frozen=True)
class Suggestion:
    """One range test beside a grid.

    Attributes:
        suggested: The rate, None where none was.
        steepest: Of the sweep alone.
        best: Of the grid.
        above: Held-out loss of the suggested rate less that of the best of the grid.
    """

    network: str
    optimizer: str
    seed: int
    suggested: float | None
    steepest: float | None
    best: float
    above: float | None

    def is_near(self, rate: float | None) -> bool:
        """Whether a rate is near the best."""
        return rate is not None and abs(math.log(rate / self.best)) <= math.log(NEAR) + 1e-9


def suggestion(network: str, optimizer: str, seed: int, *, steps: int, num_rates: int) -> Suggestion:
    batches = digits(seed)
    cut = len(batches) - math.ceil(len(batches) / 4)
    train, held = batches[:cut], batches[cut:]
    torch.manual_seed(seed)
    model = NETWORKS[network]()
    found = rate_range(model, cross_entropy, OPTIMIZERS[optimizer](model.parameters()), train)

    def ends(rate: float) -> float:
        torch.manual_seed(seed)
        return trained(NETWORKS[network](), optimizer, rate, train, held, steps)

    grid = {rate: ends(rate) for rate in np.geomspace(*SPANS[optimizer], num_rates).tolist()}
    best = min(grid, key=lambda rate: grid[rate])
    above = None if found.suggested is None else ends(found.suggested) - grid[best]
    return Suggestion(network, optimizer, seed, found.suggested, found.steepest, best, above)


def trained(model: nn.Module, optimizer: str, rate: float, train: Batches, held: Batches, steps: int) -> float:
    """Mean loss on held-out batches after so many updates; infinite where it diverged."""
    made = OPTIMIZERS[optimizer](model.parameters(), rate)
    for step in range(steps):
        x, y = train[step % len(train)]
        loss = cross_entropy(model(x), y)
        if not math.isfinite(loss.item()):
            return math.inf
        made.zero_grad()
        loss.backward()
        made.step()
    with torch.no_grad():
        ended = statistics.fmean(float(cross_entropy(model(x), y)) for x, y in held)
    return ended if math.isfinite(ended) else math.inf


def grid_table(found: Sequence[Suggestion]) -> str:
    rows = []
    for network, optimizer in dict.fromkeys((one.network, one.optimizer) for one in found):
        mine = [one for one in found if (one.network, one.optimizer) == (network, optimizer)]
        ratios = sorted(one.suggested / one.best for one in mine if one.suggested is not None)
        above = [one.above for one in mine if one.above is not None]
        rows.append(
            [
                network,
                optimizer,
                f"{len(ratios)} of {len(mine)}",
                sum(one.is_near(one.suggested) for one in mine),
                sum(one.is_near(one.steepest) for one in mine),
                f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios else "-",
                f"{statistics.median(above):.3f}, {max(above):.3f}" if above else "-",
            ]
        )
    head = ["network", "optimizer", "given a rate", "near", "steepest near", "over the best", "above the best, at most"]
    return table(head, rows)


# ---------------------------------------------------------------------- where nothing can be learned


@dataclass(frozen=True)
class Hopeless:
    """A training in which nothing can be learned."""

    model: Callable[[], nn.Module]
    loss: Loss
    batches: Callable[[int], Batches]


@dataclass(frozen=True)
class Answer:
    """What the range test said of one.

    Attributes:
        suggested: The rate, None where it was right.
        says: Its sentence.
    """

    name: str
    optimizer: str
    seed: int
    suggested: float | None
    says: str


def dead(model: nn.Sequential, layer: int) -> nn.Sequential:
    """With a layer whose ReLU is shut for every input."""
    nn.init.constant_(model[layer].bias, -100.0)
    return model


def deep_sigmoid() -> nn.Module:
    hidden = [part for _ in range(19) for part in (nn.Linear(32, 32), nn.Sigmoid())]
    return nn.Sequential(nn.Linear(64, 32), nn.Sigmoid(), *hidden, nn.Linear(32, 10))


def at_random(seed: int, *, classes: bool = True) -> Batches:
    """Forty batches of pictures, with targets that are drawn."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.cat([x for x, _ in digits(seed)])
    rows = torch.randint(len(x), (40, BATCH), generator=draw)
    if classes:
        return list(zip(x[rows], torch.randint(10, (40, BATCH), generator=draw), strict=True))
    return list(zip(x[rows], torch.randn(40, BATCH, 1, generator=draw), strict=True))


HOPELESS = {
    "hidden units dead": Hopeless(lambda: dead(mlp(), 0), cross_entropy, digits),
    "outputs dead": Hopeless(lambda: dead(nn.Sequential(*mlp(), nn.ReLU()), 2), cross_entropy, digits),
    "one class": Hopeless(lambda: nn.Linear(64, 1), lambda o, t: cross_entropy(o, torch.zeros_like(t)), digits),
    "loss detached": Hopeless(mlp, lambda o, t: cross_entropy(o.detach(), t), digits),
    "classes at random, mlp": Hopeless(mlp, cross_entropy, at_random),
    "classes at random, cnn": Hopeless(cnn, cross_entropy, at_random),
    "numbers at random": Hopeless(lambda: mlp(1), mse_loss, lambda seed: at_random(seed, classes=False)),
    "twenty layers of sigmoid": Hopeless(deep_sigmoid, cross_entropy, digits),
}


def answer(name: str, optimizer: str, seed: int) -> Answer:
    training = HOPELESS[name]
    torch.manual_seed(seed)
    model = training.model()
    found = rate_range(model, training.loss, OPTIMIZERS[optimizer](model.parameters()), training.batches(seed))
    return Answer(name, optimizer, seed, found.suggested, found.says)


def hopeless_table(found: Sequence[Answer]) -> str:
    def cell(name: str, optimizer: str) -> str:
        mine = [one.suggested is not None for one in found if (one.name, one.optimizer) == (name, optimizer)]
        return f"{sum(mine)} of {len(mine)}"

    names = dict.fromkeys(one.name for one in found)
    return table(["given a rate", *OPTIMIZERS], [[name, *(cell(name, o) for o in OPTIMIZERS)] for name in names])


# ---------------------------------------------------------------------- both


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["grid", "hopeless"])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200, help="updates of each training of the grid")
    parser.add_argument("--rates", type=int, default=11, help="of the grid")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    facts, told = machine(), {}
    print(f"{machine_line(facts)} Seeds {seeds[0]} to {seeds[-1]}.\n", flush=True)
    if options.only != "hopeless":
        given = {"steps": options.steps, "num_rates": options.rates}
        begun = time.process_time()
        near = [suggestion(n, o, seed, **given) for n in options.networks for o in OPTIMIZERS for seed in seeds]
        told["grid"] = [asdict(one) for one in near]
        print(f"{grid_table(near)}\n\nnear: {share(one.is_near(one.suggested) for one in near)}")
        print(f"steepest near: {share(one.is_near(one.steepest) for one in near)}")
        print(f"processor seconds: {time.process_time() - begun:.0f}\n", flush=True)
    if options.only != "grid":
        begun = time.process_time()
        said = [answer(name, o, seed) for name in HOPELESS for o in OPTIMIZERS for seed in seeds]
        told["hopeless"] = [asdict(one) for one in said]
        print(f"{hopeless_table(said)}\n\ngiven a rate, wrongly: {share(one.suggested is not None for one in said)}")
        for one in said:
            if one.suggested is not None:
                print(f"- {one.name}, {one.optimizer}, seed {one.seed}: {one.says}")
        print(f"processor seconds: {time.process_time() - begun:.0f}", flush=True)
    write_json(options.json, {"machine": facts, **told})


if __name__ == "__main__":
    main()
