"""Programs run by tensor operations: on any device, for any type of numbers, without a compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from unstuck.recurrent._graph import Node, Op, Source
from unstuck.recurrent._programs import Program

Run = Callable[[int, int, int, int], None]
"""A kernel that knows its buffers: it is given its first row, the first row of the states before, how many rows there are, and the step."""

BY_ROW = ("col", "dcol", "new", "operand", "grad", "mask")
"""Kinds of buffers with a row for each step of each sequence; `prev` has such rows too, and the first states before them."""


def buffer_of(source: Source) -> Source:
    """What a buffer is called that a source lies in: columns of the slab lie in one."""
    return source[:1] if source[0] in ("col", "dcol") else source


_UNARY = {Op.SIGMOID: torch.sigmoid, Op.TANH: torch.tanh, Op.RELU: torch.relu, Op.RSQRT: torch.rsqrt}


def compute(node: Node, args: list[Tensor | float]) -> Tensor | float:
    """What a node is, given what it is made of; differentiable.

    Args:
        node: The node; no load.
        args: Tensors whose last axis is the units.

    Returns:
        A tensor, or a number where the node is a constant.
    """
    if node.op is Op.CONST:
        return node.value
    if node.op in _UNARY:
        return _UNARY[node.op](_tensor(args[0]))
    if node.op is Op.MEAN:
        return _tensor(args[0]).mean(-1, keepdim=True)
    if node.op is Op.RELU_GRAD:
        grad, result = args
        return torch.where(_tensor(result) <= 0, 0.0, grad)
    a, b = args
    if node.op is Op.ADD:
        return a + b
    return a - b if node.op is Op.SUB else a * b


def _tensor(value: Tensor | float) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value)


def kernel(program: Program, buffers: Mapping[Source, Tensor], unit_size: int) -> Run:
    """A kernel that runs a program on buffers.

    Args:
        program: What to do.
        buffers: By source without a column's number, see `_recurrence`.
        unit_size: Number of units.

    Returns:
        The kernel.
    """
    nodes = program.graph.nodes

    def run(row: int, prev: int, rows: int, step: int) -> None:
        views = {s: _view(s, buffers, unit_size, row, prev, rows, step) for s in program.sources}
        known: dict[int, Tensor | float] = {}
        for place in program.places:
            node = nodes[place]
            known[place] = views[node.source] if node.op is Op.LOAD else compute(node, [known[a] for a in node.args])
        # What is a view of a buffer is taken out of it before anything is stored there.
        results = [views[nodes[p].source].clone() if nodes[p].op is Op.LOAD else known[p] for _, p in program.stores]
        for (target, _), result in zip(program.stores, results, strict=True):
            _store(views[target], result, add=target[0] == "dvector")

    return run


def _view(
    source: Source, buffers: Mapping[Source, Tensor], units: int, row: int, prev: int, rows: int, step: int
) -> Tensor:
    kind = source[0]
    buffer = buffers[buffer_of(source)]
    if kind in ("col", "dcol"):
        start = int(source[1]) * units
        return buffer[row : row + rows, start : start + units]
    if kind == "vector":
        return buffer
    if kind == "dvector":
        return buffer[step]
    start = prev if kind == "prev" else row if kind in BY_ROW else 0
    return buffer[start : start + rows]


def _store(into: Tensor, result: Tensor | float, *, add: bool) -> None:
    if add:
        into.add_(result.sum(0) if isinstance(result, Tensor) and result.dim() > into.dim() else result)
    elif isinstance(result, Tensor):
        into.copy_(result.expand_as(into))
    else:
        into.fill_(result)
