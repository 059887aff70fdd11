"""From a cell to what its kernels do at each step: programs of loads, operations and stores.

All linear maps of the inputs of all steps are one matrix product. It fills a *slab*: rows are the steps of all sequences, columns
are the gates, one beside the other. At each step the maps of the output state are added by one product, and a kernel computes the
rest for all units. Where a cell maps something that it computes itself (`step.hidden(..., of=r * h)`), its kernel is cut there into
*levels*: kernel 0 computes what is to be mapped, a product maps it, kernel 1 goes on.

A forward kernel leaves activations in the slab where what they were computed from isn't needed again. A backward kernel computes what
else it needs anew from the slab and the states. Kernels of the backward pass run from the last level to the first: each follows the
whole cell in reverse from what is known by then, and gives the gradients of its own level's columns; kernel 0 gives those of the states and
vectors as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from unstuck.recurrent._graph import ACTIVATIONS, Graph, Op, Source, gradient, lower, through
from unstuck.recurrent.cell import Cell, Group


@dataclass(frozen=True)
class Program:
    """What a kernel does for the units of a row.

    Sources and targets: `col` a column of the slab, `dcol` its gradient; `prev` and `new` a state before and after the step;
    `carry` the gradient by a state, read as that after the step and left as that before; `grad` the gradient by the output from
    outside; `operand` what a linear map is given, `seed` the gradient by it; `vector`; `mask` by step and `still` by sequence;
    `dvector` is added to.

    Attributes:
        graph: Loads and operations.
        stores: Where to put which node.
    """

    graph: Graph
    stores: tuple[tuple[Source, int], ...]

    @property
    def sources(self) -> list[Source]:
        """All that is loaded or stored."""
        loads = [self.graph.nodes[p].source for p in self.places if self.graph.nodes[p].op is Op.LOAD]
        return list(dict.fromkeys([*loads, *(target for target, _ in self.stores)]))

    @cached_property
    def places(self) -> list[int]:
        """The nodes that are needed, in order."""
        return self.graph.reachable(place for _, place in self.stores)


@dataclass(frozen=True)
class Span:
    """Columns side by side that one matrix product fills.

    Attributes:
        start: First of them.
        stop: After the last.
        rows: Which gates of the weight they are, in its order.
    """

    start: int
    stop: int
    rows: tuple[int, ...]

    @cached_property
    def in_order(self) -> bool:
        """The gates follow each other in the weight as they do here."""
        return self.rows == tuple(range(self.rows[0], self.rows[0] + len(self.rows)))


@dataclass(frozen=True)
class Column:
    """A gate's place in the slab.

    Attributes:
        name: Of the gate.
        kind: `input`, `linear` (a map of something else) or `gate` (both, added).
        group: Which group fills it; -1 for the input alone.
    """

    name: str
    kind: str
    group: int


class Programs:
    """How a cell's slab is laid out, and what its kernels do.

    Attributes:
        cell: The cell.
        columns: Of the slab.
        inputs: What the products with the input fill.
        groups: What each group of linear maps fills.
        levels: How many kernels a pass has.
        forward: Program of each, the first level first.
        backward: Program of each, the first level first.
        carried: States whose gradient a kernel leaves in `carry`; those of the others come by linear maps alone.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.columns = _columns(cell)
        self._number = {(c.kind, c.name): str(n) for n, c in enumerate(self.columns)}
        self.groups = [self._span(g) for g in range(len(cell.groups))]
        self.inputs = self._input_spans()
        self._level = self._levels()
        self.levels = 1 + max(
            [self._level[cell.graph.load(c.kind, c.name)] for c in self.columns], default=0
        )  # what is computed after the last column is of its level
        self._kept = self._activated()
        self.forward = [self._forward(level) for level in range(self.levels)]
        self.carried: set[str] = set()
        self.backward = [self._backward(level) for level in range(self.levels)]

    def level(self, group: Group) -> int:
        """The kernel that computes what a group maps; -1 when it is a state as it is."""
        return -1 if group.state is not None else self._level[group.operand]

    @property
    def projected_by(self) -> int:
        """The kernel that computes what is projected."""
        return self._level[self.cell.projection] if self.cell.projection is not None else -1

    def _span(self, group: int) -> Span:
        places = [n for n, c in enumerate(self.columns) if c.group == group]
        names = [g.name for g in self.cell.groups[group].gates]
        return Span(places[0], places[-1] + 1, tuple(names.index(self.columns[n].name) for n in places))

    def _input_spans(self) -> list[Span]:
        names = [g.name for g in self.cell.inputs]
        runs: list[list[int]] = []
        for n, column in enumerate(self.columns):
            if column.kind == "linear":
                continue
            if runs and runs[-1][-1] == n - 1:
                runs[-1].append(n)
            else:
                runs.append([n])
        return [Span(run[0], run[-1] + 1, tuple(names.index(self.columns[n].name) for n in run)) for run in runs]

    def _levels(self) -> dict[int, int]:
        found: dict[int, int] = {}
        groups = {gate.name: group for group in self.cell.groups for gate in group.gates}
        for place, node in enumerate(self.cell.graph.nodes):
            if node.op is Op.LOAD and node.source[0] in ("gate", "linear"):
                group = groups[node.source[1]]
                found[place] = 0 if group.state is not None else found[group.operand] + 1
            else:
                found[place] = max((found[a] for a in node.args), default=0)
        return found

    def _activated(self) -> dict[int, int]:
        """Activation by the column that nothing else is computed from."""
        nodes = self.cell.graph.nodes
        ends = {*self.cell.states.values(), *(g.operand for g in self.cell.groups), self.cell.projection}
        found = {}
        for c in self.columns:
            place = self.cell.graph.load(c.kind, c.name)
            users = [p for p, node in enumerate(nodes) if place in node.args]
            if len(users) == 1 and nodes[users[0]].op in ACTIVATIONS and place not in ends:
                found[place] = users[0]
        return found

    def _ends(self, level: int) -> list[tuple[Source, int]]:
        """What the forward kernel of a level gives: what is mapped after it, and new states."""
        cell = self.cell
        found = [(("operand", g.name), g.operand) for g in cell.groups if self.level(g) == level]
        if cell.projection is not None and self.projected_by == level:
            found.append((("operand", "hr"), cell.projection))
        last = level == self.levels - 1
        for state, place in cell.states.items():
            if not self._is_projected(state) and (self._level[place] == level or (last and self._level[place] > level)):
                found.append((("new", state), place))
        return found

    def _is_projected(self, state: str) -> bool:
        return self.cell.graph.nodes[self.cell.states[state]].source[:1] == ("projection",)

    def _lowered(self, level: int | None) -> tuple[Graph, dict[int, int]]:
        """A graph whose columns can be loaded, those of one level as they were computed, the others as their activations left them."""
        graph, known = Graph(), {}
        for place, node in enumerate(self.cell.graph.nodes):
            if node.op is not Op.LOAD:
                continue
            kind, name = node.source
            if (kind, name) in self._number:
                column = graph.load("col", self._number[kind, name])
                fresh = level is not None and self._level[place] == level
                known[self._kept[place] if place in self._kept and not fresh else place] = column
            elif kind != "projection":
                known[place] = graph.load("prev" if kind == "state" else kind, name)
        return graph, known

    def _forward(self, level: int) -> Program:
        graph, known = self._lowered(level)
        ends = self._ends(level)
        kept = {c: a for c, a in self._kept.items() if self._level[c] == level}
        lower(self.cell.graph, graph, known, [*(place for _, place in ends), *kept.values()])
        nodes = self.cell.graph.nodes
        stores = [(("col", self._number[nodes[c].source[0], nodes[c].source[1]]), known[a]) for c, a in kept.items()]
        return Program(graph, tuple(stores + [(target, known[place]) for target, place in ends]))

    def _backward(self, level: int) -> Program:
        cell = self.cell
        graph, known = self._lowered(None)
        seeds: dict[int, int] = {}

        def seed(place: int, *source: str) -> None:
            lower(cell.graph, graph, known, [place])
            there, grad = known[place], graph.load(*source)
            seeds[there] = graph.add(seeds[there], grad) if there in seeds else grad

        for state, place in cell.states.items():
            if not self._is_projected(state):
                seed(place, "carry", state)
                if state == cell.output:
                    seed(place, "grad")
        for group in cell.groups:
            if self.level(group) >= level:
                seed(group.operand, "seed", group.name)
        if cell.projection is not None and self.projected_by >= level:
            seed(cell.projection, "seed", "hr")
        found = gradient(graph, seeds)
        stores = [
            (("dcol", self._number[c.kind, c.name]), self._column_gradient(graph, known, found, c))
            for c in self.columns
            if self._level[cell.graph.load(c.kind, c.name)] == level
        ]
        if level == 0:
            stores += self._inner_gradients(graph, found)
        return Program(graph, tuple(stores))

    def _column_gradient(self, graph: Graph, known: dict[int, int], found: dict[int, int], column: Column) -> int:
        place = self.cell.graph.load(column.kind, column.name)
        activation = self._kept.get(place)
        if activation is None:
            return found.get(known[place], graph.const(0.0))
        result = known[activation]
        if result not in found:
            return graph.const(0.0)
        return through(graph, self.cell.graph.nodes[activation].op, result, found[result])

    def _inner_gradients(self, graph: Graph, found: dict[int, int]) -> list[tuple[Source, int]]:
        stores: list[tuple[Source, int]] = []
        for state in self.cell.states:
            place = graph.load("prev", state)
            if place in found and not self._is_projected(state):
                self.carried.add(state)
                stores.append((("carry", state), found[place]))
        for vector in self.cell.vectors:
            place = graph.load("vector", vector.name)
            if place in found:
                stores.append((("dvector", vector.name), found[place]))
        return stores


def _columns(cell: Cell) -> list[Column]:
    """Columns in such an order that what a group fills lies side by side, and as much as can be of what the input fills."""
    found: list[Column] = []
    gated = {name for group in cell.groups for name in group.with_input}
    alone = [Column(g.name, "input", -1) for g in cell.inputs if g.name not in gated]
    for n, group in enumerate(cell.groups):
        both = [Column(g.name, "gate", n) for g in group.gates if g.name in group.with_input]
        hidden = [Column(g.name, "linear", n) for g in group.gates if g.name not in group.with_input]
        found += [*hidden, *both, *alone] if n == 0 else [*both, *hidden]
    return found if cell.groups else alone
