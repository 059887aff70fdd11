"""Backward passes of other rows than a layer's own: many gradients through the same steps at once.

The backward pass of a layer has one gradient by the states of each sequence. Where derivatives of all states are asked for, there is
one for each unit of each state, and all of them go through the same steps of the same sequence. The kernels are those of the layer,
with other sources: what the forward pass left is the same for all rows, or rows leave their gradients apart.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from unstuck.recurrent._backends import kernels_for
from unstuck.recurrent._graph import Graph, Op, Source, lower
from unstuck.recurrent._hoisted import Hoisted, fixed_values, hoisted
from unstuck.recurrent._layout import Layout
from unstuck.recurrent._loop import Action, Buffers, Loop, Run, rows_of
from unstuck.recurrent._programs import Program, Programs


@dataclass(frozen=True)
class Passed:
    """Steps that were run forward.

    Attributes:
        loop: The layer's loop with its tensors.
        buffers: What it left.
        time: Steps.
        batch: Samples.
        first: The first of these steps among those that the buffers hold.
        backend: See `_recurrence`.
    """

    loop: Loop
    buffers: Buffers
    time: int
    batch: int
    first: int = 0
    backend: str = "auto"

    def by_step(self, rows: Tensor) -> Tensor:
        """Packed rows, or states before them, as `(time, batch, ...)`."""
        start = self.first * self.batch
        return rows[start : start + self.time * self.batch].view(self.time, self.batch, -1)

    def part(self, steps: slice) -> Passed:
        """Some of the steps."""
        found = range(self.time)[steps]
        return replace(self, time=len(found), first=self.first + found.start)

    @property
    def widths(self) -> dict[str, int]:
        """Width of each state by name."""
        return {name: state.shape[1] for name, state in self.loop.given.states.items()}


@dataclass(frozen=True)
class Back:
    """What rows leave on their way back, all `(rows of all steps, ...)`.

    Attributes:
        slab: Gradients by the columns.
        vectors: By the vectors, at each step.
        projected: By the projected output.
    """

    slab: Tensor
    vectors: dict[str, Tensor]
    projected: Tensor | None


@functools.cache
def _changed(programs: Programs, way: str) -> tuple[Programs, list[Hoisted]]:
    """The programs of a cell with another backward pass: gradients by vectors are left by each row.

    Args:
        programs: The cell's.
        way: `shared`: rows share what the forward pass left; `apart`: they don't, and there are no products; `diagonal`: nor are
            there, but for their diagonals.

    Returns:
        Programs without a forward pass, and what rows share.
    """
    changed, fixed = copy.copy(programs), []
    changed.forward = [Program(Graph(), ())] * programs.levels
    changed.backward = [_own_rows(program) for program in programs.backward]
    if way == "shared":
        split = [hoisted(program, level) for level, program in enumerate(changed.backward)]
        fixed, changed.backward = [f for f, _ in split], [_by_step(rest) for _, rest in split]
    else:
        changed.backward = [_alone(programs, program, diagonal=way == "diagonal") for program in changed.backward]
    return changed, fixed


def _own_rows(program: Program) -> Program:
    return Program(program.graph, tuple((_apart(target), place) for target, place in program.stores))


def _by_step(program: Program) -> Program:
    """What is fixed is loaded as of the kind `dvector`, which has one row for each step."""
    graph, known = Graph(), {}
    for place, node in enumerate(program.graph.nodes):
        if node.op is Op.LOAD:
            known[place] = graph.load(*_fixed(node.source))
    lower(program.graph, graph, known, [place for _, place in program.stores])
    return Program(graph, tuple((target, known[place]) for target, place in program.stores))


def _fixed(source: Source) -> Source:
    return ("dvector", " ".join(source)) if source[0] == "fixed" else source


def _alone(programs: Programs, program: Program, *, diagonal: bool) -> Program:
    """Without products with matrices, or with those by their diagonals."""
    graph, known = Graph(), {}
    lower(program.graph, graph, known, [place for _, place in program.stores])
    stores = {target: known[place] for target, place in program.stores}
    for state in programs.cell.states:
        stores.setdefault(("carry", state), graph.const(0.0))
    for group, span in zip(programs.cell.groups, programs.groups, strict=True) if diagonal else ():
        carry = ("carry", group.state or "")
        for n in range(span.start, span.stop):
            own = graph.mul(stores["dcol", str(n)], graph.load("vector", f"diagonal {n}"))
            stores[carry] = graph.add(stores[carry], own)
    return Program(graph, tuple(stores.items()))


def _apart(target: Source) -> Source:
    """What is of the kind `operand` has one row for each row."""
    return ("operand", f"dvector {target[1]}") if target[0] == "dvector" else target


def through_shared(passed: Passed, sample: int, carry: Mapping[str, Tensor], outer: Tensor, slab: Tensor) -> Back:
    """Takes rows of gradients by the states of one sample back through all steps.

    Args:
        passed: The steps.
        sample: Which sample.
        carry: Gradients by each state after the steps, `(rows, width)`, which are replaced by those before.
        outer: Gradients by the output from outside, `(time * rows, width)`.
        slab: Where to leave gradients by the columns, `(time * rows, columns * hidden)`.

    Returns:
        What they leave, the rows of a step side by side.
    """
    loop, buffers = passed.loop, passed.buffers
    rows = len(carry[loop.cell.output])
    columns = passed.by_step(buffers.slab)[:, sample].unflatten(1, (-1, loop.units))
    left: dict[Source, Tensor] = {("col", str(n)): columns[:, n] for n in range(columns.shape[1])}
    left |= {("prev", name): passed.by_step(s)[:, sample] for name, s in buffers.states.items()}
    left |= {("vector", v.name): loop.given.weights[v.name] for v in loop.cell.vectors}
    for m in loop.cell.masks:
        values = loop.given.masks[m.name]
        left["mask" if m.by_step else "still", m.name] = (passed.by_step(values) if m.by_step else values[None])[
            :, sample
        ]
    found, (_, fixed) = {}, _changed(loop.programs, "shared")
    for level in fixed:
        values = fixed_values(level, left, (passed.time, loop.units))
        found |= {_fixed(source): value for source, value in values.items()}
    return _go(passed, "shared", Layout((rows,) * passed.time, rows), carry, outer, found, slab)


def through_apart(passed: Passed, carry: Mapping[str, Tensor], outer: Tensor) -> Back:
    """Takes one row of gradients for each sample and step back through that step alone, unit by unit.

    Args:
        passed: The steps.
        carry: Gradients by each state after each step, `(time * batch, width)`, which are replaced by those before it.
        outer: Gradients by the output from outside, of the same shape.

    Returns:
        What they leave.
    """
    rows = passed.time * passed.batch
    found = _sources(passed)
    for m in passed.loop.cell.masks:
        if not m.by_step:
            found["still", m.name] = found["still", m.name].repeat(passed.time, 1)
    return _go(passed, "apart", Layout((rows,), rows), carry, outer, found)


def through_diagonal(passed: Passed, carry: Mapping[str, Tensor], outer: Tensor) -> Back:
    """Takes one row of gradients for each sample back through all steps, unit by unit: of linear maps only diagonals are followed.

    Args:
        passed: The steps.
        carry: Gradients by each state after the steps, `(batch, width)`, which are replaced by those before.
        outer: Gradients by the output from outside, `(time * batch, width)`.

    Returns:
        What they leave.
    """
    found, loop = _sources(passed), passed.loop
    for group, span in zip(loop.cell.groups, loop.programs.groups, strict=True):
        weight = rows_of(loop.given.weights[f"weight_{group.name}"], span, loop.units)
        diagonals = weight.unflatten(0, (-1, loop.units)).diagonal(dim1=1, dim2=2).contiguous()
        found |= {("vector", f"diagonal {span.start + n}"): d for n, d in enumerate(diagonals)}
    return _go(passed, "diagonal", Layout((passed.batch,) * passed.time, passed.batch), carry, outer, found)


def _sources(passed: Passed) -> dict[Source, Tensor]:
    loop = passed.loop
    found = passed.buffers.by_source(loop.given, loop.cell)
    start = passed.first * passed.batch
    return {s: b[start:] if s[0] in ("col", "prev", "mask") else b for s, b in found.items()}


def _go(
    passed: Passed, way: str, layout: Layout, carry: Mapping[str, Tensor], outer: Tensor, sources: dict[Source, Tensor],
    slab: Tensor | None = None,
) -> Back:  # fmt: skip
    given, cell, units = passed.loop.given, passed.loop.cell, passed.loop.units
    programs, _ = _changed(passed.loop.programs, way)
    loop = Loop(programs, kernels_for(programs, outer, passed.backend), layout, passed.loop.x, given)
    empty, rows = outer.new_empty, layout.rows
    projected = empty(rows, outer.shape[1]) if cell.projection is not None else None
    vectors = {v.name: outer.new_zeros(rows, units) for v in cell.vectors}
    slab = empty(rows, len(programs.columns) * units) if slab is None else slab
    back = Back(slab, vectors, projected)
    seeds = {name: empty(layout.batch, units) for name in passed.buffers.operands}
    sources |= {("dcol",): back.slab, ("grad",): outer} | {("carry", name): c for name, c in carry.items()}
    sources |= {("seed", name): s for name, s in seeds.items()}
    sources |= {("operand", f"dvector {name}"): d for name, d in vectors.items()}
    only: Sequence[Action] = [Run(0)]
    actions = loop._backward_actions(back.slab, dict(carry), seeds, outer, projected) if way == "shared" else only
    loop._go("backward", actions, sources, layout.steps)
    return back
