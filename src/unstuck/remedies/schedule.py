"""A rate that falls in the course of the run."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._network import is_bound
from unstuck.remedies._text import in_torch
from unstuck.remedies.train_longer import bound_of
from unstuck.source import Edit, EditError, called, number_in
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_LAST = 0.01  # of the rate, at the end of an exponential schedule


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """A cosine to zero, where the script has no schedule of its own."""
    made = script.record.program.optimizers
    return [{"kind": "cosine"}] if made and not made[0].schedule else []


def schedule(script: Script, *, kind: str = "cosine") -> list[Edit]:
    """The rate falls to zero along half a cosine over all steps (Loshchilov and Hutter 2017), linearly, or to a hundredth by a factor.

    Args:
        script: The script.
        kind: cosine, linear or exponential.

    Returns:
        The edits.

    Raises:
        EditError: The optimizer has no name, or steps where that isn't known.
    """  # noqa: DOC502
    steps = _steps(script)
    makes = {
        "cosine": ("CosineAnnealingLR", steps),
        "linear": ("LinearLR", f"start_factor=1.0, end_factor=0.0, total_iters={steps}"),
        "exponential": ("ExponentialLR", f"gamma={_LAST} ** (1 / {steps if steps.isdigit() else f'({steps})'})"),
    }
    return scheduled(script, *makes[kind])


def _steps(script: Script) -> str:
    """The number of steps: by the names that it is made of, so that it holds in a longer run, else as it was."""
    steps, made = max(1, script.record.steps), script.optimizer()
    try:
        source, loops = script.loops()
    except EditError:
        return str(steps)
    bound = bound_of(loops[-1])
    number = source.constant(bound) if isinstance(bound, ast.Name) else None
    passes = int(number_in(number) or 0) if number is not None else 0
    if not passes or steps % passes or source is not made.source or not is_bound(source, bound, made.statement):
        return str(steps)
    assert isinstance(bound, ast.Name)
    if steps == passes:
        return bound.id
    batches = loops[0].iter if isinstance(loops[0], ast.For) and len(loops) == 2 else None
    if isinstance(batches, ast.Call) and called(batches) in ("enumerate", "tqdm") and batches.args:
        batches = batches.args[0]
    each = script.record.program.optimizers and script.record.program.optimizers[0].backwards_per_step == 1
    loaders = {made.target for made in (script.loader(),)} if script.sites("loader") else set()
    known = isinstance(batches, ast.Name) and batches.id in loaders and is_bound(source, batches, made.statement)
    if each and known and isinstance(batches, ast.Name):
        return f"{bound.id} * len({batches.id})"
    return f"{steps // passes} * {bound.id}"


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
    full, imports = in_torch(made.source, f"torch.optim.lr_scheduler.{name}")
    if made.source is not source or (source.function(step) is not here and here is not source.tree):
        with_it = f"{made.target}.register_step_post_hook(lambda *args: {variable}.step())"
        lines = [f"{variable} = {full}({made.target}, {arguments})", with_it]
        return [*imports, made.source.after(made.statement, lines)]
    return [
        *imports, source.after(made.statement, [f"{variable} = {full}({made.target}, {arguments})"]),
        source.after(step, [f"{variable}.step()"]),
    ]  # fmt: skip


def treat(training: Training, record: Record, *, kind: str = "cosine") -> None:
    """The rate falls to zero, or to a hundredth, over all steps."""
    from torch.optim import lr_scheduler

    from unstuck.remedies._training import schedule_by

    steps = max(1, training.steps or record.steps)
    makes: dict[str, tuple[Any, dict[str, float]]] = {
        "cosine": (lr_scheduler.CosineAnnealingLR, {"T_max": steps}),
        "linear": (lr_scheduler.LinearLR, {"start_factor": 1.0, "end_factor": 0.0, "total_iters": steps}),
        "exponential": (lr_scheduler.ExponentialLR, {"gamma": _LAST ** (1 / steps)}),
    }
    make, settings = makes[kind]
    schedule_by(training, make, **settings)
