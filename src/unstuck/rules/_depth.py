"""The layers that learn, by depth: who comes before whom, and how large the gradient is at each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unstuck.evidence import Layer, Parameter, Record, Series

LINEAR = frozenset({"linear", "conv", "conv_transpose", "matmul"})
RECURRENT = frozenset({"rnn", "lstm", "gru", "recurrent", "rnn_cell", "lstm_cell", "gru_cell"})
NORMS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"})
RELU_LIKE = frozenset({"relu", "relu6"})
RESHAPING = frozenset({"reshape", "flatten", "dropout", "cat"})


@dataclass(frozen=True)
class Weighted:
    """A layer with a trainable weight matrix.

    Attributes:
        layer: The layer.
        weights: Its trainable parameters of two dimensions and more.
        depth: Layers with weights on the longest path from the input to it, itself not counted.
    """

    layer: Layer
    weights: tuple[Parameter, ...]
    depth: int

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name


_UNMIXING = frozenset({
    "embedding", "loss", "add", "mul", "div", "neg", "exp", "log", "logsumexp", "sqrt", "pow", "abs", "gather", "where",
    "clamp", "cat", "mean", "sum", "max", "min", "softmax",
})  # fmt: skip
"""What uses a parameter number by number, as distributions do: its matrices are tables, not weights between layers."""


def weighted(record: Record) -> list[Weighted]:
    """Layers with a trainable weight matrix that take part in training, by depth; embeddings and losses left out."""
    depths = _depths(record)
    found = []
    for layer in record.program.layers:
        if layer.op in _UNMIXING or layer.op in NORMS or layer.role == "loss":
            continue
        weights = tuple(
            p for p in (record.parameters.get(n) for n in layer.parameters) if p is not None and is_weight(p)
        )
        if weights:
            found.append(Weighted(layer, weights, depths[layer.name]))
    return sorted(found, key=lambda w: w.depth)  # stable: those of equal depth stay in forward order


def is_weight(parameter: Parameter) -> bool:
    """A trainable matrix or kernel: biases and scales are left out, some have no gradient by design."""
    return parameter.trainable and sum(size > 1 for size in parameter.shape) >= 1 and len(parameter.shape) >= 2


def main_group(record: Record, layers: Iterable[Weighted]) -> list[Weighted]:
    """The layers of one model: that of which most are there, where several are trained."""
    by_model: dict[str, list[Weighted]] = {}
    for item in layers:
        by_model.setdefault(item.layer.model, []).append(item)
    return max(by_model.values(), key=len, default=[])


def inner(record: Record) -> set[str]:
    """Names of the layers whose output a layer with parameters draws on, directly or not: all but the outputs."""
    found: set[str] = set()
    todo = [name for layer in record.program.layers if layer.parameters for name in layer.inputs]
    while todo:
        name = todo.pop()
        if name not in found and name in record.layers:
            found.add(name)
            todo.extend(record.layers[name].inputs)
    return found


def gradient(record: Record, item: Weighted) -> Series:
    """Root mean square of the gradient of a layer's weights, of the one where it is largest, at the sampled steps."""
    series = [s for s in (record.series("grad_rms", p.name).finite for p in item.weights) if len(s)]
    return max(series, key=lambda s: s.median(), default=Series(np.zeros(0, np.int64), np.zeros(0)))


def steepest(sizes: Sequence[float]) -> float:
    """Share of the whole change from the first size to the last, on a log scale, that lies between two neighbours.

    Near 1 the sizes break off at one place; with an even change over n steps it is 1/n.
    """
    logs = np.log([size for size in sizes if size > 0])
    if len(logs) < 2 or logs[-1] == logs[0]:
        return 1.0
    return float((np.diff(logs) / (logs[-1] - logs[0])).max())


def lags(record: Record) -> dict[str, np.ndarray]:
    """Gradient of each recurrent layer's hidden state by time lag, relative to lag 0: medians over the samples.

    Lags that were not measured are filled in from their neighbours.
    """
    found = {}
    for place in record.places("lag_grad"):
        curves = [v.values for v in record.vectors("lag_grad", place) if np.isfinite(v.values).any()]
        length = min((len(c) for c in curves), default=0)
        if length < 2:
            continue
        stacked = np.stack([c[:length] for c in curves])
        known = np.isfinite(stacked).any(axis=0)
        middle = np.array([np.median(column[np.isfinite(column)]) for column in stacked.T[known]])
        found[place] = np.interp(np.arange(length), np.flatnonzero(known), middle)
    return found


def sources(record: Record, layer: Layer) -> list[Layer]:
    """Layers whose output this one takes, looking through reshaping and dropout."""
    found, todo, seen = [], list(layer.inputs), {layer.name}
    while todo:
        name = todo.pop(0)
        source = record.layers.get(name)
        if source is None or name in seen:
            continue
        seen.add(name)
        if source.op in RESHAPING and not source.parameters:
            todo.extend(source.inputs)
        else:
            found.append(source)
    return found


def _depths(record: Record) -> dict[str, int]:
    """Weighted layers before each layer; an input that comes later in forward order closes a loop and is left out."""
    depths: dict[str, int] = {}
    own: dict[str, int] = {}
    for layer in record.program.layers:
        weights = any((p := record.parameters.get(n)) is not None and len(p.shape) >= 2 for n in layer.parameters)
        own[layer.name] = int(weights and layer.op != "embedding" and layer.op not in NORMS)
        depths[layer.name] = max((depths[n] + own[n] for n in layer.inputs if n in depths), default=0)
    return depths
