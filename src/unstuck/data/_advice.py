"""What is said of gaps between scores, and what is advised: in the words of the rules that judge a watched run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unstuck.data._intervals import Z
from unstuck.data.epoch_curve import Course
from unstuck.data.power_law import PowerLaw

if TYPE_CHECKING:
    from unstuck.data.generalization import Gap, Kind

WORTH = 0.1  # of the error that twice the data must take away to be worth it
TREATED_BY: dict[str, tuple[str, ...]] = {
    "undertrained": ("train-longer", "learning-rate", "batch-size"),
    "too-little-capacity": ("wider", "activation"),
    "over-regularized": ("dropout", "weight-decay"),
    "overfitting": ("dropout", "weight-decay", "early-stopping", "wider", "l1"),
    "train-test-mismatch": ("evaluation-scale", "standardize-input", "shuffle"),
}
"""Remedies by cause, as the rules of these names prescribe them; of `over-regularized` they take away what there is too much of."""

_MEANS = {
    "underfitting": "underfitting (bias): it doesn't learn its training data well enough",
    "overfitting": "overfitting (variance): it learns its training data by heart",
    "mismatch": "mismatch: evaluation data are processed or distributed differently",
    "fine": "fine: no gap is worth something to do",
    "too few to tell": "too few to tell: a gap may be large, and may be noise",
}
_NO_USE = {
    "bias": "More data of the same kind won't help.",
    "mismatch": "More data of the training's kind won't help much.",
}


def in_words(
    kind: Kind,
    gaps: Sequence[Gap],
    scores: Mapping[str, float],
    target: float | None,
    went: Course | None,
    law: PowerLaw | None,
) -> str:
    """The verdict in plain sentences with the numbers in them."""  # fmt: skip
    goal = "perfect" if target is None else f"the target of {target:.4g}"
    new = "new samples of its kind are" if "train_dev" in scores else "evaluation is"
    parts = [_of_gap(gap, goal, new) for gap in gaps]
    told = [f"{_MEANS[kind][:1].upper()}{_MEANS[kind][1:]}. {_sentence('; '.join(parts))}" if parts else _MEANS[kind]]
    called = [gap.name for gap in gaps if gap.called]
    if len(called) > 1:
        told.append(_sentence(f"{', '.join(called[:-1])} and {called[-1]} count, in this order"))
    if any(math.isnan(gap.low) for gap in gaps):
        told.append("How sure that is isn't known: give numbers of samples, or scores of several seeds.")
    told += _of_course(went) + ([_of_law(law)] if law is not None else [])
    return " ".join(told)


def _of_gap(gap: Gap, goal: str, new: str) -> str:
    sure = "" if math.isnan(gap.low) else f" ({gap.low:.3g} to {gap.high:.3g})"
    much = f"{gap.size:.3g}{sure} behind" if gap.size >= 0 else f"{-gap.size:.3g} ahead of"
    if gap.name == "bias":
        return f"training is {much} {goal}"
    if gap.name == "variance":
        return f"{new} {much} training"
    return f"evaluation is {much} samples of the training's kind that weren't trained on"


def advice_for(
    kind: Kind,
    gaps: Sequence[Gap],
    scores: Mapping[str, float],
    went: Course | None,
    law: PowerLaw | None,
    *,
    learned: bool,
) -> tuple[str, ...]:
    """What to do, most apt first: for each gap that is called, in their order."""
    advice: list[str] = []
    for gap in gaps:
        if gap.called:
            advice += _ADVISE[gap.name](scores, went, law, learned)
    if gaps and gaps[0].called and learned and not any(gap.called and gap.name == "variance" for gap in gaps):
        advice.append(_NO_USE[gaps[0].name])
    if kind == "too few to tell":
        advice.append(_more_to_tell(gaps, scores))
    if kind == "fine" and went is not None and went.improving:
        advice.append("Training was still getting better when it ended: a few more epochs cost little.")
    better = [gap for gap in gaps if gap.name != "bias" and gap.high < 0]
    if better:
        asked = "was training scored with dropout or augmentation on, or does it leak (unstuck.data.leak)?"
        advice.append(f"New samples score better than trained ones: {asked}")
    return tuple(advice)


def _against_bias(scores: Mapping[str, float], went: Course | None, law: PowerLaw | None, learned: bool) -> list[str]:
    if not learned:
        return [
            "In training it is hardly better than chance: something is broken rather than too small; `unstuck run` looks for it."
        ]
    improving = went.improving if went is not None else None
    how = "training was still getting better when it ended" if improving else "look whether training still gets better"
    longer = [] if improving is False else [f"Train longer, or with a larger rate: {how}."]
    return [
        *longer,
        "Take a larger network, or one that fits the task better.",
        "Take away regularization: dropout, weight decay, augmentation.",
        "Look at the training samples that it gets wrong (unstuck.data.error_analysis): wrong labels, and inputs that no one could tell, "
        "set a limit.",
    ]


def _against_variance(
    scores: Mapping[str, float], went: Course | None, law: PowerLaw | None, learned: bool
) -> list[str]:
    advice = []
    if went is not None and went.turned_at is not None:
        advice.append(f"Stop early: evaluation was best at epoch {went.turned_at}, and got worse from there.")
    more = "Train on more samples, or augment those there are"
    advice.append(
        f"{more}; `learning_curve` tells how much that would bring." if law is None else f"{more}: {_brought(law)}."
    )
    advice.append("Regularize: dropout, weight decay, an L1 penalty; or take a smaller network.")
    if law is not None and not _helps(law):
        advice.append(advice.pop(-2).replace(": ", ", though that may bring little: "))
    if "train_dev" not in scores:
        advice.append(
            "If evaluation samples don't come from where training samples do, hold out some of the training's kind and give their score as "
            "`train_dev`: this gap may be one of the data."
        )
    return advice


def _against_mismatch(
    scores: Mapping[str, float], went: Course | None, law: PowerLaw | None, learned: bool
) -> list[str]:
    return [
        "Check that evaluation data are scaled and processed as training data are.",
        "Look at what the evaluation's errors have in common (unstuck.data.error_analysis, by group), and train on data more like those.",
    ]


_ADVISE = {"bias": _against_bias, "variance": _against_variance, "mismatch": _against_mismatch}


def causes_of(gaps: Sequence[Gap], went: Course | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Codes of causes, and remedies, for the gaps that are called, in their order."""
    causes: list[str] = []
    for gap in gaps:
        if gap.called and gap.name == "bias":
            improving = went.improving if went is not None else None
            causes += [*([] if improving is False else ["undertrained"]), "too-little-capacity", "over-regularized"]
        elif gap.called:
            causes.append("overfitting" if gap.name == "variance" else "train-test-mismatch")
    first = (
        ("early-stopping",) if "overfitting" in causes[:1] and went is not None and went.turned_at is not None else ()
    )
    remedies = dict.fromkeys((*first, *(name for cause in causes for name in TREATED_BY[cause])))
    return tuple(causes), tuple(remedies)


