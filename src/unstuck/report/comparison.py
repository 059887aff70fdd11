"""Two runs side by side: what is found in each, what differs between them, and their numbers on the same axes, layer by layer too.

Pure: two judged records in, what is to be shown out. The runs are called A and B.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unstuck._language import _, many, marked, tell, translated
from unstuck.evidence import Layer, Optimizer, Record, Series
from unstuck.report import _words as words
from unstuck.report._charts import Chart, Line, made_chart
from unstuck.report._curves import is_wide, shown_until, smooth, thin
from unstuck.verdict import Verdict, flatten

_MOST_ROWS = 500
_MOST_DIFFERENCES = 200
_FAR = 10.0  # times: two layers this far apart are marked
_TAIL = 0.5  # of the steps that both took
_NOTHING = Series.of([math.nan])
_COURSES = ("loss", "eval_loss", "score", "eval_score", "grad_norm", "lr", "step_seconds")


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    name: str
    verdict: Verdict
    record: Record


@dataclass(frozen=True)
class Found:
    """A finding of one side: its cause, how severe it is, what it says, and whether the other side has the same cause."""

    cause: str
    severity: str
    says: str
    is_shared: bool


@dataclass(frozen=True)
class Ratio:
    """A number of a layer in both runs; `text` is B over A, and `is_far` that they are ten times apart."""

    first: str
    second: str
    text: str
    is_far: bool


@dataclass(frozen=True)
class LayerRow:
    """One layer that both runs have: a `Ratio` of each quantity, None where neither measured it."""

    name: str
    ratios: tuple[Ratio | None, ...]


@dataclass(frozen=True)
class Comparison:
    """What there is to say of two runs.

    Attributes:
        found: Findings of A and of B, the most decisive first.
        charts: Numbers of both on the same axes; the first line of each is A's.
        differences: What differs: what, in A, in B.
        more_differences: How many of them are not listed.
        same: How many of the facts that were compared are the same.
        quantities: What the layers are compared by.
        layers: The first layers that were measured in both, in the order of A.
        more: How many further layers both have.
        span: Steps that the layers' numbers are medians of: the later half of those that both runs took.
    """

    found: tuple[tuple[Found, ...], tuple[Found, ...]]
    charts: tuple[Chart, ...]
    differences: tuple[tuple[str, str, str], ...]
    more_differences: int
    same: int
    quantities: tuple[str, ...]
    layers: tuple[LayerRow, ...]
    more: int
    span: tuple[int, int]


@np.errstate(all="ignore")
def compare(a: Side, b: Side) -> Comparison:
    """Compare two runs.

    Args:
        a: The one.
        b: The other.

    Returns:
        What there is to say.
    """
    facts = list(_facts(a, b))
    differing = [fact for fact in facts if fact[1] != fact[2]]
    quantities, rows, more, span = _layers(a.record, b.record)
    return Comparison(
        (_found(a, b), _found(b, a)),
        tuple(chart for chart in (_chart(signal, a, b) for signal in _COURSES) if chart is not None),
        tuple(differing[:_MOST_DIFFERENCES]),
        max(0, len(differing) - _MOST_DIFFERENCES),
        len(facts) - len(differing),
        quantities,
        tuple(rows),
        more,
        span,
    )


def _found(side: Side, other: Side) -> tuple[Found, ...]:
    theirs = {finding.cause for finding in flatten(other.verdict.findings)}
    return tuple(
        Found(f.cause, f.severity, translated(f.says), f.cause in theirs) for f in flatten(side.verdict.findings)
    )


# ---------------------------------------------------------------------- on the same axes


def _chart(signal: str, a: Side, b: Side) -> Chart | None:
    """A signal of both: smoothed where it was measured at many steps, so that the two can be told apart."""
    series = [side.record.series(signal) for side in (a, b)]
    if not any(len(s.finite) for s in series) or ("score" in signal and len(scores_of(a, b)) > 1):
        return None
    lines = [Line(name, _shown(s if signal == "loss" else s.finite)) for name, s in zip("AB", series, strict=True)]
    values = np.concatenate([s.finite.values for s in series])
    title, unit = _titles(signal, a, b)
    columns = list(zip("AB", series, strict=True))
    chart = made_chart(
        signal, title, lines, columns, Record(), is_log="score" not in signal and is_wide(values, 30), unit=unit
    )
    return dataclasses.replace(chart, marks=tuple(_marks(a, b)))


def _marks(a: Side, b: Side) -> Iterator[tuple[int, str]]:
    """Where each of them broke."""
    for name, side in (("A", a), ("B", b)):
        for event in side.record.happened("non-finite")[:1]:
            yield int(event.step), tell("{run}: NaN or Inf", run=name)


def _shown(series: Series) -> Series:
    if not len(series.finite):
        return _NOTHING
    soft = smooth(series)
    return soft if len(soft) else thin(series)


def _titles(signal: str, a: Side, b: Side) -> tuple[str, str]:
    score = next(iter(scores_of(a, b)), _("score"))
    return {
        "loss": (_("Training loss"), _("loss")),
        "eval_loss": (_("Evaluation loss"), _("loss")),
        "score": (tell("Training {score}", score=score), score),
        "eval_score": (tell("Evaluation {score}", score=score), score),
        "grad_norm": (_("Gradient norm"), _("L2 norm of the gradient")),
        "lr": (_("Learning rate"), _("learning rate")),
        "step_seconds": (_("Time a step"), _("seconds")),
    }[signal]


def scores_of(a: Side, b: Side) -> tuple[str, ...]:
    """What the two are scored by, A's first; scores of two kinds have no axis in common."""
    names = (side.record.program.task.score for side in (a, b))
    return tuple(dict.fromkeys(words.clean(words.SCORE_WORDS.get(name, name)) for name in names if name))


