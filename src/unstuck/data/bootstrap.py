"""Bootstrap: resamples to train on, evaluation on what is out of bag, and the .632 and .632+ estimates made of both scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unstuck.data._known import Known, check_classes, check_groups, check_whole, generator_of, known_of
from unstuck.data.samples import as_array
from unstuck.data.split import Split
from unstuck.errors import MisuseError

OUT_OF_BAG, IN_BAG = 0.632, 0.368  # 1 - 1/e of all samples is in a large resample; the estimate's weights are these


def bootstrap(
    num_samples: int,
    num_resamples: int = 100,
    *,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> Iterator[Split]:
    """As many samples as there are, drawn with replacement, are trained on; those not drawn (out of bag) evaluate.

    A resample without any out-of-bag sample, which only very few samples give, is drawn again.

    Args:
        num_samples: How many there are, at least 2.
        num_resamples: How many splits.
        labels: Class of each sample, each of which is drawn as often as it is there; not together with groups.
        groups: Group of each sample: groups are drawn instead of samples, as many as there are, and whole.
        seed: Of all randomness. The split with number i is the same whatever `num_resamples` is.

    Returns:
        An iterator over the splits; training parts are sorted and repeat what was drawn several times.

    Raises:
        MisuseError: Too few samples, groups or members of a class, or values that don't fit or go together.

    Source:
        Efron 1983, "Estimating the error rate of a prediction rule: improvement on cross-validation".
    """
    known = known_of(num_samples, labels, groups, None, None)
    check_whole("num_resamples", num_resamples)
    if num_resamples < 1:
        raise MisuseError(f"{num_resamples} resamples; at least 1 is needed")
    if known.labels is not None and known.groups is not None:
        raise MisuseError("a bootstrap by labels and groups at once; give one of them")
    if known.labels is not None:
        check_classes(known.labels, 2, "a bootstrap by labels")
    if known.groups is not None:
        check_groups(known.groups, 2)
    return (_resample(known, seed, i) for i in range(num_resamples))


def bootstrap_estimate(
    train_score: float | ArrayLike, oob_score: float | ArrayLike, *, no_information: float | None = None
) -> float:
    """What a model trained on all samples would score on new ones, by the .632 rule; by the .632+ rule with `no_information`.

    Training scores are too good, and those out of bag too bad, since a resample holds 63.2% of the samples: the estimate lies
    between. A model that learns by heart makes training scores worthless; .632+ then leans towards the score out of bag, as far
    as that has fallen towards the score of a model without any information.

    Args:
        train_score: Score of a model trained on all samples, on the same; or those of resamples on themselves, which are averaged.
        oob_score: Scores out of bag, which are averaged. Any scores will do, also those where less is better.
        no_information: What the score would be if inputs told nothing of targets; see `no_information_accuracy`.

    Returns:
        The estimate. It lies between the two scores; that of .632+ between the .632 one and the score out of bag, which counts as
        no worse than `no_information`.

    Raises:
        MisuseError: There is no score, or one that isn't finite.

    Source:
        Efron and Tibshirani 1997, "Improvements on cross-validation: the .632+ bootstrap method", section 3. There the score out of
        bag is averaged by sample first, and the rate of overfitting is cut at 0; here it is at 1 too, so that weights stay in range.

    Example:
        A nearest neighbor, which is right on what it has seen, and labels at random:

        >>> round(bootstrap_estimate(1.0, 0.5), 3), bootstrap_estimate(1.0, 0.5, no_information=0.5)
        (0.684, 0.5)
    """  # noqa: DOC502
    train, oob = _mean_score(train_score, "train_score"), _mean_score(oob_score, "oob_score")
    if no_information is None:
        return IN_BAG * train + OUT_OF_BAG * oob
    lost, losable = oob - train, _mean_score(no_information, "no_information") - train
    overfitting = min(1.0, lost / losable) if lost * losable > 0 else 0.0
    if abs(lost) > abs(losable) and overfitting:
        lost = losable
    return train + OUT_OF_BAG / (1 - IN_BAG * overfitting) * lost


def no_information_accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Accuracy of the same predictions if labels had nothing to do with inputs: over all pairs of a label and a prediction.

    Args:
        labels: Class of each sample.
        predictions: Class that the model says, for each.

    Returns:
        From 0 to 1; `bootstrap_estimate` takes it as `no_information` where scores are accuracies.

    Raises:
        MisuseError: They are not as many, or none.

    Source:
        Efron and Tibshirani 1997, section 3: one minus their no-information error rate.
    """
    labels, predictions = as_array(labels), as_array(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or not labels.size:
        raise MisuseError(
            f"labels of shape {labels.shape} and predictions of shape {predictions.shape}; each needs one per sample"
        )
    classes, numbers = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    counts = [np.bincount(half, minlength=len(classes)) for half in np.split(numbers, 2)]
    return float(counts[0] @ counts[1]) / labels.size**2


def _resample(known: Known, seed: int, number: int) -> Split:
    """The resample with that number, drawn until there is something out of bag."""
    generator = generator_of(seed, number)
    while True:
        train = _drawn(known, generator)
        held = np.ones(known.num_samples, bool)
        held[train] = False
        if held.any():
            return Split(train, np.flatnonzero(held))


def _drawn(known: Known, generator: np.random.Generator) -> NDArray[np.int64]:
    if known.groups is not None:
        names, numbers = np.unique(known.groups, return_inverse=True)
        times_drawn = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
        return np.repeat(np.arange(known.num_samples), times_drawn[numbers])
    if known.labels is None:
        return np.sort(generator.integers(known.num_samples, size=known.num_samples))
    members = [np.flatnonzero(known.labels == name) for name in np.unique(known.labels)]
    return np.sort(np.concatenate([generator.choice(each, size=len(each)) for each in members]))


def _mean_score(scores: Any, name: str) -> float:
    values = as_array(scores).astype(np.float64)
    if not values.size or not np.all(np.isfinite(values)):
        raise MisuseError(f"{name} is {scores}; a finite score, or some, are needed")
    return float(values.mean())
