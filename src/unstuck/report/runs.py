"""A table of runs, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from unstuck._language import _, stored
from unstuck.store import RunSummary

_MEGABYTE = 1e6


def table(runs: Sequence[RunSummary]) -> Table:
    """The runs, one a row, in the order given."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for name in (_("run"), _("script"), _("started"), _("status"), _("verdict")):
        found.add_column(name, overflow="fold")
    for name in (_("steps"), _("seconds"), "MB"):
        found.add_column(name, justify="right")
    for run in runs:
        found.add_row(
            run.name, run.script or "-", run.started or "-", _(stored(run.status)), _(stored(run.verdict or "-")),
            "-" if run.steps is None else str(run.steps), "-" if run.seconds is None else f"{run.seconds:.1f}",
            f"{run.size_bytes / _MEGABYTE:.1f}",
        )  # fmt: skip
    return found
