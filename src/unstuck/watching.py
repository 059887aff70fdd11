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
    from unstuck.verdict import Verdict


class Watch:
    """A training that is watched while the context is open; its record, verdict and report afterwards.

    Made by `watch`. In a notebook the object shows its report.
    """

    def __init__(
        self, models: tuple[Any, ...], optimizers: tuple[Any, ...], budget: float, probe_budget: float, path: Path
    ) -> None:
        from unstuck.watcher.session import Session

        self.path = path
        self._models, self._optimizers = models, optimizers
        self._session = Session(path, budget=budget, probe_budget=probe_budget, meta={"script": "unstuck.watch"})
        self._verdict: Verdict | None = None

    def __enter__(self) -> Self:
        for model in self._models:
            self._session.registry.add_model(model)
        for optimizer in self._optimizers:
            self._session.optimizers.state(optimizer)
        self._session.attach()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None:
            self._session.ended_by(kind, error)
        self._session.close()

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
    def verdict(self) -> Verdict:
        """The verdict over what was recorded so far."""
        from unstuck.doctor import diagnose

        if self._verdict is not None:
            return self._verdict
        verdict = diagnose(self.record)
        if self._session.closed:
            self._verdict = verdict
        return verdict

    def report(self, *, html: str | Path | None = None, json: str | Path | None = None) -> Verdict:
        """Prints the report, and writes it where asked.

        Args:
            html: File for the page.
            json: File for the verdict.

        Returns:
            The verdict.

        Raises:
            RecordError: A file can't be written.
        """  # noqa: DOC502
        from rich.console import Console

        from unstuck.report import html as page
        from unstuck.report import json as data
        from unstuck.report import text

        verdict, record = self.verdict, self.record
        Console(highlight=False).print(text.render(verdict, record))
        if html is not None:
            page.write(verdict, record, html)
        if json is not None:
            data.write(verdict, json)
        return verdict

    def _repr_html_(self) -> str:
        from unstuck.report.html import fragment

        return fragment(self.verdict, self.record)


def watch(*watched: Any, budget: float = 0.02, probe_budget: float = 0.15, runs: str | Path | None = None) -> Watch:
    """Watches the training in the `with` block.

    Args:
        *watched: Models and optimizers, in any order; those not named are found as they are used.
        budget: Share of the training's time the watcher may take, from 0 to 1.
        probe_budget: Share of the training's time that experiments on copies may take when the block is left, from 0
            (none) to 1: at least 2 seconds, at most 60.
        runs: Folder for the record; a temporary one by default.

    Returns:
        A context manager that has the verdict and the report when it is left.

    Raises:
        MisuseError: Something given is neither a module nor an optimizer, or the budget is no share.
        RecordError: The record can't be made.
    """  # noqa: DOC502
    from torch import nn

    from unstuck.store import new_run

    models = tuple(w for w in watched if isinstance(w, nn.Module))
    optimizers = tuple(w for w in watched if hasattr(w, "param_groups") and not isinstance(w, nn.Module))
    odd = [w for w in watched if w not in models and w not in optimizers]
    if odd:
        raise MisuseError(f"watch takes modules and optimizers, but was given a {type(odd[0]).__name__}")
    if not 0 <= budget <= 1:
        raise MisuseError(f"budget is {budget}, but must be a share of the training's time, such as 0.02")
    if not 0 <= probe_budget <= 1:
        raise MisuseError(f"probe_budget is {probe_budget}, but must be a share of the training's time, such as 0.15")
    folder = Path(runs) if runs is not None else Path(tempfile.mkdtemp(prefix="unstuck-"))
    return Watch(models, optimizers, budget, probe_budget, new_run(folder, "watch") / "record.sqlite")
