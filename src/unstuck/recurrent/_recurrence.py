"""One layer and direction over packed sequences: the plain loop that is the truth, and the fast one that has its own backward pass.

*Packed* rows are the steps of all sequences, step by step, the longest sequence first, as `torch.nn.utils.rnn.PackedSequence` has them: at
each step the sequences that go on are the first rows. A buffer of states has the first states before these rows, so that what was before a
step is one slice as well.

The fast loop makes a product and a kernel at each step, in both directions, and all products that aren't bound to a step at once at
the end. Where a gradient is to be differentiated again, where functions are transformed (`torch.func`) and under forward-mode
differentiation the plain loop takes over.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.recurrent import _c, _torch
from unstuck.recurrent._graph import Op, Source
from unstuck.recurrent._programs import Programs, Span
from unstuck.recurrent.cell import Cell, Group

BACKENDS = ("auto", "c", "torch", "plain")
"""`c`: kernels compiled by the C compiler; `torch`: the same kernels as tensor operations; `plain`: a loop that autograd differentiates;
`auto`: the first that can be had."""


@dataclass(frozen=True)
class Layout:
    """Where the steps of packed sequences lie.

    Attributes:
        sizes: How many sequences have each step, falling.
        batch: How many sequences there are, those of length 0 included.
    """

    sizes: tuple[int, ...]
    batch: int

    @functools.cached_property
    def steps(self) -> list[tuple[int, int, int]]:
        """First row of each step, first row of the states before it, and how many rows."""
        starts = [0, *itertools.accumulate(self.sizes)]
        before = [0, *(self.batch + s for s in starts)]
        return [(starts[t], before[t], n) for t, n in enumerate(self.sizes)]

    @property
    def rows(self) -> int:
        """Steps of all sequences."""
        return sum(self.sizes)

    @property
    def full(self) -> bool:
        """All sequences are as long as the longest."""
        return all(n == self.batch for n in self.sizes)

    def before(self, states: Tensor) -> Tensor:
        """The states before each row, of a buffer that begins with the first states."""
        if self.full:
            return states[: self.rows]
        return torch.cat([states[prev : prev + n] for _, prev, n in self.steps]) if self.sizes else states[:0]

    def last(self, states: Tensor) -> Tensor:
        """The state after the last step of each sequence, of such a buffer."""
        ended, left = [], self.batch
        for (_, prev, _), n in zip(self.steps, self.sizes, strict=True):
            ended.append(states[prev + n : prev + left])
            left = n
        row = self.batch + self.steps[-1][0] if self.steps else 0
        return torch.cat([states[row : row + left], *reversed(ended)])


@dataclass(frozen=True)
class Given:
    """What a layer computes with.

    Attributes:
        states: First states by name, each `(batch, width)`.
        weights: Parameters by name, see `shapes`.
        masks: Masks by name: `(rows, hidden)` by step, `(batch, hidden)` by sequence.
    """

    states: dict[str, Tensor]
    weights: dict[str, Tensor]
    masks: dict[str, Tensor]


def shapes(cell: Cell, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
    """The parameters of a layer: their names, as torch.nn.LSTM has them without `_l0`, and shapes.

    Args:
        cell: Its cell.
        input_size: Numbers in its input.
        hidden_size: Units.
        proj_size: Width of the projected output; 0 for none.
        bias: Whether linear maps have biases.

    Returns:
        Shapes by name.
    """
    found = {"weight_ih": (len(cell.inputs) * hidden_size, input_size)} if cell.inputs else {}
    for group in cell.groups:
        width = (proj_size or hidden_size) if group.state == cell.output else hidden_size
        found[f"weight_{group.name}"] = (len(group.gates) * hidden_size, width)
    if bias:
        found |= {"bias" + name[6:]: (shape[0],) for name, shape in found.items()}
    if cell.projection is not None:
        found["weight_hr"] = (proj_size, hidden_size)
    return found | {vector.name: (hidden_size,) for vector in cell.vectors}


@functools.cache
def _programs(key: object, cell: _Same) -> Programs:
    return Programs(cell.cell)


class _Same:
    """A cell that is equal to all others, so that only the key beside it counts."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same)

    def __hash__(self) -> int:
        return 0


