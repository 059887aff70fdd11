"""What the experiments on copies told: see the room `probes`. Losses that diverged are infinite here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unstuck.evidence import Record
from unstuck.rules._learning import progress, skill


def probe(record: Record, name: str) -> Mapping[str, Any] | None:
    """The result of an experiment, None when it was not made or failed."""
    found = next((e.data for e in reversed(record.happened("probe")) if e.data.get("name") == name), None)
    return None if found is None or "error" in found else found


def number_of(data: Mapping[str, Any] | None, key: str) -> float:
    """A number of a result; NaN when there is none."""
    value = None if data is None else data.get(key)
    return float(value) if isinstance(value, (int, float)) else math.nan


def curvature_of(record: Record) -> Mapping[str, Any] | None:
    """The curvature where the run ended: measured because it was asked for, else by the experiment; None when by neither."""
    asked = {e.data.get("part"): e.data for e in record.happened("curvature") if "failed" not in e.data}
    if "point" not in asked:
        return probe(record, "curvature")
    return {**asked["point"], **asked.get("rate", {})}


def edge_of(record: Record) -> float:
    """The learning rate over the largest that the curvature bears, the highest of the second half of the run; NaN when unknown."""
    along = record.series("edge").finite.after(record.steps // 2)
    known = [number_of(curvature_of(record), "edge"), *along.values.tolist()]
    return max((v for v in known if math.isfinite(v)), default=math.nan)


@dataclass(frozen=True)
class Trial:
    """The same number of updates with several learning rates.

    Attributes:
        rate: The script's.
        steps: Updates with each.
        before: Quality before them.
        quality: By factor of the rate: share of the way from chance to perfect, by the score where there is one, else
            by the loss; minus infinity where it diverged.
        losses: By factor; infinite where it diverged.
        loss_before: Loss before.
        scores: By factor, NaN where there is none.
        adam: Quality with Adam, the best of several rates; NaN when not tried.
    """

    rate: float
    steps: int
    before: float
    quality: Mapping[float, float]
    losses: Mapping[float, float]
    loss_before: float
    scores: Mapping[float, float]
    adam: float = math.nan

    @property
    def own(self) -> float:
        """Quality with the script's rate."""
        return self.quality.get(1.0, math.nan)

    def best(self, factors: Sequence[float]) -> tuple[float, float]:
        """The best of some factors, and its quality; NaN when none was tried."""
        known = [(q, f) for f, q in self.quality.items() if f in factors and not math.isnan(q)]
        if not known:
            return math.nan, math.nan
        quality, factor = max(known)
        return factor, quality

    @property
    def lower(self) -> tuple[float, float]:
        """The best factor below 1, and its quality."""
        return self.best([f for f in self.quality if f < 1])

    @property
    def higher(self) -> tuple[float, float]:
        """The best factor above 1, and its quality."""
        return self.best([f for f in self.quality if f > 1])


def trial(record: Record, name: str) -> Trial | None:
    """The experiment "step-sizes" (from the end) or "from-start"; None when it was not made or nothing can be compared."""
    data = probe(record, name)
    if data is None:
        return None
    losses = {float(f): _or(value, math.inf) for f, value in zip(data["factors"], data["losses"], strict=True)}
    scores = {float(f): _or(value, math.nan) for f, value in zip(data["factors"], data["scores"], strict=True)}
    before = number_of(data, "before")
    by_score = any(math.isfinite(s) for s in scores.values()) and math.isfinite(number_of(data, "score_before"))

    def quality(loss: float, score: float) -> float:
        if not math.isfinite(loss):
            return -math.inf
        return skill(record, score) if by_score else loss_skill(record, loss, before)

    adam = [
        quality(_or(loss, math.inf), _or(score, math.nan))
        for loss, score in zip(data.get("adam_losses", ()), data.get("adam_scores", ()), strict=True)
    ]
    return Trial(
        number_of(data, "rate"), int(data["steps"]), quality(before, number_of(data, "score_before")),
        {f: quality(loss, scores[f]) for f, loss in losses.items()}, losses, before, scores,
        max((q for q in adam if not math.isnan(q)), default=math.nan),
    )  # fmt: skip


def loss_skill(record: Record, loss: float, before: float) -> float:
    """Share of the chance loss that is gone; of the first loss, where chance is not known; NaN for negative losses."""
    learning = progress(record)
    first = float(np.fmax(before, learning.first)) if before > 0 else before
    floor = learning.chance if math.isfinite(learning.chance) else first
    return 1 - loss / floor if loss >= 0 and floor > 0 else math.nan


def quality_of(record: Record, loss: Any, score: Any, tried: Mapping[str, Any]) -> float:
    """Quality of one outcome: by the score where all outcomes have one, else by the loss; minus infinity where it diverged."""
    if not isinstance(loss, (int, float)):
        return -math.inf
    if all(
        isinstance(s, (int, float)) for s, of in zip(tried["scores"], tried["losses"], strict=True) if of is not None
    ):
        return skill(record, _or(score, math.nan))
    return loss_skill(record, float(loss), _or(tried["losses"][0], math.nan))


def gain_of_going_on(record: Record) -> tuple[float, float, int]:
    """What continuing brought on batches it was not continued on: quality before and after, and updates; NaN when unknown."""
    data = probe(record, "go-on")
    if data is None or len(data["losses"]) < 2:
        return math.nan, math.nan, 0
    first, last = (_or(data["losses"][i], math.inf) for i in (0, -1))
    if not math.isfinite(first):
        return math.nan, math.nan, 0
    scores = [_or(data["scores"][i], math.nan) for i in (0, -1)]
    if all(math.isfinite(s) for s in scores):
        return skill(record, scores[0]), skill(record, scores[1]), int(data["steps"])
    return loss_skill(record, first, first), loss_skill(record, last, first), int(data["steps"])


def loss_fall(record: Record) -> float:
    """Share of the loss that continuing took away, on batches it was not continued on; NaN when unknown."""
    data = probe(record, "go-on")
    first, last = (_or(data["losses"][i], math.nan) for i in (0, -1)) if data is not None else (math.nan, math.nan)
    return 1 - last / first if first > 0 else math.nan


def reachable(record: Record) -> float:
    """Score of the best of the small reference learners on samples held out from it; NaN when there was none."""
    data = probe(record, "reference")
    known = [v for v in (number_of(data, "linear"), number_of(data, "mlp")) if math.isfinite(v)]
    return max(known) if known else math.nan


def shortfall(record: Record) -> float:
    """How far the network is behind the reference, as a share of the way from chance to perfect; NaN when unknown.

    The network is scored on samples it was trained on, the reference on such that were held out from it.
    """
    data = probe(record, "reference")
    own = number_of(data, "network")
    losses = record.series("loss").finite.values
    if len(losses) and losses.min() < 0:  # the score is of a part of the loss, such as a critic's
        return math.nan
    return skill(record, reachable(record)) - skill(record, own) if math.isfinite(own) else math.nan


def _or(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) else otherwise