def _of_course(went: Course | None) -> list[str]:
    if went is None:
        return []
    told = []
    if went.improving is not None:
        still = f"Training was still getting better when it ended: the last quarter brought {went.last_quarter:.0%} of all progress."
        told.append(still if went.improving else "Training had settled when it ended.")
    if went.turned_at is not None:
        told.append(f"Evaluation was best at epoch {went.turned_at} and got worse by {went.got_worse:.3g} since.")
    return told


def _helps(law: PowerLaw) -> bool:
    """Whether twice the data would take away a good part of the error."""
    last = int(law.curve.sizes[-1])
    return law.error(2 * last) < (1 - WORTH) * law.error(last)


def _brought(law: PowerLaw) -> str:
    last = int(law.curve.sizes[-1])
    return f"twice the data would take the score from {law.forecast(last).score:.3g} to about {law.forecast(2 * last).score:.3g}"


def _of_law(law: PowerLaw) -> str:
    last = int(law.curve.sizes[-1])
    now, twice = law.forecast(last), law.forecast(2 * last)
    return (
        f"With twice the data ({twice.num_samples} samples) a score of {twice.score:.3g} is to be expected "
        f"({twice.low:.3g} to {twice.high:.3g}), where it is {now.score:.3g} with {last}."
    )


def _more_to_tell(gaps: Sequence[Gap], scores: Mapping[str, float]) -> str:
    open_ = max((gap for gap in gaps if gap.open), key=lambda gap: gap.high)
    share = scores["evaluation"]
    if not 0 < share < 1:
        return "Score more samples, or train with more seeds: the intervals are too wide."
    needed = math.ceil(share * (1 - share) * (Z / open_.matters) ** 2)
    much = f"accuracies of about {max(30, needed)} in each part would do"
    return f"Score more samples ({much}), or train with more seeds: the intervals are too wide."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""
