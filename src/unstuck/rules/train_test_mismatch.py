"""Evaluation data that are processed, or distributed, unlike those of training."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._inputs import Inputs, inputs
from unstuck.rules._learning import Learning, alternates, progress, skill
from unstuck.rules._words import number, share, then
from unstuck.verdict import Evidence, Finding, Severity

_SIZES: dict[str, Callable[[Inputs], np.ndarray]] = {
    say("root mean square"): lambda item: np.sqrt(item.mean**2 + item.std**2),
    say("standard deviation"): lambda item: item.std,
}
_Said = tuple[str, tuple[Evidence, ...], bool]  # what is found, the evidence, and whether the data may be so by nature
_FAR = 2.0  # times chance, above which the loss of the evaluation shows it, too
_SOME = 0.1  # of the way from chance to perfect, that the score must be behind all the same
_COUNTED = 30.0  # labels of a class, were they even, from which on a class that was never seen is none by chance


def train_test_mismatch(
    record: Record,
    *,
    scale: float = 2.0,
    spread: float = 3.0,
    shift: float = 2.0,
    part: float = 0.5,
    samples: int = 32,
    unseen: float = 0.3,
    worse: float = 0.25,
) -> list[Finding]:
    """Evaluation data are not like the training data: scaled otherwise, shifted, or of classes that training never has.

    Standardised in one place and not in the other, divided by 255 twice, split along a sorted table: the network
    is asked about data that it was not made for, and evaluation tells nothing of what it learned.

    Told apart:
        What the first layer gets, feature by feature, in training and in evaluation: after whatever the network does to
        its input itself. Evaluation is scaled otherwise when its features are several times as large or vary as much
        more, both overall and for the typical feature; otherwise distributed when most features, each by itself, vary
        several times as much or as little, or have moved by more than two standard deviations. All of it is far beyond
        what sampling or augmentation do. Labels count where classes were never seen in training, since an evaluation
        that is sorted by class has odd shares too. It must show, in a score that is much worse than that of training, or in one
        that is worse at a loss far above that of a constant prediction; else it is a note.

        How they are processed, and not what they are, is an error: one of the two is standardised by feature and the other
        isn't, or the typical feature varies `spread` times as much or as little. What merely lies elsewhere, as the later
        time of a series does, is a warning at most. Standardised each by its own numbers, both are alike.

    Wrong when:
        The data change by nature, as a series that grows, and the script is meant to find out how well that goes; an error where it
        grows `spread` times as wild.

    Args:
        record: The run.
        scale: Root mean square, or standard deviation, of the evaluation's features relative to training's, or the
            inverse. Pictures from 0 to 1 vary a third to a quarter as much as standardised ones; crops, flips and
            jitter change it by a tenth or two, and that of 32 samples has a standard error of an eighth.
        spread: Standard deviation of single features relative to training's, or the inverse. Table columns left as they
            come are off by any factor, each by another; those with a heavy tail vary by up to twice from sample to
            sample.
        shift: Distance between the features' means, in standard deviations of both, for more than `part` of the
            features.
        part: That part.
        samples: Evaluated samples that must have been measured; two standard deviations are twelve standard errors
            then.
        unseen: Share of evaluated labels that are of classes never seen in training.
        worse: How far the score must be behind that of training, as a share of the way from chance to perfect.

    Returns:
        One finding at most.
    """
    learning = progress(record)
    if learning.status == "unknown" or alternates(record):
        return []
    said = _apart(record, scale, spread, shift, part, samples) or _unseen(record, unseen)
    if said is None:
        return []
    words, evidence, by_nature = said
    severity, how = _severity(record, learning, worse)
    severity = "warning" if by_nature and severity == "error" else severity
    return finding(
        "train-test-mismatch",
        severity,
        0.9 if severity != "note" else 0.6,
        then(words, how),
        evidence=evidence,
        treated_by=("evaluation-scale", "standardize-input", "shuffle"),
    )


def _apart(record: Record, scale: float, spread: float, shift: float, part: float, samples: int) -> _Said | None:
    if max((int(e.data.get("samples", 0)) for e in record.happened("eval")), default=0) < samples:
        return None
    trained = {item.place: item for item in inputs(record)}
    for evaluated in inputs(record, "eval_input"):
        train = trained.get(evaluated.place)
        if train is None or len(train.mean) != len(evaluated.mean):
            continue
        moved, how = _moved(train, evaluated, spread, shift)
        step = record.vectors("eval_input_mean", evaluated.place)[-1].step
        processed, by_nature = _processed(train, evaluated, spread)
        scaled = max((_scaled(train, evaluated, of) for of in _SIZES), key=lambda found: abs(math.log(found[0])))
        larger, what, size, before = scaled
        if larger > scale or larger < 1 / scale:
            values = {"ratio": number(larger), "what": what, "size": number(size), "before": number(before)}
            words = (
                say(
                    "what is evaluated is {ratio} times as large as what is trained on ({what} {size} against {before})",
                    **values,
                )
                if larger > 1
                else say(
                    "what is evaluated is {ratio} of the size of what is trained on ({what} {size} against {before})",
                    **values,
                )
            )
            sizes = (
                Evidence("eval_input_size", evaluated.place, step, size),
                Evidence("input_size", train.place, 0, before),
            )
            return then(words, *processed), sizes, by_nature
        if moved > part:
            words = say(
                "{share} of the input features lie apart in evaluation: typically they vary {how}",
                share=share(moved),
                how=how,
            )
            return then(words, *processed), (Evidence("features_apart", evaluated.place, step, moved),), by_nature
    return None


def _processed(train: Inputs, evaluated: Inputs, spread: float) -> tuple[list[str], bool]:
    """What tells that the two are processed otherwise, in words, and whether it may as well be the data's nature."""
    before, after = train.std, evaluated.std
    seen = (before > 0) & (after > 0)
    typical = float(np.exp(np.median(np.abs(np.log(after[seen] / before[seen]))))) if seen.any() else 1.0
    if evaluated.standardised and not train.standardised:
        return [say("what is evaluated is standardised by feature, what is trained on is not")], False
    if not typical > spread:
        words = say(
            "they may be so by nature, as those of a later time: how much they vary differs by less than {times} times",
            times=number(spread),
        )
        return [words], True
    if train.standardised:
        return [say("what is trained on is standardised by feature, what is evaluated is not")], False
    return [], False


