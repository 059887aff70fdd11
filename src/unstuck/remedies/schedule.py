"""A rate that falls in the course of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._text import in_torch
from unstuck.source import Edit, EditError
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """A cosine to zero, where the script has no schedule of its own."""
    made = script.record.program.optimizers
    return [{"kind": "cosine"}] if made and not made[0].schedule else []


def schedule(script: Script, *, kind: str = "cosine") -> list[Edit]:
    """The rate falls to zero along half a cosine over all steps (Loshchilov and Hutter 2017), or linearly.

    Args:
        script: The script.
        kind: cosine or linear.

    Returns:
        The edits.

    Raises:
        EditError: The optimizer has no name, or steps where that isn't known.
    """  # noqa: DOC502
    steps = max(1, script.record.steps)
    makes = {
        "cosine": ("CosineAnnealingLR", f"{steps}"),
        "linear": ("LinearLR", f"start_factor=1.0, end_factor=0.0, total_iters={steps}"),
    }
    return scheduled(script, *makes[kind])


def scheduled(script: Script, name: str, arguments: str, *, variable: str = "scheduler") -> list[Edit]:
    """A schedule that is made behind the optimizer and steps with it.

    Args:
        script: The script.
        name: Class in `torch.optim.lr_scheduler`.
        arguments: Behind the optimizer.
        variable: That holds it.

    Returns:
        The edits.

    Raises:
        EditError: The optimizer has no name, or steps where that isn't known.
    """
    made = script.optimizer()
    source, step = script.statement("step")
    if not made.target or "." in made.target:
        raise EditError("the optimizer isn't given a plain name")
    here = source.function(made.statement)
    if made.source is not source or (source.function(step) is not here and here is not source.tree):
        raise EditError("the optimizer steps where a schedule made beside it isn't known")
    full, imports = in_torch(source, f"torch.optim.lr_scheduler.{name}")
    return [
        *imports, source.after(made.statement, [f"{variable} = {full}({made.target}, {arguments})"]),
        source.after(step, [f"{variable}.step()"]),
    ]  # fmt: skip


def treat(training: Training, record: Record, *, kind: str = "cosine") -> None:
    """The rate falls to zero over all steps."""
    from torch.optim import lr_scheduler

    from unstuck.remedies._training import schedule_by

    steps = max(1, training.steps or record.steps)
    if kind == "linear":
        schedule_by(training, lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.0, total_iters=steps)
    else:
        schedule_by(training, lr_scheduler.CosineAnnealingLR, T_max=steps)
