"""Weights held within limits behind each step, and gradients clipped in proportion to the weights.

    training.on_step.append(MaxNorm(3.0))
    training.on_gradients.append(AdaptiveClipping(0.01, spare=("head",)))

The gradient's norm as a whole is limited by `Training(clip=...)` and `torch.nn.utils.clip_grad_norm_`; the largest singular value of
a weight is held at 1 by `torch.nn.utils.parametrizations.spectral_norm`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.regularization._weights import found_weights, is_within, some_weights, unit_norms

if TYPE_CHECKING:
    from unstuck.training import Training


@dataclass(frozen=True)
class ClipValues:
    """Holds every weight between -limit and limit.

    A crude way to bound how steep a network is (Arjovsky et al. 2017, algorithm 1, with 0.01); biases and norms are spared.

    Args:
        limit: Above 0.
        spare: Paths of modules that are left out.

    Raises:
        MisuseError: A limit of 0 or below.
    """

    limit: float
    spare: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check("limit", self.limit)

    def __call__(self, training: Training) -> None:
        """As a hook of `training.on_step`."""
        self.apply(training.model)

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Clips the weights of a model.

        Args:
            model: The model.
        """
        for found in _together([w.parameter for w in some_weights(model, spare=self.spare)]):
            torch._foreach_clamp_min_(found, -self.limit)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_clamp_max_(found, self.limit)  # pyright: ignore[reportPrivateImportUsage]


@dataclass(frozen=True)
class MaxNorm:
    """Holds the norm of each unit's weights at or below a limit: longer ones are scaled to it, the others are left.

    Unlike decay it doesn't pull at weights that are within. Together with dropout it allows for high rates.

    Source: Srivastava et al. 2014, section 5.1, with limits of 3 to 4.

    Args:
        limit: Above 0.
        by: A unit is what leads to one "output", a row of a dense layer's weight and a filter of a convolution, or comes from one "input".
        spare: Paths of modules that are left out.

    Raises:
        MisuseError: A limit of 0 or below, or another kind of unit.
    """

    limit: float
    by: Literal["output", "input"] = "output"
    spare: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check("limit", self.limit)
        if self.by not in ("output", "input"):
            raise MisuseError(f'a unit by {self.by!r}; it must be by "output" or "input"')

    def __call__(self, training: Training) -> None:
        """As a hook of `training.on_step`."""
        self.apply(training.model)

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Scales the units of a model.

        Args:
            model: The model.
        """
        for w in some_weights(model, spare=self.spare):
            norms = unit_norms(w.parameter, w.rest(self.by))
            w.parameter.mul_(torch.where(norms > self.limit, self.limit / norms, 1.0))


@dataclass(frozen=True)
class AdaptiveClipping:
    """Limits each unit's gradient to a share of the norm of its weights.

    What matters is how much a step would change a unit: a threshold on the whole gradient's norm depends on the model, its loss and the
    batch, this one doesn't. Norms of weights count as `least` at least, else units that start at zero would stay there. Biases
    and norms' gains are clipped as a whole each. It comes before `Training(clip=...)`. The paper spares the last layer.

    Source: Brock et al. 2021, equation 3, and their program for which axes a unit has.

    Args:
        share: The limit, above 0; 0.01 for large batches, and more for smaller ones.
        least: Above 0.
        spare: Paths of modules that are left out, such as the last layer's.

    Raises:
        MisuseError: A limit of 0 or below.
    """

    share: float = 0.01
    least: float = 1e-3
    spare: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check("share", self.share)
        _check("least", self.least)

    def __call__(self, training: Training) -> None:
        """As a hook of `training.on_gradients`."""
        self.apply(training.model)

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Clips the gradients that a model has: in a loop of one's own, between backward and the optimizer's step.

        Args:
            model: The model. Gradients of scaled losses have to be unscaled before.

        Raises:
            MisuseError: A path that is to be spared leads nowhere.
        """  # noqa: DOC502
        rest = {id(w.parameter): w.rest("output") for w in found_weights(model)}
        for parameter in self._clipped(model):
            gradient = parameter.grad
            if gradient is None or gradient.is_sparse:
                continue
            axes = rest.get(id(parameter), tuple(range(parameter.dim())))
            limits = unit_norms(parameter, axes).clamp_min(self.least) * self.share
            norms = unit_norms(gradient, axes)
            gradient.mul_(torch.where(norms > limits, limits / norms, 1.0))

    def _clipped(self, model: nn.Module) -> Iterable[nn.Parameter]:
        """Parameters that aren't spared.

        Raises:
            MisuseError: A path that is to be spared leads nowhere.
        """
        paths = {path for path, _ in model.named_modules()}
        for path in self.spare:
            if path not in paths:
                raise MisuseError(f"{path!r} is to be spared, but the model has no module of that path")
        return [p for name, p in model.named_parameters() if not is_within(name.rpartition(".")[0], self.spare)]


def _together(tensors: Iterable[Tensor]) -> list[list[Any]]:
    """Those of one device and type, which can be changed at once."""
    groups: dict[tuple[torch.device, torch.dtype], list[Any]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return list(groups.values())


def _check(name: str, value: float) -> None:
    if not value > 0:
        raise MisuseError(f"{name} is {value!r}, but must be above 0")
