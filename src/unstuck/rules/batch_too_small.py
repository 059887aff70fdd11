"""Gradients that are mostly noise."""

from __future__ import annotations

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import alternates, batch_size, progress
from unstuck.rules._probes import number_of, probe, quality_of
from unstuck.rules._words import number, plural
from unstuck.verdict import Evidence, Finding


def batch_too_small(
    record: Record, *, noisy: float = 20.0, small: int = 16, better: float = 0.1, share: float = 0.05
) -> list[Finding]:
    """Batches are so small that their gradients are noise, and the steps, taken at face value, throw the network about.

    Told apart:
        By the gradient noise scale, the batch size at which noise and gradient are equal (McCandlish et al. 2018), which must be far above
        the script's; and by what the noise does: with each update on the mean gradient of several batches, at the same
        rate, the same network goes further in as many updates. Noise alone is no fault: near the end of every training the gradient
        is small and the noise is not. The batch must be small as such, and a small part of the data.

    Wrong when:
        A smaller rate would have done as well: the two are cured alike.

    Args:
        record: The run.
        noisy: Noise scale relative to the batch size. Up to about that scale, a batch of twice the size takes half the steps.
        small: Batch size above which nothing is said.
        better: What larger batches must bring, as a share of the way from chance to perfect.
        share: Part of the training set that a batch may be.

    Returns:
        One finding at most.
    """
    learning, data = progress(record), probe(record, "noise")
    if data is None or learning.well or learning.status in ("unknown", "diverges") or alternates(record):
        return []
    size = batch_size(record)
    total = record.program.data.num_samples
    if size > small or (total and size > share * total):
        return []
    scale = number_of(data, "scale") if data.get("scale") is not None else float("inf")
    tried = probe(record, "larger-batch")
    if not scale > noisy * size or tried is None:
        return []
    before, single, several = (
        quality_of(record, loss, score, tried) for loss, score in zip(tried["losses"], tried["scores"], strict=True)
    )
    if not several - max(single, before) > better:
        return []
    says = say(
        "the noise scale of the gradient is {scale} samples, a batch has {size:g}: with {times} "
        "batches to an update {updates} at the same rate go {gain} further on the way from chance "
        "to perfect, and {more} further than with one; {words}",
        scale=number(scale),
        size=size,
        times=tried["times"],
        updates=plural(int(tried["steps"]), "update"),
        gain=number(several - before),
        more=number(several - single),
        words=learning.words(),
    )
    return finding(
        "batch-too-small",
        learning.weigh(stuck="warning"),
        0.6,
        says,
        evidence=[Evidence("noise_scale", "", record.steps, scale), Evidence("batch_size", "", 0, size)],
        treated_by=("batch-size", "learning-rate", "weight-averaging"),
    )
