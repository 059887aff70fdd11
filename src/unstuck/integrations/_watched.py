"""What callbacks share: one watch from a training's start to its end, and what is told when it has ended.

A trainer calls `begin` once its model and optimizers are there, `stops` after each step, and `end` when the training is over, in
whatever way. Where several processes train, each has a record of its own, and the first tells.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from unstuck.errors import MisuseError, SickError
from unstuck.report import output
from unstuck.verdict import SEVERITIES, Severity, flatten

if TYPE_CHECKING:
    from unstuck.verdict import Verdict
    from unstuck.watching import Watch

_BROKEN_OFF = KeyboardInterrupt("the trainer never said that the training had ended")
_current: Watched | None = None  # whose watch is open in this process


class Options(TypedDict, total=False):
    """The options all callbacks take: see `Watched`."""

    html: str | Path | None
    json: str | Path | None
    report: bool
    fail_on: Severity | None
    stop_on: Literal["error"] | None
    budget: float
    probe_budget: float
    runs: str | Path | None
    log_to: Any


class Watched:
    """The watch of a callback, from one training to the next.

    Args:
        html: File for the page, written when the training has ended.
        json: File for the verdict.
        report: Print the report.
        fail_on: Raise `SickError` when the training has ended and something this severe was found: `note`, `warning`, `error`.
        stop_on: `error` asks the trainer to stop once loss or weights are NaN or infinite for good; None never does.
        budget: Share of the training's time the watcher may take, from 0 to 1.
        probe_budget: Share of the training's time that experiments on copies may take when it has ended, from 0 (none) to 1: at
            least 2 seconds, at most 60.
        runs: Folder for the record; a temporary one by default.
        log_to: A tracker, or several in a list, for what is recorded: see `Watch.log_to`.

    Raises:
        MisuseError: A severity is none, or a file can't be written where it is to go.
    """

    def __init__(
        self,
        *,
        html: str | Path | None = None,
        json: str | Path | None = None,
        report: bool = True,
        fail_on: Severity | None = None,
        stop_on: Literal["error"] | None = None,
        budget: float = 0.02,
        probe_budget: float = 0.15,
        runs: str | Path | None = None,
        log_to: Any = None,
    ) -> None:
        if fail_on is not None and fail_on not in SEVERITIES:
            raise MisuseError(f"fail_on is {fail_on!r}, but must be one of {', '.join(SEVERITIES)}")
        if stop_on not in (None, "error"):
            raise MisuseError(f"stop_on is {stop_on!r}, but must be 'error' or None")
        for path in (html, json):
            if path is not None:
                output.check(path)
        self.run: Watch | None = None
        self._files, self._prints, self._stop_on = (html, json), report, stop_on
        self._fail_on: Severity | None = fail_on
        self._budgets, self._runs = (budget, probe_budget), runs
        self._trackers = list(log_to) if isinstance(log_to, (list, tuple)) else [] if log_to is None else [log_to]
        self._open = self._untold = self._failed = self._broken = False
        self._cells: Any = None
        self._rank = 0
        self._steps, self._look_at = 0, 1

    @property
    def open(self) -> bool:
        """Whether a training is being watched."""
        return self._open

    @property
    def may_stop(self) -> bool:
        """Whether the trainer may be asked to stop."""
        return self._stop_on is not None and self._open

    @property
    def untold(self) -> bool:
        """Whether a training has ended of which this process is yet to tell."""
        return self._untold and not self._rank

    @property
    def verdict(self) -> Verdict | None:
        """The verdict over the training, so far or when it has ended; None before the first."""
        return None if self.run is None else self.run.verdict

    def begin(self, *watched: Any, rank: int = 0, in_cell: bool = False, name: str = "") -> None:
        """Watches from here on; a training that never came to its end before, of any callback, is closed and not told of.

        Args:
            *watched: As for `unstuck.watch`: schedules that are there; models and optimizers are found, and named, as they are used.
            rank: Which of the processes this is that train together; only the first, 0, tells and makes experiments.
            in_cell: The trainer doesn't tell callbacks of exceptions, and the training is over when the notebook's cell is.
            name: What the report calls the training; by default the script.

        Raises:
            MisuseError: A budget is no share.
            RecordError: The record can't be made.
        """  # noqa: DOC502
        from unstuck.watching import watch

        global _current
        if _current is not None:
            _current.close(_BROKEN_OFF)
        budget, probing = self._budgets
        name = name or Path(sys.argv[0]).name or "the training"
        self.run = watch(*watched, budget=budget, probe_budget=0.0 if rank else probing, runs=self._runs, name=name)
        for tracker in [] if rank else self._trackers:
            self.run.log_to(tracker)
        self._rank, self._steps, self._look_at, self._untold, self._broken = rank, 0, 1, False, False
        self.run.__enter__()
        self._open, _current = True, self
        atexit.register(self._at_exit)
        self._cells = _cells() if in_cell else None
        if self._cells is not None:
            self._cells.register("post_run_cell", self._cell_over)

    def stops(self) -> bool:
        """Whether the training is to be stopped now, as `stop_on` asks; to be called after each step, for next to nothing."""
        if self._broken or not self.may_stop or self.run is None or not self.run.alarmed:
            return self._broken and self.may_stop
        self._steps += 1  # since the alarm; a judgement costs, and a gradient scaler recovers
        if self._steps < self._look_at:
            return False
        self._look_at *= 2
        self._broken = _is_broken(self.run.verdict)
        return self._broken

    def close(self, error: BaseException | None = None) -> None:
        """Ends the watch, makes the experiments, and tells nothing yet; does nothing when none is open.

        Args:
            error: What the training ended by; None when it came to its end.
        """
        global _current
        if not self._open or self.run is None:
            return
        _current = None
        if self._cells is not None:
            self._cells.unregister("post_run_cell", self._cell_over)
        self._open, self._untold, self._failed = False, True, error is not None
        atexit.unregister(self._at_exit)
        self.run.__exit__(None if error is None else type(error), error, None)

    def tell(self) -> Verdict | None:
        """Tells what was found in the training that was closed; does nothing when that was told.

        Returns:
            The verdict; None in a process that doesn't tell, or when there is nothing to tell.

        Raises:
            SickError: Something was found that `fail_on` asks to fail on, and the training had no error of its own.
        """
        if not self.untold or self.run is None:
            return None
        self._untold = False
        verdict = self._show(self.run)
        if verdict and self._fail_on and not self._failed and verdict.reaches(self._fail_on):
            raise SickError(_words(verdict, self._fail_on))
        return verdict

    def end(self, error: BaseException | None = None) -> Verdict | None:
        """Ends the watch and tells what was found: `close`, then `tell`.

        Args:
            error: What the training ended by; None when it came to its end.

        Returns:
            As `tell`.

        Raises:
            SickError: As `tell`.
        """  # noqa: DOC502
        self.close(error)
        return self.tell()

    def _show(self, run: Watch) -> Verdict | None:
        try:
            with _beside_bars():
                self._write(run)
            return run.verdict
        except Exception as error:  # noqa: BLE001 - what was trained for hours must not be lost by it
            warnings.warn(f"unstuck could not report on {run.path}: {error!r}", RuntimeWarning, stacklevel=4)
            return None

    def _write(self, run: Watch) -> None:
        html, json = self._files
        if self._prints:
            run.report(html=html, json=json)
            return
        if html is not None:
            from unstuck.report.html import write as write_page

            write_page(run.verdict, run.record, html)
        if json is not None:
            from unstuck.report.json import write as write_verdict

            write_verdict(run.verdict, json)

    def _cell_over(self, result: Any) -> None:
        """A notebook's cell has ended, and the trainer never told that the training had."""
        self.end(getattr(result, "error_in_exec", None) or _BROKEN_OFF)

    def _at_exit(self) -> None:
        """The program ends, and the trainer never told that the training had: it was broken off by an error."""
        self.end(getattr(sys, "last_value", None) or _BROKEN_OFF)


