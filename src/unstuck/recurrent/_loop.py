"""The fast loop: a product and a kernel at each step, both ways, and all products that aren't bound to a step at once.

What is done at each step is a list of *actions* on *places*: a place is a buffer and which of its rows belong to a step. The list is
written once for a pass; then compiled code goes through all steps by itself (`_c`), or, where there is none, Python does.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unstuck.recurrent import _torch
from unstuck.recurrent._backends import Kernels
from unstuck.recurrent._graph import Source
from unstuck.recurrent._layout import Given, Layout
from unstuck.recurrent._programs import Programs, Span
from unstuck.recurrent.cell import Cell, Group


class Place(NamedTuple):
    """Rows of a buffer that change from step to step.

    Attributes:
        buffer: `(rows, width)`.
        rows: `row` for those of the step, `prev` for those of the states before it, `first` for the first ones at every step.
    """

    buffer: Tensor
    rows: str = "row"


class Run(NamedTuple):
    """The kernel of a level."""

    kind = 0  # what compiled code calls it
    level: int


class Multiply(NamedTuple):
    """A product of a place with a matrix, `(in, out)` or, as `turned`, `(out, in)`; added to what is there, or instead of it."""

    kind = 1  # what compiled code calls it
    into: Place
    what: Place
    weight: Tensor
    turned: bool
    keep: bool


class Sum(NamedTuple):
    """The sum of two places."""

    kind = 2  # what compiled code calls it
    into: Place
    a: Place
    b: Place


class Clear(NamedTuple):
    """Zeros."""

    kind = 3  # what compiled code calls it
    into: Place


Action = Run | Multiply | Sum | Clear


@dataclass
class Buffers:
    """What both passes share.

    Attributes:
        slab: Gates, `(rows, columns * hidden)`.
        states: By name, the first states and those after each row; of a single step the first alone.
        operands: By group, what it maps where that isn't a state.
    """

    slab: Tensor
    states: dict[str, Tensor]
    operands: dict[str, Tensor]

    def by_source(self, given: Given, cell: Cell) -> dict[Source, Tensor]:
        """As kernels name them."""
        found: dict[Source, Tensor] = {("col",): self.slab}
        found |= {("prev", name): state for name, state in self.states.items()}
        found |= {("operand", name): operand for name, operand in self.operands.items()}
        found |= {("vector", v.name): given.weights[v.name] for v in cell.vectors}
        return found | {("mask" if m.by_step else "still", m.name): given.masks[m.name] for m in cell.masks}


@dataclass(frozen=True)
class Gradients:
    """By the inputs, if they were asked for, by the first states and by the parameters."""

    x: Tensor | None
    states: dict[str, Tensor]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class _Back:
    """A backward pass before it is made.

    Attributes:
        actions: Of each step.
        sources: Buffers of the kernels.
        dslab: For the gradients by the slab.
        dprojected: For those by projected outputs.
    """

    actions: list[Action]
    sources: dict[Source, Tensor]
    dslab: Tensor
    dprojected: Tensor | None


class Loop:
    """A cell over given tensors.

    Args:
        programs: Of the cell.
        kernels: Its kernels; tensor operations do what they would, if there are none.
        layout: Where the steps lie.
        x: Packed inputs, `(rows, input)`.
        given: First states, parameters, masks, contiguous.
    """

    def __init__(self, programs: Programs, kernels: Kernels | None, layout: Layout, x: Tensor, given: Given) -> None:
        self.programs, self.kernels, self.layout, self.x, self.given = programs, kernels, layout, x, given
        self.cell = cell = programs.cell
        first = cell.groups[0] if cell.groups else None
        weight = given.weights["weight_ih" if first is None else f"weight_{first.name}"]
        self.units = weight.shape[0] // len(cell.inputs if first is None else first.gates)

    def forward(self, *, keep: bool = True) -> tuple[Buffers, Tensor, list[Tensor]]:
        """The forward pass.

        Args:
            keep: Whether the buffers are needed afterwards; else the outputs are a part of them.

        Returns:
            What the backward pass needs, packed outputs, and last states.
        """
        cell, layout = self.cell, self.layout
        states, new = self._states()
        operands = {name: self.x.new_empty(layout.rows, self.units) for name in self._operands}
        buffers = Buffers(self._slab(), states, operands)
        sources = buffers.by_source(self.given, cell) | {("new", name): state for name, state in new.items()}
        self._go("forward", self._forward_actions(buffers, new), sources, layout.steps)
        output = new[cell.output]
        if keep or layout.single:
            output = output.clone()  # may be changed in place, while the states may not
        return buffers, output, list(new.values()) if layout.single else [layout.last(s) for s in states.values()]

    def _states(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Buffers for the states before the rows, and for those after."""
        first, batch = self.given.states, self.layout.batch
        if self.layout.single:
            first = {name: state.contiguous() for name, state in first.items()}
            return first, {name: torch.empty_like(state) for name, state in first.items()}
        states = {name: state.new_empty(batch + self.layout.rows, state.shape[1]) for name, state in first.items()}
        for name, state in states.items():
            state[:batch] = first[name]
        return states, {name: state[batch:] for name, state in states.items()}

    @property
    def _operands(self) -> list[str]:
        """The groups that don't map a state as it is, and the projection."""
        return [g.name for g in self.cell.groups if g.state is None] + ["hr"] * (self.cell.projection is not None)

    def buffers(self, kept: Sequence[Tensor]) -> Buffers:
        """Buffers again from the slab, the states and the operands."""
        states = list(self.given.states)
        return Buffers(
            kept[0],
            dict(zip(states, kept[1:], strict=False)),
            dict(zip(self._operands, kept[1 + len(states) :], strict=True)),
        )

    def backward(
        self, buffers: Buffers, grad: Tensor | None, grad_states: Sequence[Tensor | None], *, need_input: bool
    ) -> Gradients:
        """The backward pass.

        Args:
            buffers: As the forward pass left them.
            grad: Gradient by the outputs.
            grad_states: By the last states.
            need_input: Whether the gradient by the inputs is asked for.

        Returns:
            All gradients.
        """
        carry = {
            name: torch.zeros_like(first) if g is None else g.clone(memory_format=torch.contiguous_format)
            for (name, first), g in zip(self.given.states.items(), grad_states, strict=True)
        }
        back = self._back(buffers, carry, grad)
        self._go("backward", back.actions, back.sources, self.layout.steps)
        weights = self._weight_gradients(buffers, back.dslab, back.dprojected)
        weights |= {v.name: back.sources["dvector", v.name].sum(0) for v in self.cell.vectors}
        return Gradients(self._input_gradient(back.dslab) if need_input else None, carry, weights)

    def reach(self, *, max_steps: int) -> Tensor:
        """How far the last output reaches back: the gradient by the states `d` steps before, see `signals.lag.memory`.

        All sequences must be as long as the longest.

        Args:
            max_steps: The largest lag.

        Returns:
            Its size by lag over that at the end, float64, of all sequences together.
        """
        cell, steps = self.cell, self.layout.steps
        buffers, _, _ = self.forward()
        carry = {name: torch.zeros_like(first) for name, first in self.given.states.items()}
        end = carry[cell.output]
        end += torch.arange(1, end.shape[1] + 1, device=end.device, dtype=end.dtype).mul_(2.399963).cos_()
        back = self._back(buffers, carry, None)
        found = [torch.zeros((), dtype=torch.float64, device=end.device)]
        size = torch.linalg.vector_norm(torch.cat(list(carry.values()), 1))
        for t in range(len(steps) - 1, max(-1, len(steps) - 1 - max_steps), -1):
            for c in carry.values():
                c /= size.clamp_min(torch.finfo(c.dtype).tiny)
            self._go("backward", back.actions, back.sources, steps[t : t + 1])
            size = torch.linalg.vector_norm(torch.cat(list(carry.values()), 1))
            found.append(found[-1] + size.double().log())
        return torch.stack(found).exp()

    def _back(self, buffers: Buffers, carry: dict[str, Tensor], grad: Tensor | None) -> _Back:
        cell, layout, given = self.cell, self.layout, self.given
        width = given.states[cell.output].shape[1]
        outer = self.x.new_zeros(1, width).expand(layout.rows, -1) if grad is None else grad.contiguous()
        seeds = {name: self.x.new_empty(layout.batch, self.units) for name in buffers.operands}
        dslab = torch.empty_like(buffers.slab)
        dprojected = self.x.new_empty(layout.rows, width) if cell.projection is not None else None
        sources = buffers.by_source(given, cell) | {("dcol",): dslab, ("grad",): outer}
        sources |= {("carry", name): c for name, c in carry.items()} | {("seed", n): s for n, s in seeds.items()}
        added = layout.rows if self.kernels is not None and self.kernels.by_row else len(layout.sizes)
        sources |= {("dvector", v.name): self.x.new_zeros(added, self.units) for v in cell.vectors}
        return _Back(self._backward_actions(dslab, carry, seeds, outer, dprojected), sources, dslab, dprojected)

    def _go(
        self,
        which: str,
        actions: Sequence[Action],
        buffers: Mapping[Source, Tensor],
        steps: Sequence[tuple[int, int, int]],
    ) -> None:
        """These steps of a pass."""
        if self.kernels is not None and self.kernels.go(which, actions, buffers, self.units, steps):
            return
        if self.kernels is not None:
            kernels = self.kernels.bind(which, buffers, self.units)
        else:
            programs = self.programs.forward if which == "forward" else self.programs.backward
            kernels = [_torch.kernel(program, buffers, self.units) for program in programs]
        order = range(len(steps)) if which == "forward" else range(len(steps) - 1, -1, -1)
        for t in order:
            row, prev, n = steps[t]
            starts = {"row": row, "prev": prev, "first": 0}
            for action in actions:
                if isinstance(action, Run):
                    kernels[action.level](row, prev, n, t)
                else:
                    _act(action, starts, n)

    def _columns(self, slab: Tensor, span: Span) -> Tensor:
        if span.stop - span.start == len(self.programs.columns):
            return slab
        return slab[..., span.start * self.units : span.stop * self.units]

    def _group_weights(self) -> list[tuple[Group, Span, Tensor]]:
        weights = self.given.weights
        return [
            (g, span, rows_of(weights[f"weight_{g.name}"], span, self.units))
            for g, span in zip(self.cell.groups, self.programs.groups, strict=True)
        ]

    def _slab(self) -> Tensor:
        """Filled by the products with all inputs, and by biases."""
        weights, programs = self.given.weights, self.programs
        width = len(programs.columns) * self.units
        bias = self._bias(width)
        if [(span.start, span.stop) for span in programs.inputs] == [(0, len(programs.columns))]:
            return linear(self.x, rows_of(weights["weight_ih"], programs.inputs[0], self.units), bias)
        slab = self.x.new_empty(self.layout.rows, width)
        for span in programs.inputs:
            weight = rows_of(weights["weight_ih"], span, self.units)
            torch.addmm(self._columns(bias, span), self.x, weight.t(), out=self._columns(slab, span))
        for n, column in enumerate(programs.columns):
            if column.kind == "linear":
                part = slice(n * self.units, (n + 1) * self.units)
                slab[:, part] = bias[part]
        return slab

    def _bias(self, width: int) -> Tensor:
        weights, programs = self.given.weights, self.programs
        spans = [("bias_ih", span) for span in programs.inputs]
        spans += [(f"bias_{g.name}", span) for g, span in zip(self.cell.groups, programs.groups, strict=True)]
        parts = [(span, rows_of(weights[name], span, self.units)) for name, span in spans if name in weights]
        if len(parts) == 2 and all(part.shape[0] == width for _, part in parts):
            return parts[0][1] + parts[1][1]
        bias = self.x.new_zeros(width)
        for span, part in parts:
            self._columns(bias, span).add_(part)
        return bias

    def _forward_actions(self, buffers: Buffers, new: dict[str, Tensor]) -> list[Action]:
        cell, programs = self.cell, self.programs
        found: list[Action] = []
        for level in range(programs.levels):
            for group, span, weight in self._group_weights():
                if programs.level(group) == level - 1:
                    into = Place(self._columns(buffers.slab, span))
                    found.append(Multiply(into, self._operand(group, buffers), weight, True, True))
            found.append(Run(level))
        if cell.projection is not None:
            found.append(
                Multiply(
                    Place(new[cell.output]), Place(buffers.operands["hr"]), self.given.weights["weight_hr"], True, False
                )
            )
        return found

    def _operand(self, group: Group, buffers: Buffers) -> Place:
        """What a group maps."""
        if group.state is None:
            return Place(buffers.operands[group.name])
        return Place(buffers.states[group.state], "prev")

    def _backward_actions(
        self,
        dslab: Tensor,
        carry: dict[str, Tensor],
        seeds: dict[str, Tensor],
        outer: Tensor,
        dprojected: Tensor | None,
    ) -> list[Action]:
        cell, programs = self.cell, self.programs
        found: list[Action] = []
        if dprojected is not None:
            after, weight = Place(dprojected), self.given.weights["weight_hr"]
            found.append(Sum(after, Place(carry[cell.output], "first"), Place(outer)))
            found.append(Multiply(Place(seeds["hr"], "first"), after, weight, False, False))
        for level in range(programs.levels - 1, -1, -1):
            found.append(Run(level))
            for group, span, weight in self._group_weights():
                if programs.level(group) == level - 1:
                    into = Place(seeds[group.name] if group.state is None else carry[group.state], "first")
                    keep = group.state in programs.carried
                    found.append(Multiply(into, Place(self._columns(dslab, span)), weight, False, keep))
        mapped = programs.carried | {g.state for g in cell.groups}
        return [*found, *(Clear(Place(c, "first")) for name, c in carry.items() if name not in mapped)]

    def _weight_gradients(self, buffers: Buffers, dslab: Tensor, dprojected: Tensor | None) -> dict[str, Tensor]:
        weights, found = self.given.weights, {}
        sums = dslab.sum(0)
        maps: list[tuple[str, list[Span], Tensor]] = [("ih", self.programs.inputs, self.x)] if self.cell.inputs else []
        for group, span in zip(self.cell.groups, self.programs.groups, strict=True):
            place = self._operand(group, buffers)
            maps.append(
                (group.name, [span], self.layout.before(place.buffer) if place.rows == "prev" else place.buffer)
            )
        for name, spans, operand in maps:
            products = [self._columns(dslab, s).t() @ operand for s in spans]
            found[f"weight_{name}"] = _in_rows(products, spans, self.units)
            if f"bias_{name}" in weights:
                found[f"bias_{name}"] = _in_rows([self._columns(sums, s) for s in spans], spans, self.units)
        if dprojected is not None:
            found["weight_hr"] = dprojected.t() @ buffers.operands["hr"]
        return found

    def _input_gradient(self, dslab: Tensor) -> Tensor:
        weight = self.given.weights.get("weight_ih")
        if weight is None:
            return torch.zeros_like(self.x)
        spans = self.programs.inputs
        parts = [linear(self._columns(dslab, s), rows_of(weight, s, self.units).t().contiguous()) for s in spans]
        return functools.reduce(torch.add, parts)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` of many rows, by oneDNN where it can be had: a fifth faster on processors that MKL isn't made for."""
    if x.device.type == "cpu" and x.dtype is torch.float32 and x.shape[0] >= _MANY and _by_onednn() is not None:
        return _by_onednn()(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


_MANY = 256


@functools.cache
def _by_onednn() -> Any:
    """The operation that torch's compiler calls for this, None where it isn't there or gives something else."""
    function = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    x, weight, bias = (torch.arange(n, dtype=torch.float32, device="cpu") for n in (6, 12, 4))
    x, weight = x.view(2, 3), weight.view(4, 3)
    try:
        found = None if function is None else function(x, weight, bias, "none", [], "")
    except RuntimeError:
        return None
    return function if found is not None and torch.equal(found, F.linear(x, weight, bias)) else None


def rows_of(weight: Tensor, span: Span, units: int) -> Tensor:
    """The rows of a weight or bias that belong to a span's gates, in the slab's order."""
    if span.in_order:
        if len(span.rows) * units == weight.shape[0]:
            return weight
        return weight[span.rows[0] * units : (span.rows[-1] + 1) * units]
    return torch.cat([weight[r * units : (r + 1) * units] for r in span.rows])


def _in_rows(parts: Sequence[Tensor], spans: Sequence[Span], units: int) -> Tensor:
    """What belongs to the gates of spans, in the order of the weight's rows."""
    if len(spans) == 1 and spans[0].in_order:
        return parts[0]
    found = parts[0].new_empty(sum(len(p) for p in parts), *parts[0].shape[1:])
    for part, span in zip(parts, spans, strict=True):
        for n, r in enumerate(span.rows):
            found[r * units : (r + 1) * units] = part[n * units : (n + 1) * units]
    return found


def _act(action: Multiply | Sum | Clear, starts: Mapping[str, int], n: int) -> None:
    def at(place: Place) -> Tensor:
        start = starts[place.rows]
        return place.buffer[start : start + n]

    into = at(action.into)
    if isinstance(action, Clear):
        into.zero_()
    elif isinstance(action, Sum):
        torch.add(at(action.a), at(action.b), out=into)
    else:
        weight = action.weight.t() if action.turned else action.weight
        if action.keep:
            torch.addmm(into, at(action.what), weight, out=into)
        else:
            torch.mm(at(action.what), weight, out=into)
