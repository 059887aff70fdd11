"""What runs of a rate range test are made of: copies of a training, batches that judge, and all as before afterwards."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unstuck._batches import Forward
from unstuck.errors import MisuseError

ENOUGH = 256  # samples that are held out, if there are as many
FEWEST = 6  # batches, of which some can be held out


class Bench:
    """Copies of a training, the batches it is trained on, and those that judge."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        optimizer: Optimizer,
        forward: Forward,
        clip: float | None,
        seed: int,
        batches: list[Any],
        held_out: int | None,
        shuffles: int,
    ) -> None:
        self.model, self.loss, self.optimizer, self.forward = model, loss, optimizer, forward
        self.clip, self.seed = clip, seed
        self.is_detached = self.has_gradient = False
        self.train = self.judges = batches
        self.where = "on the batches that it was trained on"
        probe, _ = self.copied()
        count = self._num_held(probe, batches, held_out)
        if count:
            held = np.unique(np.linspace(0, len(batches) - 1, count).round().astype(int)).tolist()
            self.judges = [batches[i] for i in held]
            self.train = [batch for i, batch in enumerate(batches) if i not in held]
            self.where = "on batches that it wasn't trained on"
        before = [self.judged(probe, judge) for judge in range(len(self.judges))]
        self.start = np.array([value for value, _ in before])
        """Losses of the batches that judge before any step."""
        self.orders = self._orders([_size(targets) for _, (_, targets) in before], shuffles)
        shuffled = self.shuffled([outputs for _, outputs in before])
        self.start_shuffled = np.full(shuffles, math.nan) if shuffled is None else shuffled
        """Their mean before any step, for each order that their targets were shuffled to."""
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.proportions = [rate / max(rates) if max(rates) > 0 else 1.0 for rate in rates]

    def copied(self) -> tuple[nn.Module, Optimizer]:
        """Model and optimizer as they stand, to be spoiled.

        Raises:
            MisuseError: They can't be copied.
        """
        memo: dict[int, Any] = {}
        try:
            return copy.deepcopy(self.model, memo), copy.deepcopy(self.optimizer, memo)
        except (RuntimeError, TypeError) as error:
            raise MisuseError(f"model or optimizer can't be copied: {error}") from error

    def set_rate(self, optimizer: Optimizer, rate: float) -> None:
        """Sets the highest rate of an optimizer, the others in proportion."""
        for group, proportion in zip(optimizer.param_groups, self.proportions, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * proportion)
            else:
                group["lr"] = rate * proportion

    def step(self, model: nn.Module, optimizer: Optimizer, number: int) -> float:
        """An update; the loss before it. No update is made by a loss that has no gradient.

        Raises:
            MisuseError: The loss uses the model and not its copy.
        """
        batch = self.train[number % len(self.train)]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        losses: list[Tensor] = []

        def closure() -> Tensor:
            _seed(self.seed + number)
            optimizer.zero_grad()
            outputs, targets = self.forward(model, batch)
            value = self.loss(outputs, targets)
            losses.append(value.detach())
            self.is_detached = not value.requires_grad
            if not self.is_detached:
                value.backward()
                if self.clip is not None:
                    nn.utils.clip_grad_norm_(parameters, self.clip)
            return value

        with torch.enable_grad():
            optimizer.step(closure)  # pyright: ignore[reportCallIssue, reportArgumentType] - typed for a float, and takes a tensor
        if any(p.grad is not None for p in self.model.parameters()):
            raise MisuseError(
                "loss or forward use the model from outside, so that a copy would be trained and another one asked: let them use the "
                "model that they are given"
            )
        self.has_gradient = self.has_gradient or any(p.grad is not None and bool(p.grad.any()) for p in parameters)
        return float(losses[0])

    def judged(self, model: nn.Module, judge: int) -> tuple[float, tuple[Any, Any]]:
        """Loss of a batch that judges, and its outputs and targets; with the same random numbers each time."""
        _seed(self.seed + 1_000_003 + judge)
        with torch.no_grad():
            outputs, targets = self.forward(model, self.judges[judge])
            return float(self.loss(outputs, targets)), (outputs, targets)

    def shuffled(self, pairs: list[tuple[Any, Any]]) -> np.ndarray | None:
        """Mean loss for each order that the targets are shuffled to, shape `(shuffles,)`; None where they can't be."""
        if self.orders is None:
            return None
        means: list[float] = []
        for orders in self.orders:
            losses: list[Tensor] = []
            for judge, (outputs, targets) in enumerate(pairs):
                other, order = orders[judge]
                source = targets if other == judge else pairs[other][1]
                with torch.no_grad():
                    losses.append(self.loss(outputs, _ordered(source, order)).double())
            means.append(float(torch.stack(losses).mean()))
        return np.array(means)

    def _orders(self, sizes: list[int | None], shuffles: int) -> list[list[tuple[int, Tensor]]] | None:
        """For each shuffle and batch: whose targets it gets, and in which order. None where targets are not samples."""
        alone = set(sizes) == {1}  # batches of one sample swap theirs
        if None in sizes or (alone and len(sizes) < 3):
            return None
        drawn = torch.Generator().manual_seed(self.seed)
        found: list[list[tuple[int, Tensor]]] = []
        for _ in range(shuffles):
            others = torch.randperm(len(sizes), generator=drawn).tolist() if alone else range(len(sizes))
            orders = [torch.randperm(size or 0, generator=drawn) for size in sizes]
            found.append(list(zip(others, orders, strict=True)))
        return found

    def _num_held(self, model: nn.Module, batches: list[Any], wanted: int | None) -> int:
        """How many batches judge and aren't trained on; 0 where there are too few.

        Raises:
            MisuseError: So many are not there.
        """
        if wanted is not None:
            if not 0 < wanted < len(batches):
                raise MisuseError(
                    f"held_out is {wanted}, but must be from 1 to {len(batches) - 1} of {len(batches)} batches"
                )
            return wanted
        if len(batches) < FEWEST:
            return 0
        with torch.no_grad():
            size = _size(self.forward(model, batches[0])[1]) or 1
        return max(3, min(max(8, math.ceil(ENOUGH / size)), 64, len(batches) // 4))


def _size(targets: Any) -> int | None:
    """Samples in targets: the length of all tensors in them, None where they differ or there is none."""
    if isinstance(targets, Tensor):
        return len(targets) if targets.dim() else None
    parts = targets.values() if isinstance(targets, Mapping) else targets if isinstance(targets, (tuple, list)) else []
    sizes = {_size(part) for part in parts}
    return sizes.pop() if len(sizes) == 1 else None


def _ordered(targets: Any, order: Tensor) -> Any:
    """Targets in another order of their samples."""
    if isinstance(targets, Tensor):
        return targets[order.to(targets.device)]
    if isinstance(targets, Mapping):
        return {key: _ordered(part, order) for key, part in targets.items()}
    return type(targets)(_ordered(part, order) for part in targets)


def _seed(seed: int) -> None:
    """As `torch.manual_seed`, which formats a traceback each time for devices that aren't in use."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


# ---------------------------------------------------------------------- what is as before afterwards


@contextlib.contextmanager
def gradients_kept(model: nn.Module) -> Iterator[None]:
    """While which the model has no gradients: one that appears tells of a loss that uses it and not its copy."""
    kept = [(p, p.grad) for p in model.parameters()]
    for p, _ in kept:
        p.grad = None
    try:
        yield
    finally:
        for p, gradient in kept:
            p.grad = gradient
