"""The losses that a training computes: found at a sampled backward, measured there, and the main one told from the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from unstuck.evidence import LossCall
from unstuck.watcher import loss_calls, ops, sums
from unstuck.watcher.labels import count_classes
from unstuck.watcher.loss_calls import Meeting
from unstuck.watcher.loss_state import LossState
from unstuck.watcher.recorder import Columns, Sample
from unstuck.watcher.registry import Registry
from unstuck.watcher.scores import r2, score, score_name
from unstuck.watcher.trace import Call, LossSeen, Trace

_TOKENS = 10  # outputs from which on what predicts the like of its inputs predicts words

_Leading = tuple[LossState, Tensor | None, Tensor | None]  # a loss, its outputs and targets


class LossBook:
    """Keeps what is learned of losses, and scores the steps."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.states: dict[tuple[str, str], LossState] = {}
        self.main: LossState | None = None
        self.own_targets = False  # the main loss compares what networks give with each other
        self.leading: tuple[Tensor | None, Tensor | None] = (None, None)  # outputs and targets of the last backward
        self._logged: Tensor | None = None  # the logarithm that a loss written by hand took of its output

    @property
    def score_name(self) -> str:
        """Name of the score, "" when none can be computed."""
        return self.main.score if self.main is not None else ""

    def facts(self, batches: float) -> list[LossCall]:
        """All losses, the main one first, where so many calls of backward make a step."""
        return [state.fact(batches) for state in sorted(self.states.values(), key=lambda s: s is not self.main)]

    # ------------------------------------------------------------------ at a sampled backward

    def analyze(
        self,
        trace: Trace,
        root: Tensor,
        sample: Sample,
        *,
        unscaled: Tensor,
        main: bool,
        scored: Callable[[float], None],
    ) -> None:
        """Finds the losses a backward starts from, marks the layers' roles, and measures outputs, targets and score.

        Args:
            trace: What the forward pass showed.
            root: The tensor backward starts from.
            sample: Takes the measurements.
            unscaled: The same before it was multiplied for mixed precision; the same tensor where it wasn't.
            main: This backward is the run's main one.
            scored: Told the score of the main loss.
        """
        start = trace.producers.get(root.grad_fn)
        ancestors = loss_calls.ancestors(start)
        found = [seen for seen in trace.losses if seen.result is not None and seen.result in ancestors]
        leading: _Leading | None = None
        value = unscaled
        scale = (
            None if unscaled is root or root.numel() != 1 else (root.detach() / unscaled.detach()).float().reshape(())
        )
        for seen in found:
            state = self._state(seen.name, seen.site)
            self._learn(state, seen)
            self._watch_sum(state, seen, ancestors, trace, sample, scale)
            turns = loss_calls.turns_of(found, seen)
            if turns[0] is not seen:
                continue
            leading = leading or (state, *loss_calls.joined(turns))
            if seen.value.numel() == 1 and unscaled.numel() == 1:
                part = loss_calls.average([s.value for s in turns]) / unscaled.detach().float()
                state.watch_part(part.reshape(1), len(turns), sample)
                value = loss_calls.average([loss_calls.mean_value(s) for s in turns]) if leading[0] is state else value
        if found:
            _mark(ancestors, found[0])
        elif start is not None:
            leading = self._by_hand(start, ancestors, trace, sample, scale)
        self.leading = (None, None) if leading is None else leading[1:]
        if leading is not None and leading[0].logged and start is not None:
            self.leading = (self._logged, leading[2])
        if leading is None:
            return
        state, output, target = leading
        state.calls += 1
        if self.main is None or (main and self.main not in [self.states.get((s.name, s.site)) for s in found]):
            self.main = state
        if main and found:
            self.own_targets = found[0].own_target
        _measure(sample, state, output, target, scored if main else None, value)

    def _state(self, name: str, site: str) -> LossState:
        return self.states.setdefault((name, site), LossState(name, site))

    def _learn(self, state: LossState, seen: LossSeen) -> None:
        output, target, call = seen.output, seen.target, seen.call
        state.output_shape = tuple(output.shape)
        state.target_shape = tuple(target.shape) if target is not None else ()
        state.settings = seen.settings
        state.reduction = str(seen.settings.get("reduction", "mean"))
        if target is not None and state.looks == 0:
            state.kind, state.num_classes = loss_calls.kind_of(state.name, output, target)
            state.score = score_name(state, tokens=self._predicts_tokens(output, target))
        if call is not None and call.layer is not None:
            state.layer = call.layer.name
            state.chain = loss_calls.chain(call)

    def _predicts_tokens(self, output: Tensor, target: Tensor) -> bool:
        shapes = [
            first.shape for _, first in self.registry.root_calls if first is not None and not first.is_floating_point()
        ]
        whole = any(math.prod(s) == target.numel() and len(s) > 1 for s in shapes)
        return whole and output.shape[-1] > _TOKENS and target.numel() > 1

    # ------------------------------------------------------------------ sums

    def _watch_sum(
        self,
        state: LossState,
        seen: LossSeen,
        ancestors: dict[Call, None],
        trace: Trace,
        sample: Sample,
        scale: Tensor | None,
    ) -> None:
        """Finds out what a sum is divided by: one that a loss function makes, or one of what it gave for each sample."""
        if state.reduction == "none" and (added := sums.sum_after(ancestors, seen.result)) is not None:
            state.reduction = "sum"
            self._watch_call(state, added, seen.result, loss_calls.num_terms(seen), trace, sample, scale)
        elif state.reduction == "sum" and seen.value.numel() == 1:
            node, terms = sums.node_of_call(trace, seen.result), loss_calls.num_terms(seen)
            sums.watch(node, terms, 1.0, self._rows(state), into=state.divided, sample=sample, scale=scale)

    def _watch_call(
        self, state: LossState, added: Any, start: Any, terms: Tensor | int, trace: Trace, sample: Sample, scale: Any
    ) -> None:
        node, kept = sums.node_of_call(trace, added), sums.kept_of(added, start)
        terms = terms if isinstance(terms, Tensor) else sums.terms_of(node, terms)
        sums.watch(node, terms, kept, self._rows(state), into=state.divided, sample=sample, scale=scale)

    def _rows(self, state: LossState) -> tuple[float, ...]:
        """Rows of what goes into the loss, and into the network; infinite where there is but one, which tells nothing."""
        into = next((first.shape for _, first in self.registry.root_calls if first is not None), ())
        shapes: tuple[tuple[int, ...], ...] = (state.target_shape, state.output_shape, tuple(into))
        return tuple(shape[0] if shape and shape[0] > 1 else math.inf for shape in shapes)

    # ------------------------------------------------------------------ losses written by hand

    def _by_hand(
        self, start: Call, ancestors: dict[Call, None], trace: Trace, sample: Sample, scale: Tensor | None
    ) -> _Leading:
        tail = loss_calls.tail(start)
        state = self._state("hand-written", start.layer.site if start.layer is not None else "")
        for call in tail:
            if call.layer is not None and call.layer.op in ops.LOSS_OPS:
                call.layer.role = "loss"
        meeting = loss_calls.meeting(tail)
        if meeting is None:
            state.loss_ops = tuple(call.layer.op for call in tail if call.layer is not None)
            return state, None, None
        self._learn_by_hand(state, meeting, tail)
        if state.reduction == "sum" and (added := sums.sum_after(ancestors, meeting.call)) is not None:
            self._watch_call(state, added, meeting.call, meeting.output.numel(), trace, sample, scale)
        return state, meeting.output, meeting.target

    def _learn_by_hand(self, state: LossState, meeting: Meeting, tail: list[Call]) -> None:
        call, source, output, target, kind = meeting
        state.logged, self._logged = meeting.takes_log, call.output
        begins = call.inputs[0].order if state.logged else call.order
        layers = [other.layer for other in tail if other.order >= begins and other.layer is not None]
        state.loss_ops = tuple(layer.op for layer in layers)
        for layer in layers:
            layer.role = "loss"
        if source.layer is not None:
            source.layer.role = "output"
            state.layer, state.chain = source.layer.name, loss_calls.chain(source)
        state.output_shape, state.target_shape = tuple(output.shape), tuple(target.shape)
        state.reduction = "sum" if "sum" in state.loss_ops and "mean" not in state.loss_ops else "mean"
        if state.looks == 0:
            state.kind = kind
            state.num_classes = int(output.shape[1]) if kind in ("class index", "one-hot") and output.dim() > 1 else 0
            state.score = score_name(state, tokens=False)


def _mark(ancestors: dict[Call, None], main: LossSeen) -> None:
    """Marks the layers between output and root as the loss, and the output as such."""
    last = main.result
    for call in ancestors:
        if call.layer is not None and last is not None and (call is last or call.order > last.order):
            call.layer.role = "loss"
    if main.call is not None and main.call.layer is not None and main.call.layer.role != "loss":
        main.call.layer.role = "output"


def _measure(
    sample: Sample,
    state: LossState,
    output: Tensor | None,
    target: Tensor | None,
    scored: Callable[[float], None] | None,
    value: Tensor,
) -> None:
    """Measures outputs, targets and score, where the score is wanted."""
    if output is None:
        return
    state.looks += 1
    state.look_at_output(output, sample)
    if target is None:
        return
    count_classes(state, output, target, sample)
    state.look_at_target(target, sample)
    number = score(state, output, target, value) if scored is not None and state.score else None
    if scored is None or number is None:
        return

    def keep(columns: Columns, numbers: np.ndarray) -> None:
        found = float(numbers.reshape(-1)[0])
        scored(r2(found, state.spread) if state.score == "r2" else found)

    sample.put("score", number.reshape(1), keep)
