"""The page's curves: what each chart draws, the words that say it, and the table that stands in for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unstuck.evidence import Record, Series
from unstuck.report._curvature import Curvature
from unstuck.report._curves import is_wide, smooth, thin
from unstuck.report._words import clean, count, number, place, plural
from unstuck.verdict import Verdict

_MOST_LINES = 6
_ROWS = 16
_TOLD_EVENTS = {"non-finite": "NaN or Inf", "reloaded": "reloaded", "exception": "exception"}


@dataclass(frozen=True)
class Line:
    """One line of a chart: `kind` is "raw" (pale), "smooth" or "plain" (strong), "check" (points, dashed), "dots" (no line)."""

    label: str
    series: Series
    kind: str = "plain"


@dataclass(frozen=True)
class Chart:
    """One chart of the page.

    Attributes:
        id: Short name, unique on the page.
        title: What it shows.
        axis: What runs along x: "step", "lag" or "eigenvalue".
        lines: What is drawn, already thinned.
        is_log: Starts with a log scale.
        summary: The same in words.
        header, rows: The same as a table, by spans of steps.
        marks: Steps where something happened, with a word for it.
        level: What it is compared with, such as chance, and its name; NaN when there is nothing.
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

    def to_json(self) -> dict[str, Any]:
        """What the page's script draws."""
        lines = [
            {"label": line.label, "kind": line.kind, "x": line.series.steps.tolist(), "y": _rounded(line.series.values)}
            for line in self.lines
        ]
        level = {"value": self.level[0], "label": self.level[1]} if math.isfinite(self.level[0]) else None
        marks = [{"x": int(step), "label": word} for step, word in self.marks]
        return {"id": self.id, "axis": self.axis, "log": self.is_log, "lines": lines, "marks": marks, "level": level}


def charts(verdict: Verdict, record: Record) -> list[Chart]:
    """The charts there is something to draw for."""
    task = record.program.task
    name = (verdict.run.get("score") or {}).get("name") or task.score or "score"
    made = [
        _course("loss", "Loss", ("loss", "eval_loss"), record, (task.chance_loss, "chance")),
        _course("score", _title(name), ("score", "eval_score"), record, (task.chance_score, "chance")),
        _norm(record),
        _rates(record),
        _lags(record),
    ]
    return [chart for chart in made if chart is not None]


def curvature_charts(found: Curvature | None, record: Record) -> list[Chart]:
    """The charts of the page's panel on curvature: its course over the run, and the density of the spectrum."""
    made = [] if found is None else [_sharpness(found, record), _density(found)]
    return [chart for chart in made if chart is not None]


def _sharpness(found: Curvature, record: Record) -> Chart | None:
    """Sharpness over the run against what the rate bears: where the lines meet is the edge of stability."""
    course = found.course
    felt, edge = course.get("sharpness"), course.get("edge")
    if felt is None or edge is None:
        top = course.get("hessian_top")
        if top is None:
            return None
        line = Line("largest eigenvalue", top)
        return _chart("sharpness", "Sharpness over the run", [line], [(line.label, top)], record, is_log=True)
    both, of, to = np.intersect1d(felt.steps, edge.steps, return_indices=True)
    known = (felt.values[of] > 0) & (edge.values[to] > 0)
    bears = Series(both[known], felt.values[of][known] / edge.values[to][known])
    lines = [Line("sharpness, as the optimizer feels it", felt), Line("what the learning rate bears", bears, "check")]
    columns = [("sharpness", felt), ("what the rate bears", bears)]
    chart = _chart("sharpness", "Sharpness, against what the rate bears", lines, columns, record, is_log=True)
    said = f"{chart.summary} Where the lines meet is the edge of stability."
    columns += [
        ("rate / stable rate", edge),
        *(("smallest eigenvalue", s) for s in filter(None, [course.get("hessian_bottom")])),
    ]
    header, rows = (chart.header[0], *(name for name, _ in columns)), tuple(_rows([series for _, series in columns]))
    return dataclasses.replace(chart, summary=said, header=header, rows=rows)


def _density(found: Curvature) -> Chart | None:
    """How many eigenvalues lie where: a single one, apart from others, stands at 1."""
    told = found.density
    if not told:
        return None
    at, height = (np.asarray(told[name], float) for name in ("at", "height"))
    width = (at[-1] - at[0]) / 110 * math.sqrt(2 * math.pi)
    counts = height * int(told["size"]) * width
    shown = Series(at, np.where(counts > 0.05, counts, np.nan))
    point = found.point
    tops, errors = point.get("tops") or [], point.get("tops_errors") or []
    ends = sorted({float(v) for v in (point.get("bottom"), *tops) if v is not None})
    lines = [
        Line("eigenvalues around here", shown),
        Line("outermost ones", Series(np.array(ends), np.ones(len(ends))), "dots"),
    ]
    summary = (
        f"From {number(float(told['low']))} to {number(float(told['high']))}: {count(int(told['size']))} eigenvalues, "
        + (
            "all of them computed."
            if told.get("exact")
            else f"seen by {plural(int(told['vectors']), 'random vector')}."
        )
        + " Height is how many lie about there; a single one stands at 1."
    )
    rows = [(f"largest {i + 1}", number(v), number(e, 1)) for i, (v, e) in enumerate(zip(tops, errors, strict=True))]
    rows += [("smallest", number(point.get("bottom")), number(point.get("bottom_error"), 1))] if point else []
    header = ("which", "eigenvalue", "±")
    return Chart(
        "density",
        "Density of the Hessian's eigenvalues",
        "eigenvalue",
        tuple(lines),
        True,
        summary,
        header,
        tuple(rows),
    )