def programs_of(cell: Cell) -> Programs:
    """The programs of a cell; the same ones for equal cells."""
    return _programs(cell.key, _Same(cell))


@functools.cache
def _compiled(programs: Programs, dtype: torch.dtype) -> _c.Compiled | OSError:
    try:
        return _c.Compiled(programs, dtype)
    except OSError as error:
        return error


def compiled(programs: Programs, x: Tensor, backend: str) -> _c.Compiled | None:
    """Compiled kernels for what is computed with, if they can be had and are asked for.

    Args:
        programs: Of the cell.
        x: What is computed with.
        backend: One of `BACKENDS`.

    Returns:
        The kernels, or None where tensor operations are to do the same.

    Raises:
        MisuseError: They are asked for and can't be had.
    """
    if backend == "torch":
        return None
    fits = x.device.type == "cpu" and x.dtype in _c.TYPES
    found = _compiled(programs, x.dtype) if fits else OSError(f"there are none for {x.dtype} on {x.device}")
    if isinstance(found, OSError):
        if backend == "c":
            raise MisuseError(f"compiled kernels can't be had: {found}")
        return None
    return found


def recur(
    cell: Cell, x: Tensor, given: Given, layout: Layout, *, backend: str = "auto"
) -> tuple[Tensor, dict[str, Tensor]]:
    """Runs a layer in one direction.

    Args:
        cell: Its cell.
        x: Packed inputs, `(rows, input)`.
        given: First states, parameters, masks.
        layout: Where the steps lie.
        backend: One of `BACKENDS`.

    Returns:
        Packed outputs, `(rows, width)`, and the states after each sequence's last step by name, `(batch, width)`.
    """
    if backend == "plain" or _is_transformed():
        return unrolled(cell, x, given, layout)
    return _fast(cell, x, given, layout, backend)


def _is_transformed() -> bool:
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def _fast(cell: Cell, x: Tensor, given: Given, layout: Layout, backend: str) -> tuple[Tensor, dict[str, Tensor]]:
    # Importing the compiler takes seconds: it is kept away from the loop only where it has been imported.
    loop = _not_compiled() if "torch._dynamo" in sys.modules else _apply
    return loop(cell, x, given, layout, backend)


_fast._torchdynamo_disable = True  # pyright: ignore[reportFunctionMemberAccess]


_NOT_COMPILED: list[Any] = []


def _not_compiled() -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
    if not _NOT_COMPILED:
        _NOT_COMPILED.append(torch.compiler.disable(_apply))
    return _NOT_COMPILED[0]


def _apply(cell: Cell, x: Tensor, given: Given, layout: Layout, backend: str) -> tuple[Tensor, dict[str, Tensor]]:
    names = (tuple(given.states), tuple(given.weights), tuple(given.masks))
    tensors = (*given.states.values(), *given.weights.values(), *given.masks.values())
    found = _Recurrence.apply(cell, layout, backend, names, x, *tensors)
    return found[0], dict(zip(cell.states, found[1:], strict=True))


def unrolled(cell: Cell, x: Tensor, given: Given, layout: Layout) -> tuple[Tensor, dict[str, Tensor]]:
    """The plain loop, which autograd can differentiate as often as is wanted.

    Args:
        cell: The layer's cell.
        x: Packed inputs, `(rows, input)`.
        given: First states, parameters, masks.
        layout: Where the steps lie.

    Returns:
        Packed outputs, and the last states by name.
    """
    states, outputs = given.states, []
    mapped = F.linear(x, given.weights["weight_ih"], given.weights.get("bias_ih")) if cell.inputs else x
    by_step = {m.name: given.masks[m.name].split(layout.sizes) for m in cell.masks if m.by_step}
    for t, (part, rows) in enumerate(zip(mapped.split(layout.sizes), layout.sizes, strict=True)):
        whole = rows == layout.batch
        before = states if whole else {name: state[:rows] for name, state in states.items()}
        masks = {m.name: by_step[m.name][t] if m.by_step else given.masks[m.name][:rows] for m in cell.masks}
        after = step(cell, part, before, given.weights, masks)
        outputs.append(after[cell.output])
        states = after if whole else {name: torch.cat([after[name], states[name][rows:]]) for name in states}
    if not outputs:
        return given.states[cell.output][:0], states
    return torch.cat(outputs), states


