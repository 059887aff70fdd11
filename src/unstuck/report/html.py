"""The verdict as one HTML page: self-contained, offline, for desktop, phone and paper, in light and dark.

Everything is in the one file: style, script, charts (uPlot) and data. A content security policy forbids it any request and
any script but its own two. All text from the user's program is escaped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from unstuck.evidence import Layer, Parameter, Record
from unstuck.report import _figures as figures
from unstuck.report import _words as words
from unstuck.report._charts import charts, curvature_charts
from unstuck.report._curvature import Curvature, facts, gathered, measured, stalled
from unstuck.report._curves import courses, ended_in_nan
from unstuck.report._heatmap import LEVELS, heatmaps, style
from unstuck.report._profile import Profile, profile
from unstuck.report._worst import is_of_worst, worst_samples
from unstuck.report.output import write_text
from unstuck.verdict import CAUSES, Finding, Verdict, flatten

_MOST_ROWS = 500
_MOST_EVENTS = 100
_MOST_EVIDENCE = 24
_MOST_PICTURES = 4
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


@np.errstate(all="ignore")  # what is broken is shown as it is
def render(verdict: Verdict, record: Record) -> str:
    """The whole page.

    Args:
        verdict: The judgement over one run.
        record: The record it was made of.

    Returns:
        An HTML document that needs nothing but itself.
    """
    drawn, bent = charts(verdict, record), gathered(record)
    bent_charts = curvature_charts(bent, record)
    scripts = [_asset("uplot/uPlot.iife.min.js"), _asset("charts.js")]
    return _template("page.html").render(
        **_told(verdict, record),
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],
        styles=[
            Markup(_asset("uplot/uPlot.min.css")),
            Markup(_asset("page.css")),
            Markup(_asset("samples.css")),
            Markup(style()),
        ],
        data=Markup(_embedded([chart.to_json() for chart in (*bent_charts, *drawn)])),
        charts=drawn,
        curvature=_panel(bent, record) if bent is not None else None,
        curvature_charts=bent_charts,
        worst=worst_samples(record),
        maps=heatmaps(record),
        tables=_tables(verdict, record),
        levels=LEVELS,
    )


def write(verdict: Verdict, record: Record, path: str | Path) -> None:
    """Write the whole page to a file.

    Args:
        verdict: The judgement over one run.
        record: The record it was made of.
        path: The file; what was there is replaced.

    Raises:
        MisuseError: `path` is a folder, or in a folder that doesn't exist.
        RecordError: The system refuses to write there.
    """  # noqa: DOC502
    write_text(path, render(verdict, record))


@np.errstate(all="ignore")
def fragment(verdict: Verdict, record: Record) -> str:
    """The verdict as a few lines of HTML without script, for a notebook's cell (`_repr_html_`).

    Args:
        verdict: The judgement over one run.
        record: The record it was made of.

    Returns:
        One `<div>` with its own style, in the colours of what surrounds it.
    """
    return _template("fragment.html").render(**_told(verdict, record), style=Markup(_asset("fragment.css")))


def _told(verdict: Verdict, record: Record) -> dict[str, Any]:
    root = verdict.findings[0] if verdict.verdict == "sick" and verdict.findings else None
    broken = ended_in_nan(record)
    return {
        "verdict": verdict,
        "record": record,
        "root": root,
        "rest": verdict.findings[1:] if root else verdict.findings,
        "pictures": [(f, profile(f, record)) for f in flatten(verdict.findings)[:_MOST_PICTURES]],
        "courses": [(course, figures.line(course, broken=broken)) for course in courses(verdict, record)],
        "path": verdict.run.get("record") or record.path,
    }


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unstuck.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: (
            words.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(words=words, figures=figures, causes=CAUSES, evidence=_evidence)
    return environment


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(f"{name}.jinja")


@functools.cache
def _asset(name: str) -> str:
    return importlib.resources.files("unstuck.report").joinpath("assets", name).read_text("utf-8").strip()


def _policy(scripts: Sequence[str]) -> str:
    """No request at all, and no script but these."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def _embedded(data: Any) -> str:
    """JSON that nothing in it can end the element it stands in."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _evidence(finding: Finding) -> Table:
    rows = [
        (words.signal(e.signal).words, e.layer or "the whole program", str(e.step), words.measured(e.signal, e.value))
        for e in finding.evidence[:_MOST_EVIDENCE]
    ]
    more = len(finding.evidence) - _MOST_EVIDENCE
    return ("what", "where", "step", "value"), [*rows, *([(f"and {more} more", "", "", "")] if more > 0 else [])]


def _panel(found: Curvature, record: Record) -> dict[str, Any]:
    """What the panel on curvature shows besides its charts."""
    rows = [
        (str(layer["layer"]), words.count(int(layer["size"])), words.number(layer["top"]), words.number(layer["bottom"]),
         words.number(layer["trace"]), f"± {words.number(layer['trace_error'], 1)}")
        for layer in found.layers
    ]  # fmt: skip
    names = tuple(row[0] for row in rows)
    tops = np.array([float(layer["top"] or 0.0) for layer in found.layers])
    header = ("layer", "parameters", "largest eigenvalue", "smallest", "trace", "95% interval")
    return {
        "kind": found.kind,
        "headline": f"{words.program(record)} {found.headline}",
        "says": found.point.get("says"),
        "facts": list(facts(found)),
        "measured": measured(found),
        "notes": found.notes,
        "stalls": stalled(found),
        "profile": Profile("layer_top", "layer", found.steps, names, tops)
        if len(rows) > 1 and (tops > 0).any()
        else None,
        "layers": (header, rows) if rows else None,
    }


def _tables(verdict: Verdict, record: Record) -> list[tuple[str, Table]]:
    """What the page lists at its end, those with anything in them; tables of two columns come last."""
    program = record.program
    made = [
        (f"Layers ({len(program.layers)})", _layers(verdict, record)),
        ("Parameters out of the ordinary", _odd_parameters(record)),
        ("Optimizers", _optimizers(record)),
        ("Losses", _losses(record)),
        (f"Events ({sum(not is_of_worst(e) for e in record.events)})", _events(record)),
        ("Models", (("model", "what it is"), [(m.name, words.model(m, record)) for m in program.models])),
        ("Not found", (("what could not be seen",), [(text,) for text in program.not_found])),
        ("Task and data", _data(record)),
        ("The run", _run(verdict, record)),
    ]
    return [(title, table) for title, table in made if table[1]]


def _layers(verdict: Verdict, record: Record) -> Table:
    found: dict[str, list[str]] = {}
    for finding in flatten(verdict.findings):
        for name in finding.layers:
            found.setdefault(name, []).append(finding.cause)
    rows = [_layer(layer, record, found.get(layer.name, [])) for layer in record.program.layers[:_MOST_ROWS]]
    more = len(record.program.layers) - _MOST_ROWS
    header = ("layer", "op", "where in the script", "output shape", "parameters", "dead", "saturated", "gradient",
              "update / weight", "found")  # fmt: skip
    return _without_empty(header, [*rows, *([(f"and {more} more", *[""] * (len(header) - 1))] if more > 0 else [])])


def _layer(layer: Layer, record: Record, found: Sequence[str]) -> tuple[str, ...]:
    sizes = [math.prod(record.parameters[name].shape) for name in layer.parameters if name in record.parameters]
    return (
        layer.name,
        f"{layer.op} x{layer.calls}" if layer.calls > 1 else layer.op,
        layer.site,
        _shape(layer.out_shape),
        words.count(sum(sizes)) if sizes else "",
        _last(record, "dead_share", layer.name),
        _last(record, "act_saturated", layer.name),
        _last(record, "back_rms", layer.name),
        next(filter(None, (_last(record, "update_ratio", name) for name in layer.parameters)), ""),
        ", ".join(dict.fromkeys(found)),
    )


def _odd_parameters(record: Record) -> Table:
    rows = [(p.name, _shape(p.shape), odd) for p in record.program.parameters if (odd := _oddities(p))]
    return ("parameter", "shape", "what is odd"), rows[:_MOST_ROWS]


def _oddities(parameter: Parameter) -> str:
    odd = {
        "not trainable": not parameter.trainable,
        "not used on the way to the loss": not parameter.used,
        "in no optimizer": parameter.trainable and not parameter.optimizers,
        "never had a gradient": parameter.trainable and not parameter.got_grad,
        "never changed": parameter.trainable and parameter.changed is False,
        "made anew at every step": parameter.remade,
    }
    return ", ".join(text for text, holds in odd.items() if holds)


def _optimizers(record: Record) -> Table:
    rows = [
        (o.kind, words.settings(o.settings), o.schedule, o.clipping, str(o.steps), str(o.groups),
         words.count(o.num_parameters), words.exact(float(o.backwards_per_step)), words.exact(o.cleared),
         "yes" if o.closure else "")
        for o in record.program.optimizers
    ]  # fmt: skip
    header = ("optimizer", "settings", "schedule", "clipping", "steps", "groups", "parameters", "backward passes a step",
              "gradients cleared", "closure")  # fmt: skip
    return _without_empty(header, rows)


def _losses(record: Record) -> Table:
    rows = [
        (loss.name, loss.site, " → ".join(filter(None, (loss.layer, *loss.chain[1:]))), " → ".join(loss.loss_ops),
         _shape(loss.output_shape), _shape(loss.target_shape), loss.target_kind, loss.reduction,
         _range(loss.output), _range(loss.target), "yes" if loss.trains else "no, only evaluated")
        for loss in record.program.losses
    ]  # fmt: skip
    header = ("loss", "where in the script", "takes", "computed by", "outputs", "targets", "kind of target", "reduction",
              "outputs lie in", "targets lie in", "trains")  # fmt: skip
    return _without_empty(header, rows)


def _data(record: Record) -> Table:
    task, data = record.program.task, record.program.data
    shuffled = {None: "unknown", True: "yes", False: "no"}[data.shuffled]
    rows = [
        ("task", task.kind if task.kind != "unknown" else ""),
        ("classes", str(task.num_classes or "")),
        ("score", task.score),
        ("loss at chance", "" if math.isnan(task.chance_loss) else words.number(task.chance_loss)),
        ("score at chance", "" if math.isnan(task.chance_score) else words.number(task.chance_score)),
        ("batch size", f"{data.batch_size} (from the {data.batch_from})" if data.batch_size else ""),
        ("loader", data.loader),
        ("shuffled", shuffled if data.loader else ""),
        ("samples", str(data.num_samples or "")),
        ("batches an epoch", str(data.batches_per_epoch or "")),
        ("epochs begun", str(data.epochs or "")),
        ("evaluation passes", str(data.eval_passes or "")),
        ("features", ", ".join(record.program.features)),
    ]
    return ("what", "value"), [row for row in rows if row[1]]


def _events(record: Record) -> Table:
    events = sorted((e for e in record.events if not is_of_worst(e)), key=lambda e: e.step)
    rows = [(str(e.step), e.kind, e.layer, words.event(e)) for e in events[:_MOST_EVENTS]]
    more = len(events) - _MOST_EVENTS
    return ("step", "event", "layer", "details"), [*rows, *([(f"and {more} more", "", "", "")] if more > 0 else [])]


def _run(verdict: Verdict, record: Record) -> Table:
    meta = record.meta
    overhead = meta.get("overhead")
    rows = [
        ("script", " ".join(map(str, (meta.get("script") or "", *(meta.get("argv") or ()))))),
        ("started", str(meta.get("started") or "")),
        ("ended", words.ending(record) or str(meta.get("status") or "")),
        ("exit code", str(meta.get("exit_code", "") if meta.get("exit_code") is not None else "")),
        ("time", words.duration(meta["seconds"]) if meta.get("seconds") is not None else ""),
        ("steps", str(record.steps or "")),
        ("watching took", words.percent(overhead) if overhead is not None else ""),
        *((name, str(meta.get(name) or "")) for name in ("device", "torch", "python", "unstuck")),
        ("record", str(verdict.run.get("record") or record.path or "")),
    ]
    return ("what", "value"), [row for row in rows if row[1].strip()]


def _without_empty(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The table without columns that hold nothing."""
    keep = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return [header[i] for i in keep], [[row[i] for i in keep] for row in rows]


def _last(record: Record, signal: str, place: str) -> str:
    series = record.series(signal, place)
    return words.measured(signal, series.last) if len(series) else ""


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _range(facts: Any) -> str:
    return f"{words.exact(facts['min'])} … {words.exact(facts['max'])}" if "min" in facts and "max" in facts else ""
