"""Inputs of mean 0 and deviation 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._network import device_at
from unstuck.remedies._text import in_torch, literal, literals
from unstuck.source import Edit, EditError
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_WRITTEN = 32  # numbers that a person would still write down


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """By feature, else by all alike."""
    found = next((e.data for e in script.record.happened("inputs")), None)
    if found is None:
        return []
    return [{"by": "feature"}, {"by": "all"}] if len(found["shape"]) == 2 else [{"by": "all"}]


def standardize_input(script: Script, *, by: str = "feature") -> list[Edit]:
    """The training data's mean is taken from what the network is given, and that is divided by their deviation, now and ever after.

    Features that never vary are left as they are.

    Args:
        script: The script.
        by: feature, or all: one mean and one deviation for all.

    Returns:
        The edits.

    Raises:
        EditError: The inputs aren't known.
    """
    found = next((e.data for e in script.record.happened("inputs")), None)
    if found is None:
        raise EditError("the inputs aren't known")
    name = found["variable"]
    if not script.is_module:
        return _of_variable(script, name, by)
    source = script.place
    mean, std, lines = _numbers(script, found, by)
    _, imports = in_torch(source, "torch.tensor")
    hook = f"lambda module, args: ((args[0] - {mean}) / {std}, *args[1:])"
    added = script.before_optimizer([*lines, f"{script.model}.register_forward_pre_hook({hook})"], rank=3)
    return [*(imports if "tensor" in "".join(lines) else []), *added]


def _numbers(script: Script, found: Mapping[str, Any], by: str) -> tuple[str, str, list[str]]:
    """Mean and deviation, by their names or as numbers, and the lines that give them.

    Raises:
        EditError: There are too many to be written down.
    """
    if by == "all":
        return literal(found["all_mean"]), literal(found["all_std"] or 1.0), []
    source, name = script.place, found["variable"]
    mean, std = source.free("mean", "input_mean"), source.free("std", "input_std")
    made = script.optimizer() if script.sites("optimizer") else script.root()
    given = [s for s in source.binds(name) if s.lineno < made.statement.lineno]
    device = device_at(script, source, made.statement)
    moved = f".to({device})" if device else ""
    if given and source is script.main and source.function(made.statement) is source.tree:
        return (
            mean,
            std,
            [
                f"{mean}, {std} = {name}.mean(0){moved}, {name}.std(0){moved}",
                f"{std}[{std} == 0] = 1",
            ],
        )
    if len(found["mean"]) > _WRITTEN:
        raise EditError(f"there are {len(found['mean'])} features, and it isn't known which variable holds them")
    tensor, _ = in_torch(source, "torch.tensor")
    stds = [s or 1.0 for s in found["std"]]
    on = f", device={device}" if device else ""
    return mean, std, [f"{mean}, {std} = {tensor}({literals(found['mean'])}{on}), {tensor}({literals(stds)}{on})"]


def _of_variable(script: Script, name: str, by: str) -> list[Edit]:
    if not name:
        raise EditError("it isn't known which variable holds the inputs")
    source = script.main
    others = [name.replace("train", other) for other in ("test", "val", "valid")] if "train" in name else []
    names = [name, *(o for o in others if source.binds(o))]
    mean, std = source.free("mean", "input_mean"), source.free("std", "input_std")
    axis = "0" if by == "feature" else ""
    lines = [f"{mean}, {std} = {name}.mean({axis}), {name}.std({axis})"]
    lines += [f"{std}[{std} == 0] = 1"] * (by == "feature")
    lines += [f"{n} = ({n} - {mean}) / {std}" for n in names]
    return script.before_training(names, lines, rank=3)


def treat(training: Training, record: Record, *, by: str = "feature") -> None:
    """The inputs' mean is taken from what the model is given, and that is divided by their deviation, by a hook and buffers of it.

    Raises:
        EditError: The inputs are no real numbers, or standardised so already.
    """
    import torch

    model, inputs = training.model, training.inputs()
    if inputs.dim() < 2 or not inputs.is_floating_point():
        raise EditError("the inputs aren't known")
    if hasattr(model, "input_mean"):
        raise EditError("the inputs are standardised already")
    mean, std = (inputs.mean(0), inputs.std(0)) if by == "feature" else (inputs.mean(), inputs.std(correction=0))
    model.register_buffer("input_mean", mean.to(training.device))
    model.register_buffer("input_std", torch.where(std > 0, std, torch.ones_like(std)).to(training.device))
    model.register_forward_pre_hook(_standardized)


def _standardized(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return ((args[0] - module.input_mean) / module.input_std, *args[1:])