def _is_broken(verdict: Verdict) -> bool:
    """Whether numbers are no longer finite for good: as an error, or as what one leads to."""
    errors = [f for f in verdict.findings if f.severity == "error"]
    return any(f.cause == "non-finite" for f in flatten(errors))


def agreed(stop: bool, device: Any) -> bool:
    """Whether any of the processes that train together is to stop; all of them must ask at the same step.

    Args:
        stop: Whether this one is.
        device: Where processes exchange tensors.
    """
    import torch

    if not torch.distributed.is_initialized():
        return stop
    wishes = torch.tensor(int(stop), device=device)
    torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX)
    return bool(wishes)


def _cells() -> Any:
    """The events of the notebook this runs in, None outside of one."""
    from_notebook = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = from_notebook() if from_notebook is not None else None
    return shell.events if shell is not None else None


def _beside_bars() -> contextlib.AbstractContextManager[Any]:
    """Takes progress bars off the terminal while something is printed."""
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return bars.external_write_mode(file=sys.stdout) if bars is not None else contextlib.nullcontext()


def _words(verdict: Verdict, limit: Severity) -> str:
    severe = SEVERITIES[: SEVERITIES.index(limit) + 1]
    found = [f for f in flatten(verdict.findings) if f.severity in severe]
    return "the training is sick: " + "; ".join(f"{f.cause} ({f.severity}): {f.says}" for f in found)
