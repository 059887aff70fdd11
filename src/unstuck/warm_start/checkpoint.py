"""Loads what fits from a checkpoint, and says what was loaded, what was left as it starts and why, and what wasn't used.

from unstuck.warm_start.checkpoint import load

print(load(model, "resnet18.pt"))  # loaded 120 of 122 tensors; left as they start: fc.weight ((10, 512) here, (1000, 512) in the ...
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unstuck.errors import MisuseError
from unstuck.warm_start._names import Prefix, Rename, found_prefix, given_prefix, moved, renamed, visible
from unstuck.warm_start._state import Names, listed, state_dict_of

Channels = Literal["sum", "mean"]


@dataclass(frozen=True)
class Loaded:
    """What came of loading; as text it says so in a few sentences.

    Attributes:
        loaded: Names of the model's tensors that now are as in the checkpoint.
        left: Those that are as they were, and why.
        unused: Names in the checkpoint, as they stand there, that nothing was loaded from.
        prefix: What the names in the checkpoint begin with, and what those of the model do instead.
        converted: How many were converted to another precision.
    """

    loaded: tuple[str, ...]
    left: dict[str, str]
    unused: tuple[str, ...]
    prefix: Prefix
    converted: int

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} of {len(self.loaded) + len(self.left)} tensors"]
        if any(self.prefix):
            parts[0] += f", '{self.prefix[0]}…' of the checkpoint as '{self.prefix[1]}…'"
        if self.converted:
            parts[0] += f", {self.converted} of them converted to another precision"
        if self.left:
            parts.append(f"left as they start: {listed(f'{name} ({why})' for name, why in self.left.items())}")
        if self.unused:
            parts.append(f"not used of the checkpoint: {listed(self.unused)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class _Plan:
    """What is to be copied where, and what isn't."""

    values: dict[str, Tensor]
    left: dict[str, str]
    unused: tuple[str, ...]


def load(
    model: nn.Module,
    checkpoint: str | Path | Mapping[str, Any] | nn.Module,
    *,
    key: str | None = None,
    prefix: str | Prefix | None = None,
    rename: Rename | None = None,
    input_channels: Channels | None = None,
    strict: bool = False,
    least: float = 0.5,
    trusted: bool = False,
) -> Loaded:
    """Loads the tensors of a checkpoint whose names and shapes are those of the model; the others stay as they are.

    All parameters and buffers that the model would save are filled, the statistics of batch norm among them, on the device and in the
    precision that they have. Nothing is resized silently: a head for another number of classes, or position embeddings for another
    length, are left as they start, and so is the bias of a weight that doesn't fit. When it fails the model is as before.

    Args:
        model: What is loaded into, wrapped or not.
        checkpoint: A file of `torch.save` or of safetensors; a state dict; a mapping that holds one; or another model.
        key: Where in the checkpoint the state dict is, with dots between keys. By default at the top, or under one of the usual names.
        prefix: What names in the checkpoint begin with and those in the model don't: "module."; or what the latter begin with
            instead, ("encoder.", "backbone."). Only names with that prefix are loaded. By default those prefixes are found with which
            most tensors fit; names that torch.compile or FSDP insert never matter.
        rename: Other beginnings of names, made of whole segments: {"fc": "head"}, where None leaves out what is there; or a function
            of a name. They are those in the checkpoint, before a prefix is looked for.
        input_channels: What to do if the first convolution has another number of input channels: "sum" shares out the sum of the
            weights among them, so that a grey picture gives what its copies in all channels gave; "mean" gives each the mean.
        strict: Whether all tensors of the model and of the checkpoint have to fit.
        least: The share of tensors that have to fit, of the model's or of the checkpoint's, whichever is greater.
        trusted: Whether code in the file may run: `torch.load(weights_only=False)`.

    Returns:
        What was loaded, what was left and why, and what wasn't used.

    Raises:
        MisuseError: There is no such file, or no state dict in it; less fits than there has to; several prefixes fit equally well; or
            two different values are given for one tensor.
        MissingError: The file is one of safetensors, which isn't installed.

    Example:
        >>> old = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1000))
        >>> new = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 10))
        >>> wrapped = {f"module.{name}": tensor for name, tensor in old.state_dict().items()}
        >>> found = load(new, {"epoch": 7, "model": wrapped})
        >>> found.loaded, found.left["1.weight"]
        (('0.weight', '0.bias'), '(10, 3) here, (1000, 3) in the checkpoint')
    """  # noqa: DOC502
    if not 0 <= least <= 1:
        raise MisuseError(f"least is {least!r}, but must be a share from 0 to 1")
    if input_channels not in (None, "sum", "mean"):
        raise MisuseError(f'input_channels is {input_channels!r}, but must be "sum", "mean" or None')
    own = _tensors_of(model)
    given, left_out = renamed(state_dict_of(checkpoint, key, trusted=trusted), rename)
    places = {visible(name): name for name in own}
    found = given_prefix(prefix) or found_prefix({v: own[name] for v, name in places.items()}, given, least)
    plan = _planned(model, own, moved(given, found, places), input_channels, left_out)
    _check_enough(own, plan, given, least, strict=strict)
    converted = _fill(own, plan.values)
    return Loaded(tuple(n for n in own if n in plan.values), plan.left, plan.unused, found, converted)


# ---------------------------------------------------------------------- what is filled


