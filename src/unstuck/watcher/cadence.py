"""When to look: keeps the watcher inside its budget by the costs it measures.

A sampled step costs several times what watching a plain one does, so the controller decides, when a step ends, whether the
next is sampled. Two reasons to: what was spent so far plus what a sample is expected to cost stays below three quarters of
`budget` times the time that the training has taken, and a few steps passed since the last; or the step is on a fixed ladder,
dense at the start and twice as far each time (0, 1, 2, 4, 8, 16, ...), so that short runs are seen through to their end and
long ones pay next to nothing for it.
What a sample costs is taken from the clock: the time of sampled steps over that of their plain neighbours, or the time spent in
our own code, whichever is more.

Between samples a **sentinel** looks at every loss, and at the gradient's norm as often as a tenth of the budget allows. When
one jumps or is not finite, the next few steps are sampled beyond the budget (a burst), a few times a run.
"""

from __future__ import annotations

import math
from collections import deque

FIRST = 3  # steps sampled regardless, ...
LADDER = 2.0  # ... and then each step this many times as late as the last
NORM_SHARE = 0.1  # of the budget that looking at the gradient's norm on plain steps may take
EVAL_SHARE = 0.01  # of the training's time that looking at evaluation may take, ...
EVAL_ALLOWANCE = 0.03  # ... and seconds beyond it
SEEN = 0.75  # of what a sample costs shows in the clock; the rest, such as cold caches, is left room for
REST = 3  # plain steps between samples at least, so that what is compiled or captured settles
BURST = 3  # steps of a burst
MOST_BURSTS = 6
FREE_BURSTS = 2  # whatever the budget says; later ones within twice of it
JUMP = 8.0  # times the recent spread above the recent median, ...
TIMES = 3.0  # ... and times the recent median


