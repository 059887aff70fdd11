"""Parameter groups: weight decay that spares norms and biases, and rates by layer.

    torch.optim.AdamW(decay_groups(model, 0.1), lr=1e-3)
    torch.optim.AdamW(layerwise_rates(model, 1e-3, 0.8, weight_decay=0.1))

Both give a list that every optimizer of torch's kind takes in place of `model.parameters()`. Every parameter that is trained is in
exactly one group, a shared one once; frozen ones are in none. Names are kept in the group's `param_names`, as torch does.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import ParametrizationList

from unstuck._modes import evaluating
from unstuck.errors import MisuseError
from unstuck.optim._many import check_range

Group = dict[str, Any]
_NORM = re.compile(r"norm(\dd)?$", re.IGNORECASE)  # LayerNorm, BatchNorm2d, RMSNorm, LlamaRMSNorm; not LayerNormLSTM
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class _Place:
    """Where a parameter is: what it is called, what holds it, and what it is there."""

    name: str
    parameter: nn.Parameter
    holder: nn.Module
    role: str
    num_axes: int


def decay_groups(
    model: nn.Module, weight_decay: float, *, spare: Sequence[str] = (), spare_embeddings: bool = False
) -> list[Group]:
    """Two groups: parameters that decay, and those that weight decay is no good for.

    Spared are all parameters of norms (modules whose class is called so: BatchNorm2d, LayerNorm, LlamaRMSNorm), all that are called bias,
    and all others with fewer than two axes: gains, scales, the slopes of PReLU, the recurrent weights of IndRNN. Decay would pull a gain
    to zero and not to one, and a bias away from where the data are, and neither makes the function simpler. What a parametrization such
    as weight norm makes a weight of, decays as that weight. A parameter that is used in several places is spared if it is in one.

    Args:
        model: The network.
        weight_decay: Of those that decay.
        spare: Names or patterns (`"*pos_embed"`) of others to be spared.
        spare_embeddings: Whether embeddings are spared, and with them an output layer that shares their weights.

    Returns:
        The group that decays and the one that doesn't, with their names; one that would be empty is left out.

    Raises:
        MisuseError: A pattern fits no parameter, a lazy layer hasn't seen an input, nothing is trained, or a number can't be used.

    Source: Goyal et al. 2017, section 5.3, and He et al. 2019, section 3.1 ("no bias decay"); the rule by axes is that of GPT-2's
        trainings.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
        >>> for group in decay_groups(net, 0.1):
        ...     print(group["weight_decay"], group["param_names"])
        0.1 ['0.weight', '2.weight']
        0.0 ['0.bias', '1.weight', '1.bias', '2.bias']
    """  # noqa: DOC502
    _check(model, weight_decay)
    spared = _spared(model, spare, spare_embeddings)
    named = _trained(model)
    return _split([(name, parameter) for name, parameter in named.items()], weight_decay, spared)


def layerwise_rates(
    model: nn.Module,
    learning_rate: float,
    factor: float = 0.8,
    *,
    stages: Sequence[str | Sequence[str]] | None = None,
    inputs: tuple[Any, ...] | None = None,
    weight_decay: float | None = None,
    spare: Sequence[str] = (),
    spare_embeddings: bool = False,
) -> list[Group]:
    """Discriminative rates: the last layer has the full rate, each before it `factor` times that of the next.

    Layers are, in order of registration, the model's children; where one is a Sequential, a ModuleList or a ModuleDict, or the only
    child, its own children are. One of vectors alone (a norm) belongs to the layer before it. What the model itself holds (a class token,
    positions) belongs to the first. A parameter that is shared belongs to the first layer that has it. If registration isn't the order
    that things are computed in, give `inputs`, or say by `stages` what the layers are.

    Args:
        model: The network.
        learning_rate: Of the last layer.
        factor: From each layer to the one before it: 0.8, or 1/2.6 as in the paper.
        stages: Layers from first to last: for each the name of a module ("encoder.0") or several. Parameters outside them belong to the
            first.
        inputs: Arguments of a call of the model, which is run on them once, as it would be evaluated and without gradients; layers are
            then in the order they begin in.
        weight_decay: If given, each layer has a group that decays and one that is spared, as by `decay_groups`.
        spare: As for `decay_groups`.
        spare_embeddings: As for `decay_groups`.

    Returns:
        Groups from first to last layer, with their rate as `lr`, and `stage`: the name of the layer. A layer that is frozen counts as one.

    Raises:
        MisuseError: A stage isn't in the model, a layer wasn't run, `factor` isn't above 0, or as for `decay_groups`.

    Source: Howard & Ruder 2018, section 3.2 ("discriminative fine-tuning").

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> [(group["stage"], group["lr"]) for group in layerwise_rates(net, 0.4, 0.5)]
        [('0', 0.1), ('2', 0.2), ('4', 0.4)]
    """
    _check(model, 0.0 if weight_decay is None else weight_decay)
    check_range("learning_rate", learning_rate, 0, what="a learning rate")
    if not factor > 0:
        raise MisuseError(f"factor is {factor}, but must be above 0")
    spared = _spared(model, spare, spare_embeddings)
    modules = dict(model.named_modules())
    named = _named_stages(stages, modules) if stages is not None else _found_stages(model)
    if inputs is not None:
        named = _in_order(model, modules, named, inputs)
    if stages is None:
        named = _merged(model, named)
    layers = _by_stage(model, named)
    groups: list[Group] = []
    for i, (stage, parameters) in enumerate(layers.items()):
        own = {"lr": learning_rate * factor ** (len(layers) - 1 - i), "stage": stage}
        groups += [{**group, **own} for group in _split(parameters, weight_decay, spared)]
    return groups


def _check(model: Any, weight_decay: float) -> None:
    """Sees to it that groups can be made; of what they hold optimizers check next to nothing.

    Raises:
        MisuseError: They can't.
    """
    if not isinstance(model, nn.Module):
        raise MisuseError(
            f"model is a {type(model).__name__}, but must be an nn.Module: groups go by names and modules"
        )
    check_range("weight_decay", weight_decay, 0, what="decay")


# ---------------------------------------------------------------------- what decays


def _split(named: list[tuple[str, nn.Parameter]], weight_decay: float | None, spared: set[int]) -> list[Group]:
    """Parameters in a group, or in those that decay and those that don't; none that is empty."""
    if weight_decay is None:
        parts: list[tuple[list[tuple[str, nn.Parameter]], Group]] = [(named, {})]
    else:
        decaying = [(name, p) for name, p in named if id(p) not in spared]
        others = [(name, p) for name, p in named if id(p) in spared]
        parts = [(decaying, {"weight_decay": weight_decay}), (others, {"weight_decay": 0.0})]
    return [
        {"params": [p for _, p in part], "param_names": [name for name, _ in part], **more}
        for part, more in parts
        if part
    ]


