"""What is said of gaps between scores, and what is advised: in the words of the rules that judge a watched run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unstuck._language import capital, joined, say
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
    "underfitting": say("underfitting (bias): it doesn't learn its training data well enough"),
    "overfitting": say("overfitting (variance): it learns its training data by heart"),
    "mismatch": say("mismatch: evaluation data are processed or distributed differently"),
    "fine": say("fine: no gap is worth something to do"),
    "too few to tell": say("too few to tell: a gap may be large, and may be noise"),
}
_NO_USE = {
    "bias": say("More data of the same kind won't help."),
    "mismatch": say("More data of the training's kind won't help much."),
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
    goal = say("perfect") if target is None else say("the target of {target:.4g}", target=target)
    parts = [_of_gap(gap, goal, is_new="train_dev" in scores) for gap in gaps]
    meaning, told = _MEANS[kind], []
    if parts:
        told += [say("{meaning}.", meaning=capital(meaning)), say("{gaps}.", gaps=capital(joined(parts, say("; "))))]
    else:
        told.append(meaning)
    called = [gap.name for gap in gaps if gap.called]
    if len(called) > 1:
        first, last = ", ".join(called[:-1]), called[-1]
        told.append(capital(say("{first} and {last} count, in this order.", first=first, last=last)))
    if any(math.isnan(gap.low) for gap in gaps):
        told.append(say("How sure that is isn't known: give numbers of samples, or scores of several seeds."))
    return joined([*told, *_of_course(went), *([_of_law(law)] if law is not None else [])], " ")


def _of_gap(gap: Gap, goal: str, *, is_new: bool) -> str:
    sure = "" if math.isnan(gap.low) else say(" ({low:.3g} to {high:.3g})", low=gap.low, high=gap.high)
    size = f"{abs(gap.size):.3g}"
    behind = gap.size >= 0
    if gap.name == "bias":
        if behind:
            return say("training is {size}{sure} behind {goal}", size=size, sure=sure, goal=goal)
        return say("training is {size} ahead of {goal}", size=size, goal=goal)
    if gap.name == "variance" and is_new:
        if behind:
            return say("new samples of its kind are {size}{sure} behind training", size=size, sure=sure)
        return say("new samples of its kind are {size} ahead of training", size=size)
    if gap.name == "variance":
        if behind:
            return say("evaluation is {size}{sure} behind training", size=size, sure=sure)
        return say("evaluation is {size} ahead of training", size=size)
    if behind:
        return say(
            "evaluation is {size}{sure} behind samples of the training's kind that weren't trained on",
            size=size,
            sure=sure,
        )
    return say("evaluation is {size} ahead of samples of the training's kind that weren't trained on", size=size)


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
        advice.append(say("Training was still getting better when it ended: a few more epochs cost little."))
    better = [gap for gap in gaps if gap.name != "bias" and gap.high < 0]
    if better:
        advice.append(
            say(
                "New samples score better than trained ones: was training scored with dropout or augmentation on, or does it leak "
                "(unstuck.data.leak)?"
            )
        )
    return tuple(advice)


def _against_bias(scores: Mapping[str, float], went: Course | None, law: PowerLaw | None, learned: bool) -> list[str]:
    if not learned:
        return [
            say(
                "In training it is hardly better than chance: something is broken rather than too small; `unstuck run` looks for it."
            )
        ]
    improving = went.improving if went is not None else None
    longer = (
        say("Train longer, or with a larger rate: training was still getting better when it ended.")
        if improving
        else say("Train longer, or with a larger rate: look whether training still gets better.")
    )
    return [
        *([] if improving is False else [longer]),
        say("Take a larger network, or one that fits the task better."),
        say("Take away regularization: dropout, weight decay, augmentation."),
        say(
            "Look at the training samples that it gets wrong (unstuck.data.error_analysis): wrong labels, and inputs that no one could "
            "tell, set a limit."
        ),
    ]


def _against_variance(
    scores: Mapping[str, float], went: Course | None, law: PowerLaw | None, learned: bool
) -> list[str]:
    advice = []
    if went is not None and went.turned_at is not None:
        advice.append(
            say("Stop early: evaluation was best at epoch {epoch}, and got worse from there.", epoch=went.turned_at)
        )
    regularize = say("Regularize: dropout, weight decay, an L1 penalty; or take a smaller network.")
    if law is None:
        more = say(
            "Train on more samples, or augment those there are; `learning_curve` tells how much that would bring."
        )
        advice += [more, regularize]
    elif _helps(law):
        advice += [
            say("Train on more samples, or augment those there are: {brought}.", brought=_brought(law)),
            regularize,
        ]
    else:
        little = say(
            "Train on more samples, or augment those there are, though that may bring little: {brought}.",
            brought=_brought(law),
        )
        advice += [regularize, little]
    if "train_dev" not in scores:
        advice.append(
            say(
                "If evaluation samples don't come from where training samples do, hold out some of the training's kind and give their "
                "score as `train_dev`: this gap may be one of the data."
            )
        )
    return advice


def _against_mismatch(
    scores: Mapping[str, float], went: Course | None, law: PowerLaw | None, learned: bool
) -> list[str]:
    return [
        say("Check that evaluation data are scaled and processed as training data are."),
        say(
            "Look at what the evaluation's errors have in common (unstuck.data.error_analysis, by group), and train on data more like "
            "those."
        ),
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
        still = say(
            "Training was still getting better when it ended: the last quarter brought {share:.0%} of all progress.",
            share=went.last_quarter,
        )
        told.append(still if went.improving else say("Training had settled when it ended."))
    if went.turned_at is not None:
        told.append(
            say(
                "Evaluation was best at epoch {epoch} and got worse by {worse:.3g} since.",
                epoch=went.turned_at,
                worse=went.got_worse,
            )
        )
    return told


def _helps(law: PowerLaw) -> bool:
    """Whether twice the data would take away a good part of the error."""
    last = int(law.curve.sizes[-1])
    return law.error(2 * last) < (1 - WORTH) * law.error(last)


def _brought(law: PowerLaw) -> str:
    last = int(law.curve.sizes[-1])
    return say(
        "twice the data would take the score from {now:.3g} to about {then:.3g}",
        now=law.forecast(last).score,
        then=law.forecast(2 * last).score,
    )


def _of_law(law: PowerLaw) -> str:
    last = int(law.curve.sizes[-1])
    now, twice = law.forecast(last), law.forecast(2 * last)
    return say(
        "With twice the data ({samples} samples) a score of {score:.3g} is to be expected ({low:.3g} to {high:.3g}), where it is "
        "{now:.3g} with {last}.",
        samples=twice.num_samples,
        score=twice.score,
        low=twice.low,
        high=twice.high,
        now=now.score,
        last=last,
    )


def _more_to_tell(gaps: Sequence[Gap], scores: Mapping[str, float]) -> str:
    open_ = max((gap for gap in gaps if gap.open), key=lambda gap: gap.high)
    share = scores["evaluation"]
    if not 0 < share < 1:
        return say("Score more samples, or train with more seeds: the intervals are too wide.")
    needed = math.ceil(share * (1 - share) * (Z / open_.matters) ** 2)
    return say(
        "Score more samples (accuracies of about {samples} in each part would do), or train with more seeds: the intervals are too wide.",
        samples=max(30, needed),
    )
