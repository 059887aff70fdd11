"""Bias or variance: what the scores of training and evaluation say of what to do next.

The error of the evaluation is taken apart into what is lost already in training (avoidable bias), what is lost on new samples of the same
kind (variance), and what is lost since evaluation is of another kind (data mismatch). A gap counts that is larger than its noise.

`learning_curve` and `epoch_curve` tell further: whether more samples would help, and whether training had come to its end.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from unstuck._json import plain
from unstuck._student import quantile
from unstuck.data._advice import advice_for, causes_of, in_words
from unstuck.data._intervals import bootstrapped, newcombe, student
from unstuck.data.epoch_curve import Course, course
from unstuck.data.learning_curve import SizeCurve
from unstuck.data.power_law import PowerLaw, fit
from unstuck.data.samples import as_array
from unstuck.errors import MisuseError

Kind = Literal["underfitting", "overfitting", "mismatch", "fine", "too few to tell"]
GapName = Literal["bias", "variance", "mismatch"]
LEAST_DEVIATION = 1e-3  # between seeds, which may agree by chance; as trials have it
KINDS: dict[str, Kind] = {"bias": "underfitting", "variance": "overfitting", "mismatch": "mismatch"}

WELL = 0.85  # of the way from chance to perfect, from which on a network has learned its training data well, as rules have it
RELATIVE = 0.2  # of the evaluation's loss, that a gap must be where no scale is known, as the rule `overfitting` has it


@dataclass(frozen=True)
class Gap:
    """How much is lost at one place.

    Attributes:
        name: "bias" (training behind the target), "variance" (new samples behind training), "mismatch" (evaluation behind new samples
            of the training's kind).
        size: By how much the score is worse there; in its unit.
        low, high: The 95% interval of that; NaN where nothing tells how sure it is.
        matters: Size from which on a gap is worth something to do.
        called: It is larger than that, and than its noise.
    """

    name: GapName
    size: float
    low: float
    high: float
    matters: float
    called: bool

    @property
    def open(self) -> bool:
        """It isn't called, and might be large all the same."""
        return not self.called and (self.size > self.matters or self.high > 2 * self.matters)

    @property
    def sure(self) -> bool:
        """All of its interval lies on one side of what matters."""
        return self.low > self.matters if self.called else self.high <= self.matters


@dataclass(frozen=True, eq=False)
class Generalization:
    """What the scores say.

    Attributes:
        kind: What is lost most by; "fine" where no gap is called, "too few to tell" where one might be large.
        gaps: All gaps that are known, those that are called first, the largest of them first.
        says: One or a few plain sentences with the numbers in them.
        advice: What to do, most apt first.
        causes: Codes of `unstuck.verdict.CAUSES` that this may be, most likely first; a watched run tells which (`unstuck run`).
        remedies: Names of unstuck's remedies that fit, most apt first.
        certain: The kind would be the same wherever in their intervals the gaps lie.
        course: What the scores by epoch say; None where they weren't given.
        law: The power law of the scores by training samples; None where they weren't given.
    """

    kind: Kind
    gaps: tuple[Gap, ...]
    says: str
    advice: tuple[str, ...]
    causes: tuple[str, ...]
    remedies: tuple[str, ...]
    certain: bool
    course: Course | None = None
    law: PowerLaw | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and text, as `unstuck.report.errors` shows them."""
        about = {name: value for name, value in vars(self).items() if name not in ("gaps", "course", "law")}
        return plain({
            **about, "gaps": [dataclasses.asdict(gap) for gap in self.gaps],
            "course": dataclasses.asdict(self.course) if self.course else None,
            "law": self.law.to_json() if self.law else None,
        })  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores of one part, as they were given."""

    name: str
    values: np.ndarray
    count: int | None
    each: str

    @property
    def mean(self) -> float:
        return float(self.values.mean())


def generalization(
    train: float | ArrayLike,
    evaluation: float | ArrayLike,
    *,
    train_dev: float | ArrayLike | None = None,
    target: float | None = None,
    chance: float | None = None,
    higher_is_better: bool = True,
    each: Literal["seed", "sample"] = "seed",
    num_train: int | None = None,
    num_train_dev: int | None = None,
    num_evaluation: int | None = None,
    train_by_epoch: ArrayLike | None = None,
    evaluation_by_epoch: ArrayLike | None = None,
    by_size: SizeCurve | None = None,
    matters: float = 0.05,
    seed: int = 0,
) -> Generalization:
    """Underfitting, overfitting, mismatch or fine, by how far the scores are apart.

    Bias is the gap from target to training; variance that from training to new samples of its kind; mismatch that from there to
    the evaluation. Without `train_dev` the latter two can't be told apart, and count as variance. Score the training samples as the
    evaluation's are: in evaluation mode, without augmentation.

    A gap is called when it is larger than `matters` and its interval lies above 0. It is open, "too few to tell", when it may be large but
    may be noise. Of several that are called the largest names the kind, and all are told.

    Args:
        train: Score on what was trained on: one; of several seeds; or of each sample (see `each`).
        evaluation: Score of the evaluation, given in the same way; of seeds in the same order.
        train_dev: Of held-out samples of the same kind as training has, where evaluation is of another.
        target: Score that can be reached: a human's, the best known, a baseline's. Where it isn't known a network that gets 85% of the
            way from chance to perfect is taken to have learned its training data, and the verdict isn't certain.
        chance: Score of the best constant answer; the way from there to the target is the scale of what matters. Without it that is 1 for
            scores and shares of errors, and the evaluation's loss for losses, of which a gap must be a fifth.
        higher_is_better: Scores such as accuracy, of which 1 is perfect, unless `target` and `chance` tell their scale; else errors or
            losses, of which 0 is.
        each: What several numbers are scores of: trainings with different seeds, or samples.
        num_train: Samples that `train` is a share of, for accuracies and shares of errors.
        num_train_dev: The same of `train_dev`.
        num_evaluation: The same of `evaluation`. Together with several seeds both kinds of noise count.
        train_by_epoch: Scores in training by epoch, of a metric of the same kind (all losses, or all scores).
        evaluation_by_epoch: Those of the evaluation.
        by_size: Scores by number of training samples, see `learning_curve`.
        matters: Gap that is worth something to do, as a share of the way from chance to the target.
        seed: Of the bootstrap.

    Returns:
        The verdict.

    Raises:
        MisuseError: Scores don't fit each other, or counts are given of what is no share.

    Source:
        Ng 2018, "Machine Learning Yearning", chapters 20-25 (bias and variance), 28-31 (learning curves), 41 (mismatch). There gaps are
        compared by eye.

    Example:
        >>> found = generalization(0.99, 0.89, target=1.0, num_train=10_000, num_evaluation=1000)
        >>> found.kind, [(gap.name, round(gap.size, 2)) for gap in found.gaps], found.certain
        ('overfitting', [('variance', 0.1), ('bias', 0.01)], True)
    """  # noqa: DOC502
    parts = {"train": _scores("train", train, num_train, each)}
    if train_dev is not None:
        parts["train_dev"] = _scores("train_dev", train_dev, num_train_dev, each)
    parts["evaluation"] = _scores("evaluation", evaluation, num_evaluation, each)
    _check_pairs(list(parts.values()), target, chance)
    if higher_is_better and (target is None or chance is None):
        _check_shares(list(parts.values()))
    way = _way(parts, target, chance, higher_is_better)
    gaps = _gaps(parts, target, way, -1.0 if higher_is_better else 1.0, matters if way.known else RELATIVE, seed)
    kind = KINDS[gaps[0].name] if gaps[0].called else "too few to tell" if any(g.open for g in gaps) else "fine"
    went = None
    if train_by_epoch is not None or evaluation_by_epoch is not None:
        went = course(train_by_epoch, evaluation_by_epoch, higher_is_better=_rises(train_by_epoch, evaluation_by_epoch))
    law = fit(by_size) if by_size is not None else None
    scores = {name: part.mean for name, part in parts.items()}
    learned = chance is None or abs(parts["train"].mean - chance) > matters * way.length
    causes, remedies = causes_of(gaps, went)
    return Generalization(
        kind, gaps, in_words(kind, gaps, scores, target, went, law),
        advice_for(kind, gaps, scores, went, law, learned=learned), causes, remedies, _certain(kind, gaps, target), went, law,
    )  # fmt: skip


@dataclass(frozen=True)
class _Way:
    """What gaps are measured by: the way from chance to the goal where that is known, else the evaluation's loss."""

    goal: float
    length: float
    known: bool


def _gaps(
    parts: dict[str, _Scores], target: float | None, way: _Way, sign: float, matters: float, seed: int
) -> tuple[Gap, ...]:
    """All gaps that can be told, those that are called first, and of them those first by which most is lost."""
    found: list[Gap] = []
    if target is not None or way.known:  # of a loss alone nobody knows what would be well
        goal = _Scores("target", np.array([way.goal]), None, parts["train"].each)
        limit = matters if target is not None else 1 - WELL
        found.append(_gap("bias", _apart(goal, parts["train"], sign, seed), limit * way.length))
    names: tuple[GapName, ...] = ("variance", "mismatch")
    for name, (before, after) in zip(names, itertools.pairwise(parts.values()), strict=False):
        found.append(_gap(name, _apart(before, after, sign, seed), matters * way.length))
    spared = (1 - WELL) * way.length if target is None else 0.0  # of perfect, which need not be possible
    return tuple(sorted(found, key=lambda gap: (not gap.called, (gap.name == "bias") * spared - gap.size)))


def _certain(kind: Kind, gaps: Sequence[Gap], target: float | None) -> bool:
    """Whether another draw of samples or seeds could hardly change the kind; bias against an unknown target never is sure."""
    if kind == "too few to tell" or not all(gap.sure for gap in gaps) or (kind == "underfitting" and target is None):
        return False
    called = [gap for gap in gaps if gap.called]
    return all(gap.high < called[0].low for gap in called[1:])


def _rises(train: ArrayLike | None, evaluation: ArrayLike | None) -> bool:
    """Whether scores by epoch are such as rise: what is trained gets better in training."""
    values = as_array(train if train is not None else evaluation).astype(np.float64)
    return bool(values.size) and bool(values[-1] > values[0])


def _scores(name: str, values: Any, count: int | None, each: str) -> _Scores:
    """Scores of a part, checked.

    Raises:
        MisuseError: There are none, some aren't finite, or they are no shares of a count.
    """
    array = np.atleast_1d(as_array(values)).astype(np.float64)
    if array.ndim != 1 or not array.size or not np.all(np.isfinite(array)):
        raise MisuseError(f"{name} is {values!r}; a finite score, or a list of them, is needed")
    if each not in ("seed", "sample"):
        raise MisuseError(f"each={each!r}; several numbers are scores of a 'seed' each, or of a 'sample'")
    if count is not None and (count < 1 or array.min() < 0 or array.max() > 1):
        raise MisuseError(
            f"num_{name}={count} with a score of {array.mean():g}; counts go with shares from 0 to 1 of so many samples. "
            "Give losses of each sample, or of several seeds"
        )
    return _Scores(name, array, count, each)


def _check_pairs(parts: list[_Scores], target: float | None, chance: float | None) -> None:
    if parts[0].each == "seed" and len({len(p.values) for p in parts if len(p.values) > 1}) > 1:
        sizes = ", ".join(f"{p.name} {len(p.values)}" for p in parts)
        raise MisuseError(f"scores of different numbers of seeds ({sizes}); each seed has one of each")
    for name, value in (("target", target), ("chance", chance)):
        if value is not None and not math.isfinite(value):
            raise MisuseError(f"{name} is {value}; a finite score is needed, or None")
    if target is not None and target == chance:
        raise MisuseError(f"target and chance are both {target:g}; then there is nothing to learn")


def _check_shares(parts: list[_Scores]) -> None:
    """Sees to it that none is better than perfect.

    Raises:
        MisuseError: One is.
    """
    best = max(parts, key=lambda part: part.mean)
    if best.mean > 1 + 1e-6:
        raise MisuseError(
            f"{best.name} is {best.mean:g}, and 1 is perfect: give percentages as shares, losses with higher_is_better=False, and scores "
            "of another scale with target= and chance="
        )


def _way(parts: dict[str, _Scores], target: float | None, chance: float | None, higher_is_better: bool) -> _Way:
    goal = target if target is not None else float(higher_is_better)
    if chance is not None:
        return _Way(goal, abs(goal - chance), True)
    if higher_is_better or any(part.count is not None for part in parts.values()):
        return _Way(goal, 1.0, True)
    return _Way(goal, max(abs(parts["evaluation"].mean - goal), 1e-12), False)


def _gap(name: GapName, apart: tuple[float, float, float], limit: float) -> Gap:
    size, low, high = apart
    beyond_noise = math.isnan(low) or low > 0
    return Gap(name, size, low, high, limit, size > limit and beyond_noise)


def _apart(before: _Scores, after: _Scores, sign: float, seed: int) -> tuple[float, float, float]:
    """By how much a score is worse than another, and the interval; NaN where nothing tells how sure that is."""
    size = sign * (after.mean - before.mean)
    if after.each == "sample" and max(len(after.values), len(before.values)) > 1:
        first = after.values if len(after.values) > 1 else after.mean
        second = before.values if len(before.values) > 1 else before.mean
        ends = sorted(sign * end for end in _resampled(first, second, seed))
        return size, ends[0], ends[1]
    below = above = 0.0
    if len(after.values) > 1 or len(before.values) > 1:
        differences = sign * (after.values - before.values)
        low, high = student(differences)
        least = quantile(len(differences) - 1) * LEAST_DEVIATION / math.sqrt(len(differences))
        below = above = max(size - low, least)
    if after.count is not None or before.count is not None:
        low, high = sorted(sign * end for end in newcombe(after.mean, after.count, before.mean, before.count))
        below, above = math.hypot(below, size - low), math.hypot(above, high - size)
    if below == above == 0 and len(after.values) == len(before.values) == 1:
        return size, math.nan, math.nan
    return size, size - below, size + above


def _resampled(first: Any, second: Any, seed: int) -> tuple[float, float]:
    if isinstance(first, np.ndarray):
        return bootstrapped(first, second, seed)
    low, high = bootstrapped(second, first, seed)
    return -high, -low
