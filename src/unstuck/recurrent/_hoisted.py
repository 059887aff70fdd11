"""A backward program for many rows: what is the same for all of them is computed once, and is only multiplied with.

A backward pass is linear in the gradients that go through it, and what they are multiplied with comes from the forward pass alone: it
is the same for all rows that go through the same step of the same sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unstuck.recurrent import _torch
from unstuck.recurrent._graph import Graph, Op, Source
from unstuck.recurrent._programs import Program

ROWS = ("carry", "seed", "grad")
"""What differs from row to row."""


@dataclass
class Hoisted:
    """A program in two.

    Attributes:
        level: Of the kernel.
        fixed: What is the same for all rows.
        wanted: What the rest loads, by source.
        graph: The rest; it loads `("fixed", "level place")` for what stands at a place in `fixed`.
    """

    level: int
    fixed: Graph
    graph: Graph = field(default_factory=Graph)
    wanted: dict[Source, int] = field(default_factory=dict)
    _moved: dict[int, int] = field(default_factory=dict)
    _scaled: dict[int, tuple[int, int]] = field(default_factory=dict)

    def move(self, place: int) -> int:
        """Where a node of the program is in the rest; all that it is made of must be there."""
        if place not in self._moved:
            self._moved[place] = self._new(place)
        return self._moved[place]

    def _new(self, place: int) -> int:
        node = self.fixed.nodes[place]
        if node.op is Op.CONST:
            return self.graph.const(node.value)
        if not self._varies(place):
            return self._load(place)
        if node.op is Op.LOAD:
            return self.graph.load(*node.source)
        if node.op is Op.MUL and not all(self._varies(a) for a in node.args):
            a, b = node.args if self._varies(node.args[0]) else reversed(node.args)
            return self._times(self.move(a), b)
        return self.graph.apply(node.op, *(self.move(a) for a in node.args))

    def _times(self, moved: int, factor: int) -> int:
        """The product with something fixed; several such products become one."""
        base, known = self._scaled.get(moved, (moved, self.fixed.const(1.0)))
        both = self.fixed.mul(known, factor)
        found = self.graph.mul(base, self._load(both))
        self._scaled[found] = (base, both)
        return found

    def _load(self, place: int) -> int:
        node = self.fixed.nodes[place]
        return (
            self.graph.const(node.value) if node.op is Op.CONST else self.graph.load("fixed", f"{self.level} {place}")
        )

    def _varies(self, place: int) -> bool:
        return any(self.fixed.nodes[p].source[:1] in [(kind,) for kind in ROWS] for p in self.fixed.reachable([place]))


def hoisted(program: Program, level: int) -> tuple[Hoisted, Program]:
    """A backward program in two.

    Args:
        program: The program.
        level: Of the kernel.

    Returns:
        What is fixed, and the program of the rest.
    """
    found = Hoisted(level, Graph(list(program.graph.nodes), dict(program.graph._known)))
    for place in program.places:
        found.move(place)
    rest = Program(found.graph, tuple((target, found.move(place)) for target, place in program.stores))
    loads = [source for source in rest.sources if source[0] == "fixed"]
    found.wanted = {source: int(source[1].split()[1]) for source in loads}
    return found, rest


def fixed_values(found: Hoisted, sources: Mapping[Source, Tensor], shape: tuple[int, int]) -> dict[Source, Tensor]:
    """What is the same for all rows of a step.

    Args:
        found: The program in two.
        sources: What the forward pass left by step, `(time, hidden)`, and what was given, `(hidden,)`, by source.
        shape: `(time, hidden)`.

    Returns:
        Tensors by what the rest loads, `(time, hidden)`.
    """
    known: dict[int, Tensor | float] = {}
    for place in found.fixed.reachable(found.wanted.values()):
        node = found.fixed.nodes[place]
        known[place] = (
            sources[node.source] if node.op is Op.LOAD else _torch.compute(node, [known[a] for a in node.args])
        )
    return {source: torch.as_tensor(known[place]).expand(shape).contiguous() for source, place in found.wanted.items()}
