"""What is reachable? Small, well-known learners on the same samples, half of them held out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unstuck.probes.bench import Bench, Clock

MOST_FEATURES = 4096
MOST_SAMPLES = 2000
MOST_CLASSES = 200


def reference(bench: Bench, clock: Clock, *, least: int = 60) -> dict[str, Any] | None:
    """Fits a linear model and a small ReLU network, with standardised inputs and Adam, to half of the kept samples.

    Their score on the other half is a floor of what a sound training on more samples reaches.

    Args:
        bench: The training.
        clock: Ends it.
        least: Samples.

    Returns:
        `linear`, `mlp` (scores on the held-out half), `fitted` (the better score on their own half, at best), `network`
        (score of the script's network on all of them, which it was trained on), `chance` (of the best constant), `samples`,
        `score`; None where inputs or targets are of no plain kind.
    """
    name = bench.training.score_name
    if name not in ("accuracy", "r2", "bit_accuracy") or bench.training.score is None:
        return None
    gathered = _gather(bench)
    if gathered is None or len(gathered[0]) < least:
        return None
    x, y, batches = gathered
    bench.restore()
    _, network = bench.measured(batches)
    order = torch.randperm(len(x), generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    x, y = x[order][:MOST_SAMPLES], y[order][:MOST_SAMPLES]
    half = len(x) // 2
    x = _standardised(x, half)
    task = _Task.of(y, name)
    if task is None:
        return None
    constant = task.constant(y[:half], y[half:])
    found = {
        kind: _fitted(kind, task, x, y, half, clock.part(share)) for kind, share in (("linear", 0.4), ("mlp", 0.9))
    }
    learned = max(fitted for _, fitted in found.values())
    return {
        "linear": found["linear"][0], "mlp": found["mlp"][0], "fitted": learned, "network": network, "chance": constant,
        "samples": len(x), "score": name,
    }  # fmt: skip


class _Task:
    """How outputs are compared with targets: classes, numbers, or bits."""

    def __init__(self, kind: str, outputs: int) -> None:
        self.kind, self.outputs = kind, outputs

    @classmethod
    def of(cls, y: Tensor, name: str) -> _Task | None:
        if name == "r2":
            return cls("numbers", y.shape[1])
        if name == "bit_accuracy" or (y.shape[1] > 1 and not bool((y.sum(1) == 1).all())):
            return cls("bits", y.shape[1])
        classes = y.shape[1] if y.shape[1] > 1 else int(y.max()) + 1
        if classes < 2 or classes > MOST_CLASSES or bool((y < 0).any()):
            return None
        return cls("classes", classes)

    def labels(self, y: Tensor) -> Tensor:
        return y.argmax(1) if y.shape[1] > 1 else y[:, 0].long()

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        if self.kind == "classes":
            return F.cross_entropy(out, self.labels(y))
        if self.kind == "bits":
            return F.binary_cross_entropy_with_logits(out, (y > 0).float())
        return F.mse_loss(out, y)

    def score(self, out: Tensor, y: Tensor) -> float:
        if self.kind == "classes":
            return float((out.argmax(1) == self.labels(y)).float().mean())
        if self.kind == "bits":
            return float(((out > 0) == (y > 0)).float().mean())
        return 1 - float((out - y).square().mean() / y.var(0, unbiased=False).mean().clamp_min(1e-30))

    def constant(self, fitted: Tensor, held: Tensor) -> float:
        if self.kind == "classes":
            return float((self.labels(held) == self.labels(fitted).mode().values).float().mean())
        if self.kind == "bits":
            return float(((held > 0) == ((fitted > 0).float().mean(0) > 0.5)).float().mean())
        return 0.0


def _gather(bench: Bench) -> tuple[Tensor, Tensor, list[int]] | None:
    """Flat inputs `(samples, features)`, targets `(samples, outputs)`, and the batches they are from."""
    rows: list[tuple[Tensor, Tensor]] = []
    batches: list[int] = []
    for number in bench.batches:
        tape = bench.tapes[number]
        if len(tape.inputs) != 1 or len(tape.targets) != 1:
            return None
        x, y = tape.data[tape.inputs[0]], tape.data[tape.targets[0]]
        if not x.dim() or not y.dim() or x.shape[0] != y.shape[0] or not x.is_floating_point():
            return None
        flat, goal = x.reshape(len(x), -1), y.reshape(len(y), -1)
        if flat.shape[1] > MOST_FEATURES or goal.shape[1] > MOST_CLASSES:
            return None
        rows.append((flat.float().cpu(), goal.float().cpu()))
        batches.append(number)
    if not rows or len({(x.shape[1], y.shape[1]) for x, y in rows}) != 1:
        return None
    x, y = torch.cat([x for x, _ in rows]), torch.cat([y for _, y in rows])
    marks = torch.randn(x.shape[1], generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    seen = (x.double() @ marks.double()).numpy()  # a sample may come in several batches
    first = torch.from_numpy(np.unique(seen, return_index=True)[1])
    return x[first], y[first], batches


def _standardised(x: Tensor, half: int) -> Tensor:
    mean, std = x[:half].mean(0), x[:half].std(0)
    return ((x - mean) / torch.where(std > 1e-6 * mean.abs().clamp_min(1e-12), std, torch.ones_like(std))).clamp(
        -10, 10
    )


def _fitted(
    kind: str, task: _Task, x: Tensor, y: Tensor, half: int, clock: Clock, *, most: int = 300
) -> tuple[float, float]:
    """Score on the held-out half at the best moment seen by a quarter of it, and on the fitted half at its best.

    What can't be told of others is best at once there, and learned by heart much later.
    """
    torch.manual_seed(0)
    features = x.shape[1]
    like: dict[str, Any] = {"device": "cpu", "dtype": x.dtype}  # whatever the script has set as default
    net: nn.Module = nn.Linear(features, task.outputs, **like)
    if kind == "mlp":
        net = nn.Sequential(nn.Linear(features, 64, **like), nn.ReLU(), nn.Linear(64, task.outputs, **like))
    goal = y
    if task.kind == "numbers":
        mean, std = y[:half].mean(0), y[:half].std(0).clamp_min(1e-12)
        goal = (y - mean) / std
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=1e-4)
    quarter = half + (len(x) - half) // 3
    best, held, fitted, stale = -math.inf, -math.inf, -math.inf, 0
    for step in range(most):
        optimizer.zero_grad()
        task.loss(net(x[:half]), goal[:half]).backward()
        optimizer.step()
        if step % 10 == 9:
            with torch.no_grad():
                chosen = task.score(net(x[half:quarter]), goal[half:quarter])
                stale += 1
                if chosen > best:
                    best, stale = chosen, 0
                    held = task.score(net(x[quarter:]), goal[quarter:])
                fitted = max(fitted, task.score(net(x[:half]), goal[:half]))
            if stale > 8 or not clock.left:
                break
    return held, fitted