def _scaled(train: Inputs, evaluated: Inputs, what: str) -> tuple[float, str, float, float]:
    """How much larger evaluation is by one measure, overall or for the typical feature, whichever is nearer to 1.

    Returns:
        The ratio, 1 where the two disagree; the measure; its overall value in evaluation and in training.
    """
    after, before = _SIZES[what](evaluated), _SIZES[what](train)
    overall_after, overall_before = (float(np.sqrt(np.mean(sizes**2))) for sizes in (after, before))
    both = (after > 0) & (before > 0)
    typical = float(np.median(after[both] / before[both])) if both.any() else math.nan
    overall = overall_after / overall_before if overall_before > 0 else math.nan
    if not (0 < typical < math.inf and 0 < overall < math.inf) or (typical > 1) != (overall > 1):
        return 1.0, what, overall_after, overall_before
    return min(typical, overall) if typical > 1 else max(typical, overall), what, overall_after, overall_before


def _moved(train: Inputs, evaluated: Inputs, spread: float, shift: float) -> tuple[float, str]:
    """Share of the features that vary otherwise or lie elsewhere, and how far those do typically."""
    both = np.sqrt((train.std**2 + evaluated.std**2) / 2)
    varies = both > 1e-6 * np.maximum(np.maximum(np.abs(train.mean), np.abs(evaluated.mean)), 1e-12)
    before, after = train.std[varies], evaluated.std[varies]
    apart = np.abs(evaluated.mean - train.mean)[varies] / both[varies]
    seen = (before > 0) & (after > 0)  # what is rare may not have been drawn
    times = np.where(seen, np.maximum(after, before) / np.where(seen, np.minimum(after, before), 1.0), 1.0)
    found = (apart > shift) | (times > spread)
    if not found.any():
        return 0.0, ""
    if np.mean(times[found] > spread) > 0.5:
        return float(np.mean(found)), say(
            "{times} times as much or as little", times=number(float(np.median(times[found])))
        )
    return float(np.mean(found)), say(
        "around a mean that is {deviations} deviations away", deviations=number(float(np.median(apart[found])))
    )


def _unseen(record: Record, unseen: float) -> _Said | None:
    """Whether classes are evaluated that were never trained on."""
    trained, evaluated = (_total(record, signal) for signal in ("label_count", "eval_label_count"))
    if len(trained) < 2 or len(trained) != len(evaluated) or not evaluated.sum() > 0:
        return None
    if trained.sum() < _COUNTED * len(trained) or record.program.task.kind not in ("classification", "binary"):
        return None
    missing = (trained == 0) & (evaluated > 0)
    part = float(evaluated[missing].sum() / evaluated.sum())
    if not part > unseen:
        return None
    classes = np.flatnonzero(missing)
    which = ", ".join(str(c) for c in classes[:4]) + (", ..." if len(classes) > 4 else "")
    words = say(
        "{share} of the evaluated labels are of classes ({classes}) that training never showed",
        share=share(part),
        classes=which,
    )
    return words, (Evidence("unseen_labels", "", record.vectors("eval_label_count")[-1].step, part),), False


def _total(record: Record, signal: str) -> np.ndarray:
    rows = [v.values for v in record.vectors(signal) if len(v.values) and np.isfinite(v.values).all()]
    same = [row for row in rows if len(row) == len(rows[0])]
    return np.stack(same).astype(np.float64).sum(axis=0) if same else np.zeros(0)


def _severity(record: Record, learning: Learning, worse: float) -> tuple[Severity, str]:
    """How severe it is by what it does to the score, and how that is said."""
    train, test = skill(record, learning.score_last), skill(record, learning.eval_score)
    if math.isfinite(train) and math.isfinite(test):
        how = say(
            "{score} is {there} there, {training} in training",
            score=learning.score_name,
            there=number(learning.eval_score),
            training=number(learning.score_last),
        )
        losses = record.series("eval_loss").finite
        far = losses.last > _FAR * learning.chance > _FAR * learning.last and train - test > _SOME
        if not (train - test > worse or far):
            return "note", how
        return ("error" if test < worse / 2 else "warning"), how
    losses = record.series("eval_loss").finite
    if len(losses) and learning.last > 0:
        how = say(
            "the loss is {there} there, {training} in training",
            there=number(losses.last),
            training=number(learning.last),
        )
        return ("warning" if losses.last > 2 * learning.last else "note"), how
    return "note", say("how well it does there is not known")
