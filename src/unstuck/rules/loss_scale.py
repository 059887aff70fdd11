"""A loss that is summed where it should be averaged."""

from __future__ import annotations

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import batch_size, main_loss, progress
from unstuck.rules._overshoot import certainty, overshoot
from unstuck.rules._steps import rate
from unstuck.rules._words import number
from unstuck.verdict import Evidence, Finding

_SCALE_FREE = frozenset({
    "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "SparseAdam", "RMSprop", "Adagrad", "Adadelta", "Rprop",
    "Lion", "LAMB", "Lamb", "Adafactor", "Muon", "LBFGS",
})  # fmt: skip


def loss_scale(record: Record, *, batch: int = 8) -> list[Finding]:
    """The loss is summed over the batch, so that gradient and step grow with the batch size.

    A rate of 0.01 on the sum over 100 samples is a rate of 1 on their mean. What suits one batch size
    overshoots at another, and the last, smaller batch of an epoch has its own.

    Told apart:
        A sum alone is no fault: with a rate that fits, or an optimizer that doesn't care for the scale of
        gradients (Adam and its like), it trains as well as a mean. It is named where steps overshoot, by the
        signs of learning-rate-too-high.

    Wrong when:
        The sum runs over something else than the batch.

    Args:
        record: The run.
        batch: Samples in a batch from which on a sum is told from a mean.

    Returns:
        One finding at most, for the main loss.
    """
    call, samples = main_loss(record), batch_size(record)
    if call is None or call.reduction != "sum" or samples < batch or not record.program.optimizers:
        return []
    learning = progress(record)
    signs = overshoot(record, learning)
    if record.program.optimizers[0].kind in _SCALE_FREE or not signs:
        return []
    at = rate(record)
    says = say(
        "the loss is summed over {samples:.0f} samples, so that a rate of {rate} is one of {mean_rate} on "
        "their mean: {says}; {words}",
        samples=samples,
        rate=number(at),
        mean_rate=number(at * samples),
        says=signs[0].says,
        words=learning.words(),
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
