"""Prediction and target of different shapes, stretched against each other by the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

from unstuck._language import say
from unstuck.evidence import LossCall, Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import progress
from unstuck.rules._words import shape
from unstuck.verdict import Evidence, Finding

_ELEMENTWISE = frozenset({
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "poisson_nll_loss", "gaussian_nll_loss", "soft_margin_loss",
    "hinge_embedding_loss", "kl_div",
})  # fmt: skip


def loss_broadcast(record: Record, *, growth: float = 2.0) -> list[Finding]:
    """The loss compares every prediction with every target, because their shapes broadcast against each other.

    Predictions of shape `(N, 1)` against targets of shape `(N,)` make `N * N` differences instead of `N`. torch
    computes their mean without an error. What minimises it is the mean of the targets, whatever the input: the
    network learns to predict a constant.

    Told apart:
        Broadcasting stretches *both* sides: the result has neither the shape of the predictions nor that of the
        targets. Where only one side is stretched, as one target for several quantiles, the comparison is
        wanted, and nothing is said. A loss written by hand may stretch both on purpose, as pairwise distances
        do; there the two must also differ in their number of dimensions.

    Wrong when:
        All pairs are compared on purpose with a loss function of torch. Batches of one sample never broadcast,
        and hide the fault.

    Args:
        record: The run.
        growth: Times the differences must outnumber the predictions. Any growth is a fault; 2 is the least that
            broadcasting gives.

    Returns:
        One finding for the first such loss.
    """
    for call in record.program.losses:
        made = _broadcast(call.output_shape, call.target_shape)
        size = math.prod(call.output_shape)
        if (
            made is None
            or not call.trains
            or size == 0
            or math.prod(made) < growth * size
            or not _by_mistake(call, made)
        ):
            continue
        learning = progress(record)
        wanted = shape(call.target_shape), shape(call.output_shape)
        says = say(
            "predictions of shape {output} meet targets of shape {target}, so that {loss} compares "
            "{pairs} pairs instead of {size}",
            output=wanted[1],
            target=wanted[0],
            loss=say("the loss") if call.name == "hand-written" else call.name.replace("_", " "),
            pairs=math.prod(made),
            size=size,
        )
        evidence = (Evidence("output_size", call.layer, 0, size), Evidence("pairs", call.layer, 0, math.prod(made)))
        return finding(
            "loss-broadcast",
            learning.weigh(learns="error", well="warning", unknown="error"),
            0.98,
            say("{says} at {site}", says=says, site=call.site) if call.site else says,
            layers=(call.layer,),
            evidence=evidence,
            treated_by=("shape",),
        )
    return []


def _by_mistake(call: LossCall, made: tuple[int, ...]) -> bool:
    both = made not in (call.output_shape, call.target_shape)
    if call.name in _ELEMENTWISE:
        return both
    return call.name == "hand-written" and both and len(call.output_shape) != len(call.target_shape)


def _broadcast(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...] | None:
    """The shape that two broadcast to, None when they don't."""
    made = []
    for a, b in zip_longest(reversed(first), reversed(second), fillvalue=1):
        if a != b and 1 not in (a, b):
            return None
        made.append(max(a, b) if 0 not in (a, b) else 0)
    return tuple(reversed(made))
