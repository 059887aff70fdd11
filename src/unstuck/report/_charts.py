"""The page's curves: what each chart draws, the words that say it, and the table that stands in for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unstuck._language import _, many, marked, tell
from unstuck.evidence import Record, Series
from unstuck.report._curves import evaluated_samples, is_wide, smooth, thin
from unstuck.report._words import SCORE_WORDS, clean, number, place
from unstuck.verdict import Verdict

_MOST_LINES = 6
_ROWS = 16
_TOLD_EVENTS = {
    "non-finite": marked("NaN or Inf"), "reloaded": marked("reloaded"), "exception": marked("exception"), "mode": marked("mode changes"),
}  # fmt: skip
_MOST_EPOCHS = 400
_MOST_RATE_CHANGES = 6
_STANDS_OUT = 3  # times as large, in logarithms, as the changes before and after it
_SHARES = ("accuracy", "bit_accuracy", "r2")  # scores that are no matter of orders of magnitude
AXES = {
    "step": marked("step"), "lag": marked("time lag, in steps"), "eigenvalue": marked("eigenvalue"), "class": marked("class"),
    "feature": marked("feature"),
}  # fmt: skip
_NUMBERED = {
    "step": marked("step {number}"), "lag": marked("lag {number}"), "class": marked("class {number}"),
    "feature": marked("feature {number}"), "eigenvalue": marked("eigenvalue {number}"),
}  # fmt: skip
_SPANS = {"step": marked("steps"), "lag": marked("lags"), "class": marked("classes"), "feature": marked("features")}


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Its `kind` is "raw" (pale), "smooth" or "plain" (strong), "check" (points, dashed), "dots" (no line), "bars" or "checks" (bars beside
    them).
    """

    label: str
    series: Series
    kind: str = "plain"


@dataclass(frozen=True)
class Chart:
    """One chart of the page.

    Attributes:
        id: Short name, unique on the page.
        title: What it shows.
        axis: What runs along x: "step", "lag", "eigenvalue", "class" or "feature".
        lines: What is drawn, already thinned.
        is_log: Starts with a log scale.
        summary: The same in words.
        header, rows: The same as a table, by spans of steps.
        marks: Steps where something happened, with a word for it.
        level: What it is compared with, such as chance, and its name; NaN when there is nothing.
        unit: What runs along y.
        with_zero: Without a log scale, 0 is on y.
    """

    id: str
    title: str
    axis: str
    lines: tuple[Line, ...]
    is_log: bool
    summary: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[tuple[int, str], ...] = ()
    level: tuple[float, str] = (math.nan, "")
    unit: str = ""
    with_zero: bool = False

    def to_json(self) -> dict[str, Any]:
        """What the page's script draws."""
        lines = [
            {"label": line.label, "kind": line.kind, "x": line.series.steps.tolist(), "y": _rounded(line.series.values)}
            for line in self.lines
        ]
        level = {"value": self.level[0], "label": self.level[1]} if math.isfinite(self.level[0]) else None
        marks = [{"x": int(step), "label": word} for step, word in self.marks]
        return {
            "id": self.id, "axis": self.axis, "along": _(AXES[self.axis]), "unit": self.unit, "log": self.is_log, "lines": lines,
            "marks": marks, "level": level, "zero": self.with_zero,
        }  # fmt: skip


def charts(verdict: Verdict, record: Record) -> list[Chart]:
    """The charts of the run's course that there is something to draw for."""
    task = record.program.task
    name = (verdict.run.get("score") or {}).get("name") or task.score or "score"
    shown = place(SCORE_WORDS.get(name, name), 40)
    chance = _("chance")
    made = [
        _course("loss", _("Loss"), _("loss"), ("loss", "eval_loss"), record, (task.chance_loss, chance)),
        _course("score", _title(shown), shown, ("score", "eval_score"), record, (task.chance_score, chance)),
        _norm(record),
        _rates(record),
        _lags(record),
        _time(record),
    ]
    return [chart for chart in made if chart is not None]


def phases(record: Record) -> dict[str, list[int]]:
    """Steps at which a pass over the training data began, and after which the network was evaluated."""
    epochs, checks = (sorted({int(e.step) for e in record.happened(kind)}) for kind in ("epoch", "eval"))
    if len(epochs) > _MOST_EPOCHS:
        epochs = []
    return {"epochs": epochs, "evals": checks[:: math.ceil(len(checks) / _MOST_EPOCHS) or 1]}


