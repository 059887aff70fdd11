"""Targets that the last activation can't reach."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import LossCall, Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import main_loss, progress
from unstuck.rules._words import number
from unstuck.verdict import Evidence, Finding

_RANGES: dict[str, tuple[float, float]] = {
    "sigmoid": (0, 1), "hardsigmoid": (0, 1), "softmax": (0, 1), "tanh": (-1, 1), "softsign": (-1, 1),
    "relu": (0, math.inf), "relu6": (0, 6), "softplus": (0, math.inf), "exp": (0, math.inf),
}  # fmt: skip
_REGRESSIONS = frozenset({"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "hand-written"})


def output_range(record: Record, *, beyond: float = 0.5) -> list[Finding]:
    """Targets lie where the output layer can't reach: a sigmoid ends at 1, the targets go to 100.

    The network pushes its output to the bound and stays there, where the activation has no slope. What it gets
    is the best constant, or less.

    Told apart:
        The range of the targets is held against the range of the last activation. A target somewhat beyond a
        bound is common and harmless (a smoothed label, an outlier below 0 under a ReLU), so what counts is how
        far beyond, in standard deviations of the targets. A cross-entropy says itself what range it takes; only
        losses that measure distance are judged.

    Wrong when:
        The output is scaled after the activation in a way that was not seen.

    Args:
        record: The run.
        beyond: Standard deviations of the targets that lie past the bound. A Gaussian cut half a deviation from
            its edge loses a few percent; DeepDiagnosis calls any target out of range a fault.

    Returns:
        One finding at most, for the main loss.
    """
    call = main_loss(record)
    if call is None or call.name not in _REGRESSIONS or not call.chain or call.chain[-1] not in _RANGES:
        return []
    if call.name == "hand-written" and call.target_kind != "real":
        return []
    excess = _excess(call)
    if not excess > beyond:
        return []
    learning = progress(record)
    low, high = _RANGES[call.chain[-1]]
    reach = (
        say("{low} to {high}", low=number(low), high=number(high))
        if math.isfinite(high)
        else say("{low} and more", low=number(low))
    )
    says = say(
        "targets run from {low} to {high}, but the output ends in {last}, which gives {reach}; {words}",
        low=number(call.target["min"]),
        high=number(call.target["max"]),
        last=call.chain[-1],
        reach=reach,
        words=learning.words(),
    )
    return finding(
        "output-range",
        learning.weigh(unknown="warning"),
        0.95 if learning.stuck else 0.8,
        says,
        layers=(call.layer,),
        evidence=[Evidence(f"target_{key}", call.layer, 0, call.target[key]) for key in ("min", "max")],
        treated_by=("output-loss", "standardize-target"),
    )


def _excess(call: LossCall) -> float:
    """How far the targets go past a bound, in their standard deviations; NaN when nothing is known of them."""
    low, high = _RANGES[call.chain[-1]]
    target = call.target
    if not {"min", "max"} <= target.keys():
        return math.nan
    past = max(low - target["min"], target["max"] - high)
    spread = target.get("std", 0.0) or (target["max"] - target["min"]) or 1.0
    return past / spread
