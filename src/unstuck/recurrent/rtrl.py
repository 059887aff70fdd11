"""Real-time recurrent learning: exact gradients on streams without end, without a look back.

Backpropagation through time keeps what all steps left. Here the derivatives of the states by all parameters, *sensitivities*, are carried
forward with the states instead, so that memory doesn't grow with the stream, and what happened a million steps ago still counts. They
take states x parameters numbers for each stream: it is for small layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from unstuck.errors import MisuseError
from unstuck.recurrent import packing
from unstuck.recurrent._backends import kernels_for
from unstuck.recurrent._block import Block, EachStep
from unstuck.recurrent._cotangents import Passed
from unstuck.recurrent._diagonal import Diagonal
from unstuck.recurrent._influence import by_parameter
from unstuck.recurrent._layout import Given, Layout
from unstuck.recurrent._loop import Loop
from unstuck.recurrent._programs import Programs
from unstuck.recurrent._recurrence import programs_of
from unstuck.recurrent._sensitivity import Sensitivity, is_unit_by_unit
from unstuck.recurrent._stepwise import Stepwise
from unstuck.recurrent.layers import Recurrent, States

MODES = ("block", "stepwise", "elementwise", "snap1")


class RTRL:
    """Runs a recurrent layer on streams, and gives gradients that reach back to their beginning.

    Call it with the next steps of the streams, a *chunk*. What it returns is differentiable: `loss.backward()` on it adds the gradient
    by the layer's parameters through all steps since the beginning, with the losses of this chunk, and moves the sensitivities to the
    chunk's end. A chunk whose loss is left out moves them too, when the next one comes.

        layer, head = LSTM(3, 32), nn.Linear(32, 2)
        learner = RTRL(layer)
        optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], 1e-3)
        for x, target in stream:  # x: (time, batch, input), which goes on where the last one ended
            outputs, _ = learner(x)
            loss = criterion(head(outputs), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    With parameters that stay as they are, the gradients of all chunks add up to exactly that of backpropagation through time over the
    whole stream. Once an optimizer changes parameters they are approximate: sensitivities and states come from what the parameters were
    before. That is so for all of RTRL, and small rates keep the difference small. Gradients by the inputs are those within the chunk.

    | mode | exact | a step costs about | for |
    |---|---|---|---|
    | `block` | yes, with chunks of any length | O(n³ + n⁴ / chunk) | any cell; chunks of as many steps as there are units, or more |
    | `stepwise` | yes | O(n⁴) | a gradient after every single step |
    | `elementwise` | yes | O(n (n + input)) | cells whose units don't see each other, as IndRNN's |
    | `snap1` | no | O(n (n + input)) | what is left when only a unit's influence on itself is followed (Menick et al. 2021) |

    Source:
        Williams and Zipser 1989; Schmidhuber 1992 for `block`; Menick et al. 2021, section 3, for `snap1`.

    Attributes:
        layer: The layer.
        mode: One of the above.
        states: After the last chunk, in the layer's form; None before the first.

    Args:
        layer: Of `layers`: one layer, one direction.
        mode: One of the above.

    Raises:
        MisuseError: A layer or mode that can't be.

    Example:
        >>> from unstuck.recurrent.layers import RNN
        >>> layer = RNN(1, 2)
        >>> learner = RTRL(layer)
        >>> for x in torch.ones(30, 1, 1).split(10):
        ...     outputs, _ = learner(x)
        ...     outputs.sum().backward()
        >>> online = layer.weight_hh_l0.grad.clone()
        >>> layer.zero_grad()
        >>> layer(torch.ones(30, 1, 1))[0].sum().backward()
        >>> torch.allclose(online, layer.weight_hh_l0.grad, atol=1e-4)
        True
    """

    def __init__(self, layer: nn.Module, *, mode: str = "block") -> None:
        if mode not in MODES:
            raise MisuseError(f"there is no mode {mode!r}; there are {', '.join(MODES)}")
        if not isinstance(layer, Recurrent):
            raise MisuseError(f"a layer of unstuck.recurrent.layers is expected, not {type(layer).__name__}")
        if layer.num_layers != 1 or layer.bidirectional:
            raise MisuseError(
                "real-time recurrent learning is for one layer and one direction; stack several, or use TruncatedBPTT"
            )
        self.layer, self.mode = layer, mode
        self.states: States | None = None
        self._sensitivity: Sensitivity | None = None
        self._pending: _Pending | None = None
        self._last: Loop | None = None
        self._check_mode(programs_of(layer.cell))

    def __call__(self, x: Tensor) -> tuple[Tensor, States]:
        """Runs the next steps of the streams.

        Args:
            x: Inputs, `(time, batch, input)`, or `(batch, time, input)` for a layer that has `batch_first`.

        Returns:
            Outputs in the form of `x`, and the states after the last step in the form of the layer's.

        Raises:
            MisuseError: There is no step, or the number of streams isn't as before.
        """
        layer = self.layer
        steps = x.transpose(0, 1) if layer.batch_first else x
        if x.dim() != 3 or x.shape[-1] != layer.input_size or 0 in steps.shape[:2]:
            raise MisuseError(
                f"inputs of shape {tuple(x.shape)} are not steps of streams of {layer.input_size} numbers each"
            )
        if x.dtype != next(layer.parameters()).dtype:
            raise MisuseError(f"inputs are {x.dtype}, the layer's weights {next(layer.parameters()).dtype}")
        self._finish()
        packed = packing.full(*steps.shape[:2])
        try:
            first = layer._given_states(self.states, packed, steps, single=False)
        except MisuseError as error:
            raise MisuseError(f"{steps.shape[1]} streams are not as many as before; begin anew by reset()") from error
        weights = layer._weights(0)
        given = Given({n: s[0] for n, s in first.items()}, weights, layer._masks(packed, steps))
        rows = packed.pack(steps)
        output, *last = _Chunk.apply(self, packed.layout, given, rows, *weights.values())
        self.states = layer._form({n: e.detach()[None] for n, e in zip(first, last, strict=True)}, packed)
        outputs = packed.unpack(output, len(steps))
        ends = layer._form({n: e[None] for n, e in zip(first, last, strict=True)}, packed)
        return outputs.transpose(0, 1) if layer.batch_first else outputs, ends

    def reset(self, which: Tensor | None = None) -> None:
        """Begins anew with states and sensitivities of 0.

        Args:
            which: Which of the streams begin anew, truth values `(batch,)`; all unless given, and there may then be another number of them.

        Raises:
            MisuseError: `which` isn't a truth value for each stream.
        """
        self._finish()
        if which is None:
            self.states = self._sensitivity = None
        elif self.states is not None and self._sensitivity is not None:
            found = (self.states,) if isinstance(self.states, Tensor) else self.states
            if which.dtype is not torch.bool or which.shape != found[0].shape[1:2]:
                raise MisuseError(f"a truth value for each of {found[0].shape[1]} streams is expected, not {which}")
            kept = tuple(torch.where(which[:, None], 0.0, s) for s in found)
            self.states = kept[0] if isinstance(self.states, Tensor) else kept
            self._sensitivity.reset(which)

    @property
    def num_bytes(self) -> int:
        """What sensitivities take, with what is there to move them, in bytes."""
        held = [] if self._sensitivity is None else self._sensitivity.held()
        return sum(t.numel() * t.element_size() for t in held)

    def sensitivities(self) -> dict[str, dict[str, Tensor]]:
        """Derivatives of the states by the parameters.

        Returns:
            By state and by parameter's name, `(batch, units, *shape of the parameter)`; there are none before the first chunk.
        """
        self._finish()
        if self._sensitivity is None or self._last is None:
            return {}
        loop = self._last
        found = by_parameter(loop, self._sensitivity.cut, self._sensitivity.by_unit())
        widths = {name: s.shape[1] for name, s in loop.given.states.items()}
        parts = {
            f"{name}_l0": dict(zip(widths, d.split(list(widths.values()), 1), strict=True)) for name, d in found.items()
        }
        return {state: {name: part[state] for name, part in parts.items()} for state in widths}

    def _run(self, layout: Layout, given: Given, x: Tensor) -> tuple[_Pending, Tensor, list[Tensor]]:
        backend = "torch" if self.layer.backend == "plain" else self.layer.backend
        programs = programs_of(self.layer.cell)
        loop = Loop(programs, kernels_for(programs, x, backend), layout, x, given)
        buffers, output, last = loop.forward()
        self._pending = _Pending(Passed(loop, buffers, len(layout.sizes), layout.batch, backend=backend))
        self._last = loop
        if self._sensitivity is None:
            self._sensitivity = self._new(self._pending.passed)
        return self._pending, output, last

    def _check_mode(self, programs: Programs) -> None:
        by_unit, cell = is_unit_by_unit(programs), programs.cell
        if self.mode == "elementwise" and (cell.groups or not by_unit):
            raise MisuseError(
                f"units of the cell {cell.name} see each other, they can't be taken one by one; use mode='block'"
            )
        if self.mode == "snap1" and not by_unit:
            raise MisuseError(
                f"in the cell {cell.name} a parameter acts on many units at once, SnAp-1 saves nothing; use mode='block'"
            )

    def _new(self, passed: Passed) -> Sensitivity:
        if self.mode == "stepwise":
            return Stepwise(passed) if is_unit_by_unit(passed.loop.programs) else EachStep(passed)
        return Block(passed) if self.mode == "block" else Diagonal(passed)

    def _finish(self) -> None:
        """Moves sensitivities over a chunk that had no backward pass."""
        if self._pending is not None:
            self._advance(self._pending, None, {})

    def _backward(
        self, pending: _Pending, grads: Sequence[Tensor | None], *, need_input: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The gradients by a chunk's inputs and by the parameters.

        Raises:
            MisuseError: Sensitivities are not at its beginning any more.
        """
        if pending is not self._pending:
            raise MisuseError(
                "this chunk's gradient was taken before, or the next chunk has been run: "
                "add up its losses, and call backward() once, before that"
            )
        passed = pending.passed
        loop, buffers = passed.loop, passed.buffers
        dx = loop.backward(buffers, grads[0], grads[1:], need_input=True).x if need_input else None
        ends = {name: g for name, g in zip(passed.widths, grads[1:], strict=True) if g is not None}
        return dx, self._advance(pending, None if grads[0] is None else passed.by_step(grads[0]), ends)

    @torch.no_grad()
    def _advance(self, pending: _Pending, grads: Tensor | None, ends: dict[str, Tensor]) -> dict[str, Tensor]:
        assert self._sensitivity is not None
        self._pending = None
        found = self._sensitivity.advance(pending.passed, grads, ends)
        return by_parameter(pending.passed.loop, self._sensitivity.cut, found)


class _Pending:
    """A chunk that was run forward, and whose sensitivities are those at its beginning."""

    def __init__(self, passed: Passed) -> None:
        self.passed = passed


class _Chunk(torch.autograd.Function):
    """Steps whose gradient by the parameters reaches back to the beginning of the streams."""

    @staticmethod
    def forward(
        ctx: Any, learner: RTRL, layout: Layout, given: Given, x: Tensor, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        contiguous = Given(given.states, {n: w.contiguous() for n, w in given.weights.items()}, given.masks)
        ctx.learner = learner
        ctx.pending, output, last = learner._run(layout, contiguous, x.contiguous())
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *weights)  # which fails where they were changed in place
        return (output, *last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.saved_tensors  # noqa: B018
        given = [g if g is None else g.contiguous() for g in grads]
        dx, found = ctx.learner._backward(ctx.pending, given, need_input=ctx.needs_input_grad[3])
        return (None, None, None, dx, *found.values())