def until(a: Side, b: Side) -> int | None:
    """The step that charts of both end at where the longer one broke early, None where they show all."""
    ends = [_last_step(side) if (end := shown_until(side.record)) is None else end for side in (a, b)]
    return max(ends) if max(ends) < max(map(_last_step, (a, b))) else None


def _last_step(side: Side) -> int:
    loss = side.record.series("loss")
    return int(loss.steps[-1]) if len(loss) else 0


# ---------------------------------------------------------------------- what differs


def _facts(a: Side, b: Side) -> Iterator[tuple[str, str, str]]:
    """Everything that is compared: what, in A, in B; what neither has is left out."""
    for what, told in _FACTS.items():
        first, second = told(a.record), told(b.record)
        if first or second:
            yield _(what), first or "–", second or "–"
    yield from _settings(a.record, b.record)
    yield from _layer_facts(a.record.layers, b.record.layers)


def _command(record: Record) -> str:
    return words.clean(" ".join(map(str, record.meta.get("argv") or (record.meta.get("script") or "",))))


def _settings(a: Record, b: Record) -> Iterator[tuple[str, str, str]]:
    """Each optimizer's kind and each of its settings."""
    for i in range(max(len(a.program.optimizers), len(b.program.optimizers))):
        both = [_optimizer(r.program.optimizers[i]) if i < len(r.program.optimizers) else {} for r in (a, b)]
        which = _("optimizer") if i == 0 else tell("optimizer {number}", number=i + 1)
        for key in dict.fromkeys([*both[0], *both[1]]):
            yield f"{which}: {words.clean(key)}", both[0].get(key, "–"), both[1].get(key, "–")


def _optimizer(optimizer: Optimizer) -> dict[str, str]:
    return {
        _("kind"): words.clean(optimizer.kind),
        **{key: words.exact(value) for key, value in optimizer.settings.items()},
        _("schedule"): words.clean(optimizer.schedule) or "–",
        _("clipping"): words.clean(optimizer.clipping) or "–",
        _("backward passes a step"): words.exact(float(optimizer.backwards_per_step)),
    }


def _layer_facts(a: Mapping[str, Layer], b: Mapping[str, Layer]) -> Iterator[tuple[str, str, str]]:
    """Layers that one has and the other hasn't, or that compute something else."""
    for name in dict.fromkeys([*a, *b]):
        first, second = (_layer(layers.get(name)) for layers in (a, b))
        yield tell("layer {name}", name=words.clean(name)), first, second


def _layer(layer: Layer | None) -> str:
    if layer is None:
        return "–"
    shape = " × ".join(map(str, layer.out_shape[1:]))  # the batch is a fact of its own
    settings = words.settings(layer.settings)
    return ", ".join(filter(None, (words.clean(layer.op), shape, settings)))


def _version(name: str) -> Callable[[Record], str]:
    return lambda record: words.clean(record.meta.get(name) or "")


def _counted(value: int) -> str:
    return words.count(value) if value else ""


