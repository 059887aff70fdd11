"""One layer and direction over packed sequences, by the fast loop, which has its own backward pass, or by the plain one.

Where a gradient is to be differentiated again, where functions are transformed (`torch.func`) and under forward-mode differentiation the
plain loop takes over.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.recurrent._backends import kernels_for
from unstuck.recurrent._cuda_graphs import Function, Graphs, Tensors
from unstuck.recurrent._layout import Given, Layout
from unstuck.recurrent._loop import Loop
from unstuck.recurrent._plain import unrolled
from unstuck.recurrent._programs import Programs
from unstuck.recurrent.cell import Cell

_PROGRAMS: dict[object, Programs] = {}
_BY_CELL: weakref.WeakKeyDictionary[Cell, Programs] = weakref.WeakKeyDictionary()


def programs_of(cell: Cell) -> Programs:
    """The programs of a cell; the same ones for equal cells."""
    found = _BY_CELL.get(cell)
    if found is None:
        found = _PROGRAMS.get(cell.key) or Programs(cell)
        _BY_CELL[cell] = _PROGRAMS[cell.key] = found
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
    function = Recurrence(cell, layout, backend, names)
    if torch.overrides.has_torch_function((x, *tensors)):
        found = torch.overrides.handle_torch_function(function, (x, *tensors), x, *tensors)
    else:
        found = function(x, *tensors)
    return found[0], dict(zip(cell.states, found[1:], strict=True))


@dataclass(frozen=True)
class Recurrence:
    """The fast loop as a function of tensors, which those who watch torch's functions see as one of them.

    Attributes:
        cell: The cell.
        layout: Where the steps lie.
        backend: One of `BACKENDS`.
        names: Of the states, weights and masks that follow the inputs.
    """

    cell: Cell
    layout: Layout
    backend: str
    names: tuple[tuple[str, ...], ...]

    @property
    def __name__(self) -> str:
        """What kind of layer it is: rnn, lstm, gru or recurrent."""
        if self.cell.name == "rnn":
            return "rnn"
        kinds = {"lstm": "lstm", "gru": "gru", "gated": "gru"}
        return next((kind for part, kind in kinds.items() if part in self.cell.name), "recurrent")

    def __call__(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Packed outputs and last states.

        Args:
            x: Packed inputs.
            *tensors: First states, weights and masks.

        Returns:
            All in one.
        """
        if torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in tensors)):
            return _Recurrence.apply(self, x, *tensors)
        return tuple(_all(_run("results", self, self.results, (x, *tensors))))

    def loop(self, x: Tensor, tensors: Sequence[Tensor]) -> Loop:
        """The loop over these tensors."""
        programs = programs_of(self.cell)
        given = _given(self.names, [t.contiguous() for t in tensors])
        return Loop(programs, kernels_for(programs, x, self.backend), self.layout, x.contiguous(), given)

    def results(self, tensors: Tensors) -> Tensors:
        """Packed outputs and last states, of inputs and what follows them."""
        x, *rest = _all(tensors)
        _, output, last = self.loop(x, rest).forward(keep=False)
        return [output, *last]

    def forward(self, tensors: Tensors) -> Tensors:
        """The same, and what the backward pass needs."""
        x, *rest = _all(tensors)
        buffers, output, last = self.loop(x, rest).forward()
        return [output, *last, buffers.slab, *buffers.states.values(), *buffers.operands.values()]

    def backward(self, tensors: Tensors, *, need_input: bool) -> Tensors:
        """Gradients by inputs, first states and weights.

        Args:
            tensors: Inputs and what follows them, what the backward pass needs, gradients by outputs and last states.
            need_input: Whether the gradient by the inputs is asked for.

        Returns:
            A gradient for each that is given, None for masks.
        """
        given, ends = 1 + sum(map(len, self.names)), 1 + len(self.names[0])
        x, *rest = _all(tensors[:given])
        loop = self.loop(x, rest)
        grads = tensors[len(tensors) - ends :]
        buffers = loop.buffers(_all(tensors[given : len(tensors) - ends]))
        found = loop.backward(buffers, grads[0], grads[1:], need_input=need_input)
        states, weights, masks = self.names
        return [found.x, *(found.states[n] for n in states), *(found.weights[n] for n in weights), *[None] * len(masks)]

    @torch.no_grad()
    def reach(self, x: Tensor, *tensors: Tensor, max_steps: int = 200, max_batch: int = 4) -> Tensor | None:
        """How far the last output reaches back in some of the longest sequences.

        Args:
            x: Packed inputs.
            *tensors: First states, weights and masks.
            max_steps: The largest lag; as many steps before only bring the state to where it is.
            max_batch: Most sequences.

        Returns:
            The size of the gradient by lag, see `signals.lag.memory`; None where there are no steps.
        """
        if not x.numel() or not x.is_floating_point():
            return None
        given, sizes = _given(self.names, tensors), self.layout.sizes
        some = torch.arange(0, sizes[-1], -(-sizes[-1] // max_batch), device=x.device)
        steps = self.layout.steps[-(2 * max_steps + 1) :]
        rows = (torch.tensor([row for row, _, _ in steps], device=x.device)[:, None] + some).flatten()
        by_step = {m.name for m in self.cell.masks if m.by_step}
        chosen = Given(
            {name: state[some].contiguous() for name, state in given.states.items()},
            {name: weight.contiguous() for name, weight in given.weights.items()},
            {name: mask[rows if name in by_step else some] for name, mask in given.masks.items()},
        )
        layout = Layout((len(some),) * len(steps), len(some))
        programs = programs_of(self.cell)
        loop = Loop(programs, kernels_for(programs, x, self.backend), layout, x[rows], chosen)
        return loop.reach(max_steps=min(max_steps, len(steps) - 1))


def _given(names: tuple[tuple[str, ...], ...], tensors: Sequence[Tensor]) -> Given:
    states, weights, masks = names
    first, second = len(states), len(states) + len(weights)
    return Given(
        dict(zip(states, tensors[:first], strict=True)),
        dict(zip(weights, tensors[first:second], strict=True)),
        dict(zip(masks, tensors[second:], strict=True)),
    )


def _all(tensors: Tensors) -> list[Tensor]:
    return [t for t in tensors if t is not None]


_GRAPHS = Graphs()
_STEPS = range(8, 4097)
"""As many steps are worth a graph, which has a few nodes for each."""


def _run(which: str, recurrence: Recurrence, function: Function, tensors: Tensors, **more: Any) -> Tensors:
    """Calls a pass, on CUDA by a graph where that gives the same."""
    some = tensors[0]
    if some is None or not some.is_cuda or not _can_be_captured(recurrence, tensors):
        return function(tensors, **more)
    shapes = tuple(None if t is None else (t.shape, t.dtype) for t in tensors)
    place = (some.device, torch.cuda.current_stream(some.device))
    mode = (
        torch.get_float32_matmul_precision(),
        torch.is_inference_mode_enabled(),
    )  # tensors of the latter are no others
    key = (which, recurrence, shapes, place, mode, *more.items())
    with torch.cuda.device(some.device):
        return _GRAPHS.run(key, functools.partial(function, **more), tensors)


def _can_be_captured(recurrence: Recurrence, tensors: Tensors) -> bool:
    layout = recurrence.layout
    if recurrence.backend == "torch" or layout.rows == 0 or len(layout.sizes) not in _STEPS:
        return False
    plain = all(type(t) in (Tensor, nn.Parameter) for t in tensors if t is not None)
    watched = torch._C._len_torch_dispatch_stack() > 0 or torch.cuda.is_current_stream_capturing()
    return plain and not watched


class _Recurrence(torch.autograd.Function):
    """The fast loop, with its backward pass."""

    @staticmethod
    def forward(ctx: Any, recurrence: Recurrence, *tensors: Tensor) -> tuple[Tensor, ...]:
        found = _run("forward", recurrence, recurrence.forward, tensors)
        ends = 1 + len(recurrence.names[0])
        ctx.set_materialize_grads(False)
        ctx.recurrence = recurrence
        ctx.save_for_backward(*tensors, *found[ends:])
        return tuple(_all(found[:ends]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        recurrence, saved = ctx.recurrence, ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # the gradient is to be differentiated again
            return (None, *_again(recurrence, saved[: len(needed)], grads, needed))
        with torch.autocast(saved[0].device.type, enabled=False):
            return (None, *_run("backward", recurrence, recurrence.backward, (*saved, *grads), need_input=needed[0]))


def _again(
    recurrence: Recurrence, tensors: Sequence[Tensor], grads: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients that can be differentiated, by the plain loop."""
    given = _given(recurrence.names, tensors[1:])
    output, last = unrolled(recurrence.cell, tensors[0], given, recurrence.layout)
    ends = [(e, g) for e, g in zip((output, *last.values()), grads, strict=True) if g is not None and e.requires_grad]
    wanted = [t for t, n in zip(tensors, needed, strict=True) if n]
    found = iter(
        torch.autograd.grad(
            [e for e, _ in ends], wanted, [g for _, g in ends], create_graph=True, allow_unused=True
        ) if ends else [None] * len(wanted)
    )  # fmt: skip
    return [next(found) if n else None for n in needed]