def _spared(model: nn.Module, spare: Sequence[str], spare_embeddings: bool) -> set[int]:
    """Ids of parameters that one of their places spares.

    Raises:
        MisuseError: A pattern fits none.
    """
    places = list(_places(model))
    for pattern in spare:
        if not any(fnmatch.fnmatchcase(place.name, pattern) for place in places):
            raise MisuseError(
                f"no parameter is called {pattern!r}: give names of model.named_parameters(), or patterns"
            )
    return {
        id(place.parameter)
        for place in places
        if _NORM.search(type(place.holder).__name__)
        or place.num_axes < 2
        or re.search(r"(^|_)bias(_|\d|$)", place.role)
        or (spare_embeddings and isinstance(place.holder, _EMBEDDINGS))
        or any(fnmatch.fnmatchcase(place.name, pattern) for pattern in spare)
    }


def _places(model: nn.Module) -> Iterator[_Place]:
    """Every place of every parameter; those of a parametrization are what they make.

    Raises:
        MisuseError: One has no shape yet.
    """
    lists = {
        id(made): (holder, role, max((p.dim() for p in made.parameters(recurse=False)), default=0))
        for holder in model.modules()
        for role, made in getattr(holder, "parametrizations", {}).items()
        if isinstance(made, ParametrizationList)
    }
    for path, module in model.named_modules(remove_duplicate=False):
        for role, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{path}.{role}" if path else role
            if isinstance(parameter, UninitializedParameter):
                raise MisuseError(f"{name} has no shape yet: run the model on a batch first")
            holder, made, num_axes = lists.get(id(module), (module, role, parameter.dim()))
            yield _Place(name, parameter, holder, made, num_axes)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are trained by name, each once.

    Raises:
        MisuseError: There are none.
    """
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise MisuseError("the model has no parameters that are trained: are all of them frozen?")
    return found


# ---------------------------------------------------------------------- layers


def _found_stages(model: nn.Module) -> list[list[str]]:
    """Names of layers in order of registration."""
    while len(own := _children(model)) == 1 and not list(model.parameters(recurse=False)):
        ((name, child),) = own
        if not _children(child):
            return [[name]]
        return [[f"{name}.{part}" for part in stage] for stage in _found_stages(child)]
    found: list[list[str]] = []
    for name, child in own:
        inner = _found_stages(child) if isinstance(child, _CONTAINERS) else []
        found += [[f"{name}.{part}" for part in stage] for stage in inner] or [[name]]
    return found


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Children that hold parameters."""
    return [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]


