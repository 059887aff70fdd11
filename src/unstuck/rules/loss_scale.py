"""A loss that is summed where it should be averaged."""

from __future__ import annotations

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import batch_size, main_loss, progress
from unstuck.rules._overshoot import certainty, overshoot
from unstuck.rules._steps import SCALE_FREE, rate
from unstuck.rules._words import number
from unstuck.verdict import Evidence, Finding

_NOTHING = 1e-3  # what a sum is divided by is 1, but for rounding


def loss_scale(record: Record, *, batch: int = 8) -> list[Finding]:
    """The loss is summed over the batch, so that gradient and step grow with the batch size.

    A rate of 0.01 on the sum over 100 samples is a rate of 1 on their mean. What suits one batch size
    overshoots at another, and the last, smaller batch of an epoch has its own.

    Told apart:
        A sum alone is no fault: with a rate that fits, or an optimizer that doesn't care for the scale of
        gradients (Adam and its like), it trains as well as a mean. It is named where steps overshoot, by the
        signs of learning-rate-too-high. A sum that is divided by what it runs over, as trainers do with tokens, is a mean;
        one that is divided by another number is larger than its mean by the samples over that number.

    Wrong when:
        The sum runs over something else than the batch.

    Args:
        record: The run.
        batch: Samples in a batch, over what their sum is divided by, from which on a sum is told from a mean.

    Returns:
        One finding at most, for the main loss.
    """
    call, samples = main_loss(record), batch_size(record)
    if call is None or call.reduction != "sum" or not record.program.optimizers:
        return []
    times = samples / call.divisor
    if times < batch:
        return []
    learning = progress(record)
    signs = overshoot(record, learning)
    if record.program.optimizers[0].kind in SCALE_FREE or not signs:
        return []
    at = rate(record)
    values = {"samples": samples, "rate": number(at), "mean_rate": number(at * times)}
    values |= {"says": signs[0].says, "words": learning.words()}
    says = (
        say(
            "the loss is summed over {samples:.0f} samples, so that a rate of {rate} is one of {mean_rate} on "
            "their mean: {says}; {words}",
            **values,
        )
        if abs(call.divisor - 1) < _NOTHING
        else say(
            "the loss is summed over {samples:.0f} samples and divided by {divisor}, so that a rate of {rate} is one of "
            "{mean_rate} on their mean: {says}; {words}",
            divisor=number(call.divisor),
            **values,
        )
    )
    return finding(
        "loss-scale",
        learning.weigh(breaks=True),
        0.9 * certainty(signs),
        says,
        layers=(call.layer,),
        evidence=[Evidence("loss", "", sign.step, sign.loss) for sign in signs[:2]],
        treated_by=("reduction", "learning-rate"),
    )
