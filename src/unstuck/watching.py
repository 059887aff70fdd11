"""Watching a training in your own process, without the command line.

import unstuck

with unstuck.watch(model, optimizer) as run:
    for x, y in loader:
        ...
run.report()
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from unstuck.errors import MisuseError

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.integrations._display import Display
    from unstuck.integrations._sending import Sending
    from unstuck.verdict import Verdict

_NAME = "unstuck.watch"


class Watch:
    """A training that is watched while the context is open; its record, verdict and report afterwards.

    Made by `watch`. In a notebook the object shows its report.
    """

    def __init__(
        self,
        models: tuple[Any, ...],
        optimizers: tuple[Any, ...],
        budget: float,
        probe_budget: float,
        path: Path,
        name: str = _NAME,
        schedules: tuple[Any, ...] = (),
        display: bool = False,
    ) -> None:
        from unstuck.watcher.session import Session

        self.path = path
        self._models, self._optimizers, self._schedules = models, optimizers, schedules
        self._session = Session(path, budget=budget, probe_budget=probe_budget, late=True, meta={"script": name})
        self._verdict: Verdict | None = None
        self._open = False
        self._sendings: list[Sending] = []
        self._display: Display | None = None
        if display:
            from unstuck.integrations._display import Display, in_notebook

            self._display = Display(path) if in_notebook() else None

    def __enter__(self) -> Self:
        for model in self._models:
            self._session.registry.add_model(model)
        for optimizer in self._optimizers:
            self._session.optimizers.state(optimizer)
        for schedule in self._schedules:
            self._session.optimizers.know_schedule(schedule)
        self._session.attach()
        self._open = True
        for sending in self._sendings:
            sending.start()
        if self._display is not None:
            self._display.start()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None:
            self._session.ended_by(kind, error)
        self._session.close()
        self._open = False
        if self._display is not None:
            self._display.stop(lambda: self.verdict)
        sendings, self._sendings = self._sendings, []
        for sending in sendings:
            sending.finish(self._judged)

    def _judged(self) -> tuple[Verdict, Record]:
        return self.verdict, self.record

    def log_to(self, tracker: Any, where: Any = None) -> Self:
        """Sends what is recorded to an experiment tracker: while it grows, and the verdict at the end.

        It is read from the record by a thread of its own, at least two seconds apart and for at most two percent of the time. A
        tracker that raises is told of once, and sent nothing more; the training goes on. It may be called before the context is
        opened, in it, and after it, also several times for several trackers.

        Args:
            tracker: TensorBoard's `SummaryWriter`; a run of W&B, MLflow or Aim; an `MlflowClient`; the module `wandb` or `mlflow`,
                for its active run; an `integrations.trackers.Tracker`; or a name: "tensorboard", "wandb", "mlflow", "aim", or that
                of an entry point, with what belongs to it as `where` or behind a colon ("tensorboard:logs").
            where: Of "tensorboard" the folder, of "aim" the repository, of an `MlflowClient` the run's id.

        Returns:
            This object.

        Raises:
            MisuseError: It is no tracker.
            NotFoundError: There is no tracker of that name.
            MissingError: Its package is not installed.
        """  # noqa: DOC502
        from unstuck.integrations._sending import Sending
        from unstuck.integrations.trackers import tracker as known

        sending = Sending(self.path, known(tracker, where))
        if self._session.closed:
            sending.finish(self._judged)
            return self
        self._sendings.append(sending)
        if self._open:
            sending.start()
        return self

    @property
    def record(self) -> Record:
        """What was recorded so far.

        Returns:
            The record; while the context is open, up to the last flush.
        """
        from unstuck.evidence import Record

        self._session.flush()
        return Record.read(self.path)

    @property
    def alarmed(self) -> bool:
        """Whether a loss or a gradient that isn't finite was met so far; asking costs nothing."""
        return self._session.alarms.found

    @property
    def verdict(self) -> Verdict:
        """The verdict over what was recorded so far."""
        from unstuck.doctor import diagnose

        if self._verdict is not None:
            return self._verdict
        verdict = diagnose(self.record)
        if self._session.closed:
            self._verdict = verdict
        return verdict

    def report(
        self, *, html: str | Path | None = None, json: str | Path | None = None, lang: str | None = None
    ) -> Verdict:
        """Prints the report, and writes it where asked.

        Args:
            html: File for the page.
            json: File for the verdict.
            lang: "en", or "zh" for Simplified Chinese; that of the environment variable `UNSTUCK_LANG`, or English, when None.

        Returns:
            The verdict.

        Raises:
            MisuseError: There is no such language.
            RecordError: A file can't be written.
        """  # noqa: DOC502
        from rich.console import Console

        from unstuck._language import speaking, spoken
        from unstuck.report import html as page
        from unstuck.report import json as data
        from unstuck.report import text

        verdict, record = self.verdict, self.record
        with speaking(lang or spoken()):
            Console(highlight=False).print(text.render(verdict, record))
            if html is not None:
                page.write(verdict, record, html)
        if json is not None:
            data.write(verdict, json)
        return verdict

    def _repr_html_(self) -> str:
        from unstuck.report.html import fragment

        return fragment(self.verdict, self.record)


def watch(
    *watched: Any,
    budget: float = 0.02,
    probe_budget: float = 0.15,
    runs: str | Path | None = None,
    name: str = _NAME,
    display: bool = True,
) -> Watch:
    """Watches the training in the `with` block.

    Args:
        *watched: Models, optimizers and learning-rate schedules, in any order; models and optimizers that are not named are found as
            they are used, and schedules when they are made in the block.
        budget: Share of the training's time the watcher may take, from 0 to 1.
        probe_budget: Share of the training's time that experiments on copies may take when the block is left, from 0
            (none) to 1: at least 2 seconds, at most 60.
        runs: Folder for the record; a temporary one by default.
        name: What the report calls the training.
        display: Show below a notebook's cell how the training goes, every few seconds while it runs.

    Returns:
        A context manager that has the verdict and the report when it is left.

    Raises:
        MisuseError: Something given is neither a module nor an optimizer nor a schedule, or the budget is no share.
        RecordError: The record can't be made.
    """  # noqa: DOC502
    from torch import nn
    from torch.optim.lr_scheduler import LRScheduler

    from unstuck.store import new_run

    models = tuple(w for w in watched if isinstance(w, nn.Module))
    optimizers = tuple(w for w in watched if hasattr(w, "param_groups") and not isinstance(w, nn.Module))
    schedules = tuple(w for w in watched if isinstance(w, LRScheduler))
    odd = [w for w in watched if w not in models and w not in optimizers and w not in schedules]
    if odd:
        raise MisuseError(f"watch takes modules, optimizers and schedules, but was given a {type(odd[0]).__name__}")
    if not 0 <= budget <= 1:
        raise MisuseError(f"budget is {budget}, but must be a share of the training's time, such as 0.02")
    if not 0 <= probe_budget <= 1:
        raise MisuseError(f"probe_budget is {probe_budget}, but must be a share of the training's time, such as 0.15")
    folder = Path(runs) if runs is not None else Path(tempfile.mkdtemp(prefix="unstuck-"))
    made = new_run(folder, "watch" if name == _NAME else name)
    return Watch(models, optimizers, budget, probe_budget, made / "record.sqlite", name, schedules, display)
