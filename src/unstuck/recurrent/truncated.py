"""Truncated backpropagation through time: gradients on streams without end that look back some steps.

What happened before these steps is in the state, but nobody learns from it: credit over longer spans is lost.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.recurrent.layers import States, detach


class TruncatedBPTT:
    """Runs recurrent layers on streams a few steps at a time; gradients go back through a fixed number of steps.

    Call it with the next `every` steps. What it returns is differentiable, through these steps and through those before them, `through`
    steps in all. The steps before are run again for that, with the parameters as they are now, so that an optimizer may change them
    each time; a call costs as much as `through` steps, and memory doesn't grow with the stream. With `through` equal to `every`, the
    usual chunks, nothing is run twice.

        learner = TruncatedBPTT(layer, every=5, through=20)
        for x, target in stream:  # x: (5, batch, input), which goes on where the last one ended
            outputs, _ = learner(x)
            loss = criterion(head(outputs), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    Gradients by the inputs are those by the steps that were given last. Where a layer drops units at random, it drops others when
    steps are run again.

    Source:
        Williams and Peng 1990, BPTT(h; h'), where h is `through` and h' is `every`; k2 and k1 in Sutskever 2013, section 2.8.6.

    Attributes:
        layer: The layer.
        every: Steps of a call, k1.
        through: Steps that gradients go back through, k2.
        states: After the last call, in the layer's form; None before the first.

    Args:
        layer: A layer of `layers`, or torch.nn.LSTM, GRU or RNN, of any depth, one direction.
        every: Steps of a call.
        through: Steps that gradients go back through; as many as `every` unless given.

    Raises:
        MisuseError: Numbers of steps that can't be, or a layer that reads both ways.

    Example:
        >>> learner = TruncatedBPTT(nn.RNN(1, 2), every=2, through=6)
        >>> for x in torch.ones(100, 1, 1).split(2):
        ...     outputs, state = learner(x)
        >>> outputs.shape, learner.num_kept
        (torch.Size([2, 1, 2]), 4)
    """

    def __init__(self, layer: nn.Module, *, every: int, through: int | None = None) -> None:
        through = every if through is None else through
        if not 1 <= every <= through:
            raise MisuseError(f"every={every} and through={through}: 1 <= every <= through is expected")
        if getattr(layer, "bidirectional", False):
            raise MisuseError("a layer that reads sequences from both ends can't be run on a stream, which has no end")
        self.layer, self.every, self.through = layer, every, through
        self.states: States | None = None
        self._start: States | None = None
        self._before: Tensor | None = None

    @property
    def _time(self) -> int:
        return 1 if getattr(self.layer, "batch_first", False) else 0

    @property
    def num_kept(self) -> int:
        """Steps whose inputs are kept, to be run again."""
        return 0 if self._before is None else self._before.shape[self._time]

    def __call__(self, x: Tensor) -> tuple[Tensor, States]:
        """Runs the next steps of the streams.

        Args:
            x: Inputs, `(time, batch, input)`, or `(batch, time, input)` for a layer that has `batch_first`; `every` steps, or fewer.

        Returns:
            Outputs in the form of `x`, and the states after the last step in the form of the layer's.

        Raises:
            MisuseError: There are no steps or too many, or not as many streams as before.
        """
        steps = x.shape[self._time] if x.dim() == 3 else 0
        if not 1 <= steps <= self.every:
            raise MisuseError(f"inputs of shape {tuple(x.shape)}: 3 axes and from 1 to {self.every} steps are expected")
        if self._before is not None and self._before.shape[1 - self._time] != x.shape[1 - self._time]:
            raise MisuseError(f"{x.shape[1 - self._time]} streams are not as many as before; begin anew by reset()")
        whole = x if self._before is None else torch.cat([self._before, x], self._time)
        outputs, ends = self._run(whole)
        self.states = detach(ends)
        return outputs.narrow(self._time, outputs.shape[self._time] - steps, steps), ends

    def reset(self, which: Tensor | None = None) -> None:
        """Begins anew, from states of 0.

        Args:
            which: Which of the streams begin anew, truth values `(batch,)`; all unless given, and there may then be another number of
                them. What the others did before is not looked back on any more either.

        Raises:
            MisuseError: `which` isn't a truth value for each stream.
        """
        if which is None or self.states is None:
            self.states = self._start = self._before = None
            return
        found = (self.states,) if isinstance(self.states, Tensor) else self.states
        if which.dtype is not torch.bool or which.shape != found[0].shape[1:2]:
            raise MisuseError(f"a truth value for each of {found[0].shape[1]} streams is expected, not {which}")
        kept = tuple(torch.where(which[:, None], 0.0, s) for s in found)
        self.states = self._start = kept[0] if isinstance(self.states, Tensor) else kept
        self._before = None

    def _run(self, whole: Tensor) -> tuple[Tensor, Any]:
        """Runs all steps that are looked back on; keeps what the next call needs of them."""
        steps = whole.shape[self._time]
        kept = min(self.through - self.every, steps)
        parts, states, outputs = [p for p in whole.split([steps - kept, kept], self._time)], self._start, []
        for part in parts:
            if part is parts[1]:
                self._start = None if states is None else detach(states)
            if part.shape[self._time]:
                output, states = self.layer(part, states)
                outputs.append(output)
        self._before = parts[1].detach() if kept else None
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, self._time)), states
