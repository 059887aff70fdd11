"""Samples in a random order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._text import in_torch
from unstuck.source import Edit, EditError, argument
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_LABELS = (
    ("inputs", "targets"), ("inputs", "labels"), ("images", "labels"), ("features", "targets"), ("features", "labels"),
    ("data", "targets"), ("data", "labels"), ("xs", "ys"), ("x", "y"), ("X", "Y"), ("X", "y"),
)  # fmt: skip


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def shuffle(script: Script) -> list[Edit]:
    """The loader draws at random; without a loader the samples are put into a random order once, before training.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: There is no loader, and it isn't known which variables hold the samples, or a sampler draws.
    """
    if any(e.data.get("trained") for e in script.sites("loader")):
        made = script.loader()
        if argument(made.call, "sampler") is not None or argument(made.call, "batch_sampler") is not None:
            raise EditError("the loader draws by a sampler")
        return [made.source.keyword(made.call, "shuffle", "True", position=2)]
    inputs = next((e.data["variable"] for e in script.record.happened("inputs") if e.data["variable"]), "")
    names = [inputs.replace(a, b) for a, b in _LABELS if a in inputs]
    labels = next((name for name in names if script.main.binds(name)), "")
    if not labels:
        raise EditError("it isn't known which variables hold the samples")
    draw, imports = in_torch(script.main, "torch.randperm")
    order = script.main.free("order", "shuffled")
    lines = [f"{order} = {draw}(len({inputs}))", f"{inputs}, {labels} = {inputs}[{order}], {labels}[{order}]"]
    return [*imports, *script.before_training((inputs, labels), lines)]


def treat(training: Training, record: Record) -> None:
    """The loader draws at random; samples of a list of batches are put into a random order once.

    Raises:
        EditError: A sampler draws, or the batches are made by something else.
    """
    import torch
    from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

    from unstuck.remedies._training import loader_with, samples_of

    loader = training.batches
    if isinstance(loader, DataLoader):
        if type(loader.sampler) is not SequentialSampler:
            raise EditError("the loader draws by a sampler")
        training.batches = loader_with(
            loader, RandomSampler(loader.sampler.data_source, generator=loader.generator), loader.batch_size
        )
        return
    inputs, targets = samples_of(training)
    sizes = [len(x) for x, _ in training.batches]
    order = torch.randperm(len(inputs))
    training.batches = list(zip(inputs[order].split(sizes), targets[order].split(sizes), strict=True))