class Cadence:
    """Decides which steps are sampled.

    Args:
        budget: Share of the training's time the watcher may take, from 0 to 1.
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.spent = 0.0  # seconds the watcher cost so far
        self.elapsed = 0.0  # seconds of training
        self.eval_spent = 0.0  # seconds of it for evaluation
        self.all_evaluations = False  # every evaluated batch is looked at, whatever it costs: in trials
        self.sample_cost = 0.0  # seconds a sampled step costs more, smoothed
        self.samples = 0
        self.plain = deque[float](maxlen=32)  # seconds of recent plain steps
        self.burst_left = 0
        self.bursts = 0
        self._first_steps: list[tuple[float, float]] = []
        self._rung = 0  # the next step of the ladder
        self._rest = 0  # plain steps since the last sample

    def ended(self, seconds: float, own: float, *, sampled: bool) -> None:
        """Takes note of a step that ended.

        Args:
            seconds: Wall time of the step.
            own: Seconds of it spent in our own code.
            sampled: Whether it was sampled.
        """
        self._rest = 0 if sampled else self._rest + 1
        if self.samples or not sampled:  # the first step of all holds imports and preparations
            self.elapsed += max(0.0, seconds - own)
        if not sampled:
            self.plain.append(seconds)
            self.spent += own
            if self._first_steps:
                self._settle_first()
            return
        if self.samples == 0:
            self.samples = 1  # the first step of all pays for torch's own warming up; its own time is all we can tell
            self.spent += own
            return
        self.samples += 1
        if not self.plain:
            self._first_steps.append((seconds, own))
            self.spent += own
            self.sample_cost = own
            return
        cost = max(own, min(seconds - self._typical(), 4 * own))
        self.sample_cost = cost if not self.sample_cost else 0.7 * self.sample_cost + 0.3 * cost
        self.spent += cost

    def plain_ended(self, seconds: list[float], own: float) -> None:
        """Takes note of plain steps that ended, one after another.

        Args:
            seconds: Wall time of each.
            own: Seconds of all of them spent in our own code.
        """
        self.plain.extend(seconds)
        self._rest += len(seconds)
        self.elapsed += max(0.0, sum(seconds) - own)
        self.spent += own
        if self._first_steps:
            self._settle_first()

    def plain_ahead(self, step: int, most: int, most_seconds: float) -> int:
        """How many steps from `step` on need not be asked for with `wants`: they are plain if nothing jumps.

        Args:
            step: The coming step, which is not sampled.
            most: Most steps.
            most_seconds: Most seconds they may take.
        """
        if self.burst_left > 0 or step < FIRST or not self.plain:
            return 0
        typical = max(self._typical(), 1e-9)
        missing = self.spent + self.sample_cost - SEEN * self.budget * self.elapsed
        until_due = max(REST - self._rest, missing / (SEEN * self.budget * typical) if self.budget > 0 else most)
        return int(min(most, most_seconds / typical, self._rung - step, max(1.0, until_due)))

    def _settle_first(self) -> None:
        typical = self._typical()
        for seconds, own in self._first_steps:
            cost = max(own, min(seconds - typical, 4 * own))
            self.spent += cost - own
            self.sample_cost = max(self.sample_cost, cost)
        self._first_steps.clear()

    def _typical(self) -> float:
        return sorted(self.plain)[len(self.plain) // 2]

    def wants(self, step: int) -> bool:
        """Whether the coming step is to be sampled."""
        due = step >= self._rung
        if due:
            self._rung = max(step + 1, math.ceil(step * LADDER))
        if due or step < FIRST:
            return True
        if self.burst_left > 0:
            self.burst_left -= 1
            return True
        return self._rest >= REST and self.spent + self.sample_cost <= SEEN * self.budget * self.elapsed

    def wants_eval(self) -> bool:
        """Whether a batch of an evaluation pass is to be looked at."""
        return self.all_evaluations or self.eval_spent <= EVAL_SHARE * self.elapsed + EVAL_ALLOWANCE

    def burst(self) -> bool:
        """Begins a burst; False when one is on or the run has had its share."""
        if self.burst_left > 0 or self.bursts >= MOST_BURSTS:
            return False
        if self.bursts >= FREE_BURSTS and self.spent + BURST * self.sample_cost > 2 * self.budget * self.elapsed:
            return False
        self.bursts += 1
        self.burst_left = BURST
        return True

    def norm_stride(self, cost: float) -> int:
        """Every how many steps the gradient's norm can be looked at, when a look costs `cost` seconds."""
        if not self.plain:
            return 1
        share = cost / max(self._typical(), 1e-9)
        return max(1, math.ceil(share / (NORM_SHARE * self.budget))) if self.budget > 0 else 1 << 30

    @property
    def overhead(self) -> float:
        """Share of the training's time the watcher took so far."""
        return self.spent / self.elapsed if self.elapsed > 0 else 0.0


class Sentinel:
    """Tells a jump in a number that comes every step.

    A jump is a value that isn't finite, or lies further above the median of the last values than `JUMP` times their spread, and
    is more than `TIMES` the median. The first values never count as normal: they only fill the window.
    """

    def __init__(self, *, window: int = 32, skip: int = 1) -> None:
        self.recent = deque[float](maxlen=window)
        self.skip = skip
        self.limit = math.inf  # what lies above it jumps
        self._age = 0

    def jumps(self, value: float) -> bool:
        """Takes the next value and says whether it jumps."""
        if not math.isfinite(value):
            return True
        jump = value > self.limit
        self.add(value)
        return jump

    def add(self, value: float) -> None:
        """Takes the next value, which doesn't jump."""
        if self.skip > 0:
            self.skip -= 1
            return
        self.recent.append(value)
        self._age += 1
        if self._age % 8 == 0:
            ordered = sorted(self.recent)
            median = ordered[len(ordered) // 2]
            tail = len(ordered) // 10  # on each side, which does not count
            spread = max(ordered[-1 - tail] - median, median - ordered[tail])
            self.limit = median + max(JUMP * spread, (TIMES - 1) * abs(median))
