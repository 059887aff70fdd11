"""Steps that overshoot."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import progress
from unstuck.rules._overshoot import certainty, overshoot
from unstuck.rules._steps import swiftest, update_size
from unstuck.rules._words import both, number
from unstuck.verdict import Evidence, Finding


def learning_rate_too_high(
    record: Record, *, rise: float = 3.0, jump: float = 5.0, worse: float = 1.1, ratio: float = 0.03, edge: float = 2.0
) -> list[Finding]:
    """Steps overshoot: each lands higher on the other side of the valley, or so far off that nothing is left.

    Signs, from the plainest: the loss rises until it is NaN; it jumps and never comes down as far as it should,
    often because those steps left ReLU units dead or saturated others; it ends above that of a constant
    prediction; updates are a large part of the weights while the loss doesn't fall; it is thrown above chance
    again and again; the rate is above what the measured curvature bears, and the loss rises or swings late in the run.

    Told apart:
        Every sign is a comparison, with the start of the loss, with chance, or with the weights. No rate is too
        high as such, since what a rate means depends on the optimizer, the scale of the data, and the
        curvature. A NaN out of the blue, with a loss that was falling before, is no sign, nor is one batch whose loss stands far above
        all before though nothing led up to it. Where the gradient is
        zero from the first step on there is nothing to say of the rate, and where several losses pull against
        each other (GANs) or a loss may be negative (policy gradients), a rising loss means nothing. A network
        that learns well is left alone, unless smaller steps from the same start come much further in a few of them
        than it did in all.

    Wrong when:
        Gradients are wrong rather than large: a loss of the wrong sign, gradients that accumulate. Inputs,
        targets or weights far from unit size have the same effect; where they are known they are named as the
        cause.

    Args:
        record: The run.
        rise: Times its start that the loss must reach on the way to NaN. TheDeepChecker calls twice its minimum
            divergence.
        jump: Times start and chance that the loss must jump to; twice that, and in the first tenth of the run,
            where it learns.
        worse: Loss at the end relative to chance, above which a constant prediction would have been better.
        ratio: Size of an update relative to the weights. CS231n's rule of thumb for health is 1e-3; 1e-2 is
            high.
        edge: The learning rate relative to the largest that the curvature bears, where that was measured. Trainings go on at 1 to 2 with
            a loss that falls in jerks (the edge of stability, Cohen et al. 2021): beyond it counts only with a loss that rises or
            swings.

    Returns:
        One finding at most, its confidence by the number and strength of the signs; on one weak sign alone no error.
    """
    learning = progress(record)
    signs = overshoot(record, learning, rise=rise, jump=jump, worse=worse, ratio=ratio, edge=edge)
    if not signs:
        return []
    (index, at), size = swiftest(record), update_size(record, learning)
    of = say(" (optimizer {index})", index=index) if len(record.program.optimizers) > 1 else ""
    at_rate = say(", at a rate of {rate}{of}", rate=number(at), of=of) if math.isfinite(at) else ""
    evidence = [Evidence("loss", "", sign.step, sign.loss) for sign in signs[:3]]
    if math.isfinite(size):
        evidence.append(Evidence("update_ratio", "", max(0, learning.end - 1), size))
    sure = min(0.95, certainty(signs))
    severity = learning.weigh(breaks=True, well="warning")
    return finding(
        "learning-rate-too-high",
        "warning" if severity == "error" and sure < 0.6 else severity,
        sure,
        say(
            "{signs}{at_rate}; {words}",
            signs=both([sign.says for sign in signs[:2]]),
            at_rate=at_rate,
            words=learning.words(),
        ),
        evidence=evidence,
        treated_by=("learning-rate", "warm-up", "gradient-clipping", "optimizer", "schedule"),
    )
