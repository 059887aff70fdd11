"""The verdict as one HTML page: self-contained, offline, for desktop, phone and paper, in light and dark.

Everything is in the one file: style, script, charts (uPlot) and data. A content security policy forbids it any request and
any script but its own. All text from the user's program is escaped.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from unstuck._language import _, many, marked, spoken, tell, translated
from unstuck.evidence import Record
from unstuck.report import _figures as figures
from unstuck.report import _words as words
from unstuck.report._cells import LEVELS, style
from unstuck.report._charts import charts, told_phases
from unstuck.report._charts import phases as chart_phases
from unstuck.report._curvature import KINDS, Curvature, facts, gathered, measured, says, stalled
from unstuck.report._curvature_charts import curvature_charts
from unstuck.report._curves import broke_at, courses, ended_in_nan, shown_until
from unstuck.report._data_charts import data_charts
from unstuck.report._explained import explained
from unstuck.report._heatmap import heatmaps, spans_of
from unstuck.report._links import Links
from unstuck.report._next import commands
from unstuck.report._profile import Profile, profile
from unstuck.report._surface import surface
from unstuck.report._tables import Cells, layer_ids, tables, without_empty
from unstuck.report._worst import worst_samples
from unstuck.report.output import write_text
from unstuck.verdict import CAUSES, Evidence, Finding, Verdict, flatten

_MOST_EVIDENCE = 24
_MOST_PICTURES = 4
_LONGEST = 120  # letters of a name
_STYLES = ("uplot/uPlot.min.css", "page.css", "run.css", "samples.css")
_SCRIPTS = ("uplot/uPlot.iife.min.js", "charts.js", "maps.js", "filter.js", "page.js")
_TEXTS = {
    "zero": marked("exactly 0"),
    "broken": marked("NaN or Inf"),
    "missing": marked("not measured"),
    "about": marked("about {value}"),
    "cell": marked("{place}, step {step}: {signal} {value}"),
    "chart": marked(
        "{title}: a chart. Left and right arrow keys read its points, plus and minus zoom, Escape shows all."
    ),
    "map": marked("{title}: a map. Arrow keys read its cells."),
    "epoch": marked("epoch {number}"),
    "layers": marked("{some} of {all} layers"),
    "names": marked("{some} of {all} places"),
    "findings": marked("{some} of {all} findings"),
    "rows": marked("{some} of {all} rows are shown"),
    "every": marked("{all} rows fit the filter, one of every {every} is shown."),
    "none": marked("No row fits the filter."),
    "point": marked("{axis} {at}: {values}"),
}


@dataclass(frozen=True)
class Live:
    """What a server adds to the page of a run that still grows.

    Such a page may ask the server it came from, and nobody else. Its scripts come after the page's own, so they find
    `window.unstuck`: `erase()` before they replace `<main>`, `draw()` after it.

    Attributes:
        scripts: JavaScript, each put into an element of its own.
        styles: Style sheets, in the same way.
        head: What stands above the page.
    """

    scripts: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    head: Markup = field(default_factory=Markup)


@np.errstate(all="ignore")  # what is broken is shown as it is
def render(verdict: Verdict, record: Record, *, live: Live | None = None) -> str:
    """The whole page.

    Args:
        verdict: The judgement over one run.
        record: The record it was made of.
        live: What a server adds; None for a page that stands for itself.

    Returns:
        An HTML document that needs nothing but itself, and the server that adds something to it.
    """
    added = live or Live()
    verdict = dataclasses.replace(verdict, findings=_apart(verdict.findings))
    scripts = [*map(_asset, _SCRIPTS), *added.scripts]
    parts = _parts(verdict, record)
    return _template("page.html").render(
        **_told(verdict, record),
        **parts,
        policy=_policy(scripts, is_live=live is not None),
        scripts=[Markup(script) for script in scripts],
        styles=[Markup(text) for text in (*map(_asset, _STYLES), style(), *added.styles)],
        head=added.head,
        is_live=live is not None,
        data=Markup(_embedded(_data(record, **parts))),
        commands=commands(verdict, record),
        explained=explained,
        worst=worst_samples(record),
        phases=told_phases(record),
        broke_at=broke_at(record) if shown_until(record) is not None else None,
        levels=LEVELS,
    )


def _apart(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings that are told apart by identity, though one may be there twice."""
    return tuple(dataclasses.replace(finding, explains=_apart(finding.explains)) for finding in findings)


def _parts(verdict: Verdict, record: Record) -> dict[str, Any]:
    """Charts, maps and tables, and what links findings to them."""
    bent = gathered(record)
    drawn, given, curved = charts(verdict, record), data_charts(record), curvature_charts(bent, record)
    asked = {item.signal for finding in flatten(verdict.findings) for item in finding.evidence}
    maps, more_maps = heatmaps(record, asked)
    return {
        "charts": drawn,
        "given": given,
        "curvature": _panel(bent, record) if bent is not None else None,
        "curvature_charts": curved,
        "maps": maps,
        "more_maps": more_maps,
        "tables": tables(verdict, record),
        "links": Links(verdict, [*drawn, *given, *curved], [*maps, *more_maps], layer_ids(record)),
    }


