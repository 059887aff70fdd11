"""Another optimizer."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._text import literal, renamed
from unstuck.remedies.learning_rate import rates_of_groups
from unstuck.rules._probes import probe
from unstuck.source import Edit, EditError, argument
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """Adam where it isn't yet, at the rate that did best in the experiment, else at 0.001 and 0.01; AdamW where Adam decays weights."""
    made = script.record.program.optimizers
    if made and made[0].kind == "Adam" and float(made[0].settings.get("weight_decay") or 0.0) > 0:
        return [{"to": "AdamW", "rate": float(made[0].settings.get("lr") or 1e-3)}]
    if not made or made[0].kind in ("Adam", "AdamW", "LBFGS"):
        return []
    tried = probe(script.record, "from-start")
    rates = [1e-3, 1e-2]
    if tried is not None and tried.get("adam_rates"):
        known = [
            (loss if isinstance(loss, (int, float)) else math.inf, rate)
            for rate, loss in zip(tried["adam_rates"], tried["adam_losses"], strict=True)
        ]
        rates = [rate for _, rate in sorted(known)]
    return [{"to": "Adam", "rate": rate} for rate in rates]


def optimizer(
    script: Script,
    *,
    to: str = "Adam",
    rate: float = 1e-3,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float | None = None,
) -> list[Edit]:
    """Another of torch's optimizers in place of the script's, over the same parameters and with the same weight decay.

    Args:
        script: The script.
        to: Its class in `torch.optim`.
        rate: Its rate.
        momentum: Of SGD and RMSprop.
        nesterov: Nesterov's form of it.
        weight_decay: Its weight decay; None for the one there is.

    Returns:
        The edits.

    Raises:
        EditError: The optimizer isn't made by a plain call, or groups of parameters have rates of their own.
    """
    made = script.optimizer()
    source = made.source
    groups = rates_of_groups(script, made, rate)
    if groups:
        raise EditError("groups of parameters have rates of their own, which are for this optimizer")
    name, imports = renamed(source, made.call, to, dotted=f"torch.optim.{to}")
    given = argument(made.call, "params", 0)
    parts = [source.of(given) if given is not None else f"{script.model}.parameters()", f"lr={literal(rate)}"]
    parts += [f"momentum={literal(momentum)}"] * (momentum > 0) + ["nesterov=True"] * nesterov
    decay = argument(made.call, "weight_decay")
    if weight_decay is not None:
        parts.append(f"weight_decay={literal(weight_decay)}")
    elif decay is not None:
        parts.append(f"weight_decay={source.of(decay)}")
    return [*imports, source.replace(made.call, f"{name}({', '.join(parts)})")]


def treat(
    training: Training,
    record: Record,
    *,
    to: str = "Adam",
    rate: float = 1e-3,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float | None = None,
) -> None:
    """Another optimizer over the same groups; schedules go on with it.

    Raises:
        EditError: There is none of this name, or it doesn't take what the old one had.
    """
    import torch

    from unstuck.remedies._training import set_rate
    from unstuck.training import count_steps

    old, kind = training.optimizer, getattr(torch.optim, to, None)
    if kind is None:
        raise EditError(f"there is no optimizer {to!r} in torch.optim")
    known = inspect.signature(type(old)).parameters.get("weight_decay")
    groups = []
    for group in old.param_groups:
        added = {
            k: v for k, v in group.items() if k == "lr" or k not in old.defaults
        }  # by schedules, and the parameters
        decay = group.get("weight_decay")
        if weight_decay is not None:
            added["weight_decay"] = weight_decay
        elif decay and (known is None or decay != known.default):
            added["weight_decay"] = decay
        groups.append(added)
    settings = {"momentum": momentum} if momentum > 0 else {}
    try:
        training.optimizer = kind(groups, lr=rate, **settings, **({"nesterov": True} if nesterov else {}))
    except (TypeError, ValueError) as error:
        raise EditError(f"{to} doesn't take what the optimizer has: {error}") from None
    set_rate(training, rate)
    if training.schedules:
        count_steps(training.optimizer)
