"""Gradients that are cut to a size before each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unstuck.program import Script
from unstuck.remedies._text import in_torch, literal
from unstuck.source import Edit, EditError, argument
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """A norm of 1, and a usual one of the run where that is another."""
    norms = script.record.series("grad_norm").finite.values
    usual = float(np.percentile(norms, 50)) if len(norms) else 1.0
    return [{"norm": 1.0}, *([{"norm": float(literal(usual))}] if 0 < usual < 0.3 else [])]


def gradient_clipping(script: Script, *, norm: float = 1.0) -> list[Edit]:
    """The gradient's norm cut to a limit before each step (Pascanu et al. 2013), so that a rare large one can't throw the weights off.

    Args:
        script: The script.
        norm: The limit of the L2 norm over all parameters.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told where the optimizer steps.
    """  # noqa: DOC502
    if not script.sites("optimizer"):
        return _by_hand(script, norm)
    source, statement = script.statement("step")
    made = script.optimizer()
    given = argument(made.call, "params", 0)
    text = made.source.of(given) if given is not None else ""
    if (
        made.source is not source
        or not text.endswith(".parameters()")
        or source.function(made.call) is not source.function(statement)
    ):
        text = f'[p for group in {script.stepping}.param_groups for p in group["params"]]'
    clip, imports = in_torch(source, "torch.nn.utils.clip_grad_norm_")
    return [*imports, source.before(statement, [f"{clip}({text}, {literal(norm)})"])]


def _by_hand(script: Script, norm: float) -> list[Edit]:
    """Behind backward, where the update is written by hand.

    Raises:
        EditError: The parameters have no names.
    """
    source, backward = script.statement("backward")
    if script.is_module:
        given = f"{script.model}.parameters()"
    else:
        names = [p.name for p in script.record.program.parameters if p.name.isidentifier()]
        given = f"[{', '.join(names)}]"
        if not names:
            raise EditError("the parameters aren't known by their names")
    clip, imports = in_torch(source, "torch.nn.utils.clip_grad_norm_")
    return [*imports, source.after(backward, [f"{clip}({given}, {literal(norm)})"])]


def treat(training: Training, record: Record, *, norm: float = 1.0) -> None:
    """The gradient's norm cut to a limit before each step; a lower limit that there is stays."""
    training.clip = norm if training.clip is None else min(norm, training.clip)