def _tensors_of(model: nn.Module) -> Names:
    """What the model would save, by name.

    Raises:
        MisuseError: There is nothing, or something that can't be filled.
    """
    own = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    if not own:
        raise MisuseError("the model has no tensors that could be loaded")
    for name, value in own.items():
        if is_lazy(value):
            raise MisuseError(f"{name} has no shape yet: let the model see one batch before loading")
        if value.is_meta:
            raise MisuseError(
                f"{name} has no memory, as it is on the device 'meta': call model.to_empty(device=...) first"
            )
    return own


def _planned(
    model: nn.Module,
    own: Names,
    given: dict[str, tuple[str | None, Tensor]],
    channels: Channels | None,
    left_out: set[str],
) -> _Plan:
    """What is loaded from where, and what isn't and why."""
    named = {name: value for name, value in given.values() if name is not None}
    named |= _adapted(model, own, named, channels) if channels else {}
    left = {name: why for name, here in own.items() if (why := _misfit(here, named.get(name)))}
    left |= {
        name: "as its weight is"
        for name in own
        if name not in left
        and name.endswith(".bias")
        and name.removesuffix("bias") + "weight" in left.keys() & named.keys()
    }
    fitting = {name: named[name] for name in own if name not in left}
    for name, value in _tied(own, fitting).items():
        left.pop(name, None)
        fitting[name] = value
    unused = [written for written, (name, _) in given.items() if name is None]
    return _Plan(fitting, left, (*unused, *sorted(left_out)))


def _misfit(here: Tensor, there: Tensor | None) -> str:
    """Why a tensor can't be loaded, empty if it can."""
    if there is None:
        return "not in the checkpoint"
    if here.shape != there.shape:
        return f"{tuple(here.shape)} here, {tuple(there.shape)} in the checkpoint"
    if (here.is_floating_point(), here.is_complex()) != (there.is_floating_point(), there.is_complex()):
        return f"{_kind(here)} here, {_kind(there)} in the checkpoint"
    return ""


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _adapted(model: nn.Module, own: Names, named: Names, channels: Channels) -> Names:
    """The weight of the first convolution for another number of input channels, if that is all in which it differs."""
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    first = next(((path, m) for path, m in model.named_modules() if isinstance(m, convolutions)), None)
    if first is None or first[1].groups != 1:
        return {}
    name = f"{first[0]}.weight".lstrip(".")
    if name not in own or name not in named:
        return {}
    here, there = own[name], named[name]
    if here.dim() != there.dim() or here.shape[0] != there.shape[0] or here.shape[2:] != there.shape[2:]:
        return {}
    if here.shape[1] == there.shape[1] or not there.is_floating_point():
        return {}
    pooled = there.double().mean(dim=1, keepdim=True)
    if channels == "sum":
        pooled *= there.shape[1] / here.shape[1]
    return {name: pooled.to(there.dtype).expand(here.shape)}


def _tied(own: Names, fitting: Names) -> Names:
    """What goes into all names of tensors that have several.

    Raises:
        MisuseError: The checkpoint has different values for one.
    """
    twins: defaultdict[int, list[str]] = defaultdict(list)
    for name, here in own.items():
        twins[id(here)].append(name)
    found: Names = {}
    for names in twins.values():
        known = [name for name in names if name in fitting]
        for name in known[1:]:
            if not torch.equal(fitting[known[0]].cpu(), fitting[name].cpu()):
                raise MisuseError(
                    f"{known[0]} and {name} are one tensor here, but the checkpoint has two that differ: "
                    f"leave one out by rename={{'{name}': None}}, under its name in the checkpoint"
                )
        found |= {name: fitting[known[0]] for name in names if known}
    return found


def _check_enough(own: Names, plan: _Plan, given: Mapping[str, Any], least: float, *, strict: bool) -> None:
    fits = len(plan.values)
    if not fits or max(fits / len(own), fits / max(len(given), 1)) < least:
        raise MisuseError(f"{fits} of {len(own)} tensors fit{_hint(plan, least if fits else 0.0)}")
    if strict and (plan.left or plan.unused):
        parts = [f"{listed(f'{n} ({why})' for n, why in plan.left.items())} would be left"] if plan.left else []
        parts += [f"{listed(plan.unused)} of the checkpoint not used"] if plan.unused else []
        raise MisuseError(f"not all fits: {' and '.join(parts)}; with strict=False the rest is loaded")


def _hint(plan: _Plan, least: float) -> str:
    """How the names and shapes look that don't fit."""
    parts = [f", less than least={least:g} of either side"] if least else [""]
    shapes = [f"{name} ({why})" for name, why in plan.left.items() if " here, " in why]
    missing = [name for name, why in plan.left.items() if " here, " not in why]
    if shapes:
        parts.append(f"{len(shapes)} have the name and another shape: {listed(shapes)}")
    if missing and plan.unused:
        parts.append(
            f"the checkpoint has names like {listed(plan.unused)} against {listed(missing)}: say by rename=... which are which"
        )
    return "; ".join(parts)


def _fill(own: Names, values: Names) -> int:
    """Copies in two passes, of which only the first can fail.

    Returns:
        How many were of another precision.

    Raises:
        MisuseError: Parameters aren't finite.
    """
    staged = {}
    with torch.no_grad():
        for name, value in values.items():
            staged[name] = torch.empty_like(own[name]).copy_(value)
            if isinstance(own[name], nn.Parameter) and not bool(torch.isfinite(staged[name]).all()):
                finite = bool(torch.isfinite(value).all())
                why = f"too large for {_kind(own[name])}" if finite else "NaN or infinite: its training had gone wrong"
                raise MisuseError(f"{name} of the checkpoint is {why}")
        for name, value in staged.items():
            own[name].copy_(value)
    return sum(value.dtype != own[name].dtype for name, value in values.items())
