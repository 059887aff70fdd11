"""Penalties on the size of weights, to be added to the loss: L2, L1, elastic net, group lasso.

    training = unstuck.Training(model, loss, optimizer, batches, penalty=L2(1e-3))
    loss = cross_entropy(model(x), y) + L2(1e-3)(model)  # in a loop of one's own

All spare biases and norms: a bias costs one number a unit and takes no part in how steep a function is, and the gain of a norm has
nothing to do with fitting by heart. What they take hold of is told by `weights`.

Which one does what:

- **L2** shrinks all weights in proportion and makes none zero. Under SGD it is the same as weight decay; under Adam it isn't (see `L2`).
- **L1** shrinks all by the same amount, which should make many zero. By its gradient it makes none: a step goes across zero, and
  the next one back. `SoftThreshold`, its proximal step, gives exact zeros.
- **GroupLasso** does that to whole units, which then can be taken out.

`l0` penalizes how many weights aren't zero, whatever their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.regularization._weights import (
    By,
    Unit,
    Weight,
    check_strength,
    check_unit,
    in_groups,
    some_weights,
    total,
    unit_norms,
    wide,
)

if TYPE_CHECKING:
    from unstuck.training import Training


def weights(model: nn.Module, *, spare: Sequence[str] = ()) -> list[nn.Parameter]:
    """What is penalized: trained parameters with two axes or more of modules that are no norms, each once.

    These are weights of dense, convolutional and recurrent layers, of attention, and embeddings. Of a weight that is parametrized it is
    the original that is trained.

    Args:
        model: The model.
        spare: Paths of modules whose weights are left out as well, such as an embedding's.

    Returns:
        They, in the model's order.

    Raises:
        MisuseError: A path leads nowhere, or no weight is left.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        >>> [tuple(w.shape) for w in weights(model)]
        [(4, 3), (2, 4)]
    """  # noqa: DOC502
    return [w.parameter for w in some_weights(model, spare=spare)]


# ---------------------------------------------------------------------- penalties


@dataclass(frozen=True)
class L2:
    """Half the sum of squared weights times a strength: its gradient is the strength times the weight (Hoerl & Kennard 1970, ridge).

    With plain or momentum SGD that is the same as the optimizer's `weight_decay=strength`, which is cheaper. With Adam neither
    this nor `weight_decay` of `torch.optim.Adam` shrinks weights as one expects: the penalty's gradient is divided by the size of the
    weight's gradients like all the rest, so that weights with large gradients are hardly decayed. Decoupled decay, as of
    `torch.optim.AdamW`, multiplies each weight by 1 - rate * decay at every step, whatever its gradients
    (Loshchilov & Hutter 2019). For Adam take that, unless the penalized loss itself is what is to be minimized.

    Args:
        strength: From 0 on.
        spare: Paths of modules that are left out.

    Raises:
        MisuseError: A strength below 0.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(model.weight, 3.0)
        >>> round(L2(0.1)(model).item(), 6)  # 0.1 / 2 * (9 + 9)
        0.9
    """

    strength: float
    spare: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_strength(self.strength)

    def __call__(self, model: nn.Module) -> Tensor:
        """The penalty of a model, one number."""
        return self.strength / 2 * total(wide(w).square().sum() for w in weights(model, spare=self.spare))


@dataclass(frozen=True)
class L1:
    """The sum of the weights' magnitudes times a strength (Tibshirani 1996, lasso).

    Its gradient makes small weights hop around zero and none zero: for zeros take `SoftThreshold` in its place.

    Args:
        strength: From 0 on.
        spare: Paths of modules that are left out.

    Raises:
        MisuseError: A strength below 0.
    """

    strength: float
    spare: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_strength(self.strength)

    def __call__(self, model: nn.Module) -> Tensor:
        """The penalty of a model, one number."""
        return self.strength * total(wide(w).abs().sum() for w in weights(model, spare=self.spare))


@dataclass(frozen=True)
class ElasticNet:
    """L1 and L2 in shares: strength * (share * sum |w| + (1 - share) / 2 * sum w²).

    Of weights that do the same, L1 keeps one and drops the others; a part of L2 keeps them together.

    Source: Zou & Hastie 2005, in the form of Friedman et al. 2010, equation 2, and scikit-learn's `l1_ratio`.

    Args:
        strength: From 0 on.
        share: Of L1, from 0 to 1.
        spare: Paths of modules that are left out.

    Raises:
        MisuseError: A strength below 0, or a share that isn't one.
    """

    strength: float
    share: float = 0.5
    spare: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if not 0 <= self.share <= 1:
            raise MisuseError(f"a share of L1 of {self.share}; it must be from 0 (all L2) to 1 (all L1)")

    def __call__(self, model: nn.Module) -> Tensor:
        """The penalty of a model, one number."""
        return L1(self.strength * self.share, self.spare)(model) + L2(self.strength * (1 - self.share), self.spare)(
            model
        )


@dataclass(frozen=True)
class GroupLasso:
    """The sum of the units' L2 norms, each times the root of the unit's size, times a strength: whole units go towards zero.

    Exact zeros are given by `SoftThreshold(strength, by="output")`, as with L1.

    Source: Yuan & Lin 2006; Scardapane et al. 2017 for the units of networks.

    Args:
        strength: From 0 on.
        by: A unit is what leads to one output, a row of a dense layer's weight and a filter of a convolution, or what comes from one input.
        spare: Paths of modules that are left out.

    Raises:
        MisuseError: A strength below 0, or another kind of unit.
    """

    strength: float
    by: Unit = "output"
    spare: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_unit(self.by)

    def __call__(self, model: nn.Module) -> Tensor:
        """The penalty of a model, one number."""
        return self.strength * total(
            _root_size(w, self.by) * unit_norms(wide(w.parameter), w.rest(self.by)).sum()
            for w in some_weights(model, spare=self.spare)
        )


# ---------------------------------------------------------------------- exact zeros


@dataclass(frozen=True)
class SoftThreshold:
    """The proximal step of L1 or group lasso behind each step of the optimizer: what is smaller than rate * strength becomes zero.

    It takes the place of the penalty, it isn't added to it. Behind plain SGD that is proximal gradient descent (ISTA), which
    minimizes the same penalized loss and holds zeros for good: a weight leaves zero only where the loss pulls harder than the strength.
    Behind Adam and others that scale each weight's step it shrinks all weights by the same amount all the same, as decoupled decay does,
    and what it minimizes is no longer that loss. The rate is that of the weight's group, as it is when the step has been made.

        training.on_step.append(SoftThreshold(1e-4))
        SoftThreshold(1e-4).apply(model, optimizer)  # in a loop of one's own, behind optimizer.step()

    Source: Daubechies et al. 2004; Beck & Teboulle 2009, equation 1.5; for groups Yuan & Lin 2006.

    Args:
        strength: That of the penalty, from 0 on.
        by: "weight" for L1; "output" or "input" for group lasso by such units.
        spare: Paths of modules that are left out.

    Raises:
        MisuseError: A strength below 0, or another kind of unit.
    """

    strength: float
    by: By = "weight"
    spare: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if self.by != "weight":
            check_unit(self.by)

    def __call__(self, training: Training) -> None:
        """As a hook of `training.on_step`."""
        self.apply(training.model, training.optimizer)

    @torch.no_grad()
    def apply(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Makes the step.

        Args:
            model: Whose weights.
            optimizer: That has just stepped; its rates count.
        """
        for group, chosen in in_groups(some_weights(model, spare=self.spare), optimizer):
            threshold = group["lr"] * self.strength
            for weight in chosen:
                if self.by == "weight":
                    _shrink(weight.parameter, threshold)
                else:
                    _shrink_units(weight, self.by, threshold)


def _shrink(weight: Tensor, threshold: float | Tensor) -> None:
    weight.copy_(weight.sign() * (weight.abs() - threshold).clamp_min_(0))


def _shrink_units(weight: Weight, by: Unit, threshold: float | Tensor) -> None:
    norms = unit_norms(weight.parameter, weight.rest(by))
    left = (norms - threshold * _root_size(weight, by)).clamp_min(0)
    weight.parameter.mul_(torch.where(norms > 0, left / norms, 0.0))


def _root_size(weight: Weight, by: Unit) -> float:
    """Root of the number of weights to a unit."""
    return math.sqrt(weight.parameter.numel() / weight.parameter.shape[weight.axis(by)])
