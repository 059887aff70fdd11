"""Steps that are too small."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._depth import is_weight
from unstuck.rules._finding import finding
from unstuck.rules._learning import Learning, alternates, progress, step_together
from unstuck.rules._probes import trial
from unstuck.rules._steps import farthest, rate
from unstuck.rules._words import number, plural, share, then
from unstuck.verdict import Evidence, Finding, Severity

_MANY = 100  # steps in which a weight that learns moves by more than a hundredth


def learning_rate_too_low(
    record: Record,
    *,
    travel: float = 0.15,
    ratio: float = 1e-3,
    few: int = 10,
    better: float = 0.15,
    apart: float = 0.01,
    still: float = 0.01,
) -> list[Finding]:
    """Steps are so small that the weights hardly move in the whole run.

    Either the rate is low, or the usual rate of the optimizer is (plain SGD at 0.001, Adadelta at 0.001).

    Told apart:
        Not by the rate, which means nothing across optimizers, but by how far the weights came: the updates
        relative to the weight, added up over all steps, are the longest way it can have gone. Where that is a
        fraction of its size, and the network has not learned, steps are too small. The weight that moves most
        decides, since a vanishing gradient makes the others slow whatever the rate. With a gradient of exactly
        zero nothing is said of the rate, nor where weights were loaded, which may have been good already.

        Where experiments were made, they decide: ten or a hundred times the rate gets much further in as many updates, on
        batches that were not trained on meanwhile, both from where the script ended and from where it started.

        Where the loss tells nothing (Q-learning, policy gradients, GANs), only weights that in many steps stayed where they were
        drawn are named.

        Of several optimizers that step together each is looked at by itself: one whose rate is a small part of another's
        and whose weights stay where they started leaves its part of the network as it was drawn.

    Wrong when:
        Weights start so large that moving them by a little is much. Fine-tuning, which is meant to move little,
        learns well and is left alone.

    Args:
        record: The run.
        travel: Longest way of the weight that moves most, relative to its size. Of some seventy small networks
            that learned, none had gone less than 0.4.
        ratio: Its mean update a step, relative to its size. CS231n's rule of thumb for health is 1e-3;
            TheDeepChecker calls less than 1e-4 too small.
        few: Steps below which it is rather their number that is too small.
        better: How much further than the script's a higher rate must get in the experiments, from the end and from the
            start, as a share of the way from chance to perfect.
        apart: Rate of one of several optimizers relative to that of another of the same kind.
        still: Longest way of the weights of such a one, relative to their size; and of all weights, where the loss tells nothing.

    Returns:
        One finding at most.
    """
    learning = progress(record)
    blind = learning.status == "unknown" or alternates(record)
    if record.happened("reloaded") or record.steps < (_MANY if blind else few):
        return []
    if not blind and learning.status not in ("at chance", "learns"):
        return []
    gradients = [record.series("grad_rms", p.name).median() for p in record.program.parameters if is_weight(p)]
    if not any(g > 0 for g in gradients):
        return []
    at = rate(record)
    if blind:
        return _unmoved(record, at, still)
    tried = _more_is_better(record, learning, better)
    if tried:
        return finding(
            "learning-rate-too-low",
            learning.weigh(),
            0.85,
            then(tried, learning.words()),
            evidence=[Evidence("lr", "", record.steps - 1, at), *learning.evidence(record)],
            treated_by=("learning-rate", "optimizer", "train-longer"),
        )
    slow = _one_of_several(record, learning, apart, still)
    if slow:
        return slow
    way = farthest(record)[1]
    size = way / record.steps
    if not (at == 0 or (way < travel and 0 < size < ratio)):
        return []
    return _moves(record, at, learning.weigh(), 0.85 if learning.status == "at chance" else 0.7)


def _moves(record: Record, at: float, severity: Severity, confidence: float) -> list[Finding]:
    """How far the weight came that moved most."""
    name, way = farthest(record)
    amount = (
        say("{name} moves by {share} of its size at most", name=name, share=share(way))
        if way > 0
        else say("no weight moves")
    )
    size = way / record.steps
    evidence = [Evidence("update_ratio", name, record.steps - 1, size)] if math.isfinite(size) else []
    return finding(
        "learning-rate-too-low",
        severity,
        confidence,
        say(
            "{amount} in all {steps}{at_rate}; {words}",
            amount=amount,
            steps=plural(record.steps, "step"),
            at_rate=say(" at a rate of {rate}", rate=number(at)) if math.isfinite(at) else "",
            words=progress(record).words(),
        ),
        evidence=[*evidence, Evidence("lr", "", record.steps - 1, at)],
        treated_by=("learning-rate", "optimizer", "train-longer"),
    )


def _unmoved(record: Record, at: float, still: float) -> list[Finding]:
    """Where the loss tells nothing, weights that are at the end where they were drawn do."""
    way = farthest(record)[1]
    return _moves(record, at, "warning", 0.6) if 0 < way < still else []


def _one_of_several(record: Record, learning: Learning, apart: float, still: float) -> list[Finding]:
    """The optimizer whose rate is a small part of another's, so that its weights don't move."""
    if not step_together(record):
        return []
    optimizers = record.program.optimizers
    rates = [record.series("lr", f"{i}.0").median() for i in range(len(optimizers))]
    for i, optimizer in enumerate(optimizers):
        others = [r for r, other in zip(rates, optimizers, strict=True) if other.kind == optimizer.kind]
        held = [p.name for p in record.program.parameters if i in p.optimizers]
        name, way = farthest(record, held)
        if not rates[i] < apart * max(others) or not way < still:
            continue
        says = say(
            "{name} and all else that optimizer {index} ({kind}) trains moves by {share} of its size at most "
            "in all {steps}, at a rate of {rate} where another's is {other}",
            name=name,
            index=i,
            kind=optimizer.kind,
            share=share(way),
            steps=plural(record.steps, "step"),
            rate=number(rates[i]),
            other=number(max(others)),
        )
        layers = dict.fromkeys(layer for p in record.program.parameters if p.name in held for layer in p.layers)
        return finding(
            "learning-rate-too-low",
            learning.weigh(),
            0.85,
            then(says, learning.words()),
            layers=list(layers)[:8],
            evidence=[Evidence("lr", f"{i}.0", record.steps - 1, rates[i])],
            treated_by=("learning-rate", "optimizer"),
        )
    return []


def _more_is_better(record: Record, learning: Learning, better: float) -> str:
    """What a higher rate brought from the end and from the start; "" when it isn't much in both."""
    end, start = trial(record, "step-sizes"), trial(record, "from-start")
    if end is None:
        return ""
    factor, quality = end.higher
    if not quality - max(end.own, end.before) > better or quality < learning.skill + better:
        return ""
    if start is not None and not start.higher[1] - start.own > better:
        return ""
    name, more, own = say("the loss"), end.losses[factor], end.losses[1.0]
    if math.isfinite(end.scores[factor]):
        name, more, own = learning.score_name, end.scores[factor], end.scores[1.0]
    return say(
        "from where it ended {factor:g} times the rate ({rate}) takes {name} to {more} in "
        "{updates}, the script's to {own}",
        factor=factor,
        rate=number(factor * end.rate),
        name=name,
        more=number(more),
        updates=plural(end.steps, "update"),
        own=number(own),
    )
