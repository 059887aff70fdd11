"""Too few updates, since each takes a large share of the data."""

from __future__ import annotations

import math

import numpy as np

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import batch_size, progress
from unstuck.rules._probes import number_of, probe
from unstuck.rules._words import number, plural, share
from unstuck.rules.undertrained import undertrained
from unstuck.verdict import Evidence, Finding


def batch_too_large(
    record: Record, *, updates: int = 100, part: float = 0.1, size: int = 64, passes: float = 3.0, noisy: float = 1.0
) -> list[Finding]:
    """Updates are few, since each batch is a large share of the data, and the network was still learning at the end.

    A pass over the data makes as many updates as there are batches. With all of the data in one batch, fifty passes
    are fifty steps, and nothing can be learned in fifty steps that takes a thousand.

    Told apart:
        The loss was still falling when training stopped, as `undertrained` says with its own evidence; the updates were
        few, while the passes over the data were not; and there is a smaller batch to go to. Where the gradient noise
        scale was measured (McCandlish et al. 2018), the batch must be above it: below it a smaller batch makes worse
        steps, and it is the passes that are too few. Without a loader, a batch that is the same at every step is taken
        for the whole data.

    Wrong when:
        A larger rate would have done in the same number of steps; the three are cured alike.

    Args:
        record: The run.
        updates: Updates in the whole run, below which they are few.
        part: Share of the data that a batch must be.
        size: Smallest batch that is called large. Batches of 2 to 32 train best at a given cost (Masters and Luschi
            2018).
        passes: Passes over the data that must have been made; with less, `undertrained` says it all.
        noisy: Batch size relative to the noise scale, where that was measured.

    Returns:
        One finding at most.
    """
    held, total = batch_size(record), _samples(record)
    if record.steps >= updates or held < size or not total or held < part * total:
        return []
    if record.steps * held < passes * total:
        return []
    scale = number_of(probe(record, "noise"), "scale")
    if held < noisy * scale or not undertrained(record):
        return []
    learning = progress(record)
    of_noise = say(" and the gradient's noise scale is {scale}", scale=number(scale)) if math.isfinite(scale) else ""
    passes_made, held_share = round(record.steps * held / total), share(min(1.0, held / total))
    says = say(
        "{passes} over the data made only {updates}, as a batch of {held} holds {share} of "
        "it{of_noise}; {words}, and the loss was still falling",
        passes=plural(passes_made, "pass"),
        updates=plural(record.steps, "update"),
        held=number(held),
        share=held_share,
        of_noise=of_noise,
        words=learning.words(),
    )
    return finding(
        "batch-too-large",
        "warning",
        0.8 if math.isfinite(scale) else 0.7,
        says,
        evidence=[
            Evidence("batch_size", "", record.steps - 1, held),
            Evidence("loss", "", record.steps - 1, learning.last),
        ],
        treated_by=("batch-size", "train-longer", "learning-rate"),
    )


def _samples(record: Record) -> float:
    """Samples in the training set; the batch's where every step is given the same one; 0 when unknown."""
    data = record.program.data
    if data.num_samples:
        return float(data.num_samples)
    return batch_size(record) if data.loader == "" and _same(record) else 0.0


def _same(record: Record) -> bool:
    """Whether all sampled steps had the same input."""
    for place in record.places("input_mean"):
        rows = [v.values for v in record.vectors("input_mean", place)]
        if len(rows) >= 3 and all(np.array_equal(row, rows[0]) and np.std(row) >= 0 for row in rows):
            return True
    return False