def step(
    cell: Cell, mapped: Tensor, states: Mapping[str, Tensor], weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """One step of a cell.

    Args:
        cell: The cell.
        mapped: The input's linear maps, `(batch, gates * hidden)`.
        states: Before the step, by name, `(batch, width)`.
        weights: Parameters by name.
        masks: By name, `(batch, hidden)`.

    Returns:
        The states after the step.
    """
    inputs = {g.name: n for n, g in enumerate(cell.inputs)}
    parts = mapped.chunk(len(inputs), -1) if inputs else ()
    known: dict[int, Any] = {}
    maps: dict[str, Tensor] = {}

    def load(source: Source) -> Tensor:
        kind, name = source
        if kind in ("mask", "still"):
            return masks[name]
        if kind in ("state", "vector"):
            return states[name] if kind == "state" else weights[name]
        if kind == "projection" and cell.projection is not None:
            return F.linear(known[cell.projection], weights["weight_hr"])
        if kind == "input":
            return parts[inputs[name]]
        if name not in maps:
            group = next(g for g in cell.groups if any(gate.name == name for gate in g.gates))
            maps.update(_maps(group, known[group.operand], weights))
        return maps[name] + parts[inputs[name]] if kind == "gate" else maps[name]

    for place in cell.graph.reachable([*cell.states.values(), *_operands(cell)]):
        node = cell.graph.nodes[place]
        known[place] = load(node.source) if node.op is Op.LOAD else _torch.compute(node, [known[a] for a in node.args])
    some = next(iter(states.values()))
    return {
        name: known[p] if isinstance(known[p], Tensor) else torch.full_like(some, known[p])
        for name, p in cell.states.items()
    }


def _operands(cell: Cell) -> list[int]:
    return [*(g.operand for g in cell.groups), *([cell.projection] if cell.projection is not None else [])]


def _maps(group: Group, operand: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = F.linear(operand, weights[f"weight_{group.name}"], weights.get(f"bias_{group.name}"))
    return {gate.name: part for gate, part in zip(group.gates, found.chunk(len(group.gates), -1), strict=True)}


def _rows(weight: Tensor, span: Span, units: int) -> Tensor:
    """The rows of a weight or bias that belong to a span's gates, in the slab's order."""
    if span.in_order:
        return weight[span.rows[0] * units : (span.rows[-1] + 1) * units]
    return torch.cat([weight[r * units : (r + 1) * units] for r in span.rows])


def _put_rows(into: Tensor, rows: Tensor, span: Span, units: int) -> None:
    for n, r in enumerate(span.rows):
        into[r * units : (r + 1) * units] = rows[n * units : (n + 1) * units]


@dataclass
class _Buffers:
    """What the kernels of both passes share.

    Attributes:
        slab: Gates, `(rows, columns * hidden)`.
        states: By name, the first states and those after each row.
        operands: By group, what it maps where that isn't a state.
    """

    slab: Tensor
    states: dict[str, Tensor]
    operands: dict[str, Tensor]

    def by_source(self, batch: int, given: Given, cell: Cell) -> dict[Source, Tensor]:
        found: dict[Source, Tensor] = {("col",): self.slab}
        for name, state in self.states.items():
            found |= {("prev", name): state, ("new", name): state[batch:]}
        found |= {("operand", name): operand for name, operand in self.operands.items()}
        found |= {("vector", v.name): given.weights[v.name] for v in cell.vectors}
        return found | {("mask" if m.by_step else "still", m.name): given.masks[m.name] for m in cell.masks}


class _Loop:
    """The fast loop of a cell over given tensors."""

    def __init__(self, cell: Cell, layout: Layout, backend: str, x: Tensor, given: Given) -> None:
        self.cell, self.layout, self.x, self.given = cell, layout, x, given
        self.programs = programs_of(cell)
        self.compiled = compiled(self.programs, x, backend)
        self.units = next(w.shape[0] // len(g.gates) for g, w in self._group_weights()) if cell.groups else (
            given.weights["weight_ih"].shape[0] // len(cell.inputs)
        )  # fmt: skip

    def _group_weights(self) -> list[tuple[Group, Tensor]]:
        return [(g, self.given.weights[f"weight_{g.name}"]) for g in self.cell.groups]

    def _kernels(self, which: str, buffers: dict[Source, Tensor]) -> list[_torch.Run]:
        if self.compiled is not None:
            return self.compiled.bind(which, buffers, self.units)
        programs = self.programs.forward if which == "forward" else self.programs.backward
        return [_torch.kernel(program, buffers, self.units) for program in programs]

    def _cut(self, tensor: Tensor) -> Sequence[Tensor]:
        """By step, of packed rows."""
        return tensor.split(self.layout.sizes)

    def _states_before(self, states: Tensor) -> Sequence[Tensor]:
        """By step, of a buffer that begins with the first states."""
        if self.layout.full:
            return states[: self.layout.rows].split(self.layout.sizes)
        return [states[prev : prev + n] for _, prev, n in self.layout.steps]

    def _columns(self, slab: Tensor, span: Span) -> Tensor:
        return slab[:, span.start * self.units : span.stop * self.units]

    def _slab(self) -> Tensor:
        """Filled by the products with all inputs, and by biases."""
        weights, programs = self.given.weights, self.programs
        slab = self.x.new_empty(self.layout.rows, len(programs.columns) * self.units)
        bias = self.x.new_zeros(slab.shape[1])
        if "bias_ih" in weights:
            for span in programs.inputs:
                self._columns(bias[None], span)[0].add_(_rows(weights["bias_ih"], span, self.units))
            for group, span in zip(self.cell.groups, programs.groups, strict=True):
                self._columns(bias[None], span)[0].add_(_rows(weights[f"bias_{group.name}"], span, self.units))
        filled = 0
        for span in programs.inputs:
            into = self._columns(slab, span)
            weight = _rows(weights["weight_ih"], span, self.units)
            torch.addmm(self._columns(bias[None], span)[0], self.x, weight.t(), out=into)
            filled += into.shape[1]
        if filled < slab.shape[1]:
            for n, column in enumerate(programs.columns):
                if column.kind == "linear":
                    part = slice(n * self.units, (n + 1) * self.units)
                    slab[:, part] = bias[part]
        return slab

    def forward(self) -> tuple[_Buffers, Tensor, list[Tensor]]:
        """The forward pass.

        Returns:
            What the backward pass needs, packed outputs, and last states.
        """
        cell, layout, given, programs = self.cell, self.layout, self.given, self.programs
        rows, batch = layout.rows, layout.batch
        states = {}
        for name, first in given.states.items():
            states[name] = first.new_empty(batch + rows, first.shape[1])
            states[name][:batch] = first
        named = [g.name for g in cell.groups if g.state is None] + (["hr"] if cell.projection is not None else [])
        operands = {name: self.x.new_empty(rows, self.units) for name in named}
        buffers = _Buffers(self._slab(), states, operands)
        kernels = self._kernels("forward", buffers.by_source(batch, given, cell))
        products = self._products(buffers)
        for t, (row, prev, n) in enumerate(layout.steps):
            for level, kernel in enumerate(kernels):
                for into, what, weight in products[level]:
                    torch.addmm(into[t], what[t], weight, out=into[t])
                kernel(row, prev, n, t)
            for into, what, weight in products[programs.levels]:
                torch.mm(what[t], weight, out=into[t])
        output = states[cell.output][batch:].clone()  # may be changed in place, while the states may not
        return buffers, output, [layout.last(state) for state in states.values()]

    def _products(self, buffers: _Buffers) -> list[list[tuple[Sequence[Tensor], Sequence[Tensor], Tensor]]]:
        """What is multiplied before each level's kernel, and after the last: where to, what, by which matrix; by step."""
        found: list[list[Any]] = [[] for _ in range(self.programs.levels + 1)]
        for (group, weight), span in zip(self._group_weights(), self.programs.groups, strict=True):
            what = self._mapped(group, buffers)
            found[self.programs.level(group) + 1].append(
                (self._cut(self._columns(buffers.slab, span)), what, _rows(weight, span, self.units).t().contiguous())
            )
        if self.cell.projection is not None:
            new = buffers.states[self.cell.output][self.layout.batch :]
            weight = self.given.weights["weight_hr"].t()
            found[-1].append((self._cut(new), self._cut(buffers.operands["hr"]), weight))
        return found

    def _mapped(self, group: Group, buffers: _Buffers) -> Sequence[Tensor]:
        if group.state is None:
            return self._cut(buffers.operands[group.name])
        return self._states_before(buffers.states[group.state])

    def backward(
        self, buffers: _Buffers, grad: Tensor | None, grad_states: Sequence[Tensor | None], need_input: bool
    ) -> tuple[Tensor | None, dict[str, Tensor], dict[str, Tensor]]:
        """The backward pass.

        Args:
            buffers: As the forward pass left them.
            grad: Gradient by the outputs.
            grad_states: By the last states.
            need_input: Whether the gradient by the inputs is asked for.

        Returns:
            Gradients by the inputs, by the first states and by the parameters.
        """
        cell, layout, given, programs = self.cell, self.layout, self.given, self.programs
        batch = layout.batch
        carry = {
            name: torch.zeros_like(first) if g is None else g.clone(memory_format=torch.contiguous_format)
            for (name, first), g in zip(given.states.items(), grad_states, strict=True)
        }
        dslab = torch.empty_like(buffers.slab)
        output_width = given.states[cell.output].shape[1]
        outer = self.x.new_zeros(1, output_width).expand(layout.rows, -1) if grad is None else grad.contiguous()
        seeds = {name: self.x.new_empty(batch, self.units) for name in buffers.operands}
        dvectors = {v.name: self.x.new_zeros(len(layout.sizes), self.units) for v in cell.vectors}
        sources = buffers.by_source(batch, given, cell) | {("dcol",): dslab, ("grad",): outer}
        sources |= {("carry", name): c for name, c in carry.items()} | {("seed", n): s for n, s in seeds.items()}
        sources |= {("dvector", name): d for name, d in dvectors.items()}
        kernels = self._kernels("backward", sources)
        dprojected = (
            torch.empty_like(outer, memory_format=torch.contiguous_format) if cell.projection is not None else None
        )
        after, outside = self._cut(outer if dprojected is None else dprojected), self._cut(outer)
        products = self._reverse_products(dslab, carry, seeds)
        idle = [
            c for name, c in carry.items()
            if name not in programs.carried and not any(g.state == name for g in cell.groups)
        ]  # fmt: skip
        for t in range(len(layout.sizes) - 1, -1, -1):
            row, prev, n = layout.steps[t]
            if dprojected is not None:
                torch.add(carry[cell.output][:n], outside[t], out=after[t])
                torch.mm(after[t], given.weights["weight_hr"], out=seeds["hr"][:n])
            for level in range(programs.levels - 1, -1, -1):
                kernels[level](row, prev, n, t)
                for into, what, weight, keep in products[level]:
                    part = into if n == batch else into[:n]
                    if keep:
                        torch.addmm(part, what[t], weight, out=part)
                    else:
                        torch.mm(what[t], weight, out=part)
            for c in idle:
                c[:n] = 0
        weights = self._weight_gradients(buffers, dslab, dprojected)
        weights |= {name: d.sum(0) for name, d in dvectors.items()}
        return self._input_gradient(dslab) if need_input else None, carry, weights

    def _reverse_products(
        self, dslab: Tensor, carry: dict[str, Tensor], seeds: dict[str, Tensor]
    ) -> list[list[tuple[Tensor, Sequence[Tensor], Tensor, bool]]]:
        """What is multiplied after each level's kernel: where to, what, by which matrix, and whether it is added."""
        found: list[list[Any]] = [[] for _ in range(self.programs.levels)]
        for (group, weight), span in zip(self._group_weights(), self.programs.groups, strict=True):
            into = seeds[group.name] if group.state is None else carry[group.state]
            what = self._cut(self._columns(dslab, span))
            found[self.programs.level(group) + 1].append(
                (into, what, _rows(weight, span, self.units), group.state in self.programs.carried)
            )
        return found

    def _weight_gradients(self, buffers: _Buffers, dslab: Tensor, dprojected: Tensor | None) -> dict[str, Tensor]:
        weights, found = self.given.weights, {}
        sums = dslab.sum(0)
        groups = [
            (
                g.name,
                [s],
                self.layout.before(buffers.states[g.state]) if g.state is not None else buffers.operands[g.name],
            )
            for g, s in zip(self.cell.groups, self.programs.groups, strict=True)
        ]
        for name, spans, operand in [*groups, *([("ih", self.programs.inputs, self.x)] if self.cell.inputs else [])]:
            found[f"weight_{name}"] = torch.empty_like(weights[f"weight_{name}"])
            for span in spans:
                product = self._columns(dslab, span).t() @ operand
                _put_rows(found[f"weight_{name}"], product, span, self.units)
            if f"bias_{name}" in weights:
                found[f"bias_{name}"] = torch.empty_like(weights[f"bias_{name}"])
                for span in spans:
                    _put_rows(found[f"bias_{name}"], self._columns(sums[None], span)[0], span, self.units)
        if dprojected is not None:
            found["weight_hr"] = dprojected.t() @ buffers.operands["hr"]
        return found

    def _input_gradient(self, dslab: Tensor) -> Tensor:
        weight = self.given.weights.get("weight_ih")
        if weight is None:
            return torch.zeros_like(self.x)
        parts = [self._columns(dslab, s) @ _rows(weight, s, self.units) for s in self.programs.inputs]
        return functools.reduce(torch.add, parts)


def _given(names: tuple[tuple[str, ...], ...], tensors: Sequence[Tensor]) -> Given:
    states, weights, masks = names
    first, second = len(states), len(states) + len(weights)
    return Given(
        dict(zip(states, tensors[:first], strict=True)),
        dict(zip(weights, tensors[first:second], strict=True)),
        dict(zip(masks, tensors[second:], strict=True)),
    )


class _Recurrence(torch.autograd.Function):
    """The fast loop, with its backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        layout: Layout,
        backend: str,
        names: tuple[tuple[str, ...], ...],
        x: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        given = _given(names, [t.contiguous() for t in tensors])
        buffers, output, last = _Loop(cell, layout, backend, x.contiguous(), given).forward()
        ctx.set_materialize_grads(False)
        ctx.about = (cell, layout, backend, names, tuple(buffers.states), tuple(buffers.operands))
        ctx.save_for_backward(x, *tensors, buffers.slab, *buffers.states.values(), *buffers.operands.values())
        return (output, *last)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        cell, layout, backend, names, states, operands = ctx.about
        x, *rest = ctx.saved_tensors
        inputs = sum(len(group) for group in names)
        tensors, slab, kept = rest[:inputs], rest[inputs], rest[inputs + 1 :]
        if torch.is_grad_enabled():  # the gradient is to be differentiated again
            return (
                None,
                None,
                None,
                None,
                *_again(cell, layout, names, [x, *tensors], grads, ctx.needs_input_grad[4:]),
            )
        given = _given(names, [t.contiguous() for t in tensors])
        buffers = _Buffers(
            slab, dict(zip(states, kept, strict=False)), dict(zip(operands, kept[len(states) :], strict=True))
        )
        loop = _Loop(cell, layout, backend, x.contiguous(), given)
        dx, dstates, dweights = loop.backward(buffers, grads[0], grads[1:], ctx.needs_input_grad[4])
        masks = [None] * len(names[2])
        return (None, None, None, None, dx, *(dstates[n] for n in names[0]), *(dweights[n] for n in names[1]), *masks)


def _again(
    cell: Cell,
    layout: Layout,
    names: Any,
    tensors: list[Tensor],
    grads: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients that can be differentiated, by the plain loop."""
    output, last = unrolled(cell, tensors[0], _given(names, tensors[1:]), layout)
    ends = [(e, g) for e, g in zip((output, *last.values()), grads, strict=True) if g is not None and e.requires_grad]
    wanted = [t for t, n in zip(tensors, needed, strict=True) if n]
    found = iter(
        torch.autograd.grad(
            [e for e, _ in ends], wanted, [g for _, g in ends], create_graph=True, allow_unused=True
        ) if ends else [None] * len(wanted)
    )  # fmt: skip
    return [next(found) if n else None for n in needed]
