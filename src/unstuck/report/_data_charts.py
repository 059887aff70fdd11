"""The page's charts of what the network was given: labels and predictions by class, input by feature, the parts of the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from unstuck._language import _
from unstuck.evidence import Record, Series
from unstuck.report._charts import Chart, Line, made_chart
from unstuck.report._curves import is_wide, thin
from unstuck.report._words import place

_MOST_CLASSES = 2000
_MOST_BARS = 40
_MOST_PARTS = 6


def data_charts(record: Record) -> list[Chart]:
    """The charts there is something to draw for."""
    made = [
        _classes(record, "classes", _("Labels and predictions by class"), ""),
        _classes(record, "eval-classes", _("Labels and predictions by class, in evaluation"), "eval_"),
        _features(record, "features", _("Input mean by feature"), "mean"),
        _features(record, "deviations", _("Input deviation by feature"), "std"),
        _parts(record),
        _batch_sizes(record),
    ]
    return [chart for chart in made if chart is not None]


def _classes(record: Record, id_: str, title: str, prefix: str) -> Chart | None:
    """Labels against predictions, in shares, over the later half of the samples; as bars, where there is room for them."""
    wanted = ((_("labels"), "label_count", "bars"), (_("predictions"), "prediction_count", "checks"))
    lines = [
        Line(label, shares, kind) for label, name, kind in wanted if len(shares := _shares(record, f"{prefix}{name}"))
    ]
    most = max((len(line.series) for line in lines), default=0)
    if not 1 < most <= _MOST_CLASSES:
        return None
    columns = [(line.label, line.series) for line in lines]
    return made_chart(
        id_, title, _drawn(lines), columns, record, is_log=False, axis="class", unit=_("share"), with_zero=True
    )


def _drawn(lines: list[Line]) -> list[Line]:
    """Bars where there is room for them, else lines."""
    if max(len(line.series) for line in lines) <= _MOST_BARS:
        return lines
    return [replace(line, kind={"bars": "plain", "checks": "check"}[line.kind]) for line in lines]


def _shares(record: Record, name: str) -> Series:
    """Counts by class, the later half of the samples together, as shares."""
    vectors = record.vectors(name)
    counts = [v.values for v in vectors[len(vectors) // 2 :] if len(v.values) == len(vectors[-1].values)]
    total = np.nansum(counts, axis=0) if counts else np.zeros(0)
    return Series.of(total / total.sum() if total.sum() > 0 else [])


def _features(record: Record, id_: str, title: str, moment: str) -> Chart | None:
    """A moment of each input feature, as last given in training and in evaluation."""
    wanted = ((_("training"), f"input_{moment}", "bars"), (_("evaluation"), f"eval_input_{moment}", "checks"))
    lines = [Line(label, shown, kind) for label, name, kind in wanted if len(shown := _last(record, name))]
    if not lines or max(len(line.series) for line in lines) < 2:
        return None
    columns = [(line.label, line.series) for line in lines]
    unit = _("as the network is given it")
    few = max(len(line.series) for line in lines) <= _MOST_BARS
    return made_chart(
        id_, title, _drawn(lines), columns, record, is_log=False, axis="feature", unit=unit, with_zero=few
    )


def _last(record: Record, name: str) -> Series:
    """The last sample of a signal's first place, by feature."""
    vectors = [v for where in record.places(name)[:1] for v in record.vectors(name, where)]
    return thin(Series.of(vectors[-1].values)) if vectors else Series.of([])


def _parts(record: Record) -> Chart | None:
    """What each loss function contributes, where there is more than one or a penalty beside it."""
    found = [(name, record.series("loss_part", name)) for name in record.places("loss_part")[:_MOST_PARTS]]
    lines = [Line(place(name, 40), series) for name, series in found if len(series.finite)]
    if not lines or all(np.allclose(line.series.finite.values, 1.0, atol=0.01) for line in lines):
        return None
    columns = [(line.label, line.series) for line in lines]
    is_log = any(is_wide(line.series.values, 30) for line in lines)
    return made_chart(
        "parts", _("Parts of the loss"), lines, columns, record, is_log=is_log, unit=_("share of the training loss")
    )


def _batch_sizes(record: Record) -> Chart | None:
    """Sizes of the batches, where more than the last of an epoch differs."""
    sizes = record.series("batch_size").finite
    if len(sizes) < 2 or np.mean(sizes.values != np.median(sizes.values)) < 0.1:
        return None
    columns = [(_("batch size"), sizes)]
    return made_chart(
        "batch", _("Batch size"), [Line(_("batch size"), thin(sizes))], columns, record, is_log=False, unit=_("samples")
    )