def _data(record: Record, links: Links, **parts: Any) -> dict[str, Any]:
    """What the page's scripts draw, read out and filter."""
    drawn = [*parts["curvature_charts"], *parts["charts"], *parts["given"]]
    maps = [*parts["maps"], *parts["more_maps"]]
    layers = [layer.name for layer in record.program.layers]
    names = list(dict.fromkeys([*layers, *(name for found in maps for name in found.places)]))
    index = {name: i for i, name in enumerate(names)}
    return {
        "charts": [chart.to_json() | {"found": links.steps(chart)} for chart in drawn],
        "maps": [found.to_json(index) | {"found": list(links.cells(found))} for found in maps],
        "names": _shortened([words.place(name, _LONGEST) for name in names]),
        "num_layers": len(layers),
        "findings": [spans_of([index[name] for name in finding.layers if name in index]) for finding in links.findings],
        "more": {table.id: table.more for table in parts["tables"] if table.more},
        "phases": chart_phases(record),
        "until": shown_until(record),
        "texts": {key: _(text) for key, text in _TEXTS.items()},
    }


def _shortened(names: Sequence[str]) -> list[Any]:
    """Names that share their beginnings with the ones before them: by turns how many letters are the same, and the others."""
    made: list[Any] = []
    for before, name in zip(["", *names], names, strict=False):
        same = next(
            (i for i, (a, b) in enumerate(zip(before, name, strict=False)) if a != b), min(len(before), len(name))
        )
        made += [same, name[same:]]
    return made


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
    environment.globals.update(capital=lambda text: f"{text[:1].upper()}{text[1:]}")
    environment.globals.update(_=_, say=tell, many=many, translated=translated, spoken=spoken)
    return environment


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(f"{name}.jinja")


@functools.cache
def _asset(name: str) -> str:
    return importlib.resources.files("unstuck.report").joinpath("assets", name).read_text("utf-8").strip()


def _policy(scripts: Sequence[str], *, is_live: bool = False) -> str:
    """No request at all, or to the page's own server only, and no script but these."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    asks = "connect-src 'self'; " if is_live else ""
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; {asks}"
        "base-uri 'none'; form-action 'none'"
    )


def _embedded(data: Any) -> str:
    """JSON that nothing in it can end the element it stands in."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _evidence(finding: Finding, links: Links | None) -> Cells:
    """The numbers a finding rests on, each a link to where it can be seen."""
    rows = [
        (
            _seen(item, links),
            words.place(item.layer, _LONGEST),
            str(item.step),
            words.measured(item.signal, item.value),
        )
        for item in finding.evidence[:_MOST_EVIDENCE]
    ]
    more = len(finding.evidence) - _MOST_EVIDENCE
    rest = [(tell("and {number} more", number=more), "", "", "")] if more > 0 else []
    return without_empty((_("what"), _("where"), _("step"), _("value")), [*rows, *rest])


def _seen(item: Evidence, links: Links | None) -> str:
    told, target = words.clean(_(words.signal(item.signal).words)), links and links.target(item)
    if not target:
        return told
    return Markup('<a href="{}" data-step="{}" data-place="{}">{}</a>').format(
        target.href, target.step, words.place(target.place, _LONGEST), told
    )


def _panel(found: Curvature, record: Record) -> dict[str, Any]:
    """What the panel on curvature shows besides its charts."""
    rows = [
        (str(layer["layer"]), words.count(int(layer["size"])), words.number(layer["top"]), words.number(layer["bottom"]),
         words.number(layer["trace"]), f"± {words.number(layer['trace_error'], 1)}")
        for layer in found.layers
    ]  # fmt: skip
    names = tuple(row[0] for row in rows)
    tops = np.array([float(layer["top"] or 0.0) for layer in found.layers])
    header = (_("layer"), _("parameters"), _("largest eigenvalue"), _("smallest"), _("trace"), _("95% interval"))
    return {
        "kind": found.kind,
        "headline": found.headline(words.program(record)),
        "badge": KINDS.get(found.kind, found.kind),
        "says": says(found),
        "facts": list(facts(found)),
        "measured": measured(found),
        "notes": found.notes,
        "stalls": stalled(found),
        "surface": surface(found.surface, int(found.point.get("size") or 0)),
        "profile": Profile("layer_top", "layer", found.steps, names, tops)
        if len(rows) > 1 and (tops > 0).any()
        else None,
        "layers": (header, rows) if rows else None,
    }
