"""How right `unstuck batch` is: the noise scale beside its exact value, and predicted updates and time beside trainings made to the end.

Scale: least squares with normal data, of which the noise scale is known in closed form; the network is 1, 0.3 or 0.1 from the best in each
weight. `split` is by the gradients of 32 parts, `single` by those of single samples. A cell is with how many seeds the estimate was
within a fifth of the exact value, and with how many its 95% interval held it.

Truth: `unstuck batch` runs each training of `batch_trainings.py` once a seed. With the rate and the length that it predicts for another
batch size (medians over the seeds) the training is made to the end, with each seed, for 0.5 to 2 times that length. Where its mean log
loss crosses that of the training as it is, is what it truly takes: updates, and processor time of one thread. Predictions are medians
over the seeds, of updates with the range; *held* is how many of the predicted intervals of the time hold what it takes.

    python benchmarks/batch.py                                             # both, three seeds of each training: about six minutes
    python benchmarks/batch.py --only scale --seeds 100
    python benchmarks/batch.py --only truth --trainings mlp --times 2 8 --seeds 1 --budget 5s
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batch_trainings import TRAININGS, Ended, Plan
from measure import machine, machine_line, share, single_threaded, table, unstuck_command, write_json
from unstuck.optim.noise_scale import NoiseScale, noise_scale, per_sample, split_batch

FEATURES, PARTS, CLOSE = 20, 32, 0.2
SETS = ((1.0, 512), (1.0, 1024), (0.3, 2048), (0.1, 8192))  # distance, samples
LENGTHS = (0.5, 2**-0.5, 1.0, 2**0.5, 2.0)  # times the predicted one

# ---------------------------------------------------------------------- the noise scale beside its exact value


@dataclass(frozen=True)
class Estimated:
    """An estimate of a scale that is known."""

    way: str
    distance: float
    samples: int
    seed: int
    exact: float
    scale: float
    low: float
    high: float

    @property
    def is_close(self) -> bool:
        """Within a fifth."""
        return abs(self.scale / self.exact - 1) < CLOSE

    @property
    def is_held(self) -> bool:
        """By the interval."""
        return self.low <= self.exact <= self.high


def half_square(output: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (output[:, 0] - target).square().mean()


def least_squares(seed: int, distance: float, samples: int) -> tuple[nn.Module, Tensor, Tensor, float]:
    """A linear model, data, and the exact scale.

    With x normal of covariance C, y = x w* + e, e normal of deviation 1, and d = w - w*, the gradient of a sample is x (x d - e), and its
    mean G = C d. By Isserlis' theorem the trace of its covariance is tr C (d C d + 1) + |G|^2.
    """
    draw = torch.Generator().manual_seed(seed)
    c = torch.linspace(0.2, 2.0, FEATURES, dtype=torch.float64)
    d = distance * torch.randn(FEATURES, generator=draw, dtype=torch.float64)
    x = torch.randn(samples, FEATURES, generator=draw, dtype=torch.float64) * c.sqrt()
    y = torch.randn(samples, generator=draw, dtype=torch.float64)
    model = nn.Linear(FEATURES, 1, bias=False, dtype=torch.float64)
    model.weight.data = d[None].clone()
    mean = c * d
    return model, x, y, float((c.sum() * (d @ mean + 1) + mean @ mean) / (mean @ mean))


def by_parts(model: nn.Module, x: Tensor, y: Tensor) -> NoiseScale:
    parts = zip(x.chunk(PARTS), y.chunk(PARTS), strict=True)
    gradients = [torch.autograd.grad(half_square(model(a), b), list(model.parameters())) for a, b in parts]
    return noise_scale(split_batch(gradients, len(x) / PARTS))


WAYS: dict[str, Callable[[nn.Module, Tensor, Tensor], NoiseScale]] = {
    "split": by_parts,
    "single": lambda model, x, y: noise_scale(per_sample(model, half_square, x, y)),
}


def estimated(way: str, distance: float, samples: int, seed: int) -> Estimated:
    model, x, y, exact = least_squares(seed, distance, samples)
    found = WAYS[way](model, x, y)
    return Estimated(way, distance, samples, seed, exact, found.scale, found.low, found.high)


def scale_table(found: Sequence[Estimated]) -> str:
    rows = []
    for distance, samples in SETS:
        here = [one for one in found if (one.distance, one.samples) == (distance, samples)]
        row = [samples, f"{min(one.exact for one in here):.0f} to {max(one.exact for one in here):.0f}"]
        for way in WAYS:
            mine = [one for one in here if one.way == way]
            row += [f"{sum(o.is_close for o in mine)} of {len(mine)}", f"{sum(o.is_held for o in mine)} of {len(mine)}"]
        rows.append(row)
    head = ["samples", "exact scale", *(f"{way}, {what}" for way in WAYS for what in ("within 20%", "interval holds"))]
    return table(head, rows)


# ---------------------------------------------------------------------- predictions beside trainings


@dataclass(frozen=True)
class Beside:
    """One batch size of a training; all but `size` relative to the training as it is.

    Attributes:
        rate: What the learning rate was multiplied by.
        updates: Predicted from the run with each seed.
        times: The same of the time, with its interval: middle, low, high.
        took: Updates and time that it took; None where none of the lengths got there, or all did.
        losses: After each length, geometric mean over the seeds.
    """

    training: str
    own: int
    size: int
    rate: float
    updates: list[float]
    times: list[tuple[float, float, float]]
    took: tuple[float, float] | None
    losses: list[float]

    @property
    def held(self) -> list[bool]:
        """Of each predicted interval, whether it holds the time that it took."""
        return [] if self.took is None else [low <= self.took[1] <= high for _, low, high in self.times]


def predicted(name: str, seed: int, budget: str) -> dict[int, dict[str, float]]:
    """What `unstuck batch` says, by batch size."""
    script = Path(__file__).with_name("batch_trainings.py")
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "batch.json"
        command = [*unstuck_command(), "batch", "--quiet", "--budget", budget, "--runs", folder, "--json", str(told)]
        command += [str(script), name, str(seed)]
        subprocess.run(command, env=single_threaded(), stdout=subprocess.DEVNULL, check=True)
        return {one["size"]: one for one in json.loads(told.read_text())["sizes"]}


def beside(name: str, times: Sequence[float], seeds: Sequence[int], budget: str) -> list[Beside]:
    """All batch sizes of a training."""
    training = TRAININGS[name]
    own = training.own
    told = [predicted(name, seed, budget) for seed in seeds]
    as_it_is = [training.run(own, seed) for seed in seeds]
    found = []
    for size in (round(own.size * factor) for factor in times):
        here = [one[size] for one in told]
        rate, length = (statistics.median(one[key] for one in here) for key in ("rate", "samples"))
        runs = [
            [training.run(Plan(size, rate, own.passes * length * factor), seed) for seed in seeds] for factor in LENGTHS
        ]
        found.append(
            Beside(
                name,
                own.size,
                size,
                rate,
                [one["updates"] for one in here],
                [(one["time"], one["low"], one["high"]) for one in here],
                crossing(runs, as_it_is),
                [math.exp(mean_log(ended)) for ended in runs],
            )
        )
    return found


def mean_log(ended: Sequence[Ended]) -> float:
    return statistics.fmean(math.log(max(one.loss, 1e-9)) if math.isfinite(one.loss) else 20.0 for one in ended)


def crossing(runs: Sequence[Sequence[Ended]], as_it_is: Sequence[Ended]) -> tuple[float, float] | None:
    """Updates and time, relative to the training as it is, after which the loss is as low; by straight lines between logarithms."""
    wanted = mean_log(as_it_is)
    losses = list(accumulate((mean_log(ended) for ended in runs), min))
    costs = [
        [math.log(sum(getattr(a, key) for a in ended) / sum(getattr(b, key) for b in as_it_is)) for ended in runs]
        for key in ("updates", "seconds")
    ]
    for i, (before, after) in enumerate(pairwise(losses)):
        if before > wanted >= after:
            part = (before - wanted) / (before - after)
            updates, seconds = (math.exp(c[i] + part * (c[i + 1] - c[i])) for c in costs)
            return updates, seconds
    return None


def truth_table(found: Sequence[Beside]) -> str:
    rows = []
    for one in found:
        middle, low, high = (statistics.median(values) for values in zip(*one.times, strict=True))
        rows.append(
            [
                f"{one.training}, {TRAININGS[one.training].optimizer}",
                f"{one.own} to {one.size}",
                f"{one.rate:.2f}",
                f"{statistics.median(one.updates):.3f} ({min(one.updates):.3f} to {max(one.updates):.3f})",
                "-" if one.took is None else f"{one.took[0]:.3f}",
                f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                "-" if one.took is None else f"{one.took[1]:.2f}",
                f"{sum(one.held)} of {len(one.held)}",
            ]
        )
    head = ["training", "batch size", "rate", "updates, predicted", "taken", "time, predicted", "taken", "held"]
    return table(head, rows)


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["scale", "truth"])
    parser.add_argument("--trainings", nargs="+", choices=list(TRAININGS), default=list(TRAININGS))
    parser.add_argument("--times", nargs="+", type=float, default=[2, 4, 8], help="the own batch size, to be predicted")
    parser.add_argument("--seeds", type=int, help="100 of each scale and 3 of each training by default")
    parser.add_argument("--budget", default="30s", help="of unstuck batch")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    facts: dict[str, Any] = machine()
    told: dict[str, Any] = {}
    print(f"{machine_line(facts)}\n", flush=True)
    if options.only != "truth":
        seeds = range(options.seeds or 100)
        scales = [estimated(way, *where, seed) for where in SETS for way in WAYS for seed in seeds]
        told["scale"] = [asdict(one) for one in scales]
        print(f"Seeds 0 to {seeds[-1]}.\n\n{scale_table(scales)}\n", flush=True)
    if options.only != "scale":
        seeds = range(options.seeds or 3)
        sizes = [one for n in options.trainings for one in beside(n, options.times, seeds, options.budget)]
        told["truth"] = [asdict(one) for one in sizes]
        print(f"Seeds 0 to {seeds[-1]}.\n\n{truth_table(sizes)}\n")
        print(f"intervals of the time that held it: {share(flag for one in sizes for flag in one.held)}")
    write_json(options.json, {"machine": facts, **told})


if __name__ == "__main__":
    main()
