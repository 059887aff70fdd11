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
from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.recurrent import _c
from unstuck.recurrent._layout import Given, Layout
from unstuck.recurrent._loop import Buffers, Loop
from unstuck.recurrent._plain import unrolled
from unstuck.recurrent._programs import Programs
from unstuck.recurrent.cell import Cell

BACKENDS = ("auto", "c", "torch", "plain")
"""`c`: kernels compiled by the C compiler; `torch`: the same kernels as tensor operations; `plain`: a loop that autograd differentiates;
`auto`: the first that can be had."""


_PROGRAMS: dict[object, Programs] = {}
_BY_CELL: weakref.WeakKeyDictionary[Cell, Programs] = weakref.WeakKeyDictionary()


def programs_of(cell: Cell) -> Programs:
    """The programs of a cell; the same ones for equal cells."""
    found = _BY_CELL.get(cell)
    if found is None:
        found = _PROGRAMS.get(cell.key) or Programs(cell)
        _BY_CELL[cell] = _PROGRAMS[cell.key] = found
    return found


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
        """What kind of layer it is: lstm, gru or recurrent."""
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
        return _Recurrence.apply(self.cell, self.layout, self.backend, self.names, x, *tensors)

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
        loop = Loop(programs, compiled(programs, x, self.backend), layout, x[rows], chosen)
        return loop.reach(max_steps=min(max_steps, len(steps) - 1))


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
        buffers, output, last = _loop(cell, layout, backend, names, x, tensors).forward()
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
        buffers = Buffers(
            slab, dict(zip(states, kept, strict=False)), dict(zip(operands, kept[len(states) :], strict=True))
        )
        loop = _loop(cell, layout, backend, names, x, tensors)
        found = loop.backward(buffers, grads[0], grads[1:], need_input=ctx.needs_input_grad[4])
        by = [*(found.states[n] for n in names[0]), *(found.weights[n] for n in names[1]), *[None] * len(names[2])]
        return (None, None, None, None, found.x, *by)


def _loop(
    cell: Cell, layout: Layout, backend: str, names: tuple[tuple[str, ...], ...], x: Tensor, tensors: Sequence[Tensor]
) -> Loop:
    programs = programs_of(cell)
    given = _given(names, [t.contiguous() for t in tensors])
    return Loop(programs, compiled(programs, x, backend), layout, x.contiguous(), given)


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
