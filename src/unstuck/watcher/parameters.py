"""What happens to parameters in a sampled step: gradient left over from before, gradient used, weight, update."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstuck.signals import updates
from unstuck.signals.moments import gradients
from unstuck.signals.numbers import measurable
from unstuck.signals.rate import hand_rate
from unstuck.watcher.optimizers import OptimizerBook, OptimizerState
from unstuck.watcher.recorder import Columns, Sample
from unstuck.watcher.registry import ParameterState, Registry

foreach_norm = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]
_FITS = 0.05  # residual below which an update by hand is a rate times the gradient
_ROWS, _COLUMNS = 128, 64  # of a weight that are looked at for equal rows
_NUMBERS = 32_768  # of a parameter that its start is described by


class ParameterBook:
    """Measures parameters and their gradients around an update.

    Args:
        registry: Knows the parameters.
        optimizers: Told whether gradients are cleared, and the rate of updates by hand.
        normed: Told the gradient's norm of the main update.
    """

    def __init__(self, registry: Registry, optimizers: OptimizerBook, normed: Callable[[float], None]) -> None:
        self.registry, self.optimizers, self.normed = registry, optimizers, normed
        self._stale: tuple[list[int], Tensor] | None = None
        self._given: dict[int, Tensor] = {}
        self._snapshots: dict[int, tuple[list[ParameterState], list[Tensor], Any, list[Any], Any]] = {}
        self._last_rms: dict[int, float] = {}
        self._described: set[int] = set()

    # --- what is known

    def used(self, indices: set[int]) -> None:
        """Notes parameters that took part in a forward pass."""
        for index in indices:
            self.registry.parameters[index].used = True

    def adopt(self, state: OptimizerState) -> None:
        """Notes which parameters an optimizer holds."""
        for tensor in state.tensors():
            known = self.registry.parameters[self.registry.parameter(tensor)]
            known.optimizers.setdefault(state.index)

    def leaves(self) -> list[Tensor]:
        """Parameters that took part in training, as far as they were seen; else all that have a gradient."""
        found = [t for s, t in self.registry.live_parameters() if s.used]
        return found or [t for _, t in self.registry.live_parameters() if t.grad is not None]

    def given(self, inputs: list[Tensor], gradients: list[Tensor | None]) -> None:
        """Takes gradients that a script asked for, and that no parameter holds; nothing, to let go of them."""
        self._given = {id(t): g for t, g in zip(inputs, gradients, strict=True) if g is not None}

    def _gradient(self, tensor: Tensor) -> Tensor | None:
        return tensor.grad if tensor.grad is not None else self._given.get(id(tensor))

    def _of(self, state: OptimizerState | None) -> list[tuple[ParameterState, Tensor]]:
        tensors = self.leaves() if state is None else state.tensors()
        return [(self.registry.parameters[self.registry.parameter(t)], t) for t in tensors]

    # --- around the step

    def before_first_backward(self, sample: Sample, *, first: bool) -> None:
        """Looks at the gradients that are still there when the step's first backward begins."""
        if not first:
            return
        found = [(s.index, g) for s, g in _pairs([(s, t.grad) for s, t in self.registry.live_parameters()])]
        self._stale = None
        self.optimizers.looked = self.optimizers.looked or sample.step > 0
        if found:
            self._stale = (
                [i for i, _ in found],
                torch.stack([n.float() for n in foreach_norm([g for _, g in found])]).detach(),
            )
        elif sample.step > 0:
            self.optimizers.cleared = True

    def gradients(self, sample: Sample, state: OptimizerState | None) -> None:
        """Measures the gradients an update uses."""
        pairs = _pairs([(s, self._gradient(t)) for s, t in self._of(state)])
        if not pairs:
            return
        for known, _ in pairs:
            known.got_grad = True
        stale_at, stale = self._stale if self._stale is not None else ([], None)
        matrix = gradients([g for _, g in pairs])
        values = matrix.reshape(-1) if stale is None else torch.cat([matrix.reshape(-1), stale.to(matrix.device)])
        states = [s for s, _ in pairs]
        sizes = np.array([g.numel() for _, g in pairs], dtype=np.float64)

        def means(columns: Columns, numbers: np.ndarray) -> None:
            rows = numbers[: 4 * len(states)].reshape(-1, 4)
            left = dict(zip(stale_at, numbers[4 * len(states) :].tolist(), strict=True))
            for known, row, size in zip(states, rows.tolist(), sizes.tolist(), strict=True):
                rms, largest, zero, bad = row
                columns.put("grad_rms", known.name, rms)
                columns.put("grad_max", known.name, largest)
                columns.put("grad_zero", known.name, zero)
                columns.put("grad_nonfinite", known.name, bad)
                norm = rms * math.sqrt(size)
                before = left.get(known.index, 0.0)
                columns.put("stale_rms", known.name, before / norm if norm > 0 else float(before > 0))
                self._last_rms[known.index] = rms
            if stale_at and not any(left.values()) and sample.step > 0:
                self.optimizers.cleared = True
            norm = float(np.sqrt(np.nansum(rows[:, 0].astype(np.float64) ** 2 * sizes)))
            if state is None or state is self.optimizers.lead or self.optimizers.lead is None:
                self.normed(math.nan if rows[:, 3].any() else norm)

        sample.put(("gradients", None if state is None else state.index), values, means)

    def before_update(self, sample: Sample, state: OptimizerState | None) -> None:
        """Measures the weights before an update and keeps what tells the update later."""
        whole = self._of(state)
        pairs = _pairs([*whole])
        if not pairs:
            return
        states, tensors = [s for s, _ in pairs], [t for _, t in pairs]
        for known, tensor in pairs:
            if known.index not in self._described:
                self._described.add(known.index)
                self._describe(sample, known, tensor)
        key = -1 if state is None else state.index
        grads = [g for _, g in _pairs([(s, self._gradient(t)) for s, t in whole])] if state is None else []
        grads = grads if len(grads) == len(pairs) else []
        self._snapshots[key] = (
            states,
            tensors,
            updates.snapshot(tensors),
            grads,
            updates.snapshot(grads) if grads else None,
        )

        def means(columns: Columns, numbers: np.ndarray) -> None:
            for known, (rms, largest, _, bad) in zip(states, numbers.tolist(), strict=True):
                columns.put("weight_rms", known.name, rms)
                columns.put("weight_max", known.name, largest)
                columns.put("weight_nonfinite", known.name, bad)

        sample.put(("weights", key), gradients(tensors), means)

    def after_update(self, sample: Sample, state: OptimizerState | None) -> None:
        """Measures the update."""
        key = -1 if state is None else state.index
        kept = self._snapshots.pop(key, None)
        if kept is None:
            return
        states, tensors, before, grads, grads_before = kept
        if state is None:  # parameters that are made anew by each update
            tensors = [
                t.detach() if (t := s.ref()) is not None else old for s, old in zip(states, tensors, strict=True)
            ]

        def means(columns: Columns, numbers: np.ndarray) -> None:
            for known, ratio in zip(states, numbers.tolist(), strict=True):
                columns.put("update_ratio", known.name, ratio)
                known.changed = bool(known.changed) or ratio != 0

        sample.put(("updates", key), updates.ratios(before, tensors), means)
        if grads_before is None:
            return
        after = updates.snapshot(
            tensors
        )  # by the gradients as backward left them, and as clipping may have changed them since
        rates = torch.stack([hand_rate(before, after, grads_before), hand_rate(before, after, updates.snapshot(grads))])
        sample.put(("rate", key), rates, lambda _, numbers: self._note_rate(numbers))

    def _note_rate(self, rates: np.ndarray) -> None:
        """Takes the rate that explains an update by hand best: rows of rate and residual."""
        good = [(residual, rate) for rate, residual in rates.tolist() if residual < _FITS and math.isfinite(rate)]
        if good:
            self.optimizers.hand_rate = min(good)[1]

    def forget_hand(self) -> None:
        """Lets go of what was kept in case of an update by hand."""
        self._snapshots.pop(-1, None)

    def _describe(self, sample: Sample, known: ParameterState, tensor: Tensor) -> None:
        tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        ops = {layer.op for layer in self.registry.ordered if known.index in layer.parameters}
        turned = tensor.mT if "matmul" in ops and tensor.dim() > 1 else tensor  # units by rows, as nn.Linear has them
        rows = turned.reshape(turned.shape[0], -1) if tensor.dim() > 1 and "embedding" not in ops else None
        few = tensor.reshape(-1)
        few = few[:: max(1, few.numel() // _NUMBERS)].float()
        std, mean = torch.std_mean(few, correction=0)
        most = torch.linalg.vector_norm(tensor if tensor.is_floating_point() else tensor.float(), math.inf).float()
        equal = torch.zeros((), device=tensor.device)
        if rows is not None and rows.shape[0] > 1:
            equal = _equal_rows(rows[:_ROWS, :: max(1, rows.shape[1] // _COLUMNS)][:, :_COLUMNS])
        values = torch.stack([mean, std, most, 1 - torch.count_nonzero(few) / few.numel(), equal])
        fan_in = rows.shape[1] if rows is not None else 0

        def means(columns: Columns, numbers: np.ndarray) -> None:
            names = ("mean", "std", "max", "zero_share", "identical_rows")
            known.initial = {**dict(zip(names, map(float, numbers), strict=True)), "fan_in": float(fan_in)}

        sample.put(("initial", known.index), values, means)

    # --- on plain steps

    def global_norm(self, state: OptimizerState) -> Tensor | None:
        """L2 norm over all gradients of an optimizer."""
        grads = [g for p in state.tensors() if (g := p.grad) is not None]
        if not all(type(g) is Tensor and g.layout is torch.strided for g in grads):
            grads = [plain for g in grads if (plain := _plain(g)) is not None]
        if not grads or len({g.device for g in grads}) > 1:
            return None
        return torch.linalg.vector_norm(torch.stack(foreach_norm(grads)))

    def worst_gradient(self) -> str | None:
        """The layer nearest the loss whose parameters have a gradient that isn't finite."""
        for layer in reversed(self.registry.ordered):
            for index in layer.parameters:
                tensor = self.registry.parameters[index].ref()
                grad = _plain(tensor.grad) if tensor is not None else None
                if grad is not None and not bool(torch.isfinite(grad).all()):
                    return layer.name
        return None

    def rms_before(self, place: str) -> float | None:
        """The last known rms of the gradient of a layer's first parameter."""
        for layer in self.registry.ordered:
            if layer.name == place:
                known = [self._last_rms[i] for i in layer.parameters if i in self._last_rms]
                return known[0] if known and math.isfinite(known[0]) else None
        return None


def _plain(tensor: Tensor | None) -> Tensor | None:
    """The numbers a parameter or gradient has in this process: of a DTensor its shard; None when they can't be measured."""
    if tensor is None:
        return None
    local = getattr(tensor, "_local_tensor", tensor)
    return local.detach() if measurable(local) else None


def _pairs(found: list[tuple[ParameterState, Tensor | None]]) -> list[tuple[ParameterState, Tensor]]:
    return [(state, plain) for state, tensor in found if (plain := _plain(tensor)) is not None]


def _equal_rows(rows: Tensor) -> Tensor:
    """The share of rows that equal another one, told by one irregular sum of each."""
    weights = torch.linspace(1.0, 3.0, rows.shape[1], dtype=torch.float32, device=rows.device).sin_()
    sums = (rows.float() * weights).sum(1).sort().values
    next_to = sums.diff().abs() <= 1e-7 * sums.abs().max()
    edge = next_to.new_zeros(1)
    return (torch.cat([edge, next_to]) | torch.cat([next_to, edge])).float().mean()
