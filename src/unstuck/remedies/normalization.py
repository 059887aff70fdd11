"""Normalisation between the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._text import in_sequential, in_torch
from unstuck.source import Edit, EditError, argument
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Layer, Record
    from unstuck.training import Training

_KINDS = {
    "Linear": ("BatchNorm1d", "out_features"),
    "Conv2d": ("BatchNorm2d", "out_channels"),
    "Conv1d": ("BatchNorm1d", "out_channels"),
}


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """Batch norm; layer norm where batches are tiny, or where there is batch norm already."""
    if any(layer.op == "batch_norm" for layer in script.record.program.layers):
        return [{"kind": "layer"}]
    size = script.record.series("batch_size").median()
    return [{"kind": "batch"}] if size >= 8 else [{"kind": "layer"}]


def normalization(script: Script, *, kind: str = "batch") -> list[Edit]:
    """Batch norm (Ioffe and Szegedy 2015) or layer norm (Ba et al. 2016) behind every hidden linear layer and convolution.

    Where there is batch norm, layer norm takes its place: it is the same in training and evaluation, and for batches of any size. Behind
    convolutions that is group norm with one group (Wu and He 2018).

    Args:
        script: The script.
        kind: batch or layer.

    Returns:
        The edits.

    Raises:
        EditError: There is no hidden layer that is made by a plain call.
    """
    if kind == "layer" and (instead := _instead(script)):
        return instead
    edits: dict[Edit, None] = {}
    weighted = [layer for layer in script.record.program.layers if layer.parameters and layer.module in _KINDS]
    for layer in weighted[:-1]:
        made = script.module(layer.name)
        norm, name = _KINDS[layer.module]
        size = argument(made.call, name, 1)
        if size is None or (kind == "layer" and layer.module != "Linear"):
            raise EditError(f"the size of {layer.name!r} isn't known")
        text = made.source.of(made.call)
        (chain, imports), (norm_name, more) = (
            in_torch(made.source, f"torch.nn.{n}") for n in ("Sequential", "LayerNorm" if kind == "layer" else norm)
        )
        added = f"{norm_name}({made.source.of(size)})"
        if in_sequential(made.source, made.call):
            _, end = made.source.span(made.call)
            change = [*more, Edit(made.source.file, end, end, f", {added}")]
        else:
            change = [*imports, *more, made.source.replace(made.call, f"{chain}({text}, {added})")]
        edits.update(dict.fromkeys(change))
    if not edits:
        raise EditError("there is no hidden layer to normalise")
    return list(edits)


def _instead(script: Script) -> list[Edit]:
    """Layer norm in place of batch norm; empty where there is none.

    Raises:
        EditError: The size of one isn't known.
    """
    edits: dict[Edit, None] = {}
    for made in script.modules("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"):
        size = argument(made.call, "num_features", 0)
        if size is None:
            raise EditError(f"the size of a batch norm on line {made.call.lineno} isn't known")
        path = str(made.event["path"])
        norms = [layer for layer in script.record.program.layers if layer.op == "batch_norm"]
        flat = _is_flat([layer for layer in norms if layer.name.endswith(path)], made.event["name"])
        name, imports = in_torch(made.source, f"torch.nn.{'LayerNorm' if flat else 'GroupNorm'}")
        text = made.source.of(size)
        edit = made.source.replace(made.call, f"{name}({text})" if flat else f"{name}(1, {text})")
        edits.update(dict.fromkeys([*imports, edit]))
    return list(edits)


def _is_flat(layers: list[Layer], kind: str) -> bool:
    """Whether a batch norm is given vectors, and not sequences or images."""
    shape = layers[0].out_shape if layers else ()
    return len(shape) == 2 if shape else kind == "BatchNorm1d"


def treat(training: Training, record: Record, *, kind: str = "batch") -> None:
    """Batch norm or layer norm behind every hidden linear layer and convolution, or layer norm in place of batch norm.

    Raises:
        EditError: There is none that is a module, or layer norm is to stand behind a convolution.
    """
    from torch import nn

    from unstuck.remedies._training import module_of, parameters_kept, wrap

    if kind == "layer" and _replaced(training, record):
        return
    weighted = [layer for layer in record.program.layers if layer.parameters and layer.module in _KINDS]
    if len(weighted) < 2:
        raise EditError("there is no hidden layer to normalise")
    if kind == "layer" and any(layer.module != "Linear" for layer in weighted[:-1]):
        raise EditError("layer norm behind a convolution would need its size")
    hidden = {id(m): (m, layer.module) for layer in weighted[:-1] for m in [module_of(training, layer)]}
    with parameters_kept(training):
        for module, name in hidden.values():
            norm, size = _KINDS[name]
            wrap(training, module, getattr(nn, "LayerNorm" if kind == "layer" else norm)(getattr(module, size)))


def _replaced(training: Training, record: Record) -> bool:
    """Puts layer norm in the place of batch norm; whether there is any."""
    from torch import nn

    from unstuck.remedies._training import module_of, parameters_kept, replace

    norms = [m for m in training.model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))]
    known = [
        (layer, module_of(training, layer)) for layer in record.program.layers if layer.op == "batch_norm" and norms
    ]
    with parameters_kept(training):
        for norm in norms:
            flat = _is_flat([layer for layer, module in known if module is norm], type(norm).__name__)
            new = nn.LayerNorm(norm.num_features) if flat else nn.GroupNorm(1, norm.num_features)
            replace(training, norm, new)
    return bool(norms)
