"""One place where a loss is computed: what is learned there of outputs, targets and the sum or mean that is taken of them."""

from __future__ import annotations

import functools
import math
import statistics
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstuck.evidence import LossCall
from unstuck.watcher import sums
from unstuck.watcher.recorder import Columns, Sample

LOOKED_AT = 16_384  # numbers of outputs or targets that are looked at
_OUTPUT = ("min", "max", "mean", "std", "sums_to_one", "log_sums_to_one", "constant")
_STEADY = 1e-3  # of a part of the loss: it is the same at each step, but for rounding
_UNIQUE_LOOKS, _UNIQUE = 8, 512  # first looks at targets that values are told apart at, and how many values of each
_ON_LOGITS = frozenset({"binary_cross_entropy_with_logits", "multilabel_soft_margin_loss", "soft_margin_loss"})


@dataclass
class LossState:
    """One place where a loss is computed.

    Attributes:
        settings: Plain numbers, words and flags that the loss function was given.
        output: What outputs look like, as in `LossCall`.
        target: What targets look like, as in `LossCall`.
        unique: Values that targets were seen to have.
        total: Count, sum, and sum of squares of the targets seen so far.
        absolute: How far targets are from their mean, on average, of the last batch.
        labels: How often each class was a label.
        score: Name of the score, "" where none can be computed.
        logged: It is written by hand, with a logarithm of the output.
        parts: What it is as a part of what backward starts from, at each look; of one call where there are several.
        turns: Calls that a loop makes for one backward, at most.
        divided: What a sum is divided by.
    """

    name: str
    site: str
    layer: str = ""
    chain: tuple[str, ...] = ()
    loss_ops: tuple[str, ...] = ()
    output_shape: tuple[int, ...] = ()
    target_shape: tuple[int, ...] = ()
    kind: str = "none"
    num_classes: int = 0
    reduction: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    output: dict[str, float] = field(default_factory=dict)
    target: dict[str, float] = field(default_factory=dict)
    looks: int = 0
    calls: int = 0
    trains: bool = True
    unique: set[float] = field(default_factory=set)
    total: np.ndarray = field(default_factory=lambda: np.zeros(3))
    absolute: float = 0.0
    labels: np.ndarray | None = None
    score: str = ""
    logged: bool = False
    parts: list[float] = field(default_factory=list)
    turns: int = 1
    divided: sums.Divided = field(default_factory=sums.Divided)

    @property
    def spread(self) -> float:
        """Standard deviation of the targets seen so far."""
        count, total, squares = self.total
        return math.sqrt(max(0.0, squares / count - (total / count) ** 2)) if count else math.nan

    @property
    def threshold(self) -> float:
        """What a binary output must exceed to mean 1: 0 for logits and margins, a half for probabilities."""
        return 0.0 if self.name in _ON_LOGITS or self.target.get("min", 0.0) < 0 else 0.5

    def reduced(self, batches: float) -> str:
        """How the loss that backward starts from is reduced, where so many calls of backward make a step."""
        return "mean" if self.reduction == "sum" and self.divided.is_mean(batches) else self.reduction

    def scale(self, batches: float) -> float:
        """What the loss is multiplied by before backward, as where several batches make a step.

        1 where that isn't one number; NaN where a number of calls that varies is added up.
        """
        if self.reduction == "sum" and self.divided.is_mean(batches):
            return self.divided.of_mean
        parts = [part for part in self.parts if math.isfinite(part)]
        middle = statistics.median(parts) if parts else 0.0
        steady = sum(abs(part - middle) < _STEADY * middle for part in parts)
        if middle > 0 and steady >= max(3, 0.8 * len(parts)):
            return 1 / middle
        return math.nan if self.turns > 1 else 1.0

    def fact(self, batches: float) -> LossCall:
        """What the record says of it, where so many calls of backward make a step."""
        return LossCall(
            self.name, self.site, self.layer, self.chain, self.loss_ops, self.output_shape, self.target_shape, self.kind,
            self.num_classes, self.reduced(batches), dict(self.output), dict(self.target), self.trains, self.calls,
            self.divided.divisor,
        )  # fmt: skip

    # ------------------------------------------------------------------ at a sampled backward

    def watch_part(self, part: Tensor, turns: int, sample: Sample) -> None:
        """Takes one call of the loss as a part of what backward starts from, where a loop makes so many calls."""
        sample.put(("part", self.site), part, functools.partial(self._keep_part, turns))

    def look_at_output(self, output: Tensor, sample: Sample) -> None:
        """Takes what outputs look like."""
        sample.put(("output", self.name, self.site), _look(output), self._keep_output)

    def look_at_target(self, target: Tensor, sample: Sample) -> None:
        """Takes what targets look like, and finds out where they aren't of the kind that the first batch showed."""
        few = thin(target)
        values = few if few.is_floating_point() else few.float()
        classes = self.kind in ("class index", "one-hot")
        if self.looks <= _UNIQUE_LOOKS and values.device.type == "cpu" and not classes:
            self.unique.update(torch.unique(values[:_UNIQUE]).tolist())
        whole = (values == values.round()).float().mean()
        apart = (values - values.mean()).abs().mean()
        numbers = [values.min(), values.max(), values.sum(), (values * values).sum(), whole, apart]
        keep = functools.partial(self._keep_target, self.kind, values.numel())
        sample.put(("target", self.name, self.site), torch.stack(numbers), keep)

    def _keep_part(self, turns: int, columns: Columns, numbers: np.ndarray) -> None:
        part = float(numbers.reshape(-1)[0])
        self.parts.append(part)
        self.turns = max(self.turns, turns)
        columns.put("loss_part", self.site, part * turns)

    def _keep_output(self, columns: Columns, numbers: np.ndarray) -> None:
        """Adds one look to the running summary: extremes stay extreme, the rest are means over looks."""
        for name, value in zip(_OUTPUT, numbers.tolist(), strict=True):
            if math.isnan(value):
                continue
            old = self.output.get(name)
            if old is None:
                self.output[name] = value
            elif name == "min":
                self.output[name] = min(old, value)
            elif name == "max":
                self.output[name] = max(old, value)
            else:
                self.output[name] = old + (value - old) / max(1, self.looks)

    def _keep_target(self, kind: str, count: int, columns: Columns, numbers: np.ndarray) -> None:
        low, high, total, squares, integer, absolute = map(float, numbers)
        self.total = self.total + np.array([count, total, squares])
        self.absolute = absolute
        other = integer < 1.0 or high > 1 or low < -1
        if kind in ("binary", "multi-label") and other:  # the first batch was no sample of all
            self.kind, self.num_classes, self.score = "real", 0, "r2"
        self.target = {
            "min": min(low, self.target.get("min", low)), "max": max(high, self.target.get("max", high)),
            "mean": self.total[1] / self.total[0], "std": self.spread, "unique": float(len(self.unique)),
            "integer": float(integer == 1.0),
        }  # fmt: skip


