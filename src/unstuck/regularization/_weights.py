"""Which of a model's parameters are weights, and where a unit is in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from unstuck.errors import MisuseError

By = Literal["weight", "output", "input"]
Unit = Literal["output", "input"]
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Aside(nn.Module):
    """A module whose parameters are no weights, such as the gates of some."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight and where it is.

    Attributes:
        path: Of its module within the model.
        name: Its own; `path.name` is that of `named_parameters`.
        module: Its module.
        parameter: What is trained; of a parametrized weight the original.
        output: The axis along which its units are: those that it leads to.
    """

    path: str
    name: str
    module: nn.Module
    parameter: nn.Parameter
    output: int

    @property
    def full_name(self) -> str:
        """As `named_parameters` has it."""
        return f"{self.path}.{self.name}" if self.path else self.name

    def axis(self, by: By) -> int:
        """Of the units that it leads to (output) or comes from (input)."""
        return self.output if by == "output" else 1 - self.output

    def rest(self, by: By) -> tuple[int, ...]:
        """All other axes, those within a unit."""
        return tuple(axis for axis in range(self.parameter.dim()) if axis != self.axis(by))


def found_weights(model: nn.Module) -> list[Weight]:
    """All parameters with two axes or more that are none of a norm's, each once, trained or not.

    Args:
        model: The model.

    Returns:
        They, in the model's order.
    """
    modules, seen, found = dict(model.named_modules()), set(), []
    for path, module in modules.items():
        if isinstance(module, (Aside, *NORMS)):
            continue
        of = modules[path.rpartition("parametrizations.")[0].rstrip(".")] if _is_list(module) else module
        if isinstance(of, NORMS):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() >= 2 and id(parameter) not in seen:
                seen.add(id(parameter))
                found.append(Weight(path, name, of, parameter, int(isinstance(of, _TRANSPOSED))))
    return found


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, ParametrizationList)


def some_weights(model: nn.Module, *, spare: Sequence[str] = ()) -> list[Weight]:
    """Those of a model that are trained, but for modules that are spared.

    Args:
        model: The model.
        spare: Paths of modules; what is within one is spared as well.

    Returns:
        They.

    Raises:
        MisuseError: A path leads nowhere, or no weight is left.
    """
    paths = {path for path, _ in model.named_modules()}
    for path in spare:
        if path not in paths:
            raise MisuseError(f"{path!r} is to be spared, but the model has no module of that path")
    found = [w for w in found_weights(model) if w.parameter.requires_grad and not is_within(w.path, spare)]
    if not found:
        raise MisuseError(
            "the model has no trained weights (parameters with two axes or more, in modules that are no norms)"
        )
    return found


def is_within(path: str, outer: Sequence[str]) -> bool:
    """Whether a path is one of these, or leads through one."""
    return any(path == o or path.startswith(f"{o}.") for o in outer)


def unit_norms(parameter: Tensor, rest: tuple[int, ...], order: float = 2) -> Tensor:
    """Norm of each unit; the axes within a unit stay, with length 1."""
    return torch.linalg.vector_norm(parameter, ord=order, dim=rest, keepdim=True)


def in_groups(weights: Sequence[Weight], optimizer: torch.optim.Optimizer) -> Iterator[tuple[dict, list[Weight]]]:
    """Weights by the optimizer's group that trains them; those that it doesn't train are left out.

    Args:
        weights: They.
        optimizer: Of whatever kind.

    Yields:
        A group, and what of the weights is in it.
    """
    for group in optimizer.param_groups:
        own = {id(p) for p in group["params"]}
        if chosen := [w for w in weights if id(w.parameter) in own]:
            yield group, chosen


def check_strength(strength: float) -> None:
    """Refuses what is no strength of a penalty.

    Args:
        strength: It.

    Raises:
        MisuseError: It is none.
    """
    if not strength >= 0 or math.isinf(strength):
        raise MisuseError(f"a strength of {strength}; it must be a number from 0 on")


def check_unit(by: str) -> None:
    """Refuses what is no kind of unit.

    Args:
        by: It.

    Raises:
        MisuseError: It is none.
    """
    if by not in ("output", "input"):
        raise MisuseError(f'a unit by {by!r}; it must be by "output" or "input"')


def wide(weight: Tensor) -> Tensor:
    """In float32 where it is shorter: squares of small weights would be zero in float16, and sums lose their end."""
    return weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight


def total(parts: Iterable[Tensor]) -> Tensor:
    """Their sum, where the first one is."""
    first, *others = parts
    return torch.stack([first, *(part.to(first.device) for part in others)]).sum()
