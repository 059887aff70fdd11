"""ReLU units that are zero on every sample, for good."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._dead import WHOLE, dead_share, reaches_back, relu_layers, zero_share
from unstuck.rules._finding import finding
from unstuck.rules._learning import progress
from unstuck.rules._words import names, share
from unstuck.verdict import Evidence, Finding


def dead_units(
    record: Record, *, fraction: float = 0.5, zero: float = 0.97, samples: int = 64, batches: int = 3
) -> list[Finding]:
    """Units of a ReLU layer give zero for every sample: no gradient passes them, so they can't come back.

    A layer whose units are all dead cuts the network in two: what lies before it gets no gradient, what lies
    behind sees a constant. It happens when a large step throws the biases far below zero, or when the weights
    start that way.

    Told apart:
        A unit counts as dead when it gave nothing above zero in a whole window of batches, so that units that
        are only rarely active don't count. In a short run the window reaches back to the start, when they were
        alive; there a layer of which nearly all outputs are zero by now is taken for dead, too. In healthy
        networks some units are dead, half of a wide layer is not rare. So what counts is whether the network
        learns: where it learns well, dead units are a note at most. The dead layer is named, not those before
        it whose gradients vanish for it.

    Wrong when:
        The window saw few different samples. Sparse activations on purpose (k-winners, very rare features) look
        alike.

    Args:
        record: The run.
        fraction: Share of a layer's units that must be dead. SageMaker Debugger takes 0.5, AutoTrainer and
            DeepDiagnosis 0.7.
        zero: Share of a layer's outputs that must be zero where the window reaches back to the start. Healthy
            layers deep in a network have up to 0.9.
        samples: Samples that the window must have seen.
        batches: Batches that the window must have seen.

    Returns:
        One finding at most, with all layers concerned.
    """
    learning = progress(record)
    dead = {}
    for layer in relu_layers(record):
        units = dead_share(record, layer, learning, samples=samples, batches=batches)
        outputs = zero_share(record, layer, learning) if reaches_back(record, layer) else math.nan
        if units >= fraction or outputs >= zero:
            dead[layer.name] = max(units if units >= fraction else 0.0, outputs if outputs >= zero else 0.0)
    if not dead:
        return []
    worst = max(dead, key=lambda name: dead[name])
    whole = dead[worst] >= WHOLE
    severity = learning.weigh(
        stuck="error" if whole else "warning" if dead[worst] >= 0.8 else "note",
        learns="warning" if dead[worst] >= 0.8 else "note",
        unknown="warning" if whole else "note",
    )
    others = [name for name in dead if name != worst]
    more = (
        say(", as are at least {share} of {layers}", share=share(min(dead[n] for n in others)), layers=names(others))
        if others
        else ""
    )
    amount = say("all units") if whole else say("{share} of the units", share=share(dead[worst]))
    says = say(
        "{amount} of {worst} are zero on every sample{since}{more}; {words}",
        amount=amount,
        worst=worst,
        since=_since(record, worst),
        more=more,
        words=learning.words(),
    )
    step = max(0, learning.end - 1)
    return finding(
        "dead-units",
        severity,
        0.9 if whole and learning.stuck else 0.6,
        says,
        layers=dead,
        evidence=[Evidence("dead_share", name, step, dead[name]) for name in [worst, *others][:4]],
        treated_by=("activation", "learning-rate", "initialization", "normalization"),
    )


def _since(record: Record, name: str) -> str:
    start = record.series("act_zero", name).finite.first
    if not math.isfinite(start):
        return ""
    return (
        say(" from the start")
        if start >= WHOLE
        else say(" ({share} of its outputs were zero at step 0)", share=share(start))
    )