def _named_stages(stages: Sequence[str | Sequence[str]], modules: dict[str, nn.Module]) -> list[list[str]]:
    found = [[stage] if isinstance(stage, str) else list(stage) for stage in stages]
    missing = [name for stage in found for name in stage if name not in modules]
    if missing or not found:
        raise MisuseError(f"the model has no module {', '.join(missing)}" if missing else "there are no stages")
    return found


def _in_order(
    model: nn.Module, modules: dict[str, nn.Module], stages: list[list[str]], inputs: tuple[Any, ...]
) -> list[list[str]]:
    """Stages in the order in which they begin.

    Raises:
        MisuseError: One isn't run.
    """
    begun: list[str] = []
    handles = [
        modules[name].register_forward_pre_hook(lambda *_, name=name: begun.append(name))
        for stage in stages
        for name in stage
    ]
    try:
        with torch.no_grad(), evaluating(model):
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    first = {name: begun.index(name) for name in set(begun)}
    idle = [stage for stage in stages if not any(name in first for name in stage)]
    if idle:
        raise MisuseError(
            f"{', '.join(idle[0])} isn't called when the model is run on the inputs: say the order by stages="
        )
    return sorted(stages, key=lambda stage: min(first[name] for name in stage if name in first))


def _merged(model: nn.Module, stages: list[list[str]]) -> list[list[str]]:
    """Layers of vectors alone, such as norms, are put to the one before."""
    modules = dict(model.named_modules())
    found: list[list[str]] = []
    for stage in stages:
        vectors = all(p.dim() < 2 for name in stage for p in modules[name].parameters())
        if vectors and found:
            found[-1] = [*found[-1], *stage]
        else:
            found.append(stage)
    return found


def _by_stage(model: nn.Module, stages: list[list[str]]) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Trained parameters of each layer, called by the layer's first module; the layers that have none are there too."""
    modules = dict(model.named_modules())
    named = _trained(model)
    stage_of: dict[int, int] = {}
    for i, stage in enumerate(stages):
        for parameter in _parameters(modules[name] for name in stage):
            stage_of.setdefault(id(parameter), i)
    found: dict[str, list[tuple[str, nn.Parameter]]] = {(stage[0] if stage else ""): [] for stage in stages or [[]]}
    titles = list(found)
    for name, parameter in named.items():
        found[titles[stage_of.get(id(parameter), 0)]].append((name, parameter))
    return found


def _parameters(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    for module in modules:
        yield from module.parameters()
