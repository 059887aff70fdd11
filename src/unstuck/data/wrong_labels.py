"""Labels that may be wrong. It is a suspicion: a sample may as well be rare, or hard; look at each before it is changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from unstuck._json import plain
from unstuck._language import say
from unstuck.data.samples import as_array, input_at
from unstuck.data.sketch import sketch
from unstuck.errors import MisuseError


@dataclass(frozen=True, eq=False)
class Suspect:
    """A sample whose label may be wrong.

    Attributes:
        number: Of the sample.
        label: That it has.
        suggests: What it may be instead; None where nothing tells.
        strength: How far what it may be is ahead of its label, as a difference of probabilities; of losses by epoch, the mean loss over
            that of chance. Comparable among the samples of one call.
        says: Why, in a sentence.
        input: What the network is given, where it was handed over; to be looked at.
    """

    number: int
    label: int
    suggests: int | None
    strength: float
    says: str
    input: Any = None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and text; the input becomes a small picture."""
        return plain({**vars(self), "input": None if self.input is None else sketch(self.input, side=64)})


def by_folds(probabilities: ArrayLike, labels: ArrayLike, *, inputs: Any = None) -> tuple[Suspect, ...]:
    """Samples that a network which never saw them confidently takes for another class.

    A class is confidently told where its probability is at least as large as it is on average over the samples that are labelled so.

    Args:
        probabilities: Of each class for each sample, shape `(samples, classes)`, from networks that were trained without that sample:
            of each fold's evaluation in `unstuck.data.split.k_fold`. Of samples that were trained on they mostly repeat the label.
        labels: Classes, shape `(samples,)`.
        inputs: Of all samples, by number, to be shown: an array, a dataset, or a list.

    Returns:
        The suspects, the strongest first.

    Raises:
        MisuseError: They don't fit together.

    Source:
        Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset labels", sections 3.1 and 3.2 (what is
        off the diagonal of the confident joint).
    """
    chances, given = as_array(probabilities).astype(np.float64), as_array(labels)
    if chances.ndim != 2 or given.shape != chances.shape[:1] or given.dtype.kind not in "iu":
        raise MisuseError(
            f"probabilities of shape {chances.shape} and labels of shape {given.shape}; (samples, classes) and whole (samples,) are needed"
        )
    if (
        not len(given)
        or given.min() < 0
        or given.max() >= chances.shape[1]
        or chances.min() < 0
        or chances.max() > 1 + 1e-6
    ):
        raise MisuseError(
            "labels that are no classes, or values that are no probabilities from 0 to 1 (of logits, take the softmax)"
        )
    typical = np.array([
        chances[given == c, c].mean() if np.any(given == c) else math.inf for c in range(chances.shape[1])
    ])  # fmt: skip
    told = np.where(chances >= typical, chances, -1.0)
    best = told.argmax(axis=1)
    suspected = np.flatnonzero((told.max(axis=1) >= 0) & (best != given))
    found = [_by_fold(int(i), int(given[i]), int(best[i]), chances[i], inputs) for i in suspected]
    return tuple(sorted(found, key=lambda suspect: -suspect.strength))


def _by_fold(number: int, label: int, best: int, chances: np.ndarray, inputs: Any) -> Suspect:
    ahead = float(chances[best] - chances[label])
    says = say(
        "labelled {label}, which gets {chance:.2f} from a network that never saw it, where {best} gets {best_chance:.2f}",
        label=label,
        chance=chances[label],
        best=best,
        best_chance=chances[best],
    )
    return Suspect(number, label, best, ahead, says, input_at(inputs, number))


def by_epochs(
    losses: ArrayLike, labels: ArrayLike, num_classes: int, *, share: float = 0.8, inputs: Any = None
) -> tuple[Suspect, ...]:
    """Samples whose label the network goes on to find less likely than chance, while it has learned the others.

    Networks learn what is common before they learn single samples by heart (Arpit et al. 2017), so wrong labels keep a high loss for
    long. Epochs count from the one on at which the median loss is half of chance. A network that learns by heart ends that: what it was
    trained on for very long looks right whatever it is.

    Args:
        losses: Cross-entropy of each sample after each epoch, shape `(epochs, samples)`; `Judged.losses` of each pass.
        labels: Classes, shape `(samples,)`.
        num_classes: How many there are.
        share: Of the epochs that count, in which the loss must be above that of chance.
        inputs: Of all samples, as in `by_folds`.

    Returns:
        The suspects, the strongest first; none where the network never learned, or in fewer than three epochs.

    Raises:
        MisuseError: They don't fit together.

    Source:
        Arpit et al. 2017, "A closer look at memorization in deep networks"; Pleiss et al. 2020, "Identifying mislabeled data using the
        area under the margin ranking", who average over epochs too.
    """
    rows, given = as_array(losses).astype(np.float64), as_array(labels)
    if rows.ndim != 2 or given.shape != rows.shape[1:] or num_classes < 2:
        raise MisuseError(
            f"losses of shape {rows.shape}, labels of shape {given.shape}, {num_classes} classes; "
            "(epochs, samples), (samples,) and at least two are needed"
        )
    chance = math.log(num_classes)
    learned = np.flatnonzero(np.median(rows, axis=1) < chance / 2) if rows.size else np.zeros(0, int)
    if not len(learned) or len(rows) - learned[0] < 3:
        return ()
    counted = rows[learned[0] :]
    above = (counted > chance).mean(axis=0)
    found = [
        Suspect(i, int(given[i]), None, float(counted[:, i].mean() / chance), _said(above[i], len(counted)), input_at(inputs, i))
        for i in np.flatnonzero(above >= share).tolist()
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda suspect: -suspect.strength))


def _said(share: float, epochs: int) -> str:
    return say(
        "in {share:.0%} of {epochs} epochs its label was less likely than chance, while most samples were well known",
        share=share,
        epochs=epochs,
    )