def told_phases(record: Record) -> str:
    """The phases of a run in words."""
    epochs, checks = (len({e.step for e in record.happened(kind)}) for kind in ("epoch", "eval"))
    parts = [many("{number} epoch", "{number} epochs", epochs)] if epochs else []
    parts += [many("{number} evaluation", "{number} evaluations", checks)] if checks else []
    parts += [tell("at step {step}: {change}", step=step, change=change) for step, change in _rate_changes(record)]
    return "; ".join(parts)


def _course(
    id_: str, title: str, unit: str, signals: tuple[str, str], record: Record, level: tuple[float, str]
) -> Chart | None:
    train, check = (record.series(name) for name in signals)
    if not len(train.finite) and not len(check.finite):
        return None
    if id_ == "score" and 2 * len(train.finite) < len(train):
        train = train.finite  # it is measured at few steps, more of them at the start: no gaps, but a coarse line
    soft = smooth(train)
    lines = [Line(_("each step") if len(soft) else _("training"), thin(train), "raw" if len(soft) else "plain")]
    if len(soft):
        lines.append(Line(_("training, smoothed"), soft, "smooth"))
    if len(check.finite):
        lines.append(Line(_("evaluation"), thin(check), "check"))
    columns = [(_("training"), train), (_("evaluation"), check)]
    shown = [line for line in lines if len(line.series.finite)]
    is_log = is_wide(train.values, 30) and (id_ == "loss" or record.program.task.score not in _SHARES)
    made = made_chart(id_, title, shown, columns, record, is_log=is_log, level=level, unit=unit)
    return replace(made, summary=f"{made.summary} {told}") if (told := _looked_at(record, check)) else made


def _looked_at(record: Record, check: Series) -> str:
    """How many samples the last evaluation is of, where that was noted."""
    samples = evaluated_samples(record)
    if not samples or not len(check.finite):
        return ""
    return tell("The last evaluation is of {number} samples that were looked at.", number=samples)


def _norm(record: Record) -> Chart | None:
    norm = record.series("grad_norm").finite
    if not len(norm):
        return None
    soft = smooth(norm)
    lines = [
        Line(_("each measured step") if len(soft) else _("gradient norm"), thin(norm), "raw" if len(soft) else "plain")
    ]
    if len(soft):
        lines.append(Line(_("smoothed"), soft, "smooth"))
    columns = [(_("gradient norm"), norm)]
    return made_chart(
        "norm",
        _("Gradient norm"),
        lines,
        columns,
        record,
        is_log=is_wide(norm.values, 10),
        unit=_("L2 norm of the gradient"),
    )


def _time(record: Record) -> Chart | None:
    time = record.series("step_seconds").finite
    if len(time) < 2:
        return None
    soft = smooth(time)
    lines = [Line(_("each step"), thin(time), "raw" if len(soft) else "plain")]
    lines += [Line(_("smoothed"), soft, "smooth")] if len(soft) else []
    columns = [(_("time a step"), time)]
    return made_chart(
        "time", _("Time a step"), lines, columns, record, is_log=is_wide(time.values, 10), unit=_("seconds")
    )


def _rates(record: Record) -> Chart | None:
    names = [name for name in record.places("lr") if name] or [""]
    found = [(name, record.series("lr", name)) for name in names[:_MOST_LINES]]
    found = [(name, series) for name, series in found if len(series.finite)]
    if not found:
        return None
    lines = [Line(_group(name, record), thin(series)) for name, series in found]
    columns = [(line.label, series) for line, (_name, series) in zip(lines, found, strict=True)]
    unit = _("learning rate")
    return made_chart("lr", _("Learning rate"), lines, columns, record, is_log=False, unit=unit, with_zero=True)


def _group(name: str, record: Record) -> str:
    optimizer, _dot, group = name.partition(".")
    kinds = [clean(o.kind) for o in record.program.optimizers]
    if not optimizer.isdigit() or int(optimizer) >= len(kinds):
        return clean(name) or _("learning rate")
    which = f" {optimizer}" if kinds.count(kinds[int(optimizer)]) > 1 else ""
    return tell("{optimizer}, group {group}", optimizer=f"{kinds[int(optimizer)]}{which}", group=group or 0)


def _lags(record: Record) -> Chart | None:
    last = [(name, record.vectors("lag_grad", name)) for name in record.places("lag_grad")]
    lines = [
        Line(tell("at step {step} in {place}", step=vectors[-1].step, place=place(name)), Series.of(vectors[-1].values))
        for name, vectors in last[:_MOST_LINES]
        if vectors
    ]
    if not lines:
        return None
    columns = [(line.label, line.series) for line in lines]
    is_log = any(is_wide(line.series.values, 10) for line in lines)
    unit = _("gradient, relative to lag 0")
    return made_chart("lag", _("Gradient by time lag"), lines, columns, record, is_log=is_log, axis="lag", unit=unit)


