"""Series made fit to look at: their course in two numbers, gaps, fewer points, a smooth line, a row of bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unstuck._language import _, many, tell
from unstuck.evidence import Record, Series
from unstuck.report._words import SCORE_WORDS, Scale, clean, number
from unstuck.verdict import Verdict

BARS = "▁▂▃▄▅▆▇█"
_LARGEST = 1e300
_LEAST_STEPS = 8  # shown of a run that broke
_MOST_IN_HALF = 1000  # samples in half a window of a running median; of longer runs every second, third, ... is taken


@dataclass(frozen=True)
class Course:
    """How one number went over the run.

    Attributes:
        name: What it is called: "loss", "accuracy".
        series: All of it.
        first: Where it began: the median of the first samples, NaN when there are none.
        last: Where it ended, NaN too when the run ended in NaN.
        note: What to compare it with: "chance 0.11", "lower is better", or "".
        scale: How a picture of it is drawn.
    """

    name: str
    series: Series
    first: float
    last: float
    note: str = ""
    scale: Scale = "linear"

    def __str__(self) -> str:
        text = f"{self.name} {number(self.first)} → {number(self.last)}"
        return f"{text} ({self.note})" if self.note else text


def courses(verdict: Verdict, record: Record) -> list[Course]:
    """How loss, score of the training and score of the evaluation went, those of them that were measured."""
    task = record.program.task
    found = []
    loss = record.series("loss")
    until = shown_until(record)
    if len(loss):
        found.append(
            Course(_("loss"), _shown(loss, until), *_ends(loss, record), _chance(task.chance_loss), _scale(loss))
        )
    name, first, last = _score(verdict, record)
    if math.isfinite(first) or math.isfinite(last):
        better = _("lower is better") if task.score == "perplexity" else ""
        note = _(", ").join(filter(None, (_chance(task.chance_score), better)))
        series = _shown(_score_series(record), until)
        scale = "share" if task.score.endswith("accuracy") else _scale(series)
        found.append(Course(clean(SCORE_WORDS.get(name, name)), series, first, last, note, scale))
        checks = record.series("eval_score").finite
        if len(checks) and len(record.series("score").finite):
            samples = evaluated_samples(record)
            note = many("of {number} sample", "of {number} samples", samples) if samples else ""
            found.append(Course(_("evaluation"), checks, checks.first, checks.last, note, scale))
    return found


def evaluated_samples(record: Record) -> int:
    """How many samples the last evaluation is of: looking at all of them may cost more than the budget; 0 where it is not known."""
    return next((int(e.data["samples"]) for e in reversed(record.happened("eval")) if e.data.get("samples")), 0)


def ended_in_nan(record: Record) -> bool:
    """Whether the loss was NaN or Inf at the end, and not just unmeasured there."""
    loss = record.series("loss")
    return bool(record.happened("non-finite")) and len(loss) > 0 and not math.isfinite(loss.last)


def broke_at(record: Record) -> int | None:
    """The step from which on the loss was NaN or Inf until the end; None where it was not."""
    return _broken_from(record.series("loss")) if ended_in_nan(record) else None


def shown_until(record: Record) -> int | None:
    """The step that pictures end at where a run broke early, so that what came before fills half of them; else None."""
    return until_of(record.series("loss")) if ended_in_nan(record) else None


def until_of(series: Series) -> int | None:
    """The same of a series that ended in NaN or Inf."""
    until = max(2 * _broken_from(series), _LEAST_STEPS)
    return until if until < int(series.steps[-1]) else None


def _broken_from(series: Series) -> int:
    finite = series.finite
    return int(finite.steps[-1]) + 1 if len(finite) else 0


def _shown(series: Series, until: int | None) -> Series:
    return series if until is None else series.until(until + 1)


def split_gaps(series: Series) -> Series:
    """The series with its gaps marked by one NaN each.

    A step that was merely not measured (a short run of NaN between numbers) is left out, so that a line is drawn across it.
    A longer run, and one that reaches the end, is a gap. Inf counts as NaN: neither can be drawn.
    """
    broken = ~np.isfinite(series.values)
    if not broken.any():
        return series
    limit = max(2, len(series) // 50)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], broken.astype(np.int8), [0]])))
    keep = ~broken
    start, stop = edges[::2], edges[1::2]
    keep[start] = (stop - start >= limit) | (stop == len(series))
    values = np.where(broken, np.nan, series.values)
    return Series(series.steps[keep], values[keep])


def thin(series: Series, buckets: int = 400) -> Series:
    """At most two points a bucket, its smallest and its largest, so that no spike is lost; gaps stay (see `split_gaps`)."""
    return split_gaps(series).thinned(2 * buckets)


def smooth(series: Series, points: int = 200) -> Series:
    """The running median over 4% of the samples, at `points` places; an empty series where there is too little to smooth."""
    finite = series.finite
    if len(finite) < points:
        return finite.until(-1)
    half = max(2, len(finite) // 50)
    every = max(1, half // _MOST_IN_HALF)
    centres = np.unique(np.linspace(0, len(finite) - 1, points).round().astype(int))
    values = [np.median(finite.values[max(0, c - half) : c + half + 1 : every]) for c in centres]
    return Series(finite.steps[centres], np.array(values))


def spark(values: Sequence[float] | np.ndarray, scale: Scale) -> str:
    """A row of bars: "×" where a number is NaN or Inf, "0" where a log scale has no place for it."""
    data = np.asarray(values, np.float64)
    level, low, high = levels(data, scale)
    bars = []
    for value, share in zip(data, (level - low) / (high - low), strict=True):
        if math.isnan(share):
            bars.append("0" if math.isfinite(value) else "×")
        else:
            bars.append(BARS[min(7, max(0, int(8 * share)))])
    return "".join(bars)


def levels(values: np.ndarray, scale: Scale) -> tuple[np.ndarray, float, float]:
    """How high numbers stand in a picture.

    Args:
        values: The numbers; those beyond 1e300 are drawn as 1e300, so that their differences stay finite.
        scale: Log, linear, or share.

    Returns:
        Levels, NaN where there is none: the numbers themselves, or their powers of ten on a log scale; and the range to
        show. That spans the levels, but at least a tenth of the largest (a decade on a log scale, 0 to 1 for a share), so
        that noise around a constant looks as flat as it is.
    """
    shown = np.isfinite(values) & ((values > 0) | (scale != "log"))
    level = np.full(values.shape, np.nan)
    within = np.clip(values[shown], -_LARGEST, _LARGEST)
    level[shown] = np.log10(within) if scale == "log" else within
    if scale == "share" or not shown.any():
        return level, 0.0, 1.0
    low, high = float(level[shown].min()), float(level[shown].max())
    least = 1.0 if scale == "log" else 0.1 * max(abs(low), abs(high)) or 1.0
    pad = max(0.0, least - (high - low)) / 2
    return level, low - pad, high + pad


def by_step(series: Series, width: int, *, broken: bool) -> np.ndarray:
    """A series as `width` numbers: means over equal spans of steps, the last one held where nothing was measured.

    Args:
        series: Any series of the whole program.
        width: How many numbers.
        broken: The end is NaN because the run broke there, not because it was not measured; it stays NaN.

    Returns:
        Shape `(width,)`, or shorter where there are fewer steps.
    """
    finite = series.finite
    if not len(finite):
        return np.full(min(width, len(series)), np.nan)
    first, last = int(series.steps[0]), int(series.steps[-1])
    width = min(width, last - first + 1)
    bucket = ((finite.steps - first) * width // (last - first + 1)).astype(int)
    totals = np.bincount(bucket, np.clip(finite.values, -_LARGEST, _LARGEST), width)
    counts = np.bincount(bucket, minlength=width)
    held = np.maximum.accumulate(np.where(counts > 0, np.arange(width), 0))
    held = np.where(counts[held] > 0, held, bucket[0])
    means = (totals / np.maximum(counts, 1))[held]
    if broken:
        means[bucket[-1] + 1 :] = np.nan
    return means


def is_wide(values: np.ndarray, ratio: float = 50) -> bool:
    """Whether numbers are all positive and span so much that a log scale shows them better."""
    finite = values[np.isfinite(values)]
    return len(finite) > 1 and bool(finite.min() > 0) and bool(finite.max() > ratio * finite.min())


def _scale(series: Series) -> Scale:
    return "log" if is_wide(series.values) else "linear"


def _chance(value: float) -> str:
    return tell("chance {value}", value=number(value)) if math.isfinite(value) else ""


def _score_series(record: Record) -> Series:
    series = record.series("score")
    return series if len(series.finite) else record.series("eval_score")


def _score(verdict: Verdict, record: Record) -> tuple[str, float, float]:
    told = verdict.run.get("score") or {}
    first, last = (math.nan if told.get(key) is None else float(told[key]) for key in ("first", "last"))
    if math.isnan(first) and math.isnan(last):
        first, last = _ends(_score_series(record), record)
    return str(told.get("name") or record.program.task.score or "score"), first, last


def _ends(series: Series, record: Record) -> tuple[float, float]:
    finite = series.finite
    last = math.nan if ended_in_nan(record) else finite.tail(0.05).median()
    return finite.head(0.02).median(), last
