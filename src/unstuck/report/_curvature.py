"""What a record says of curvature, gathered from its events and series, and put into words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unstuck._language import _, marked, say, stored, tell
from unstuck.evidence import Record, Series
from unstuck.report._surface import why as no_plane
from unstuck.report._words import count, number, percent, place, plural, reason

SIGNALS = ("hessian_top", "hessian_bottom", "sharpness", "stable_rate", "edge")
_APART = 0.1  # relative difference of two ways to make a product, above which it is named
_NEAR = 0.1  # of the edge of stability, within which a rate is at it
_ROUGH = 0.2  # error of the counts of signs, above which they are told as rough
_NONE: Mapping[str, Any] = {}
KINDS = {
    "minimum": say("minimum"), "saddle": say("saddle"), "maximum": say("maximum"), "flat": say("flat"),
    "gradient-flat": say("gradient-flat"), "not critical": say("not critical"), "unknown": say("unknown"),
}  # fmt: skip
_HEADLINES = {
    "minimum": marked("{program} ended at a minimum: {slope}, and nothing curves down."),
    "saddle": marked("{program} ended at a saddle: {slope}, and there is a way down."),
    "maximum": marked("{program} ended at a maximum: {slope}, and nothing curves up."),
    "flat": marked("{program} ended on a plateau: neither slope nor curvature."),
    "gradient-flat": marked(
        "{program} ended at no critical point, but where it is gradient-flat: curvature is felt hardly anywhere along the gradient."
    ),
    "not critical": marked("{program} ended on a slope, at no critical point: it can still go down."),
}
_NO_WAY_DOWN = marked(
    "{program} ended at a saddle: {slope}, and the way down that these batches show is none on others."
)
_STORED = (
    marked("a minimum: no eigenvalue is below zero by more than {tolerance} of the largest; {ends}, {slope}"),
    marked("a saddle: an eigenvalue is below zero beyond its error; {ends}, {slope}"),
    marked("a maximum: no eigenvalue is above zero by more than {tolerance} of the largest; {ends}, {slope}"),
    marked("flat: neither slope nor curvature; {ends}, {slope}"),
    marked(
        "not critical, but gradient-flat: the gradient is all but in the kernel of the Hessian (|Hg|/|g||H| = {flatness}); "
        "{ends}, {slope}"
    ),
    marked(
        "not a critical point: the gradient is {gradient}, its noise {noise}, and takes the loss down by {gain} from {loss}; "
        "{ends}"
    ),
    marked("not a critical point: the gradient is {gradient}, and takes the loss down by {gain} from {loss}; {ends}"),
    marked("eigenvalues from {bottom} (± {bottom_error}) to {top} (± {top_error})"),
    marked("gradient {gradient}, its noise {noise}"),
    marked("gradient {gradient}"),
    marked("{modes}, the same random numbers for each batch (seed {seed})"),
    marked("modules in the modes they were trained in"),
    marked("modules in training mode"),
    marked("modules in evaluation mode"),
    marked("modules in training mode with dropout off"),
)
"""What the watcher writes into a record of the end of a run, in sentences."""


@dataclass(frozen=True)
class Curvature:
    """What was measured of curvature; parts that weren't are empty.

    Attributes:
        steps: Updates that the run made.
        point: Kind of the point where it ended, with its proof.
        rate: What the curvature bears, and losses along the script's step.
        escape: The way out of a saddle.
        trace, noise, sharpness, density: As their names say.
        surface: The loss in a plane around the end.
        layers: One a layer, in forward order.
        course: Series by signal, of those along the run.
        stalls: Spans of steps in which the loss stalls.
        cost: Products, and seconds each.
        why: Why nothing could be measured, "" where something was.
        notes: What fell short, in sentences.
    """

    steps: int
    point: Mapping[str, Any] = field(default_factory=dict)
    rate: Mapping[str, Any] = field(default_factory=dict)
    escape: Mapping[str, Any] = field(default_factory=dict)
    trace: Mapping[str, Any] = field(default_factory=dict)
    noise: Mapping[str, Any] = field(default_factory=dict)
    sharpness: Mapping[str, Any] = field(default_factory=dict)
    density: Mapping[str, Any] = field(default_factory=dict)
    surface: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[Mapping[str, Any], ...] = ()
    course: Mapping[str, Series] = field(default_factory=dict)
    stalls: tuple[tuple[int, int], ...] = ()
    cost: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The verdict: "saddle", "minimum", ...; "unknown" where there is none."""
        return str(self.point.get("kind") or "unknown")

    def headline(self, program: str) -> str:
        """The verdict as a sentence about a program."""
        why = self.why or _("nothing could be told of its curvature")
        if self.kind not in _HEADLINES and self.point:
            return tell("{program} ended at a point whose kind isn't known: {why}.", program=program, why=why)
        if self.kind not in _HEADLINES:
            return tell("{program} was not measured: {why}.", program=program, why=why)
        exact = (self.point.get("gradient") or 0.0) <= (self.point.get("rounding") or 0.0)
        slope = _("the gradient vanishes") if exact else _("the gradient is no more than noise")
        is_held = not self.escape or self.holds or self.kind != "saddle"
        return tell(_HEADLINES[self.kind] if is_held else _NO_WAY_DOWN, program=program, slope=slope)

    @property
    def holds(self) -> bool:
        """Whether the way out of a saddle lowers the loss, on batches that it wasn't found on too where there are any."""
        before, after = self.escape.get("held_before"), self.escape.get("held_after")
        return bool(self.escape.get("taken")) and (before is None or after is None or after < before)


