"""The charts of the page's panel on curvature: its course over the run, and the density of the spectrum."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from unstuck._language import _, tell
from unstuck.evidence import Record, Series
from unstuck.report._charts import Chart, Line, made_chart, spans
from unstuck.report._curvature import Curvature
from unstuck.report._words import count, number, plural


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
        line = Line(_("largest eigenvalue"), top)
        return made_chart("sharpness", _("Sharpness over the run"), [line], [(line.label, top)], record, is_log=True)
    both, of, to = np.intersect1d(felt.steps, edge.steps, return_indices=True)
    known = (felt.values[of] > 0) & (edge.values[to] > 0)
    bears = Series(both[known], felt.values[of][known] / edge.values[to][known])
    lines = [
        Line(_("sharpness, as the optimizer feels it"), felt),
        Line(_("what the learning rate bears"), bears, "check"),
    ]
    columns = [(_("sharpness"), felt), (_("what the rate bears"), bears)]
    chart = made_chart(
        "sharpness",
        _("Sharpness, against what the rate bears"),
        lines,
        columns,
        record,
        is_log=True,
        unit=_("sharpness"),
    )
    said = tell("{summary} Where the lines meet is the edge of stability.", summary=chart.summary)
    columns += [
        (_("rate / stable rate"), edge),
        *((_("smallest eigenvalue"), s) for s in filter(None, [course.get("hessian_bottom")])),
    ]
    header = (chart.header[0], *(name for name, _series in columns))
    rows = tuple(spans([series for _name, series in columns]))
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
        Line(_("eigenvalues around here"), shown),
        Line(_("outermost ones"), Series(np.array(ends), np.ones(len(ends))), "dots"),
    ]
    summary = " ".join((
        tell("From {low} to {high}: {count} eigenvalues,", low=number(float(told["low"])), high=number(float(told["high"])),
             count=count(int(told["size"]))),
        _("all of them computed.") if told.get("exact")
        else tell("seen by {vectors}.", vectors=plural(int(told["vectors"]), "random vector")),
        _("Height is how many lie about there; a single one stands at 1."),
    ))  # fmt: skip
    rows = [
        (tell("largest {rank}", rank=i + 1), number(v), number(e, 1))
        for i, (v, e) in enumerate(zip(tops, errors, strict=True))
    ]
    rows += [(_("smallest"), number(point.get("bottom")), number(point.get("bottom_error"), 1))] if point else []
    header = (_("which"), _("eigenvalue"), "±")
    return Chart(
        "density",
        _("Density of the Hessian's eigenvalues"),
        "eigenvalue",
        tuple(lines),
        True,
        summary,
        header,
        tuple(rows),
        unit=_("eigenvalues"),
    )
