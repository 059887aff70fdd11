"""Targets that are less sure of themselves, and the loss that is reached at best by them.

For classes torch has it: `nn.CrossEntropyLoss(label_smoothing=0.1)`, also for tokens with `ignore_index`, and for targets that are
probabilities (mixup). Here is what it doesn't have: two classes by one logit, smoothing towards other than equal shares, mixed targets,
a penalty on sure outputs, and `floor`, below which the loss can't get: smoothed by 0.1 with ten classes it is 0.50, and a training that
stays there is not stuck, but done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstuck.errors import MisuseError

Reduction = Literal["mean", "sum", "none"]


def binary_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 0.1,
    pos_weight: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross-entropy of logits with smoothed targets: 1 becomes 1 - smoothing / 2, and 0 becomes smoothing / 2.

    The same as `CrossEntropyLoss(label_smoothing=smoothing)` of the two logits 0 and z. For a `Training`:
    `functools.partial(binary_cross_entropy, smoothing=0.1)`.

    Args:
        logits: Any shape.
        targets: From 0 to 1, of that shape.
        smoothing: From 0 to 1.
        pos_weight: As in `binary_cross_entropy_with_logits`.
        weight: Likewise.
        reduction: Likewise.

    Returns:
        The loss.

    Raises:
        MisuseError: A smoothing that isn't a share.

    Example:
        >>> loss = binary_cross_entropy(torch.tensor([0.0]), torch.tensor([1.0]))
        >>> round(loss.item(), 4)  # ln 2, whatever the target
        0.6931
    """  # noqa: DOC502
    _check(smoothing)
    smoothed = targets.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, smoothed, weight, reduction=reduction, pos_weight=pos_weight)


def soft_targets(
    targets: Tensor,
    num_classes: int,
    *,
    smoothing: float = 0.0,
    prior: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Probabilities of classes, as `cross_entropy` takes them, that are smoothed towards a prior.

    Szegedy et al. (2016, section 7) smooth towards equal shares; smoothing towards how frequent classes are doesn't ask the network to
    say of rare ones what isn't so (Pereyra et al. 2017, unigram smoothing). Mixed pictures have mixed targets (mixup, Zhang et al. 2018):
    `share * soft_targets(y, 10) + (1 - share) * soft_targets(y[order], 10)`.

    Args:
        targets: Numbers of classes, shape `(batch, …)`, or probabilities `(batch, class, …)` in floating point.
        num_classes: How many there are.
        smoothing: The share of the prior, from 0 to 1.
        prior: Probabilities of the classes, `(class,)`, equal unless given.
        dtype: Of what is returned.

    Returns:
        Probabilities, `(batch, class, …)`.

    Raises:
        MisuseError: A smoothing that isn't a share, a prior of other classes, or targets that aren't of these classes.

    Example:
        >>> soft_targets(torch.tensor([1]), 4, smoothing=0.5).tolist()  # 1 - 0.5 + 0.5 / 4, and 0.5 / 4
        [[0.125, 0.625, 0.125, 0.125]]
    """
    _check(smoothing)
    if targets.is_floating_point():
        if targets.dim() < 2 or targets.shape[1] != num_classes:
            raise MisuseError(f"probabilities of shape {tuple(targets.shape)}; (batch, {num_classes}, ...) is expected")
        hard = targets.to(dtype)
    else:
        hard = F.one_hot(targets.long(), num_classes).movedim(-1, 1).to(dtype)
    if not smoothing:
        return hard
    if prior is not None and tuple(prior.shape) != (num_classes,):
        raise MisuseError(
            f"a prior of shape {tuple(prior.shape)}; one probability for each of {num_classes} classes is expected"
        )
    to = hard.new_full((num_classes,), 1 / num_classes) if prior is None else prior
    to = to.to(hard).view(num_classes, *[1] * (hard.dim() - 2))
    return hard * (1 - smoothing) + smoothing * to


def floor(smoothing: float, num_classes: int = 2) -> float:
    """The lowest loss that can be reached with smoothed targets: their entropy, in nats.

    Cross-entropy is the entropy of the targets plus how far the outputs are from them, so a network that is always right and as sure
    as its targets has this loss, and not 0. Subtract it to compare losses of different smoothing.

    Args:
        smoothing: As of `CrossEntropyLoss(label_smoothing=...)`; from 0 to 1.
        num_classes: How many there are; 2 for `binary_cross_entropy`.

    Returns:
        The loss.

    Raises:
        MisuseError: A smoothing that isn't a share, or fewer than 2 classes.

    Example:
        >>> round(floor(0.1, 10), 3), floor(0.0, 10)
        (0.5, 0.0)
        >>> round(floor(1.0, 10), 3)  # ln 10: all classes the same
        2.303
    """
    _check(smoothing)
    if num_classes < 2:
        raise MisuseError(f"{num_classes} classes; 2 at least are expected")
    other = smoothing / num_classes
    return _surprise(1 - smoothing + other) + (num_classes - 1) * _surprise(other)


def entropy(targets: Tensor) -> Tensor:
    """The lowest loss that can be reached with given targets, such as mixed ones: their mean entropy, in nats.

    Args:
        targets: Probabilities, `(batch, class, …)`.

    Returns:
        It, one number.
    """
    return -torch.xlogy(targets, targets).sum(1).mean()


class ConfidencePenalty(nn.Module):
    """A loss less a share of the outputs' entropy, so that sure outputs cost: -log p(y) - strength * H(p).

    Near to label smoothing towards equal shares, with the divergence the other way around: outputs are judged by what they themselves say.
    It is part of what is evaluated too, where a `Training` evaluates by the same loss.

    Source: Pereyra et al. 2017, equation 2; with a threshold, the equation of section 3.2.

    Args:
        strength: From 0 on; the paper takes 0.1 to 2.
        loss: Takes logits and targets; cross-entropy unless given.
        threshold: Nats: outputs with more entropy than this aren't pushed further. None for no threshold.
        ignore_index: Targets of which there is no loss have no penalty either, as padding.

    Raises:
        MisuseError: A strength or threshold below 0.
    """

    def __init__(
        self,
        strength: float = 0.1,
        *,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        threshold: float | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        for name, value in (("strength", strength), ("threshold", 0 if threshold is None else threshold)):
            if not value >= 0:
                raise MisuseError(f"{name} is {value!r}, but must be a number from 0 on")
        self.strength, self.threshold, self.ignore_index = strength, threshold, ignore_index
        self.loss = loss or nn.CrossEntropyLoss(ignore_index=ignore_index)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, one number.

        Args:
            logits: `(batch, class, …)`.
            targets: Classes `(batch, …)`, or probabilities.

        Returns:
            It.
        """
        entropies = self._entropies(logits)
        if self.threshold is not None:
            entropies = -(self.threshold - entropies).clamp_min(0)
        if targets.is_floating_point():
            return self.loss(logits, targets) - self.strength * entropies.mean()
        counted = (targets != self.ignore_index).to(entropies.dtype)
        return self.loss(logits, targets) - self.strength * (entropies * counted).sum() / counted.sum()

    @staticmethod
    def _entropies(logits: Tensor) -> Tensor:
        logs: Any = F.log_softmax(logits, 1)
        return -(logs.exp() * logs).sum(1)


def _surprise(share: float) -> float:
    """What a class of that probability adds to the entropy."""
    return share * math.log(1 / share) if share > 0 else 0.0


def _check(smoothing: float) -> None:
    if not 0 <= smoothing <= 1:
        raise MisuseError(f"a smoothing of {smoothing}; it must be from 0 to 1")