def _course(id_: str, title: str, signals: tuple[str, str], record: Record, level: tuple[float, str]) -> Chart | None:
    train, check = (record.series(name) for name in signals)
    if not len(train.finite) and not len(check.finite):
        return None
    soft = smooth(train)
    lines = [Line("training" if not len(soft) else "each step", thin(train), "raw" if len(soft) else "plain")]
    if len(soft):
        lines.append(Line("training, smoothed", soft, "smooth"))
    if len(check.finite):
        lines.append(Line("evaluation", thin(check), "check"))
    columns = [("training", train), ("evaluation", check)]
    shown = [line for line in lines if len(line.series.finite)]
    return _chart(id_, title, shown, columns, record, is_log=is_wide(train.values, 30), level=level)


def _norm(record: Record) -> Chart | None:
    norm = record.series("grad_norm").finite
    if not len(norm):
        return None
    soft = smooth(norm)
    lines = [Line("each measured step" if len(soft) else "gradient norm", thin(norm), "raw" if len(soft) else "plain")]
    if len(soft):
        lines.append(Line("smoothed", soft, "smooth"))
    return _chart("norm", "Gradient norm", lines, [("gradient norm", norm)], record, is_log=is_wide(norm.values, 10))


def _rates(record: Record) -> Chart | None:
    names = [name for name in record.places("lr") if name] or [""]
    found = [(name, record.series("lr", name)) for name in names[:_MOST_LINES]]
    found = [(name, series) for name, series in found if len(series.finite)]
    if not found:
        return None
    lines = [Line(_group(name, record), thin(series)) for name, series in found]
    columns = [(line.label, series) for line, (_, series) in zip(lines, found, strict=True)]
    return _chart("lr", "Learning rate", lines, columns, record, is_log=False)


def _group(name: str, record: Record) -> str:
    optimizer, _, group = name.partition(".")
    kinds = [clean(o.kind) for o in record.program.optimizers]
    if not optimizer.isdigit() or int(optimizer) >= len(kinds):
        return clean(name) or "learning rate"
    which = f" {optimizer}" if kinds.count(kinds[int(optimizer)]) > 1 else ""
    return f"{kinds[int(optimizer)]}{which}, group {group or 0}"


def _lags(record: Record) -> Chart | None:
    last = [(name, record.vectors("lag_grad", name)) for name in record.places("lag_grad")]
    lines = [
        Line(f"at step {vectors[-1].step} in {place(name)}", Series.of(vectors[-1].values))
        for name, vectors in last[:_MOST_LINES]
        if vectors
    ]
    if not lines:
        return None
    columns = [(line.label, line.series) for line in lines]
    is_log = any(is_wide(line.series.values, 10) for line in lines)
    return _chart("lag", "Gradient by time lag", lines, columns, record, is_log=is_log, axis="lag")


def _chart(
    id_: str,
    title: str,
    lines: Sequence[Line],
    columns: Sequence[tuple[str, Series]],
    record: Record,
    *,
    is_log: bool,
    axis: str = "step",
    level: tuple[float, str] = (math.nan, ""),
) -> Chart:
    columns = [(label, series) for label, series in columns if len(series)]
    marks = _marks(record) if axis == "step" else ()
    summary = " ".join(_summary(label, series, axis) for label, series in columns)
    header = ("steps" if axis == "step" else "lags", *(label for label, _ in columns))
    rows = tuple(_rows([series for _, series in columns]))
    return Chart(id_, title, axis, tuple(lines), is_log, summary, header, rows, marks, level)


def _marks(record: Record) -> tuple[tuple[int, str], ...]:
    first: dict[str, int] = {}
    for event in sorted(record.events, key=lambda e: e.step):
        if event.kind in _TOLD_EVENTS:
            first.setdefault(event.kind, event.step)
    return tuple((step, _TOLD_EVENTS[kind]) for kind, step in first.items())


def _summary(label: str, series: Series, axis: str) -> str:
    finite, label = series.finite, _title(label)
    if not len(finite):
        return f"{label}: no finite number."
    low, high = int(finite.values.argmin()), int(finite.values.argmax())
    if finite.values[low] == finite.values[high]:
        return f"{label}: {number(finite.first)} throughout."
    text = f"{label}: {number(finite.first)} at {axis} {finite.steps[0]}, {number(finite.last)} at {axis} {finite.steps[-1]}"
    if len(finite) > 2:
        text += f"; smallest {number(float(finite.values[low]))} ({axis} {finite.steps[low]})"
        text += f", largest {number(float(finite.values[high]))} ({axis} {finite.steps[high]})"
    infinite = int(np.isinf(series.values).sum())
    return f"{text}; Inf at {plural(infinite, axis)}." if infinite else f"{text}."


def _rows(columns: Sequence[Series]) -> Iterator[tuple[str, ...]]:
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
