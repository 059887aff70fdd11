"""Which batch size is best as one HTML page: self-contained, offline, for desktop, phone and paper, in light and dark.

As with the other pages everything is in the one file, and a content security policy forbids it any request; there is no script.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from unstuck._language import _, tell
from unstuck.evidence import Record
from unstuck.report import _words as words
from unstuck.report._batch import (
    HEADER,
    Batch,
    advice,
    amount,
    caveats,
    facts,
    gathered,
    headline,
    mark,
    num_batches,
    row,
    scale,
    time_of,
)
from unstuck.report._search_plots import Axis, Plot, Point, Scale, Shape
from unstuck.report.html import _asset, _policy, _template
from unstuck.report.output import write_text

_MOST_TICKS = 10
Told = Mapping[str, Any]


@np.errstate(all="ignore")
def render(record: Record) -> str:
    """The whole page.

    Args:
        record: Of a run of `unstuck batch`.

    Returns:
        An HTML document that needs nothing but itself.
    """
    found = gathered(record)
    drawn = _drawn(found)
    wide, narrow = [_time(drawn), _noise(drawn)], [_update(drawn), _pass(drawn)]
    return _template("batch.html").render(
        found=found,
        name=words.program(record),
        badge={"change": _("change it"), "keep": _("keep it"), "unknown": _("unknown")}[found.verdict],
        headline=headline(found, record),
        advice=advice(found),
        stats=list(_stats(found)),
        wide=[plot for plot in wide if plot is not None],
        narrow=[plot for plot in narrow if plot is not None],
        sizes=((*HEADER, ""), [(*row(size), mark(size, found)) for size in found.sizes]),
        facts=list(facts(found)),
        caveats=list(caveats(found)),
        run=_run(found, record),
        policy=_policy([]),
        styles=[Markup(_asset(name)) for name in ("page.css", "search.css", "batch.css")],
    )


def write(record: Record, path: str | Path) -> None:
    """Write the page to a file.

    Args:
        record: Of a run of `unstuck batch`.
        path: The file; what was there is replaced.

    Raises:
        MisuseError: `path` is a folder, or in a folder that doesn't exist.
        RecordError: The system refuses to write there.
    """  # noqa: DOC502
    write_text(path, render(record))


def _stats(found: Batch) -> Sequence[tuple[str, str, str]]:
    """The numbers at the top: what, how much, and what more is to be said of it."""
    if not found.choice:
        return []
    chosen, own = found.chosen, found.own
    rate = words.number(found.new_rate, 2) if own.get("rate") else f"× {words.number(chosen['rate'], 2)}"
    critical = found.choice.get("critical")
    return [
        (_("batch size"), amount(chosen, found), tell("{size} as it is", size=amount(own, found))),
        (_("learning rate"), rate, f"× {words.number(chosen['rate'], 2)}"),
        (_("updates"), words.count(found.new_updates), tell("{updates} as it is", updates=words.count(own["updates"]))),
        (_("time to the same loss"), words.percent(chosen["time"]), _between(chosen)),
        (_("an update"), time_of(chosen["update_seconds"]), f"± {time_of(chosen['update_error'])}"),
        (_("critical batch size"), words.number(critical, 2) if critical is not None else "–", _("over the run")),
    ]


def _between(size: Told) -> str:
    return (
        _("as it is")
        if size["low"] == size["high"]
        else tell("{low} to {high}", low=words.percent(size["low"]), high=words.percent(size["high"]))
    )


def _run(found: Batch, record: Record) -> tuple[tuple[str, str], list[tuple[str, str]]]:
    seconds = record.meta.get("batch_seconds")
    rows = [
        (_("run"), words.run(record)),
        (_("measuring took"), words.duration(seconds) if seconds else ""),
        (_("optimizer"), found.own.get("optimizer") or (_("written by hand") if found.own.get("by_hand") else "")),
        (_("samples in the training set"), str(found.own.get("num_samples") or "")),
        (_("samples at hand"), str(found.own.get("samples") or "")),
        (_("notes"), _("; ").join(found.notes)),
        (_("record"), str(record.path or "")),
    ]
    return (_("what"), _("value")), [(what, words.clean(value)) for what, value in rows if value]


# ---------------------------------------------------------------------- pictures


def _drawn(found: Batch) -> Batch:
    """Of a script that adds up batches each number of samples once, in the faster way."""
    fastest = {s["size"]: s for s in sorted(found.sizes, key=lambda s: -s["time"])}
    return replace(found, sizes=tuple(s for s in found.sizes if s is fastest[s["size"]]))


class _Sizes:
    """The axis of batch sizes, by ratios, with a line at the script's own and at the recommended one."""

    def __init__(self, found: Batch) -> None:
        self.found = found
        self.scale = Scale.of([s["size"] for s in found.sizes], is_log=True)
        every = math.ceil(len(found.sizes) / _MOST_TICKS)
        self.axis = Axis(_("batch size"), tuple((self.at(s["size"]), str(s["size"])) for s in found.sizes[::every]))

    def at(self, size: float) -> float:
        """Where a size lies, from 0 to 1."""
        return self.scale.share(size)

    def marks(self) -> list[Shape]:
        """Lines from top to bottom."""
        own, recommended = self.found.choice["own"], self.found.choice["recommended"]
        shapes = [Shape("asis", _("as it is"), ((self.at(own), 0.0), (self.at(own), 1.0)), join="line")]
        if recommended != own:
            x = self.at(recommended)
            shapes.append(Shape("advised", _("recommended"), ((x, 0.0), (x, 1.0)), join="line"))
        return shapes


