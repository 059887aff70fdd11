"""Keeps how a network stood at a few steps of a run, so that its curvature there can be measured when the script has ended."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from unstuck.probes.bench import Snapshot, tensors_of

MOST = 8
MOST_BYTES = 512 << 20  # of all snapshots
_NEEDED = frozenset({"step", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg", "exp_inf", "sum"})
"""What optimizers keep that the length of their steps depends on; their momentum does not count for curvature."""


class Snapshots:
    """Copies of the tensors of a network, and of what its optimizer divides steps by, at steps that lie ever further apart.

    There are never more than `most`: when one more would come, every second one goes, and the stride doubles. Copies stay on
    the device, so nothing waits for it.

    Args:
        most: Snapshots.
        most_bytes: Of all of them together.

    Attributes:
        kept: The snapshots, by step.
        note: Why there are fewer, or none; "" where nothing is missing.
    """

    def __init__(self, *, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self.most, self.most_bytes = most, most_bytes
        self.kept: list[Snapshot] = []
        self.note = ""
        self._stride = 1
        self._next = 1
        self._shapes: list[torch.Size] = []

    def look(self, session: Any) -> None:
        """Takes one, where it is time for it.

        Args:
            session: That has made `session.step` updates.
        """
        if session.step < self._next or not self.most:
            return
        capture = session.capture
        if not capture.wanted:
            self.kept.clear()
            return
        if not capture.tapes or (session.optimizers.lead is None and capture.step != session.step - 1):
            return  # tensors of updates by hand may be made anew; those of the last loss may be old ones
        tape = capture.tapes[-1]
        tensors = tensors_of(tape.modules, tape.trained)
        lead = session.optimizers.lead
        optimizer = lead.ref() if lead is not None else None
        if self._limited(tensors, optimizer):
            return
        shapes = [t.shape for t in tensors]
        if shapes != self._shapes:  # another network
            self._shapes = shapes
            self.kept.clear()
        if len(self.kept) >= self.most:
            self._stride *= 2
            self.kept = self.kept[1::2]
        with torch.no_grad():
            self.kept.append(_snapshot(session.step, tensors, optimizer))
        self._next = self._stride * (session.step // self._stride + 1)

    def _limited(self, tensors: list[Tensor], optimizer: Any) -> bool:
        """Makes do with fewer where they are large; true where not even one fits."""
        size = sum(_bytes(t) for t in tensors)
        if optimizer is not None:
            size += sum(
                _bytes(v)
                for s in optimizer.state.values()
                for n, v in s.items()
                if n in _NEEDED and isinstance(v, Tensor)
            )
        fit = self.most_bytes // max(1, size)
        if fit < self.most:
            much = f"a snapshot takes {size / 2**20:.0f} MiB, and all may take {self.most_bytes / 2**20:.0f}"
            self.note = f"{much}: " + (
                f"there are {fit} along the run" if fit else "there is none between start and end"
            )
            self.most = fit
            self._next = math.inf if not fit else self._next
            del self.kept[fit:]
        return not self.most


def _snapshot(step: int, tensors: list[Tensor], optimizer: Any) -> Snapshot:
    groups = optimizer.param_groups if optimizer is not None else []
    rates = [float(g["lr"]) if not _on_device(g.get("lr")) else math.nan for g in groups if "lr" in g]
    held = [p for group in groups for p in group["params"]]
    kept = optimizer.state if optimizer is not None else {}
    state = [
        {n: v.detach().clone() if isinstance(v, Tensor) else v for n, v in kept.get(p, {}).items() if n in _NEEDED}
        for p in held
    ]
    known = len(rates) == len(groups) and all(math.isfinite(r) for r in rates)
    return Snapshot(step, [t.detach().clone() for t in tensors], state if any(state) else (), rates if known else ())


def _on_device(rate: Any) -> bool:
    return isinstance(rate, Tensor) and rate.device.type != "cpu"


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
