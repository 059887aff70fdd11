"""A stretch of plain steps: what every step pays for, in as few instructions as can be.

Between two samples most steps are alike: one line calls backward, the lead optimizer steps, nothing jumps. Such steps are only
noted here, and handed on together: rows to the record, times to the cadence. What isn't alike ends the stretch first, and is
then seen to in the usual way by the `Session`, which finds everything as if there had been no stretch.
"""

from __future__ import annotations

import math
import sys
import time
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor

MOST_STEPS = 16  # handed on together, ...
MOST_SECONDS = 0.1  # ... and as many as take so long: what a killed process loses
_MOST = sys.float_info.max
_clock = time.perf_counter
_unseen = torch._C.DisableTorchFunction


class Stretch:
    """The stretch that is on, if one is.

    Args:
        session: The session it works for.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self.on = False
        self._until = 0  # the step before which it ends
        self._line: tuple[CodeType, int] | None = None  # that calls the main backward
        self._losses: list[float] = []  # of this step
        self._rows: list[tuple[int, tuple[float, ...]]] = []
        self._lead: Any = None

    def begin(self) -> None:
        """Begins a stretch where there can be one: between samples, under a known lead, with losses on the CPU."""
        session = self.session
        if (
            session.sample is not None
            or session.optimizers.lead is None
            or session.writer is None
            or self._line is None
        ):
            return
        count = session.cadence.plain_ahead(session.step, MOST_STEPS, MOST_SECONDS)
        if count > 1:
            self._until = session.step + count
            self._lead = session.optimizers.lead
            self.on = True

    def saw(self, caller: FrameType, root: Tensor) -> None:
        """Learns, in the usual way, which line calls the main backward."""
        self._line = (caller.f_code, caller.f_lasti) if root.is_cpu and root.numel() == 1 else None

    def backward(self, root: Any, caller: FrameType) -> bool:
        """Notes a backward that is about to begin; False when it isn't one of the plain ones."""
        start = _clock()
        session, line = self.session, self._line
        if line is None or caller.f_lasti != line[1] or caller.f_code is not line[0]:
            return False
        try:
            if session.data.evaluating or session.optimizers.scales or not isinstance(root, Tensor):
                return False
            if not root.is_cpu or root.numel() != 1:
                return False
            with _unseen():
                value = root.item()  # it is on the CPU: nothing waits
            sentinel = session.alarms.losses
            if not -_MOST <= value <= sentinel.limit or not session.data.trains_on():
                return False
            sentinel.add(value)
            self._losses.append(value)
        except Exception as error:  # noqa: BLE001 - nothing of ours reaches the script
            session.failed("stretch", error)
            return False
        session._own += _clock() - start
        return True

    def stepped(self, optimizer: Any) -> bool:
        """Notes that an optimizer has stepped; False when that isn't the plain end of a plain step."""
        session, lead, losses = self.session, self._lead, self._losses
        if (
            not losses
            or session.optimizers.lead is not lead
            or session.cadence.burst_left
            or lead.ref() is not optimizer
        ):
            return False
        now = _clock()
        try:
            series = session.series
            loss = losses[0] if len(losses) == 1 else sum(losses) / len(losses)
            row = (loss, series.norm, lead.rate(), session.data.batch_size, series.score, now - session._step_started)
            self._rows.append((session.step, row))
            session.optimizers.stepped(lead, session._backwards)
        except Exception as error:  # noqa: BLE001 - nothing of ours reaches the script
            session.failed("stretch", error)
            return False
        losses.clear()
        series.norm = series.score = math.nan
        session._in_step = False
        session._backwards = 0
        session._step_started = now
        session.step += 1
        session._own += _clock() - now
        return True

    @property
    def over(self) -> bool:
        """Whether it has come to its end."""
        return self.session.step >= self._until

    def end(self) -> None:
        """Hands on what was noted; the step that is on goes on in the usual way."""
        session, rows = self.session, self._rows
        self.on = False
        if self._losses:
            session.series.take(self._losses)
            self._losses.clear()
        if rows:
            session.series.write_rows(session, rows)
            session.cadence.plain_ended([row[-1] for _, row in rows], session._own)
            session._own = 0.0
            rows.clear()