def _band(across: Sequence[float], low: Sequence[float], high: Sequence[float]) -> tuple[Point, ...]:
    """Corners of boxes between each two points, which together are a band."""
    corners: list[Point] = []
    for i in range(len(across) - 1):
        corners += [
            (across[i], low[i]), (across[i], high[i]), (across[i + 1], high[i + 1]), (across[i + 1], low[i + 1])
        ]  # fmt: skip
    return tuple(corners)


def _time(found: Batch) -> Plot | None:
    """Predicted time to the same loss, with its band."""
    if not found.choice:
        return None
    sizes = _Sizes(found)
    seen = [s["time"] for s in found.sizes]
    up = Scale.of(
        [*seen, *(max(s["low"], min(seen) / 3) for s in found.sizes), *(s["high"] for s in found.sizes)], is_log=True
    )
    across = [sizes.at(s["size"]) for s in found.sizes]
    line = tuple((x, up.share(s["time"])) for x, s in zip(across, found.sizes, strict=True))
    low, high = ([up.share(max(s[name], 1e-9)) for s in found.sizes] for name in ("low", "high"))
    least = min(found.sizes, key=lambda s: s["time"])
    said = tell(
        "Least with batches of {size}: {time} of the time that batches of {own} take ({between}). "
        "Updates are predicted by the noise scale along the run, the time of each is measured. The "
        "band is the interval of both.",
        size=least["size"],
        time=words.percent(least["time"]),
        own=found.choice["own"],
        between=_between(least),
    )
    shapes = (
        Shape("band", _("interval"), _band(across, low, high), join="boxes"), *sizes.marks(),
        Shape("search best", _("predicted time"), line, join="line"), Shape("search dot", "", line),
    )  # fmt: skip
    rows = tuple((str(s["size"]), f"{words.number(s['time'], 2)}", _between(s)) for s in found.sizes)
    axis = Axis(_("time, relative"), tuple((at, f"× {text}") for at, text in up.ticks()))
    header = (_("batch size"), _("time, relative"), "interval")
    return Plot("time", _("Time to the same loss"), sizes.axis, axis, shapes, said, header, rows, 18.0)