def made_chart(
    id_: str,
    title: str,
    lines: Sequence[Line],
    columns: Sequence[tuple[str, Series]],
    record: Record,
    *,
    is_log: bool,
    axis: str = "step",
    level: tuple[float, str] = (math.nan, ""),
    unit: str = "",
    with_zero: bool = False,
) -> Chart:
    columns = [(label, series) for label, series in columns if len(series)]
    marks = _marks(record) if axis == "step" else ()
    summary = " ".join(_summary(label, series, axis) for label, series in columns)
    header = (_(_SPANS[axis]), *(label for label, _series in columns))
    rows = tuple(spans([series for _label, series in columns]))
    return Chart(id_, title, axis, tuple(lines), is_log, summary, header, rows, marks, level, unit, with_zero)


def _marks(record: Record) -> tuple[tuple[int, str], ...]:
    first: dict[str, int] = {}
    for event in sorted(record.events, key=lambda e: e.step):
        if event.kind in _TOLD_EVENTS:
            first.setdefault(event.kind, event.step)
    return (*((step, _(_TOLD_EVENTS[kind])) for kind, step in first.items()), *_rate_changes(record))


def _rate_changes(record: Record) -> list[tuple[int, str]]:
    """Steps at which the learning rate jumped, with the factor.

    Where it changes all the time, as along a cosine, only jumps that stand out from the changes beside them.
    """
    rate = record.series("lr").finite
    if len(rate) < 2 or (rate.values <= 0).any():
        return []
    changes = np.abs(np.diff(np.log(rate.values)))
    at = np.flatnonzero(changes > 1e-6)
    sizes = changes[at]
    if len(at) > _MOST_RATE_CHANGES:
        beside = np.maximum(np.concatenate([[0.0], sizes[:-1]]), np.concatenate([sizes[1:], [0.0]]))
        at, sizes = at[sizes > _STANDS_OUT * beside], sizes[sizes > _STANDS_OUT * beside]
    jumps = at[sizes > math.log(1.3)]
    if len(jumps) > _MOST_RATE_CHANGES:
        return []
    return [
        (int(rate.steps[i + 1]), tell("rate × {factor}", factor=number(float(rate.values[i + 1] / rate.values[i]), 2)))
        for i in jumps
    ]


def _summary(label: str, series: Series, axis: str) -> str:
    finite, label = series.finite, _title(label)
    if not len(finite):
        return tell("{label}: no finite number.", label=label)
    low, high = int(finite.values.argmin()), int(finite.values.argmax())
    at = [tell(_NUMBERED[axis], number=finite.steps[i]) for i in (0, -1, low, high)]
    told = [number(float(finite.values[i])) for i in (0, -1, low, high)]
    if told[2] == told[3]:
        return tell("{label}: {value} throughout.", label=label, value=told[0])
    text = tell(
        "{label}: {first} at {start}, {last} at {end}", label=label, first=told[0], start=at[0], last=told[1], end=at[1]
    )
    if len(finite) > 2:
        text += tell("; smallest {value} ({at})", value=told[2], at=at[2])
        text += tell(", largest {value} ({at})", value=told[3], at=at[3])
    infinite = int(np.isinf(series.values).sum())
    if infinite:
        text += tell("; Inf at {number} of {all}", number=infinite, all=len(series))
    return tell("{text}.", text=text)


def spans(columns: Sequence[Series]) -> Iterator[tuple[str, ...]]:
    """Medians over equal spans of steps; of short series every step."""
    steps = np.sort(np.concatenate([np.zeros(0, int), *(series.steps for series in columns)]), kind="stable")
    steps = steps[np.diff(steps, prepend=-1) > 0]
    for part in np.array_split(steps, min(_ROWS, len(steps))) if len(steps) else []:
        first, last = int(part[0]), int(part[-1])
        label = str(first) if first == last else f"{first} – {last}"
        yield label, *(_cell(series.after(first).until(last + 1)) for series in columns)


def _cell(series: Series) -> str:
    if not len(series):
        return "–"
    middle = series.median()
    return number(middle) if math.isfinite(middle) else number(series.last)


def _rounded(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.4g}") if math.isfinite(v) else None for v in values.tolist()]


def _title(name: str) -> str:
    plain = clean(name).replace("_", " ")
    return plain[:1].upper() + plain[1:]
