"""The dense series: one row of the record for every step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from unstuck.watcher.recorder import Pending

ROW = (("loss", ""), ("grad_norm", ""), ("lr", ""), ("batch_size", ""), ("score", ""), ("step_seconds", ""))
_OTHERS_EVERY = 16  # steps between values of losses that aren't the main one


class DenseSeries:
    """Gathers a step's losses, norm and score, and writes its row when it ends.

    A loss on an accelerator is read later: its row has NaN there, and the value comes as a sample of its own.
    """

    def __init__(self, pending: Pending) -> None:
        self.pending = pending
        self.main_site = ""
        self.sites: dict[str, None] = {}
        self.last_loss = self.last_score = math.nan
        self.norm = self.score = math.nan
        self._losses: dict[str, list[float]] = {}
        self._late: dict[str, list[Tensor]] = {}

    def take(self, losses: list[float]) -> None:
        """Takes losses of this step's main backward that were noted elsewhere."""
        self._losses.setdefault(self.main_site, []).extend(losses)

    def write_rows(self, session: Any, rows: list[tuple[int, tuple[float, ...]]]) -> None:
        """Writes the rows of plain steps: their numbers are those of `ROW`."""
        for step, row in rows:
            session.writer.row(step, ROW, row)
        step, row = rows[-1]
        self.last_loss = row[0]
        self._write_others(session.writer, step, session.optimizers.other_rates())

    def lead_changed(self, site: str) -> None:
        """Another optimizer took the lead: its backward is the main one now."""
        self.main_site = site

    def add_loss(self, site: str, value: Tensor) -> float | None:
        """Adds a backward's loss; gives its value where that is known at once."""
        self.main_site = self.main_site or site
        self.sites.setdefault(site)
        number = value if value.numel() == 1 else value.float().mean()
        if number.device.type != "cpu":
            self._late.setdefault(site, []).append(number.reshape(()).clone())
            return None
        plain = float(number)
        self._losses.setdefault(site, []).append(plain)
        return plain

    def scored(self, score: float) -> None:
        """The score of this step's batch."""
        self.score = self.last_score = score

    def write(self, session: Any, seconds: float, *, sampled: bool) -> None:
        """Writes the step's row and begins the next."""
        main = self._losses.get(self.main_site)
        loss = math.nan if not main else main[0] if len(main) == 1 else sum(main) / len(main)
        if self._late:
            self._send_late(session)
        else:
            self.last_loss = loss
        optimizers, writer, step = session.optimizers, session.writer, session.step
        if writer is not None:
            writer.row(step, ROW, (loss, self.norm, optimizers.rate(), session.data.batch_size, self.score, seconds))
            if sampled or step % _OTHERS_EVERY == 0:
                self._write_others(writer, step, optimizers.other_rates())
        self._losses.clear()
        self.norm = self.score = math.nan

    def _write_others(self, writer: Any, step: int, rates: dict[str, float]) -> None:
        """Losses of other sites than the main one, and other rates than the first."""
        extra = {("loss", site): sum(v) / len(v) for site, v in self._losses.items() if site != self.main_site}
        extra.update({("lr", name): rate for name, rate in rates.items()})
        if extra:
            writer.sample(step, tuple(extra), list(extra.values()))

    def _send_late(self, session: Any) -> None:
        step = session.step
        for site, tensors in self._late.items():
            place = "" if site == self.main_site else site
            value = torch.stack([t.float() for t in tensors]).mean().reshape(1)
            self.pending.send(
                value, lambda numbers, place=place: self._arrived(session, step, place, float(numbers[0]))
            )
        self._late.clear()

    def _arrived(self, session: Any, step: int, place: str, value: float) -> None:
        if place == "":
            self.last_loss = value
            session.alarms.loss(value, None)
        if session.writer is not None:
            session.writer.sample(step, (("loss", place),), [value])
