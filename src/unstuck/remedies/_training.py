"""What treatments of a `Training` have in common: modules that are found and replaced, parameters, rates, loaders."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader

from unstuck.evidence import Layer
from unstuck.source import EditError
from unstuck.training import Schedule, Training

# ---------------------------------------------------------------------- modules


def module_of(training: Training, layer: Layer) -> nn.Module:
    """The module of a layer.

    Raises:
        EditError: The layer is none of the model's modules.
    """
    paths = _paths(training, layer)
    if not paths:
        raise EditError(f"{layer.name!r} is no module of the model")
    return training.places[max(paths, key=len)]


def _paths(training: Training, layer: Layer) -> list[str]:
    name = layer.name.partition(" after ")[0]  # "relu after fc2": one module in several places
    return [path for path in training.places if path and (name == path or name.endswith(f".{path}"))]


def modules_of(training: Training, layers: Sequence[Layer]) -> list[nn.Module]:
    """The modules of layers, each once.

    Raises:
        EditError: One is a function that `forward` calls.
    """
    for layer in layers:
        if not _paths(training, layer):
            raise EditError(f"{layer.name!r} is a function that the model calls, and no module that could be replaced")
    return list({id(m): m for m in (module_of(training, layer) for layer in layers)}.values())


def replace(training: Training, old: nn.Module, new: nn.Module) -> None:
    """Puts a module in the place of another, wherever that is; it is moved to where that was, and into its mode."""
    like = next(iter((*old.parameters(), *training.model.parameters())))
    new.to(like.device, like.dtype).train(old.training)
    for parent in list(training.model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)
    if training.model is old:
        training.model = new
    training.places.update({path: new for path, module in training.places.items() if module is old})


def wrap(training: Training, layer: nn.Module, *behind: nn.Module) -> None:
    """Puts modules behind one; its place stays known as its own."""
    paths = [path for path, module in training.places.items() if module is layer]
    replace(training, layer, nn.Sequential(layer, *behind))
    training.places.update(dict.fromkeys(paths, layer))


@contextlib.contextmanager
def parameters_kept(training: Training) -> Iterator[None]:
    """While which the model may change its parameters; afterwards the optimizer has the new ones in place of those that are gone."""
    before = {id(p): p for p in training.model.parameters()}
    yield
    after = {id(p): p for p in training.model.parameters()}
    gone = {i for i in before if i not in after}
    groups = training.optimizer.param_groups
    own = next((g for g in groups if any(id(p) in gone for p in g["params"])), groups[0])
    for group in groups:
        for p in group["params"]:
            if id(p) in gone:
                training.optimizer.state.pop(p, None)
        group["params"][:] = [p for p in group["params"] if id(p) not in gone]  # in place: LBFGS holds the list
    own["params"].extend(p for i, p in after.items() if i not in before)


def given(training: Training, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """Gives the optimizer those parameters that it doesn't have, and returns them."""
    held = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
    missing = [p for p in parameters if id(p) not in held]
    training.optimizer.param_groups[0]["params"].extend(missing)
    return missing


# ---------------------------------------------------------------------- rates


def set_rate(training: Training, rate: float) -> None:
    """Sets the rate of the first group, and those of the others in proportion; schedules go on as they were, from the new ones.

    Raises:
        EditError: The optimizer has no rate.
    """
    groups = training.optimizer.param_groups
    if any("lr" not in group for group in groups):
        raise EditError(f"{type(training.optimizer).__name__} has no rate")
    first = float(groups[0].get("initial_lr", groups[0]["lr"]))
    times = rate / first if first > 0 else math.nan
    for group in groups:
        own = float(group.get("initial_lr", group["lr"]))
        for name in ("lr", "initial_lr", "max_lr", "min_lr"):  # the last two are those of OneCycleLR
            if name in group:
                group[name] = float(group[name]) * times if own > 0 and first > 0 else rate
    for schedule in training.schedules:
        _begin_at(schedule.scheduler, training)
        if hasattr(schedule.scheduler, "max_lrs") and first > 0:  # of CyclicLR
            schedule.scheduler.max_lrs = [peak * times for peak in schedule.scheduler.max_lrs]


def _begin_at(scheduler: Any, training: Training) -> None:
    """Lets a schedule, and those that it is made of, start from the optimizer's rates."""
    scheduler.optimizer = training.optimizer
    if hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [group["initial_lr"] for group in training.optimizer.param_groups]
    for inner in getattr(scheduler, "_schedulers", ()):
        _begin_at(inner, training)


def schedule_by(training: Training, make: Callable[..., Any], **settings: Any) -> None:
    """Adds a schedule that steps with the optimizer."""
    training.schedules.append(Schedule(make(training.optimizer, **settings), "step"))


# ---------------------------------------------------------------------- batches


def loader_with(loader: DataLoader[Any], sampler: Any, size: int | None) -> DataLoader[Any]:
    """A loader of the same data that draws by another sampler, or in batches of another size.

    Raises:
        EditError: Its batches are made by a sampler of their own.
    """
    if type(loader.batch_sampler) is not BatchSampler or size is None:
        raise EditError("the loader's batches are made by a sampler")
    new = copy.copy(loader)
    batches = BatchSampler(sampler, size, loader.drop_last)
    vars(new).update(
        sampler=sampler, batch_sampler=batches, batch_size=size, _iterator=None
    )  # it refuses to have them set
    return new


def samples_of(training: Training) -> tuple[Tensor, Tensor]:
    """All inputs and all targets of batches in a list.

    Raises:
        EditError: There is no such list, or it holds something else than pairs of tensors.
    """
    batches = training.batches
    if not isinstance(batches, (list, tuple)):
        raise EditError(f"the batches are made by a {type(batches).__name__}, and not by a DataLoader")
    pairs = [batch for batch in batches if isinstance(batch, (list, tuple)) and len(batch) == 2]
    if len(pairs) < len(batches) or not all(isinstance(part, Tensor) and part.dim() for pair in pairs for part in pair):
        raise EditError("the batches are no pairs of tensors")
    shapes = {tuple(tuple(part.shape[1:]) for part in pair) for pair in pairs}
    if len(shapes) > 1:
        raise EditError("the batches are of several shapes")
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


# ---------------------------------------------------------------------- outputs


class Residual(nn.Sequential):
    """Modules that add to their input what they make of it."""

    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)


class Changed:
    """A loss whose outputs or targets are changed before it takes them.

    Args:
        loss: The loss.
        change: Takes outputs and targets, and returns the targets that the loss takes.
    """

    def __init__(self, loss: Callable[[Any, Any], Tensor], change: Callable[[Any, Any], Any]) -> None:
        self.loss, self.change = loss, change

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        return self.loss(outputs, self.change(outputs, targets))


class Over:
    """Divides the loss by a number, as one of `Training.on_loss`."""

    def __init__(self, number: float) -> None:
        self.number = number

    def __call__(self, training: Training, loss: Tensor) -> Tensor:
        return loss / self.number


class Output:
    """Changes what a model gives, as a forward hook."""

    def __init__(self, change: Callable[..., Any], **settings: Any) -> None:
        self.change, self.settings = change, settings

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        return self.change(output, **self.settings)
