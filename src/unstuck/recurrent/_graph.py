"""Expressions over the units of a layer: nodes that know what they are made of, each made once, and their derivatives.

A node is an element-wise operation on numbers of all units of one row, or their mean, which every unit then sees. What a cell
computes, what its kernels compute and what their backward passes compute are all such graphs, so that whoever can run one can run
them all: `_torch` by tensor operations, `_c` as C code.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Op(enum.Enum):
    """What a node does with those it is made of."""

    LOAD = "load"
    CONST = "const"
    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    SIGMOID = "sigmoid"
    TANH = "tanh"
    RELU = "relu"
    RELU_GRAD = "relu_grad"
    """Of a gradient and the result of a ReLU: the gradient where the result isn't 0."""
    MEAN = "mean"
    RSQRT = "rsqrt"


ACTIVATIONS = (Op.SIGMOID, Op.TANH, Op.RELU)

Source = tuple[str, ...]
"""Where a number is loaded from or stored to: a kind and, mostly, a name."""


class Node(NamedTuple):
    """An operation and what it is made of."""

    op: Op
    args: tuple[int, ...] = ()
    source: Source = ()
    value: float = 0.0


@dataclass
class Graph:
    """Nodes in an order in which they can be computed; equal ones are one.

    Attributes:
        nodes: All nodes; a node is known by its place.
    """

    nodes: list[Node] = field(default_factory=list)
    _known: dict[Node, int] = field(default_factory=dict)

    def load(self, *source: str) -> int:
        """A number from outside."""
        return self._add(Node(Op.LOAD, source=source))

    def const(self, value: float) -> int:
        """The same number for all units."""
        return self._add(Node(Op.CONST, value=float(value)))

    def apply(self, op: Op, *args: int) -> int:
        """The operation on these nodes, or a node that is equal to it."""
        simple = self._simple(op, args)
        return self._add(Node(op, args)) if simple is None else simple

    def add(self, a: int, b: int) -> int:
        """Their sum."""
        return self.apply(Op.ADD, a, b)

    def mul(self, a: int, b: int) -> int:
        """Their product."""
        return self.apply(Op.MUL, a, b)

    def _add(self, node: Node) -> int:
        if node not in self._known:
            self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return self._known[node]

    def _simple(self, op: Op, args: tuple[int, ...]) -> int | None:
        values = [self.nodes[a].value if self.nodes[a].op is Op.CONST else None for a in args]
        if op is Op.ADD and 0.0 in values:
            return args[1 - values.index(0.0)]
        if op is Op.SUB and values[1] == 0.0:
            return args[0]
        if op is Op.MUL and 1.0 in values:
            return args[1 - values.index(1.0)]
        if op in (Op.ADD, Op.SUB, Op.MUL) and None not in values:
            a, b = (float(v) for v in values if v is not None)
            return self.const(a + b if op is Op.ADD else a - b if op is Op.SUB else a * b)
        return None

    def reachable(self, ends: Iterable[int]) -> list[int]:
        """What these nodes are made of, themselves included, in an order in which it can be computed."""
        found: set[int] = set()
        waiting = list(ends)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += self.nodes[node].args
        return sorted(found)


def lower(graph: Graph, into: Graph, known: dict[int, int], ends: Iterable[int]) -> None:
    """Writes nodes of one graph into another.

    Args:
        graph: The one.
        into: The other.
        known: Place in the other by place in the one; what stands there isn't written again. All that is written is added.
        ends: The nodes.
    """
    waiting = list(ends)
    while waiting:
        place = waiting[-1]
        missing = [] if place in known else [a for a in graph.nodes[place].args if a not in known]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if place not in known:
            node = graph.nodes[place]
            moved = tuple(known[a] for a in node.args)
            known[place] = into.apply(node.op, *moved) if moved else into._add(node)


def gradient(graph: Graph, seeds: Mapping[int, int]) -> dict[int, int]:
    """Derivatives in reverse: what is seeded at the ends, by every node that they are made of.

    Args:
        graph: Holds the nodes, and is given those of the derivatives.
        seeds: Gradient by end.

    Returns:
        Gradient by node, where there is one.
    """
    found = dict(seeds)
    for place in reversed(graph.reachable(seeds)):
        if place in found:
            for arg, part in _parts(graph, place, found[place]):
                found[arg] = graph.add(found[arg], part) if arg in found else part
    return found


def _parts(graph: Graph, place: int, grad: int) -> list[tuple[int, int]]:
    """The gradient by each of those that a node is made of."""
    node, args = graph.nodes[place], graph.nodes[place].args
    live = [a for a in args if graph.nodes[a].op is not Op.CONST]
    if node.op is Op.ADD:
        return [(a, grad) for a in args if a in live]
    if node.op is Op.SUB:
        negative = graph.apply(Op.SUB, graph.const(0.0), grad) if args[1] in live else grad
        return [(a, g) for a, g in zip(args, (grad, negative), strict=True) if a in live]
    if node.op is Op.MUL:
        a, b = args
        return [(x, graph.mul(grad, y)) for x, y in ((a, b), (b, a)) if x in live]
    if node.op is Op.MEAN:
        return [(args[0], graph.apply(Op.MEAN, grad))]
    if node.op is Op.RSQRT:
        cube = graph.mul(graph.mul(place, place), place)
        return [(args[0], graph.mul(graph.mul(grad, graph.const(-0.5)), cube))]
    if node.op in ACTIVATIONS:
        return [(args[0], through(graph, node.op, place, grad))]
    return []


def through(graph: Graph, activation: Op, result: int, grad: int) -> int:
    """The gradient by what was given to an activation, from its result and the gradient by it."""
    if activation is Op.RELU:
        return graph.apply(Op.RELU_GRAD, grad, result)
    if activation is Op.TANH:
        return graph.mul(grad, graph.apply(Op.SUB, graph.const(1.0), graph.mul(result, result)))
    return graph.mul(graph.mul(grad, result), graph.apply(Op.SUB, graph.const(1.0), result))