def gathered(record: Record) -> Curvature | None:
    """What a record says of curvature; None where it wasn't asked for."""
    parts = [event.data for event in record.happened("curvature")]
    course = {name: series for name in SIGNALS if len(series := record.series(name).finite)}
    if not parts and not course:
        return None
    by_name: dict[str, Mapping[str, Any]] = {}
    for part in parts:
        by_name.setdefault(str(part.get("part")), part)
    known = {name: part for name, part in by_name.items() if "failed" not in part and "skipped" not in part}
    return Curvature(
        record.steps,
        **{
            name: known.get(name, _NONE)
            for name in ("point", "rate", "escape", "trace", "noise", "sharpness", "density", "surface", "cost")
        },
        layers=tuple(p for p in parts if p.get("part") == "layer" and "layer" in p),
        course=course,
        stalls=tuple((int(a), int(b)) for a, b in by_name.get("stalls", _NONE).get("spans", ())),
        why=reason(
            by_name.get("none", by_name.get("point", _NONE)).get("why")
            or by_name.get("point", _NONE).get("failed")
            or ""
        ),
        notes=tuple(_notes(parts)),
    )


def _notes(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for part in parts:
        name = str(part.get("part"))
        if "failed" in part:
            yield tell("{part} failed: {failed}", part=name, failed=part["failed"])
        elif name == "surface" and part.get("why"):
            yield tell("no picture of the surface: {why}", why=no_plane(part))
        elif name == "snapshots":
            yield reason(part.get("note"))
        elif name == "layer" and "skipped" in part:
            yield tell("{layers} left out for want of time", layers=plural(int(part["skipped"]), "layer"))
        elif name == "skipped":
            yield tell("no time was left for {parts}", parts=", ".join(map(str, part.get("parts", ()))))


def value_of(part: Mapping[str, Any], name: str) -> float:
    """A number of a part; NaN where there is none."""
    value = part.get(name)
    return float(value) if isinstance(value, (int, float)) else math.nan


def facts(found: Curvature) -> Iterator[tuple[str, str]]:
    """What was found, line by line: a label, and a sentence without a full stop."""
    for label, told in (
        (say("eigenvalues"), _eigenvalues(found)),
        (say("trace"), _trace(found)),
        (say("signs"), _signs(found)),
        (say("way out"), _way_out(found)),
        (say("rate"), _rate(found)),
        (say("step"), _step(found)),
        (say("noise"), _noise(found)),
        (say("sharpness"), _sharpness(found)),
    ):
        if told:
            yield label, told


def measured(found: Curvature) -> str:
    """How it was measured."""
    point = found.point
    if not point:
        return ""
    way = {
        "reused": _("double backward, its graph kept"),
        "fresh": _("double backward"),
        "difference": _("finite differences of gradients"),
    }.get(str(point.get("way")), str(point.get("way")))
    told = tell(
        "{batches}, {samples:g} samples; ",
        batches=plural(int(point["batches"]), "batch"),
        samples=value_of(point, "samples"),
    )
    told += (
        tell("{products} by {way}", products=plural(int(found.cost["products"]), "product"), way=way)
        if found.cost
        else tell("products by {way}", way=way)
    )
    error = point.get("way_error")
    if error is not None:
        other = _("double backward") if point.get("way") == "difference" else _("finite differences")
        told += (
            tell(", within {error} of {other}", error=number(error, 2), other=other)
            if error < _APART
            else tell("; {other} differ by {error}: kinks, or rounding", other=other, error=number(error, 2))
        )
    return _("; ").join((told, _(stored(str(point.get("stated")), *_STORED))))


def says(found: Curvature) -> str:
    """The proof of its kind in a sentence, "" where there is none."""
    told = found.point.get("says")
    return _(stored(str(told), *_STORED)) if told else ""


def _eigenvalues(found: Curvature) -> str:
    point = found.point
    if "top" not in point:
        return ""
    tops = [number(v) for v in point.get("tops") or [point["top"]]]
    told = tell(
        "largest {tops}; smallest {bottom} (± {error})",
        tops=", ".join(tops),
        bottom=number(point["bottom"]),
        error=number(point["bottom_error"], 1),
    )
    typical = point.get("typical")
    if typical and value_of(point, "top") > 0:
        told += tell("; the steepest is {times} times a typical one", times=number(point["top"] / typical, 2))
    return (
        told if point.get("converged", True) else tell("{told}; not known to the last digit: time ran out", told=told)
    )


def _trace(found: Curvature) -> str:
    if not found.trace:
        return ""
    error, scale = found.trace.get("error"), abs(value_of(found.point, "top"))
    if abs(value_of(found.trace, "value")) < 1e-6 * scale:
        return _("0: what curves up and what curves down cancel")
    return number(found.trace["value"]) + (f" ± {number(error, 2)}" if error else "")


def _signs(found: Curvature) -> str:
    signs = found.density
    if not signs:
        return ""
    told = tell(
        "{positive} of {size} curve up, {negative} down, {zero} neither (within {tolerance} of the largest)",
        positive=percent(signs["positive"]),
        size=count(int(signs["size"])),
        negative=percent(signs["negative"]),
        zero=percent(signs["zero"]),
        tolerance=number(signs["tolerance"], 1),
    )
    if signs.get("exact"):
        return tell("{told}, all counted", told=told)
    if not value_of(signs, "error") <= _ROUGH:
        return tell("roughly {told}; too few vectors to bound the error", told=told)
    return tell("{told}; each ± {error}", told=told, error=percent(signs["error"]))


def _way_out(found: Curvature) -> str:
    way = found.escape
    if not way:
        return ""
    if not way.get("taken"):
        return _("along its most negative curvature the loss falls by no more than rounding")
    told = tell(
        "a step of {length} along the most negative curvature takes the loss from {before} to {after}",
        length=number(abs(value_of(way, "length")), 2),
        before=number(way["before"]),
        after=number(way["after"]),
    )
    if way.get("held_batches"):
        told += tell(
            "; on other batches from {before} to {after}",
            before=number(way["held_before"]),
            after=number(way["held_after"]),
        )
        told += "" if found.holds else _(": it doesn't hold there")
    return told


def _rate(found: Curvature) -> str:
    rate = found.rate
    if rate.get("no_rate"):
        return _(stored(str(rate["no_rate"])))
    if "edge" not in rate:
        return ""
    stable, edge, method = rate.get("stable_rate"), rate["edge"], rate["method"]
    if stable is None or edge is None:
        return tell("nothing curves upwards: no rate of {method} is too high for the curvature", method=method)
    values = {"rate": number(rate["rate"]), "edge": number(edge, 2), "stable": number(stable), "method": method}
    if edge <= 1 - _NEAR:
        told = tell("{rate} is {edge} of the {stable} that the curvature bears ({method})", **values)
    elif edge < 1 + _NEAR:
        told = tell(
            "{rate} is {edge} times the {stable} that the curvature bears ({method}): at the edge of stability, which is "
            "normal while the loss falls",
            **values,
        )
    else:
        told = tell(
            "{rate} is {edge} times the {stable} that the curvature bears ({method}): beyond the edge of stability, which is "
            "normal while the loss falls",
            **values,
        )
    return told + (_(", the update taken for gradient descent") if rate.get("by_hand") else "")


def _step(found: Curvature) -> str:
    rate = found.rate
    if "best" not in rate:
        return ""
    if rate.get("critical") is None:
        return _("along the script's own step the loss rises at no length that was tried")
    if not rate.get("best"):
        return tell(
            "no length of the script's own step takes the loss down, and beyond {critical} times it is higher",
            critical=number(rate["critical"], 2),
        )
    gain = tell(", by {gain}", gain=percent(rate["gain"])) if rate.get("gain") is not None else ""
    best, critical = number(rate["best"], 2), number(rate["critical"], 2)
    return tell(
        "the loss is lowest at {best} times the script's own step{gain}; beyond {critical} times it "
        "is higher than before it",
        best=best,
        gain=gain,
        critical=critical,
    )


def _noise(found: Curvature) -> str:
    noise = found.noise
    if not noise:
        return ""
    if noise.get("scale") is None:
        return tell(
            "in {batches} of {size} no gradient is to be told from noise",
            batches=plural(int(noise["gradients"]), "batch"),
            size=int(noise["batch_size"]),
        )
    return tell(
        "noise equals gradient in a batch of {scale} samples; batches have {size}",
        scale=number(max(1.0, noise["scale"]), 2),
        size=int(noise["batch_size"]),
    )


def _sharpness(found: Curvature) -> str:
    sharp = found.sharpness
    if not sharp:
        return ""
    near, box = number(sharp["radius"], 1), number(sharp["epsilon"], 1)
    return tell(
        "the loss rises by {sam} within {near} (SAM), {adaptive} (adaptive), {keskar}% in a box of "
        "{box} (Keskar): shown, no promise of generalisation",
        sam=number(sharp["sam"], 2),
        near=near,
        adaptive=number(sharp["adaptive"], 2),
        keskar=number(sharp["keskar"], 2),
        box=box,
    )


def stalled(found: Curvature, most: int = 4) -> str:
    """Where the loss stalls, "" where it doesn't."""
    spans = [tell("{first} to {last}", first=first, last=last) for first, last in found.stalls[:most]]
    return tell("the loss, at steps {spans}", spans=", ".join(spans)) if spans else ""


def brief(found: Curvature) -> str:
    """Kind of point and rate, in a line or two."""
    return _("; ").join(filter(None, (found.why if found.kind == "unknown" else _(KINDS[found.kind]), _rate(found))))


def course_row(found: Curvature) -> tuple[str, Series] | None:
    """What the course of the run is told by: the edge of stability where a rate is known, else the largest eigenvalue."""
    for name, words in (("edge", say("rate / stable rate")), ("hessian_top", say("largest eigenvalue"))):
        if name in found.course and len(found.course[name]) > 1:
            return words, found.course[name]
    return None


def steepest(found: Curvature, most: int = 4) -> list[str]:
    """The layers of largest curvature, each with it."""
    ranked = sorted(found.layers, key=lambda layer: -abs(layer["top"] or 0.0))
    return [f"{place(str(layer['layer']), 24)} {number(layer['top'])}" for layer in ranked[:most]]


def heights(found: Curvature, width: int) -> np.ndarray:
    """The density in so many bins, as powers of ten above what a single eigenvalue would make; 0 where there is nothing."""
    at, height = (np.asarray(found.density[name], float) for name in ("at", "height"))
    groups = np.array_split(np.arange(len(at)), width)
    share = np.array([height[group].sum() for group in groups]) / max(height.sum(), 1e-300)
    single = 0.5 / max(1, int(found.density["size"]))
    return np.where(share > single, np.log10(np.maximum(share, single) / single), 0.0)


def to_json(found: Curvature, record: Record) -> dict[str, Any]:
    """All of it as plain dicts and lists; documented in docs/curvature.md."""
    steps = sorted({int(s) for series in found.course.values() for s in series.steps})
    at = {name: dict(zip(map(int, s.steps), map(float, s.values), strict=True)) for name, s in found.course.items()}
    plain = {name: _without_part(getattr(found, name)) for name in (
        "point", "rate", "escape", "trace", "noise", "sharpness", "density", "surface", "cost",
    )}  # fmt: skip
    return {
        "schema": 1,
        "script": record.meta.get("script"),
        "record": str(record.path) if record.path else None,
        "steps": found.steps,
        "kind": found.kind,
        "says": found.point.get("says"),
        "why_unknown": found.why or None if found.kind == "unknown" else None,
        **plain,
        "layers": [_without_part(layer) for layer in found.layers],
        "course": [{"step": step, **{name: values.get(step) for name, values in at.items()}} for step in steps],
        "stalls": [list(span) for span in found.stalls],
        "notes": list(found.notes),
    }


def _without_part(part: Mapping[str, Any]) -> dict[str, Any] | None:
    return {k: v for k, v in part.items() if k != "part"} or None