_FACTS: dict[str, Callable[[Record], str]] = {
    marked("command"): _command,
    marked("how it ended"): lambda r: words.ending(r) or str(r.meta.get("status") or ""),
    marked("steps"): lambda r: str(r.steps or ""),
    marked("time"): lambda r: words.duration(r.meta["seconds"]) if r.meta.get("seconds") is not None else "",
    marked("model"): lambda r: ", ".join(words.clean(m.kind) for m in r.program.models),
    marked("parameters"): lambda r: _counted(sum(m.num_parameters for m in r.program.models)),
    marked("loss"): lambda r: ", ".join(
        words.clean(f"{c.name} ({c.reduction})" if c.reduction else c.name) for c in r.program.losses if c.trains
    ),
    marked("task"): lambda r: r.program.task.kind if r.program.task.kind != "unknown" else "",
    marked("classes"): lambda r: str(r.program.task.num_classes or ""),
    marked("batch size"): lambda r: str(r.program.data.batch_size or ""),
    marked("samples"): lambda r: str(r.program.data.num_samples or ""),
    marked("shuffled"): lambda r: "" if r.program.data.shuffled is None else words.exact(r.program.data.shuffled),
    marked("loader"): lambda r: words.clean(r.program.data.loader),
    marked("features"): lambda r: ", ".join(map(words.clean, r.program.features)),
    marked("device"): _version("device"),
    marked("machine"): _version("host"),
    marked("torch"): _version("torch"),
    marked("python"): _version("python"),
    marked("unstuck"): _version("unstuck"),
}


# ---------------------------------------------------------------------- layer by layer

_QUANTITIES: tuple[tuple[str, bool], ...] = (
    ("back_rms", False), ("update_ratio", True), ("act_std", False), ("dead_share", False), ("act_saturated", False),
)  # fmt: skip
"""Signals that layers are compared by, and whether they belong to a layer's parameters."""


def _layers(a: Record, b: Record) -> tuple[tuple[str, ...], list[LayerRow], int, tuple[int, int]]:
    """The first layers that were measured in both, by the quantities that any of them has; how many more both have; the span."""
    end = min(a.steps, b.steps)
    span = (int(end * (1 - _TAIL)), max(0, end - 1))
    both = [name for name in a.layers if name in b.layers and a.layers[name].role != "loss"]
    rows, left = [], len(both)
    for name in both:
        if len(rows) == _MOST_ROWS:
            break
        left -= 1
        ratios = tuple(_ratio(*quantity, a.layers[name], b.layers[name], a, b, span) for quantity in _QUANTITIES)
        if any(ratios):
            rows.append((name, ratios))
    used = [i for i in range(len(_QUANTITIES)) if any(ratios[i] for _name, ratios in rows)]
    names = tuple(translated(words.signal(_QUANTITIES[i][0]).words) for i in used)
    return names, [LayerRow(words.clean(name), tuple(ratios[i] for i in used)) for name, ratios in rows], left, span


def _ratio(
    signal: str, of_parameter: bool, first: Layer, second: Layer, a: Record, b: Record, span: tuple[int, int]
) -> Ratio | None:
    one, two = (_middle(record, signal, layer.parameters if of_parameter else (layer.name,), span)
                for record, layer in ((a, first), (b, second)))  # fmt: skip
    if math.isnan(one) and math.isnan(two):
        return None
    texts = ["–" if math.isnan(value) else words.measured(signal, value) for value in (one, two)]
    ratio = two / one if one else math.nan
    is_share = words.signal(signal).scale == "share"
    text = "" if is_share or math.isnan(ratio) else f"× {words.number(ratio, 2)}"
    far = abs(two - one) >= 0.5 if is_share else ratio >= _FAR or ratio <= 1 / _FAR or (one == 0) != (two == 0)
    return Ratio(texts[0], texts[1], text, bool(far))


def _middle(record: Record, signal: str, places: Sequence[str], span: tuple[int, int]) -> float:
    """The median over the span, of the first place that has any; over all of it where nothing was measured in the span."""
    for place in places:
        series = record.series(signal, place)
        if len(series.finite):
            middle = series.after(span[0]).until(span[1] + 1).median()
            return series.median() if math.isnan(middle) else middle
    return math.nan


def summary(found: Comparison) -> str:
    """What differs, in a sentence."""
    differing = len(found.differences) + found.more_differences
    if not differing:
        return _("Nothing that was recorded of the two programs differs.")
    return many(
        "{number} of {all} facts differs.", "{number} of {all} facts differ.", differing, all=found.same + differing
    )
