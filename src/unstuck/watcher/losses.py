"""What the loss is made of: the function, the outputs and targets it takes, the task behind it, and the score.

A loss is either a call of one of torch's loss functions among what the backward's root was made from, or it is written by
hand. Then the operations between root and the last layers with parameters are read backwards, and the place where data meet
activations tells output and target: an index (`logp[range(n), y]`, `gather`) tells classes, a difference tells a regression target,
a product with rows that sum to one tells one-hot classes, one with -1 and 1 tells a hinge. Data that the script computed from the outputs
themselves (sampled actions, pseudo-labels) are no targets.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstuck.evidence import LossCall, Task
from unstuck.signals import score as scores
from unstuck.watcher import ops, sums
from unstuck.watcher.recorder import Columns, Sample
from unstuck.watcher.registry import Registry

_LOOK = ("min", "max", "mean", "std", "sums_to_one", "log_sums_to_one", "constant")
_LIMIT = 16_384  # numbers of outputs or targets that are looked at
MOST_CLASSES = 4096
_STEADY = 1e-3  # of a part of the loss: it is the same at each step, but for rounding
_BY_CLASS = ("cross_entropy", "nll_loss", "multi_margin_loss", "linear_cross_entropy")  # one number a row
_ON_LOGITS = frozenset({"binary_cross_entropy_with_logits", "multilabel_soft_margin_loss", "soft_margin_loss"})


@dataclass
class LossState:
    """One place where a loss is computed."""

    name: str
    site: str
    layer: str = ""
    chain: tuple[str, ...] = ()
    loss_ops: tuple[str, ...] = ()
    output_shape: tuple[int, ...] = ()
    target_shape: tuple[int, ...] = ()
    kind: str = "none"
    num_classes: int = 0
    reduction: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    output: dict[str, float] = field(default_factory=dict)
    target: dict[str, float] = field(default_factory=dict)
    looks: int = 0
    calls: int = 0
    trains: bool = True
    unique: set[float] = field(default_factory=set)
    total: np.ndarray = field(default_factory=lambda: np.zeros(3))  # count, sum, sum of squares of targets
    absolute: float = 0.0
    labels: np.ndarray | None = None
    score: str = ""
    logged: bool = False  # written by hand, with a logarithm of the output
    parts: list[float] = field(
        default_factory=list
    )  # of what backward starts from, at each look; of one call where there are several
    turns: int = 1  # calls that a loop makes for one backward, at most
    divided: sums.Divided = field(default_factory=sums.Divided)  # of a sum

    @property
    def spread(self) -> float:
        """Standard deviation of the targets seen so far."""
        count, total, squares = self.total
        return math.sqrt(max(0.0, squares / count - (total / count) ** 2)) if count else math.nan

    def reduced(self, batches: float) -> str:
        """How the loss that backward starts from is reduced, where so many calls of backward make a step."""
        return "mean" if self.reduction == "sum" and self.divided.is_mean(batches) else self.reduction

    def scale(self, batches: float) -> float:
        """What the loss is multiplied by before backward, as where several batches make a step.

        1 where that isn't one number; NaN where a number of calls that varies is added up.
        """
        if self.reduction == "sum" and self.divided.is_mean(batches):
            return self.divided.of_mean
        parts = [part for part in self.parts if math.isfinite(part)]
        middle = statistics.median(parts) if parts else 0.0
        steady = sum(abs(part - middle) < _STEADY * middle for part in parts)
        if middle > 0 and steady >= max(3, 0.8 * len(parts)):
            return 1 / middle
        return math.nan if self.turns > 1 else 1.0


class LossBook:
    """Keeps what is learned of losses, and scores the steps."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.states: dict[tuple[str, str], LossState] = {}
        self.main: LossState | None = None
        self.tokens = False
        self.own_targets = False  # the main loss compares what networks give with each other
        self.leading: tuple[Tensor | None, Tensor | None] = (None, None)  # outputs and targets of the last backward
        self._logged: Tensor | None = None  # the logarithm that a loss written by hand took of its output
        self._largest: dict[str, float] = {}

    @property
    def score_name(self) -> str:
        """Name of the score, "" when none can be computed."""
        return self.main.score if self.main is not None else ""

    def magnitude(self, layer: str) -> float | None:
        """Largest output of a layer when last measured."""
        return self._largest.get(layer)

    # ------------------------------------------------------------------ at a sampled backward

    def analyze(
        self,
        trace: Any,
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
        ancestors = _ancestors(start)
        found = [seen for seen in trace.losses if seen.result is not None and seen.result in ancestors]
        leading = None
        value = unscaled
        scale = (
            None if unscaled is root or root.numel() != 1 else (root.detach() / unscaled.detach()).float().reshape(())
        )
        for seen in found:
            state = self._state(seen.name, seen.site)
            self._learn(state, seen.output, seen.target, seen.settings, seen.call)
            self._watch_sum(state, seen, ancestors, trace, sample, scale)
            turns = _turns(found, seen)
            if turns[0] is not seen:
                continue
            leading = leading or (state, *_joined(turns))
            if seen.value.numel() == 1 and unscaled.numel() == 1:
                part = (_average([s.value for s in turns]) / unscaled.detach().float()).reshape(1)
                sample.put(("part", seen.site), part, functools.partial(_keep_part, state, len(turns)))
                value = _average([_mean(s) for s in turns]) if leading[0] is state else value
        if found:
            self._mark(ancestors, found[0])
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
        self._measure(sample, state, output, target, scored if main else None, value)

    def _state(self, name: str, site: str) -> LossState:
        return self.states.setdefault((name, site), LossState(name, site))

    def _learn(
        self, state: LossState, output: Tensor, target: Tensor | None, settings: dict[str, Any], call: Any
    ) -> None:
        state.output_shape = tuple(output.shape)
        state.target_shape = tuple(target.shape) if target is not None else ()
        state.settings = settings
        state.reduction = str(settings.get("reduction", "mean"))
        if target is not None and state.looks == 0:
            state.kind, state.num_classes = _kind(state.name, output, target)
            state.score = _score_name(state, self._predicts_tokens(output, target))
        if call is not None and call.layer is not None:
            state.layer = call.layer.name
            state.chain = _chain(call)

    def _watch_sum(
        self, state: LossState, seen: Any, ancestors: dict[Any, None], trace: Any, sample: Sample, scale: Tensor | None
    ) -> None:
        """Finds out what a sum is divided by: one that a loss function makes, or one of what it gave for each sample."""
        if state.reduction == "none" and (added := sums.sum_after(ancestors, seen.result)) is not None:
            state.reduction = "sum"
            self._watch_call(state, added, seen.result, _terms(seen), trace, sample, scale)
        elif state.reduction == "sum" and seen.value.numel() == 1:
            node = sums.node_of_call(trace, seen.result)
            sums.watch(node, _terms(seen), 1.0, self._rows(state), into=state.divided, sample=sample, scale=scale)

    def _watch_call(
        self, state: LossState, added: Any, start: Any, terms: Tensor | int, trace: Any, sample: Sample, scale: Any
    ) -> None:
        node, kept = sums.node_of_call(trace, added), sums.kept_of(added, start)
        terms = terms if isinstance(terms, Tensor) else sums.terms_of(node, terms)
        sums.watch(node, terms, kept, self._rows(state), into=state.divided, sample=sample, scale=scale)

    def _rows(self, state: LossState) -> tuple[float, ...]:
        """Rows of what goes into the loss, and into the network; infinite where there is but one, which tells nothing."""
        into = next((first.shape for _, first in self.registry.root_calls if first is not None), ())
        shapes: tuple[tuple[int, ...], ...] = (state.target_shape, state.output_shape, tuple(into))
        return tuple(shape[0] if shape and shape[0] > 1 else math.inf for shape in shapes)

    def _predicts_tokens(self, output: Tensor, target: Tensor) -> bool:
        shapes = [
            first.shape for _, first in self.registry.root_calls if first is not None and not first.is_floating_point()
        ]
        whole = any(math.prod(s) == target.numel() and len(s) > 1 for s in shapes)
        return whole and output.shape[-1] > 10 and target.numel() > 1

    def _mark(self, ancestors: dict[Any, None], main: Any) -> None:
        """Marks the layers between output and root as the loss, and the output as such."""
        for call in ancestors:
            if call.layer is not None and (call is main.result or call.order > main.result.order):
                call.layer.role = "loss"
        call = main.call
        if call is not None and call.layer is not None and call.layer.role != "loss":
            call.layer.role = "output"

    # ------------------------------------------------------------------ losses written by hand

    def _by_hand(self, start: Any, ancestors: dict[Any, None], trace: Any, sample: Sample, scale: Tensor | None) -> Any:
        tail = _tail(start)
        layer_ops = [c.layer.op for c in sorted(tail, key=lambda c: c.order) if c.layer is not None]
        meeting = None
        for call in sorted(tail, key=lambda c: c.order):
            meeting = _meets(call)
            if meeting is not None:
                break
        site = start.layer.site if start.layer is not None else ""
        state = self._state("hand-written", site)
        for other in tail:
            if other.layer is not None and other.layer.op in ops.LOSS_OPS:
                other.layer.role = "loss"
        if meeting is None:
            state.loss_ops = tuple(layer_ops)
            return state, None, None
        call, source, output, target, kind = meeting
        state.logged, self._logged = source is not call.inputs[0], call.output
        begins = call.inputs[0].order if state.logged else call.order
        after = [c for c in sorted(tail, key=lambda c: c.order) if c.order >= begins]
        state.loss_ops = tuple(c.layer.op for c in after if c.layer is not None)
        for other in after:
            if other.layer is not None:
                other.layer.role = "loss"
        if source is not None and source.layer is not None:
            source.layer.role = "output"
            state.layer, state.chain = source.layer.name, _chain(source)
        state.output_shape, state.target_shape = tuple(output.shape), tuple(target.shape)
        state.reduction = "sum" if "sum" in state.loss_ops and "mean" not in state.loss_ops else "mean"
        if state.reduction == "sum" and (added := sums.sum_after(ancestors, call)) is not None:
            self._watch_call(state, added, call, output.numel(), trace, sample, scale)
        if state.looks == 0:
            state.kind = kind
            state.num_classes = int(output.shape[1]) if kind in ("class index", "one-hot") and output.dim() > 1 else 0
            state.score = _score_name(state, tokens=False)
        return state, output, target

    # ------------------------------------------------------------------ numbers

    def _measure(
        self, sample: Sample, state: LossState, output: Tensor | None, target: Tensor | None, scored: Any, root: Tensor
    ) -> None:
        if output is None:
            return
        state.looks += 1
        sample.put(
            ("output", state.name, state.site),
            _look(output),
            lambda _, numbers: _merge(state.output, _LOOK, numbers, state.looks),
        )
        if target is None:
            return
        self._measure_target(sample, state, output, target)
        if scored is None or not state.score:
            return
        value = self._score(state, output, target, root)
        if value is None:
            return

        def means(columns: Columns, numbers: np.ndarray) -> None:
            number = float(numbers.reshape(-1)[0])
            if state.score == "r2":
                number = _r2(number, state.spread)
            scored(number)

        sample.put("score", value.reshape(1), means)

    def _measure_target(self, sample: Sample, state: LossState, output: Tensor, target: Tensor) -> None:
        kind = state.kind
        if kind in ("class index", "one-hot") and 1 < state.num_classes <= MOST_CLASSES:
            rows = max(1, 4 * _LIMIT * output.shape[0] // max(1, output.numel()))  # enough for shares of classes
            some, output = target[:rows], output[:rows]
            truth = some if kind == "class index" else some.argmax(_class_axis(some))
            guess = output.argmax(_class_axis(output)) if output.dim() > 1 else output.round().long()
            ignored = int(state.settings.get("ignore_index", -100))
            truth, guess = truth.reshape(-1), guess.reshape(-1)
            every = _thin(target) if kind == "class index" else truth  # outputs are large, targets are not
            counts = torch.stack(
                [
                    _count(of, state.num_classes, by, ignored)
                    for of, by in ((truth, truth), (guess, truth), (every, every))
                ]
            )

            def labels(columns: Columns, numbers: np.ndarray) -> None:
                columns.vectors.append(("label_count", "", numbers[0].copy()))
                columns.vectors.append(("prediction_count", "", numbers[1].copy()))
                state.labels = numbers[2].astype(np.float64) + (state.labels if state.labels is not None else 0.0)
                state.unique.update(np.flatnonzero(numbers[0]).tolist())

            sample.put(("labels", state.site), counts, labels)
        few = _thin(target)
        values = few if few.is_floating_point() else few.float()
        whole = (values == values.round()).float().mean()
        numbers = torch.stack(
            [
                values.min(),
                values.max(),
                values.sum(),
                (values * values).sum(),
                whole,
                (values - values.mean()).abs().mean(),
            ]
        )
        distinct = torch.unique(values[:512]) if state.looks <= 8 and values.device.type == "cpu" else None
        if distinct is not None and kind not in ("class index", "one-hot"):
            state.unique.update(distinct.tolist())

        def means(columns: Columns, found: np.ndarray) -> None:
            low, high, total, squares, integer, absolute = map(float, found)
            state.total = state.total + np.array([values.numel(), total, squares])
            state.absolute = absolute
            if kind in ("binary", "multi-label") and (
                integer < 1.0 or high > 1 or low < -1
            ):  # the first batch was no sample of all
                state.kind, state.num_classes, state.score = "real", 0, "r2"
            mean = state.total[1] / state.total[0]
            state.target = {
                "min": min(low, state.target.get("min", low)), "max": max(high, state.target.get("max", high)), "mean": mean,
                "std": state.spread, "unique": float(len(state.unique)), "integer": float(integer == 1.0),
            }  # fmt: skip

        sample.put(("target", state.name, state.site), numbers, means)

    def _score(self, state: LossState, output: Tensor, target: Tensor, root: Tensor | None) -> Tensor | None:
        if state.score == "perplexity":
            return None if root is None or root.numel() != 1 else root.detach().float().exp()
        if state.score == "accuracy":
            ignored = int(state.settings.get("ignore_index", -100))
            return scores.accuracy(output, target, state.kind, ignore_index=ignored, threshold=_threshold(state))  # pyright: ignore[reportArgumentType]
        if state.score == "bit_accuracy":
            return scores.bit_accuracy(output, target, threshold=_threshold(state))
        if state.score == "r2":
            if state.name == "poisson_nll_loss" and state.settings.get("log_input", True):
                output = output.exp()
            if output.shape != target.shape:
                output, target = output.squeeze(), target.squeeze()
                if output.shape != target.shape:
                    return None
            return (output.float() - target.float()).square().mean()
        return None

    def score_of(self, output: Tensor, target: Tensor) -> float:
        """The main score of outputs against targets, NaN when there is none."""
        main = self.main
        if main is not None and main.logged:
            output = output.exp()
        value = self._score(main, output, target, None) if main is not None and main.score else None
        if main is None or value is None:
            return math.nan
        return _r2(float(value), main.spread) if main.score == "r2" else float(value)

    # ------------------------------------------------------------------ evaluation

    def evaluated(self, trace: Any, batch: list[Tensor]) -> Tensor | None:
        """Loss, score and weight of an evaluated forward pass, as a tensor of three; None when there is nothing to tell.

        Args:
            trace: What the forward pass showed.
            batch: Tensors of the batch that a loader gave for it.
        """
        main = self.main
        loss = score = None
        weight = 1.0
        for seen in trace.losses:
            if main is not None and main.name not in ("hand-written", seen.name):
                continue
            if loss is None and seen.value.numel() == 1:
                loss = _mean(seen)
                if seen.target is not None and seen.target.dim():
                    weight = float(seen.target.shape[0])
            if main is not None and score is None and seen.target is not None and main.kind != "none":
                score = self._score(main, seen.output, seen.target, _mean(seen) if main.score == "perplexity" else None)
        if score is None and trace.compared and main is not None and main.score == "accuracy":
            guess, truth, equal = trace.compared[-1]
            by_sample = main.kind not in ("class index", "one-hot") or equal.numel() == equal.shape[:1].numel()
            if equal.numel() > 1 and guess.shape == truth.shape and by_sample:  # single bits of classes tell little
                score, weight = equal.float().mean(), float(equal.shape[0]) if equal.dim() else 1.0
        if score is None and main is not None and main.kind != "none" and trace.root_outputs:
            score, weight = self._score_by_batch(main, trace.root_outputs[0], batch, weight)
        if score is None and main is not None and main.score == "r2" and trace.subtracted:
            output, target = trace.subtracted[0]
            score, weight = self._score(main, output, target, None), float(len(target)) if target.dim() else 1.0
        if score is not None and main is not None and main.score == "r2":
            spread = main.spread
            score = 1 - score.float() / max(spread * spread, 1e-30)
        if loss is None and score is None:
            return None
        nan = torch.full((), math.nan)
        parts = [loss if loss is not None else nan, score if score is not None else nan]
        return torch.stack(
            [
                p.detach().float().reshape(()).cpu() if p.device.type == "cpu" else p.detach().float().reshape(())
                for p in parts
            ]
            + [torch.full((), weight, device=parts[0].device)]
        )

    def _score_by_batch(
        self, main: LossState, output: Any, batch: list[Tensor], weight: float
    ) -> tuple[Tensor | None, float]:
        target = batch[-1] if batch else None
        if target is None or not isinstance(output, Tensor) or not output.dim() or not target.dim():
            return None, weight
        fits = main.kind == "class index" and not target.is_floating_point() and output.dim() == target.dim() + 1
        fits = fits and output.shape[1] == main.num_classes
        fits = fits or (main.kind != "class index" and output.shape == target.shape)
        if not fits or output.shape[0] != target.shape[0] or output.device != target.device:
            return None, weight
        return self._score(main, output, target, None), float(target.shape[0])

    # ------------------------------------------------------------------ facts

    def facts(self, batches: float) -> list[LossCall]:
        """All losses, the main one first, where so many calls of backward make a step."""
        ordered = sorted(self.states.values(), key=lambda s: s is not self.main)
        return [
            LossCall(
                s.name, s.site, s.layer, s.chain, s.loss_ops, s.output_shape, s.target_shape, s.kind, s.num_classes,
                s.reduced(batches), dict(s.output), dict(s.target), s.trains, s.calls, s.divided.divisor,
            )
            for s in ordered
        ]  # fmt: skip

    def task(self, batches: float) -> Task:
        """The task behind the main loss, and what chance gets at it, where so many calls of backward make a step."""
        main = self.main
        if main is None or main.kind == "none":
            return Task()
        kinds = {
            "class index": "classification", "one-hot": "classification", "binary": "binary", "multi-label": "multi-label",
            "real": "regression", "probability": "unknown",
        }  # fmt: skip
        kind = "tokens" if main.score == "perplexity" else kinds[main.kind]
        share = main.labels / main.labels.sum() if main.labels is not None and main.labels.sum() else np.zeros(0)
        mean = main.target.get("mean", math.nan)
        chance_loss, chance_score = scores.chance(
            main.kind,
            main.name,
            main.score,
            share=share.tolist(),
            mean=mean,
            std=main.spread,
            absolute=main.absolute,
            reduction=main.reduced(batches),
        )
        if (
            main.score == "perplexity" and main.labels is not None and len(share)
        ):  # of many words most samples miss the rare ones (Miller 1955)
            missed = (np.count_nonzero(share) - 1) / (2 * float(main.labels.sum()))
            chance_loss, chance_score = chance_loss + missed, chance_score * math.exp(missed)
        chance_loss *= main.scale(batches)
        if (
            main.settings.get("weighted") and main.score == "accuracy"
        ):  # the best constant of a weighted loss is another one
            chance_loss, chance_score = math.nan, 1.0 / max(2, main.num_classes)
        return Task(
            kind, main.num_classes, main.score, chance_loss, chance_score, mean if kind == "regression" else math.nan,
            main.spread if kind == "regression" else math.nan, tuple(float(s) for s in share),
        )  # fmt: skip


# ---------------------------------------------------------------------- reading the graph of calls


def _ancestors(start: Any) -> dict[Any, None]:
    found: dict[Any, None] = {}
    todo = [start] if start is not None else []
    while todo:
        call = todo.pop()
        if call not in found:
            found[call] = None
            todo.extend(call.inputs)
    return found


def _tail(start: Any) -> list[Any]:
    """The calls between the root and the last layers with parameters, those layers left out."""
    found: dict[Any, None] = {}
    todo = [start]
    while todo:
        call = todo.pop()
        if call in found or (call.layer is not None and call.layer.parameters):
            continue
        found[call] = None
        todo.extend(call.inputs)
    return list(found)


def _chain(call: Any) -> tuple[str, ...]:
    """Ops from the last layer with parameters to this call."""
    chain = []
    for _ in range(32):
        if call is None or call.layer is None:
            break
        chain.append(call.layer.op)
        if call.layer.parameters or not call.inputs:
            break
        call = call.inputs[0]
    return tuple(reversed(chain))


def _meets(call: Any) -> tuple[Any, Any, Tensor, Tensor, str] | None:
    """Where data meet activations in a loss: (call, source of the output, output, target, kind)."""
    if call.layer is None or call.output is None or not call.data or not call.inputs:
        return None
    op, output, source = call.layer.op, call.output, call.inputs[0]
    for target in reversed(call.data) if op == "gather" else call.data:  # logp[range(n), y]: the classes come last
        if not target.dim() or not output.dim():
            continue
        if op == "gather" and not target.is_floating_point() and output.dim() > 1:
            rows = target.reshape(-1)
            if rows.numel() == output.shape[0] and rows.dtype != torch.bool:
                return call, source, output, rows, "class index"
        if target.shape[0] != output.shape[0] and target.numel() != output.numel():
            continue
        if op == "add" and call.subtracts:
            kind = scores.kind_by_values(output.shape, target)
            return call, source, output, target, kind
        if op == "mul" and target.shape == output.shape and target.is_floating_point():
            kind = scores.kind_by_values(output.shape, target)
            if kind in ("one-hot", "binary", "multi-label", "probability"):
                output, source = _before_log(call, output, source)
                return call, source, output, target, kind
    return None


def _before_log(call: Any, output: Tensor, source: Any) -> tuple[Tensor, Any]:
    """`y * log(p)`: the output is p, not its logarithm."""
    if source.layer is not None and source.layer.op == "log" and source.inputs:
        return output.exp(), source.inputs[0]
    return output, source


# ---------------------------------------------------------------------- kinds and scores


def _kind(name: str, output: Tensor, target: Tensor) -> tuple[str, int]:
    """Kind of target and number of classes; looks at values once a loss site."""
    if name in _BY_CLASS:
        axis = 1 if output.dim() > 1 else 0
        if not target.is_floating_point():
            return "class index", int(output.shape[axis])
        return ("one-hot" if scores.kind_by_values(output.shape, target) == "one-hot" else "probability"), int(
            output.shape[axis]
        )
    if name.startswith("binary_cross_entropy"):
        kind = scores.kind_by_values(output.shape, target)
        return ("binary" if kind == "real" else kind), int(target.shape[1]) if kind in ("one-hot", "multi-label") else 2
    if name in ("multilabel_margin_loss", "multilabel_soft_margin_loss"):
        return "multi-label", int(output.shape[-1])
    if name in (
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "gaussian_nll_loss",
        "poisson_nll_loss",
        "soft_margin_loss",
    ):
        if target.shape == output.shape or target.numel() == output.numel():
            kind = scores.kind_by_values(output.shape, target)
            return kind, int(target.shape[1]) if kind == "one-hot" else 2 if kind == "binary" else 0
        return "real", 0
    if name == "kl_div":
        return "probability", int(output.shape[-1]) if output.dim() else 0
    return "none", 0


def _score_name(state: LossState, tokens: bool) -> str:
    if state.kind == "class index":
        return "perplexity" if tokens else "accuracy"
    names = {"one-hot": "accuracy", "binary": "accuracy", "multi-label": "bit_accuracy", "real": "r2"}
    return names.get(state.kind, "accuracy" if state.kind == "probability" and state.name == "cross_entropy" else "")


def _class_axis(tensor: Tensor) -> int:
    return 1 if tensor.dim() > 1 else 0


def _terms(seen: Any) -> Tensor | int:
    """How many numbers a loss function adds up; on the device where some don't count."""
    target = seen.target
    if target is not None and not target.is_floating_point() and seen.name in _BY_CLASS:
        return (target != int(seen.settings.get("ignore_index", -100))).sum()
    return seen.output.numel() // (seen.output.shape[_class_axis(seen.output)] if seen.name in _BY_CLASS else 1)


def _turns(found: list[Any], seen: Any) -> list[Any]:
    """The calls of a loss function that a loop makes, as at each time step: at one place, on outputs of one layer, each its own.

    Several losses of one and the same output are no loop, nor are those of several heads.
    """
    if seen.call is None or seen.call.layer is None:
        return [seen]
    turns: list[Any] = []
    for other in found:
        if (other.name, other.site) == (seen.name, seen.site) and _goes_with(other, seen):
            if any(other.call is known.call for known in turns):
                return [seen]
            turns.append(other)
    return turns


def _goes_with(other: Any, seen: Any) -> bool:
    if other.call is None or other.call.layer is not seen.call.layer or (other.target is None) != (seen.target is None):
        return False
    pairs = [(other.output, seen.output)] + ([(other.target, seen.target)] if seen.target is not None else [])
    return all(a.shape[1:] == b.shape[1:] and a.dim() == b.dim() and a.dtype == b.dtype for a, b in pairs)


def _joined(turns: list[Any]) -> tuple[Tensor, Tensor | None]:
    """Outputs and targets of all calls, as of one."""
    if len(turns) == 1:
        return turns[0].output, turns[0].target
    outputs = torch.cat([torch.atleast_1d(s.output) for s in turns])
    return outputs, None if turns[0].target is None else torch.cat([torch.atleast_1d(s.target) for s in turns])


def _average(values: list[Tensor]) -> Tensor:
    return values[0].float() if len(values) == 1 else torch.stack([v.float().reshape(()) for v in values]).mean()


def _mean(seen: Any) -> Tensor:
    """The value of a loss, of a sum its mean over the targets that count."""
    target = seen.target
    if seen.settings.get("reduction") != "sum" or target is None or not target.dim():
        return seen.value
    if target.is_floating_point():
        return seen.value / max(1, target.shape[0])
    return seen.value / (target != int(seen.settings.get("ignore_index", -100))).sum().clamp_(min=1)


def _keep_part(state: LossState, turns: int, columns: Columns, numbers: np.ndarray) -> None:
    """The loss as a part of what backward starts from: one call of it, and all of them."""
    part = float(numbers.reshape(-1)[0])
    state.parts.append(part)
    state.turns = max(state.turns, turns)
    columns.put("loss_part", state.site, part * turns)


def _threshold(state: LossState) -> float:
    """What a binary output must exceed to mean 1: 0 for logits and margins, a half for probabilities."""
    return 0.0 if state.name in _ON_LOGITS or state.target.get("min", 0.0) < 0 else 0.5


def _r2(squared: float, spread: float) -> float:
    return 1 - squared / (spread * spread) if spread > 0 else math.nan


def _count(values: Tensor, classes: int, truth: Tensor, ignored: int) -> Tensor:
    values, keep = values.long(), (truth != ignored).float()
    counts = torch.zeros(classes + 1, device=values.device)
    where = values.clamp(0, classes)
    where = torch.where((values < 0) | (values >= classes), torch.full_like(where, classes), where)
    return counts.scatter_add_(0, where, keep)[:classes]


def _thin(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    return flat if flat.numel() <= _LIMIT else flat[:: flat.numel() // _LIMIT + 1]


def _look(output: Tensor) -> Tensor:
    """Statistics of outputs, in the order of `_LOOK`."""
    x = output.float()
    if x.dim() > 1 and x.numel() > _LIMIT:
        x = x[: max(1, _LIMIT // max(1, x[0].numel()))]
    std, mean = torch.std_mean(x, correction=0)
    nan = torch.full((), math.nan, device=x.device)
    if x.dim() > 1 and x.shape[1] > 1:
        sums = x.sum(1)
        one = (((sums - 1).abs() < 1e-3) & (x.amin(1) >= 0)).float().mean()
        log_one = ((x.exp().sum(1) - 1).abs() < 1e-3).float().mean()
    else:
        one = log_one = nan
    rows = x.reshape(x.shape[0], -1) if x.dim() else x.reshape(1, 1)
    constant = ((rows - rows[:1]).abs().amax(1) <= 1e-6 * rows.abs().max()).float().mean() if rows.shape[0] > 1 else nan
    return torch.stack([x.min(), x.max(), mean, std, one, log_one, constant])


def _merge(into: dict[str, float], names: tuple[str, ...], numbers: np.ndarray, looks: int) -> None:
    """Adds one look to the running summary: extremes stay extreme, the rest are means over looks."""
    for name, value in zip(names, numbers.tolist(), strict=True):
        if math.isnan(value):
            continue
        old = into.get(name)
        if old is None:
            into[name] = value
        elif name == "min":
            into[name] = min(old, value)
        elif name == "max":
            into[name] = max(old, value)
        else:
            into[name] = old + (value - old) / max(1, looks)
