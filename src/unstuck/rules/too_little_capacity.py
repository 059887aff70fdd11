"""A network that is too small for its task."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import alternates, progress, skill
from unstuck.rules._probes import number_of, probe, reachable, trial
from unstuck.rules._words import number, plural
from unstuck.verdict import Evidence, Finding


def too_little_capacity(
    record: Record, *, fits: float = 0.8, far: float = 0.25, better: float = 0.05, samples: int = 16
) -> list[Finding]:
    """It cannot fit its training data, whatever the steps, and a somewhat larger network can.

    Told apart:
        By three experiments that must agree. A handful of samples can't be fitted, from the end or from the start, with
        Adam and without dropout, though every sound network learns a few samples by heart. No other rate
        brings the training further. And a small ReLU network with standardised inputs does better on samples
        that it never saw than this one on those it was trained on: so the task can be learned. A network
        that learns well is left alone, and so is one whose gradient is zero, or that another optimizer soon gets
        much further: its capacity is not what holds it back.

    Wrong when:
        The samples contradict each other: two with the same inputs and different labels can't both be fitted.
        Something in the network is broken, such as dead units or a wrong loss; where that is known it is named as
        the cause.

    Args:
        record: The run.
        fits: Share of the way from chance to perfect on the handful of samples that counts as fitted. Karpathy's recipe
            asks for the lowest loss that can be reached, TheDeepChecker for 95% of the samples; a slow network gets there no
            further than this in the time there is.
        far: How far the network must be behind the reference, as a share of the way from chance to perfect.
        better: What another rate may bring at most, as such a share.
        samples: Samples that must have been fitted; fewer are learned by any network.

    Returns:
        One finding at most.
    """
    learning = progress(record)
    batch = probe(record, "overfit-batch")
    if batch is None or learning.well or learning.status in ("unknown", "diverges") or alternates(record):
        return []
    fitted = [skill(record, number_of(batch, key)) for key in ("score_after", "start_score_after")]
    best = max((f for f in fitted if math.isfinite(f)), default=math.nan)
    behind = skill(record, reachable(record)) - learning.skill
    start = trial(record, "from-start")
    if start is not None and start.adam - learning.skill > far:
        return []  # with another optimizer it gets further: something else holds it back
    if not best < fits or not behind > far or number_of(batch, "samples") < samples or batch.get("falling"):
        return []
    rates = trial(record, "step-sizes")
    if (
        rates is not None
        and max((q for q in rates.quality.values() if math.isfinite(q)), default=0) > rates.before + better
    ):
        return []
    score = max(v for v in (number_of(batch, "score_after"), number_of(batch, "start_score_after")) if math.isfinite(v))
    says = say(
        "it can't fit even {samples}: its {score} on them stays at {value}, while a small ReLU "
        "network reaches {reference} on samples it never saw; {words}",
        samples=plural(int(number_of(batch, "samples")), "sample"),
        score=learning.score_name,
        value=number(score),
        reference=number(reachable(record)),
        words=learning.words(),
    )
    return finding(
        "too-little-capacity",
        learning.weigh(),
        0.7,
        says,
        evidence=[Evidence("overfit_score", "", record.steps, score), *learning.evidence(record)],
        treated_by=("wider", "activation"),
    )
