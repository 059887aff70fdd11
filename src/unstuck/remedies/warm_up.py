"""A rate that rises from near zero in the first steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies.schedule import scheduled
from unstuck.source import Edit
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """A tenth of the run, at most a thousand steps."""
    return [{"steps": min(1000, max(5, script.record.steps // 10))}]


def warm_up(script: Script, *, steps: int = 100) -> list[Edit]:
    """The rate rises linearly from a hundredth to what the script sets (Goyal et al. 2017), while the first gradients are large.

    Args:
        script: The script.
        steps: Over how many.

    Returns:
        The edits.

    Raises:
        EditError: The optimizer has no name, or steps where that isn't known.
    """  # noqa: DOC502
    return scheduled(script, "LinearLR", f"start_factor=0.01, total_iters={steps}", variable="warm_up")


def treat(training: Training, record: Record, *, steps: int = 100) -> None:
    """The rate rises linearly from a hundredth."""
    from torch.optim import lr_scheduler

    from unstuck.remedies._training import schedule_by

    schedule_by(training, lr_scheduler.LinearLR, start_factor=0.01, total_iters=steps)
