"""Every parameter in the optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck.program import Made, Script
from unstuck.source import Edit, EditError, argument
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def all_parameters(script: Script) -> list[Edit]:
    """The optimizer is given all parameters of the network, and of others that take part and are in no optimizer.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told what the optimizer is given, or how the network is named there.
    """
    made = script.optimizer()
    given = argument(made.call, "params", 0)
    if given is None:
        raise EditError("it can't be told what the optimizer is given")
    names = [script.model, *_left_out(script, made)]
    whole = (
        f"{names[0]}.parameters()" if len(names) == 1 else f"[{', '.join(f'*{name}.parameters()' for name in names)}]"
    )
    if made.source.of(given) == whole:
        raise EditError("the optimizer is given all parameters of the network already")
    return [made.source.replace(given, whole)]


def _left_out(script: Script, made: Made) -> list[str]:
    """Other networks that take part in training, known by name where the optimizer is made, of which it holds nothing."""
    record, source = script.record, made.source
    networks = {layer.name: layer.model for layer in record.program.layers}
    missing = [p for p in record.program.parameters if p.used and p.trainable and not p.optimizers]
    names = dict.fromkeys(networks.get(layer, "") for p in missing for layer in p.layers)
    here = source.function(made.statement)
    return [
        name
        for name in names
        if name.isidentifier()
        and name != script.model
        and any(s.lineno < made.statement.lineno and source.function(s) is here for s in source.binds(name))
    ]


def treat(training: Training, record: Record) -> None:
    """Gives the optimizer all parameters of the model.

    Raises:
        EditError: It has them already.
    """
    from unstuck.remedies._training import given

    if not given(training, list(training.model.parameters())):
        raise EditError("the optimizer is given all parameters of the network already")
