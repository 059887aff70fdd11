"""Rare classes that are never answered."""

from __future__ import annotations

import numpy as np

from unstuck._language import Said, say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import alternates, progress
from unstuck.rules._probes import probe
from unstuck.rules._words import number, plural, share
from unstuck.verdict import Evidence, Finding


def class_imbalance(
    record: Record,
    *,
    ratio: float = 5.0,
    named: float = 0.05,
    near: float = 0.2,
    labels: int = 6,
    samples: int = 100,
    late: float = 0.75,
    dominant: float = 0.5,
) -> list[Finding]:
    """Rare classes are ignored: the network answers the frequent ones and is right as often as those are.

    Where one class is nineteen in twenty, answering it always is 95% right, and the loss pays more for being sure of it
    than for telling the rare one. Accuracy looks fine, and what the network was made for it never does.

    Told apart:
        Labels must be uneven, and in the last part of the run classes that are there must go unnamed by the
        predictions. How often a class can have been found is at most how often it was named, and the mean of that over
        the classes is an upper bound of the balanced accuracy: where it is hardly above that of a constant answer, the
        frequent classes are all that was learned, a warning; where other classes are told apart, a note. A class that
        is named at all, even wrongly, is not ignored. With even labels a network that always gives the same answer is
        stuck, and the cause is another.

    Wrong when:
        The inputs tell too little of the rare class ever to make it the more likely one, and probabilities are all that
        is wanted, as of a click. Or the network has not learned anything yet, for a reason of which nothing is known.

    Args:
        record: The run.
        ratio: How many times as frequent as a rare class the most frequent one is. Google's machine learning course
            calls a minority below a fifth an imbalance; SageMaker Debugger warns from 10 on.
        named: Predictions of a class relative to its labels, up to which it counts as ignored.
        near: Balanced accuracy that can have been reached, as a share of the way from a constant answer to perfect,
            below which it is a warning.
        labels: Labels of a class that must have been seen in the last part. A class that is answered as often as it
            comes goes unanswered for so long once in four hundred times.
        samples: All labels that must have been seen there.
        late: That part of the run. Long runs are sampled seldom, and rare classes take samples to be missed in.
        dominant: Share of the most frequent class from which on it is a warning. Below it, answering that class is no
            way to be right, and a network that does so has rather not learned yet.

    Returns:
        One finding at most.
    """
    if alternates(record) or record.program.task.kind not in ("classification", "binary", "multi-label"):
        return []
    learning = progress(record)
    if learning.status in ("unknown", "diverges"):
        return []
    whole = _counts(record, "label_count", 0)
    since = round((1 - late) * learning.end)
    truth, guessed = _with_experiment(record, *_late(record, since))
    if not (len(whole) == len(truth) == len(guessed)) or len(whole) < 2 or truth.sum() < samples:
        return []
    there = truth >= labels
    rare = (whole > 0) & (whole * ratio <= whole.max())
    ignored = there & rare & (guessed <= named * truth)
    if not ignored.any():
        return []
    reach = float(np.mean(np.minimum(1.0, guessed[there] / truth[there])))
    constant = 1 / np.count_nonzero(there)
    skill = (reach - constant) / (1 - constant) if constant < 1 else 1.0
    shares = whole / whole.sum()
    loud = skill < near and shares.max() >= dominant and (record.program.task.kind != "multi-label" or learning.stuck)
    says = say(
        "{ignored} of them late in the run; balanced accuracy is {reach} at most, {words}",
        ignored=_told(ignored, shares, int(guessed[ignored].sum()), int(truth[ignored].sum())),
        reach=number(reach),
        words=learning.words(),
    )
    return finding(
        "class-imbalance",
        "warning" if loud else "note",
        0.5 if learning.stuck else 0.8 if loud else 0.6,
        says,
        evidence=[
            Evidence("label_share", "", record.vectors("label_count")[-1].step, float(shares[ignored].sum())),
            Evidence("prediction_share", "", record.steps, float(guessed[ignored].sum() / max(1.0, guessed.sum()))),
        ],
        treated_by=("class-weights",),
    )


def _late(record: Record, since: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions by class in the last part, of training and evaluation together where both fit."""
    training, evaluation = (
        [_counts(record, f"{prefix}{what}_count", since) for what in ("label", "prediction")]
        for prefix in ("", "eval_")
    )
    if len(evaluation[0]) == len(evaluation[1]) == len(training[0]) == len(training[1]):
        return training[0] + evaluation[0], training[1] + evaluation[1]
    return training[0], training[1]


def _with_experiment(record: Record, truth: np.ndarray, guessed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with what was counted when the script had ended."""
    data = probe(record, "answers")
    if data is None or not len(data["labels"]) == len(truth) == len(guessed):
        return truth, guessed
    return truth + np.asarray(data["labels"]), guessed + np.asarray(data["answers"])


def _counts(record: Record, signal: str, since: int) -> np.ndarray:
    """Sum of a count by class over the samples from a step on."""
    rows = [
        v.values for v in record.vectors(signal) if v.step >= since and len(v.values) and np.isfinite(v.values).all()
    ]
    same = [row for row in rows if len(row) == len(rows[0])]
    return np.stack(same).astype(np.float64).sum(axis=0) if same else np.zeros(0)


def _told(ignored: np.ndarray, shares: np.ndarray, guessed: int, truth: int) -> Said:
    """Which classes are ignored, and how often they were answered."""
    where = np.flatnonzero(ignored)
    part, which = share(float(shares[ignored].sum())), ", ".join(str(c) for c in where[:4])
    if len(where) == 1:
        classes = say("class {name}, {share} of the labels, is", name=where[0], share=part)
    else:
        listed = which + (", ..." if len(where) > 4 else "")
        classes = say(
            "{number} rare classes ({listed}), {share} of the labels, are", number=len(where), listed=listed, share=part
        )
    if guessed == 0:
        return say("{classes} never answered for all {truth}", classes=classes, truth=truth)
    return say(
        "{classes} answered {times} for all {truth}", classes=classes, times=plural(guessed, "time"), truth=truth
    )