def thin(tensor: Tensor) -> Tensor:
    """Some of its numbers, evenly chosen, flat: at most `LOOKED_AT`."""
    flat = tensor.reshape(-1)
    return flat if flat.numel() <= LOOKED_AT else flat[:: flat.numel() // LOOKED_AT + 1]


def _look(output: Tensor) -> Tensor:
    """Statistics of outputs, in the order of `_OUTPUT`."""
    x = output.float()
    if x.dim() > 1 and x.numel() > LOOKED_AT:
        x = x[: max(1, LOOKED_AT // max(1, x[0].numel()))]
    std, mean = torch.std_mean(x, correction=0)
    nan = torch.full((), math.nan, device=x.device)
    if x.dim() > 1 and x.shape[1] > 1:
        one = (((x.sum(1) - 1).abs() < 1e-3) & (x.amin(1) >= 0)).float().mean()
        log_one = ((x.exp().sum(1) - 1).abs() < 1e-3).float().mean()
    else:
        one = log_one = nan
    rows = x.reshape(x.shape[0], -1) if x.dim() else x.reshape(1, 1)
    constant = ((rows - rows[:1]).abs().amax(1) <= 1e-6 * rows.abs().max()).float().mean() if rows.shape[0] > 1 else nan
    return torch.stack([x.min(), x.max(), mean, std, one, log_one, constant])
