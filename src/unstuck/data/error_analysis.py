"""Where a network is wrong: its worst samples, what it takes for what, which classes and slices suffer, and how sure it is of itself.

`judging.collect(model, loader)` goes through the samples once; `analyze` reads what came of that. `wrong_labels` looks for labels that may
be wrong. `unstuck.report.errors` shows it all as text or as one page.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unstuck._json import plain
from unstuck.data._answers import worst_first
from unstuck.data._intervals import wilson
from unstuck.data.judging import Judged
from unstuck.data.samples import input_at
from unstuck.data.sketch import sketch
from unstuck.data.slices import Slice, slices
from unstuck.errors import MisuseError

MOST_CLASSES = 100  # up to which there is a matrix of all
UNKNOWN = -1
SIDE = 64  # pixels of the pictures of inputs


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample and its answer.

    Attributes:
        number: In the order in which samples came.
        loss: Of it alone.
        error: Share of its answers that are wrong; the absolute error of numbers.
        target: Class by name, or number; "" where it has several answers and all are right.
        prediction: What was answered.
        confidence: Probability of that; NaN for numbers.
        input: What the network was given; None where it isn't known.
    """

    number: int
    loss: float
    error: float
    target: str | float
    prediction: str | float
    confidence: float
    input: Any = None


@dataclass(frozen=True, eq=False)
class Pair:
    """One class taken for another.

    Attributes:
        target: The class, by name.
        prediction: What it was taken for.
        count: How often.
        share: Of all answers on that class, from 0 to 1.
        low, high: The 95% interval of the share.
        samples: Numbers of samples it happened to, the worst first.
    """

    target: str
    prediction: str
    count: int
    share: float
    low: float
    high: float
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Rate:
    """A share with its 95% interval, of so many."""

    share: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class ClassScore:
    """How well one class, or label, is found.

    Attributes:
        name: Of the class.
        recall: Of its samples that were told to be so.
        precision: Of what was told to be so that was.
    """

    name: str
    recall: Rate
    precision: Rate