def _update(found: Batch) -> Plot | None:
    """Time of an update, with the fitted lines."""
    if not found.choice:
        return None
    sizes = _Sizes(found)
    up = Scale.of([s["update_seconds"] for s in found.sizes], is_log=True)
    alone = [s for s in found.sizes if num_batches(s) == 1]  # which the line is through
    dots = tuple((sizes.at(s["size"]), up.share(s["update_seconds"])) for s in alone)
    at = np.geomspace(found.sizes[0]["size"], found.sizes[-1]["size"], 60)
    fitted = tuple((sizes.at(n), up.share(_fitted(found, float(n)))) for n in at)
    shapes = (
        *sizes.marks(), Shape("control best", _("fitted"), fitted, join="line"), Shape("search dot", _("measured"), dots),
    )  # fmt: skip
    said = words.sentence(next((told for label, told in facts(found) if label == "time"), ""))
    rows = tuple((str(s["size"]), time_of(s["update_seconds"]), f"± {time_of(s['update_error'])}") for s in found.sizes)
    header = (_("batch size"), _("an update"), _("standard error"))
    return Plot("update", _("Time of an update"), sizes.axis, _seconds(up), shapes, said, header, rows)


def _fitted(found: Batch, size: float) -> float:
    line = next(line for line in found.choice["lines"] if line["upto"] is None or size <= line["upto"])
    return line["fixed"] + line["each"] * size


def _seconds(up: Scale) -> Axis:
    return Axis("", tuple((at, time_of(float(text))) for at, text in up.ticks()))


def _pass(found: Batch) -> Plot | None:
    """Time of a pass over the training set."""
    known = [s for s in found.sizes if s["epoch_seconds"]]
    if not found.choice or len(known) < len(found.sizes):
        return None
    sizes = _Sizes(found)
    up = Scale.of([s["epoch_seconds"] for s in known], is_log=True)
    line = tuple((sizes.at(s["size"]), up.share(s["epoch_seconds"])) for s in known)
    shapes = (*sizes.marks(), Shape("search best", _("a pass"), line, join="line"), Shape("search dot", "", line))
    least = min(known, key=lambda s: s["epoch_seconds"])
    said = tell(
        "Fastest with batches of {size}: {time} for {samples} samples, updates alone. A "
        "faster pass isn't a faster training: with larger batches it makes fewer updates.",
        size=least["size"],
        time=time_of(least["epoch_seconds"]),
        samples=words.count(found.own["num_samples"]),
    )
    rows = tuple((str(s["size"]), time_of(s["epoch_seconds"])) for s in known)
    return Plot(
        "pass",
        _("Time of a pass over the data"),
        sizes.axis,
        _seconds(up),
        shapes,
        said,
        (_("batch size"), _("a pass")),
        rows,
    )


def _noise(found: Batch) -> Plot | None:
    """The noise scale along the run, with its intervals."""
    if not found.noise:
        return None
    own = found.own["size"]
    lows = [p["low"] for p in found.noise if p["low"]]
    highs = [p["high"] or p["scale"] or p["low"] for p in found.noise]
    up = Scale.of([own, *lows, *(min(h, 100 * max([own, *lows])) for h in highs if h)], is_log=True)
    last = max(1, found.noise[-1]["step"])
    across = Scale.of([0, last])
    known = [p for p in found.noise if p["known"]]
    unknown = [p for p in found.noise if not p["known"] and p["low"] is not None]

    def at(step: float, value: float) -> Point:
        return across.share(step), up.share(value)

    bars = tuple(point for p in known for point in (at(p["step"], p["low"]), at(p["step"], p["high"])))
    open_bars = tuple(point for p in unknown for point in (at(p["step"], p["low"]), (across.share(p["step"]), 1.0)))
    shapes = (
        Shape("asis", _("batch size as it is"), (at(0, own), at(last, own)), join="line"),
        Shape("search span", "", bars, join="pairs"),
        Shape("search dot", _("noise scale, and its 95% interval"), tuple(at(p["step"], p["scale"]) for p in known)),
        Shape("control span", "", open_bars, join="pairs"),
        Shape("control dot", _("at least"), tuple(at(p["step"], p["low"]) for p in unknown)),
    )
    said = tell(
        "{sentence} Below the noise scale twice the batch takes about half the updates, above it as many.",
        sentence=words.sentence(next(told for label, told in facts(found) if label == "noise")),
    )
    rows = tuple((str(p["step"]), scale(p)) for p in found.noise)
    return Plot(
        "noise", _("Noise scale along the run"), Axis(_("update"), across.ticks()), Axis(_("samples"), up.ticks()), shapes, said,
        (_("update"), _("noise scale in samples")), rows,
    )  # fmt: skip
