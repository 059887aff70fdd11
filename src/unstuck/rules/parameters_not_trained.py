"""Parameters that should be trained and never are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unstuck._language import say, say_many
from unstuck.evidence import Parameter, Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import FEW, Learning, batch_size, makes_its_targets, progress
from unstuck.rules._words import names, plural, share
from unstuck.verdict import Evidence, Finding, Severity


def parameters_not_trained(record: Record, *, frozen: float = 0.5) -> list[Finding]:
    """Trainable parameters that the forward pass uses are never updated.

    Four ways lead there: they are in no optimizer (layers kept in a plain list, a model replaced after the
    optimizer was made), no gradient reaches them (a `detach`, `.data` or `no_grad` in the path), they are made
    anew at every step, or they are frozen.

    Told apart:
        Only parameters that took part in a forward pass that led to a backward are looked at; a layer that is
        defined and not used is none of our business, and the first few steps are too early to tell. Frozen
        parameters are legal: with `requires_grad = False` and values that were trained or loaded before they
        are not mentioned, and random frozen values are a note, or a warning where they are most of the network and it
        does not learn, or not half of the way though they are as torch draws them, which no trained weights are.
        Parameters outside every optimizer are often left out on purpose (only the head is tuned), so they are a note
        where the network learns well, and where a copy of it makes its targets (Q-learning).

    Wrong when:
        Random features are frozen on purpose (reservoirs, random projections).

    Args:
        record: The run.
        frozen: Share of the numbers in the network that must be frozen before frozen values are mentioned at
            all.

    Returns:
        One finding at most: the way that concerns most numbers.
    """
    used = [p for p in record.program.parameters if p.used and not _is_input(record, p)]
    if not used or record.steps < FEW:
        return []
    learning = progress(record)
    ways = [
        _way(
            record,
            learning,
            used,
            [p for p in used if p.remade],
            say("made anew at every step, so that updates are lost"),
        ),
        _way(
            record,
            learning,
            used,
            _in_no_optimizer(record, used),
            say("in no optimizer"),
            meant=makes_its_targets(record),
        ),
        _way(
            record,
            learning,
            used,
            _without_gradient(record, used),
            say("in the optimizer, but no gradient ever reaches them"),
        ),
        _frozen(record, learning, used, frozen),
    ]
    found = [one for way in ways for one in way]
    return [max(found, key=lambda f: (f.severity != "note", f.evidence[0].value))] if found else []


def _in_no_optimizer(record: Record, used: Sequence[Parameter]) -> list[Parameter]:
    if not record.program.optimizers:
        return []
    return [p for p in used if p.trainable and not p.optimizers and not p.changed and not p.remade]


def _without_gradient(record: Record, used: Sequence[Parameter]) -> list[Parameter]:
    """Parameters the optimizer holds whose gradient is always None; where all are so, it was cleared too early."""
    missing = [p for p in used if p.trainable and p.optimizers and not p.got_grad and not p.remade]
    held = [p for p in used if p.trainable and p.optimizers]
    reached = any(record.series("back_rms", layer).median() > 0 for p in missing for layer in p.layers)
    return [] if len(missing) == len(held) and reached else missing


def _way(
    record: Record,
    learning: Learning,
    used: Sequence[Parameter],
    missed: Sequence[Parameter],
    how: str,
    *,
    meant: bool = False,
) -> list[Finding]:
    if not missed:
        return []
    part = _numbers(missed) / max(1, _numbers(used))
    meant = meant or (bool(record.happened("reloaded")) and not learning.stuck)
    severity: Severity = "note" if meant else learning.weigh(unknown="warning")
    if severity == "error" and part < 0.02:
        severity = "warning"
    says = say_many(
        "{names} ({parameters}, {share} of the numbers in use) is {how}; {words}",
        "{names} ({parameters}, {share} of the numbers in use) are {how}; {words}",
        len(missed),
        names=names([p.name for p in missed]),
        parameters=plural(len(missed), "parameter"),
        share=share(part),
        how=how,
        words=learning.words(),
    )
    return finding(
        "parameters-not-trained",
        severity,
        0.7 if severity == "note" else 0.95,
        says,
        layers=_layers(record, missed),
        evidence=[Evidence("share_not_trained", "", 0, part)],
        treated_by=("all-parameters",),
    )


_HALF = 0.5  # of the way from chance to perfect
_NEAR = 0.1  # of the spread of weights as they were drawn, by which a sample of them may be off
_FEW = 50  # steps in which a frozen network need not have got anywhere


def _frozen(record: Record, learning: Learning, used: Sequence[Parameter], limit: float) -> list[Finding]:
    random = [p for p in record.program.parameters if not p.trainable and not p.changed and len(p.shape) > 1]
    part = _numbers(random) / max(1, _numbers([*random, *(p for p in used if p.trainable)]))
    if part < limit or record.happened("reloaded"):
        return []
    says = say(
        "{share} of the numbers are frozen and were never trained in this run ({names}); {words}",
        share=share(part),
        names=names([p.name for p in random]),
        words=learning.words(),
    )
    few, drawn = record.steps < _FEW, sum(p.initial.get("fan_in", 0) > 0 and _as_drawn(p) for p in random)
    half = drawn == len(random) and not learning.skill > _HALF
    return finding(
        "parameters-not-trained",
        learning.weigh(stuck="note" if few else "warning", learns="warning" if half and not few else "note"),
        0.5,
        says,
        layers=_layers(record, random),
        evidence=[Evidence("share_not_trained", "", 0, part)],
        treated_by=("unfreeze",),
    )


def _as_drawn(parameter: Parameter) -> bool:
    """Whether a weight is as torch's layers draw it: evenly between plus and minus one over the root of its inputs."""
    known, bound = parameter.initial, parameter.initial["fan_in"] ** -0.5
    even = abs(known["std"] * math.sqrt(3) / bound - 1) < _NEAR
    return even and 1 - _NEAR < known["max"] / bound < 1 + 1e-3


def _layers(record: Record, parameters: Sequence[Parameter]) -> tuple[str, ...]:
    wanted = {layer for p in parameters for layer in p.layers}
    ordered = [name for name in record.layers if name in wanted]
    return tuple(ordered) or tuple(p.name for p in parameters)


def _is_input(record: Record, parameter: Parameter) -> bool:
    """Data that a gradient is taken by (penalties, physics, adversaries): as long as a batch, and new each step."""
    if parameter.optimizers or parameter.changed:
        return False
    alike = [p for p in record.program.parameters if p.name == parameter.name and p.shape == parameter.shape]
    return len(alike) > 2 or (parameter.remade and parameter.shape[:1] == (int(batch_size(record)),))


def _numbers(parameters: Sequence[Parameter]) -> int:
    return sum(math.prod(p.shape) for p in parameters)