@dataclass(frozen=True, eq=False)
class Calibration:
    """Whether answers are right as often as their probabilities say.

    Attributes:
        error: The expected calibration error: mean distance of confidence and accuracy over fifteen bins, weighted by how many are in each.
        bins: Of those with answers in them: how many, mean confidence, share that is right.
    """

    error: float
    bins: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """What there is to be said of the errors.

    Attributes:
        kind: "classes", "multi-label" or "regression".
        num_samples: That were judged.
        num_wrong: With any wrong answer.
        error: Share of wrong answers with its interval, over all of them, of which a sample may have many; None for numbers.
        loss: Mean over samples.
        worst: The worst samples: those that are wrong first, the most confident errors first.
        names: Of classes or labels.
        matrix: How often each class (row) was taken for each (column); None beyond a hundred classes, and where there are none.
        pairs: What is most often taken for something else.
        classes: All classes or labels, those with the least recall first.
        calibration: None for numbers.
        slices: Groups against the rest, the least likely by chance first.
        examples: Inputs of samples that pairs name, where known.
    """

    kind: str
    num_samples: int
    num_wrong: int
    error: Rate | None
    loss: float
    worst: tuple[Sample, ...]
    names: tuple[str, ...] = ()
    matrix: NDArray[np.int64] | None = None
    pairs: tuple[Pair, ...] = ()
    classes: tuple[ClassScore, ...] = ()
    calibration: Calibration | None = None
    slices: tuple[Slice, ...] = ()
    examples: Mapping[int, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and text; inputs become small pictures (`unstuck.data.sketch`)."""
        about = {n: v for n, v in vars(self).items() if n not in ("worst", "examples", "calibration", "error")}
        for name in ("pairs", "classes", "slices"):
            about[name] = [dataclasses.asdict(each) for each in about[name]]
        return plain({
            **about, "error": dataclasses.asdict(self.error) if self.error else None,
            "calibration": dataclasses.asdict(self.calibration) if self.calibration else None,
            "worst": [{**vars(s), "input": None if s.input is None else sketch(s.input, side=SIDE)} for s in self.worst],
            "examples": {number: sketch(values, side=SIDE) for number, values in self.examples.items()},
        })  # fmt: skip


def analyze(
    judged: Judged,
    *,
    names: Sequence[str] | None = None,
    inputs: Any = None,
    vocabulary: Sequence[str] | Mapping[int, str] | None = None,
    groups: ArrayLike | Mapping[str, ArrayLike] | None = None,
    worst: int = 16,
    pairs: int = 8,
    seed: int = 0,
) -> ErrorAnalysis:
    """Reads how samples were answered.

    Args:
        judged: Of a `Collector`, or of `collect`.
        names: Of classes or labels, by their number.
        inputs: Of all samples, by number: an array, a dataset, a list of texts; by default those of the worst that the collector kept.
        vocabulary: Words by token, where inputs are tokens: they are shown as text.
        groups: Group of each sample, or several such groupings by name; each group is compared with the rest.
        worst: Samples that are listed at most.
        pairs: Pairs of classes, at most.
        seed: Of the test of numbers by exchange of members.

    Returns:
        The analysis. Intervals take answers for independent; those of one sequence or picture aren't, so that theirs are too narrow.

    Raises:
        MisuseError: There are fewer names than classes, or groups aren't one for each sample.

    Source:
        Ng 2018, "Machine Learning Yearning", chapters 13-19, for looking at errors before deciding what to do. Calibration: Guo et al.
        2017, "On calibration of modern neural networks"; the error is too large by chance where samples are few.

    Example:
        >>> from unstuck.data.judging import Collector
        >>> collector = Collector()
        >>> collector.update(np.array([[3.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), np.array([0, 1, 1]))
        >>> found = analyze(collector.judged(), names=["cat", "dog"])
        >>> [(s.number, s.target, s.prediction) for s in found.worst][:1], found.pairs[0].count
        ([(1, 'dog', 'cat')], 1)
    """  # noqa: DOC502
    told = _names(judged, names)
    order = worst_first(judged.losses, judged.errors)
    chosen = order[:worst] if judged.kind == "regression" else order[: min(worst, int(judged.wrong.sum()))]
    found = _pairs(judged, told, order, pairs)
    numbers = {number for pair in found for number in pair.samples}
    shown = functools.partial(_input, judged, inputs, vocabulary)
    known = {number: values for number in sorted(numbers) if (values := shown(number)) is not None}
    right = int(judged.bins[:, 2].sum())
    return ErrorAnalysis(
        kind=judged.kind, num_samples=judged.num_samples, num_wrong=int(judged.wrong.sum()),
        error=_error(judged, right), loss=float(judged.losses.mean()),
        worst=tuple(_sample(judged, told, int(i), shown(int(i))) for i in chosen),
        names=told, matrix=_matrix(judged), pairs=found, classes=_classes(judged, told),
        calibration=_calibration(judged), slices=slices(judged, groups, seed=seed) if groups is not None else (), examples=known,
    )  # fmt: skip


def _names(judged: Judged, names: Sequence[str] | None) -> tuple[str, ...]:
    """Names of all classes, their numbers by default.

    Raises:
        MisuseError: Some have none.
    """
    if names is None:
        return tuple(map(str, range(judged.num_classes)))
    if len(names) < judged.num_classes:
        raise MisuseError(f"{len(names)} names of {judged.num_classes} classes; each needs one")
    return tuple(map(str, names[: judged.num_classes]))


def _error(judged: Judged, right: int) -> Rate | None:
    if judged.kind == "regression":
        return None
    count = int(judged.positions.sum())
    return _rate(count - right, count)


def _rate(count: int, total: int) -> Rate:
    if not total:
        return Rate(math.nan, 0.0, 1.0, 0)
    return Rate(count / total, *wilson(count / total, total), total)


def _sample(judged: Judged, names: Sequence[str], number: int, values: Any) -> Sample:
    shown = [_shown(judged, names, column[number]) for column in (judged.targets, judged.predictions)]
    return Sample(
        number, float(judged.losses[number]), float(judged.errors[number]), shown[0], shown[1],
        float(judged.confidences[number]), values,
    )  # fmt: skip


def _shown(judged: Judged, names: Sequence[str], value: Any) -> str | float:
    if judged.kind == "regression":
        return float(value)
    return names[int(value)] if int(value) != UNKNOWN else ""


def _input(judged: Judged, inputs: Any, vocabulary: Any, number: int) -> Any:
    """What the network was given, tokens as text; None where it isn't known."""
    array = judged.inputs.get(number) if inputs is None else input_at(inputs, number)
    if array is None or isinstance(array, str):
        return array
    if vocabulary is None or array.dtype.kind not in "iu":
        return array
    return " ".join(str(_word(vocabulary, int(token))) for token in array.reshape(-1))


def _word(vocabulary: Any, token: int) -> str:
    known = token in vocabulary if isinstance(vocabulary, Mapping) else 0 <= token < len(vocabulary)
    return vocabulary[token] if known else f"<{token}>"


def _matrix(judged: Judged) -> NDArray[np.int64] | None:
    if judged.kind != "classes" or judged.num_classes > MOST_CLASSES:
        return None
    matrix = np.zeros((judged.num_classes, judged.num_classes), np.int64)
    matrix[judged.pairs[:, 0], judged.pairs[:, 1]] = judged.pairs[:, 2]
    return matrix


def _pairs(judged: Judged, names: Sequence[str], order: np.ndarray, most: int, samples: int = 8) -> tuple[Pair, ...]:
    """What is most often taken for something else; numbers of samples are the worst of those in which it is the most frequent error."""
    wrong = judged.pairs[judged.pairs[:, 0] != judged.pairs[:, 1]]
    totals = np.bincount(judged.pairs[:, 0], weights=judged.pairs[:, 2], minlength=max(1, judged.num_classes))
    found = []
    for row in wrong[np.argsort(-wrong[:, 2], kind="stable")][:most]:
        target, answer, count = map(int, row)
        rate = _rate(count, int(totals[target]))
        among = order[(judged.targets[order] == target) & (judged.predictions[order] == answer)][:samples]
        found.append(Pair(names[target], names[answer], count, rate.share, rate.low, rate.high, tuple(among.tolist())))
    return tuple(found)


def _classes(judged: Judged, names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Recall and precision; classes that never come and are never told are left out."""
    if judged.kind == "multi-label":
        counts = [(n, int(r[0]), int(r[0] + r[2]), int(r[0] + r[1])) for n, r in zip(names, judged.labels, strict=True)]
    else:
        size, pairs = judged.num_classes, judged.pairs
        hits = pairs[pairs[:, 0] == pairs[:, 1]]
        right, there, told = (
            np.bincount(rows[:, column], weights=rows[:, 2], minlength=size).astype(int)
            for rows, column in ((hits, 0), (pairs, 0), (pairs, 1))
        )
        counts = list(zip(names, right.tolist(), there.tolist(), told.tolist(), strict=True)) if size else []
    found = [ClassScore(n, _rate(hit, there), _rate(hit, told)) for n, hit, there, told in counts if there or told]
    return tuple(sorted(found, key=lambda c: (math.isnan(c.recall.share), c.recall.share)))


def _calibration(judged: Judged) -> Calibration | None:
    filled = judged.bins[judged.bins[:, 0] > 0]
    if not len(filled):
        return None
    counts, confidence, right = filled[:, 0], filled[:, 1] / filled[:, 0], filled[:, 2] / filled[:, 0]
    error = float(np.average(np.abs(confidence - right), weights=counts))
    bins = zip(counts.astype(int).tolist(), confidence.tolist(), right.tolist(), strict=True)
    return Calibration(error, tuple(bins))
