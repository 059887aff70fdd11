"""Pictures of the page on errors: the learning curve by training samples, and how far confidence can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from unstuck._language import _, tell
from unstuck.report import _words as words
from unstuck.report._search_plots import Axis, Plot, Scale, Shape

_POINTS = 60  # of the fitted line


def by_size(law: Mapping[str, Any] | None) -> Plot | None:
    """Scores by number of training samples, with the power law through them and its forecast; None where there is none."""
    if not law:
        return None
    curve, twice = law["curve"], law["twice"]
    sizes, scores = np.array(curve["sizes"], float), _numbers(curve["evaluation"])
    fine = np.geomspace(sizes[0], twice["num_samples"], _POINTS)
    errors = law["floor"] + law["factor"] * fine ** -law["exponent"]
    line = curve["best"] + (-errors if curve["higher_is_better"] else errors)
    trained = _numbers(curve["train"]) if curve["train"] else np.zeros((0, 1))
    spread = [v for v in (*scores.ravel(), *trained.ravel(), *line, twice["low"], twice["high"]) if math.isfinite(v)]
    x, y = Scale.of([sizes[0], twice["num_samples"]], is_log=True), Scale.of(spread)
    far = x.share(twice["num_samples"])
    fitted = tuple((x.share(n), y.share(v)) for n, v in zip(fine.tolist(), line.tolist(), strict=True))
    shapes = (
        Shape("search span", "", tuple((far, y.share(twice[end])) for end in ("low", "high")), join="pairs"),
        Shape("control dot", _("training"), tuple(_points(sizes, trained, x, y))),
        Shape("search best", _("power law through the evaluation"), fitted, join="line"),
        Shape("search dot", _("evaluation"), tuple(_points(sizes, scores, x, y))),
        Shape("search mean", _("expected with twice the data"), ((far, y.share(twice["score"])),)),
    )
    said = tell(
        "With {samples} samples {score} is to be expected (95% interval {low} to {high}), if the "
        "power law holds so far.",
        samples=twice["num_samples"],
        score=words.number(twice["score"]),
        low=words.number(twice["low"]),
        high=words.number(twice["high"]),
    )
    rows = tuple(
        (str(int(n)), words.number(_mean(row)), words.number(_mean(on)) if len(trained) else "–")
        for n, row, on in zip(sizes, scores, trained if len(trained) else scores, strict=True)
    )
    return Plot(
        "by-size", _("Score by number of training samples"), Axis(_("training samples (log scale)"), x.ticks()),
        Axis(_("score"), y.ticks()), shapes, said, (_("samples"), _("evaluation"), _("training")), rows,
    )  # fmt: skip


def reliability(calibration: Mapping[str, Any] | None) -> Plot | None:
    """Accuracy by confidence, with the line on which both are equal; None where there is none."""
    if not calibration or not calibration["bins"]:
        return None
    bins = calibration["bins"]
    scale = Scale(0.0, 1.0)
    shapes = (
        Shape("own span", _("as sure as right"), ((0.0, 0.0), (1.0, 1.0)), join="line"),
        Shape("search best", "", tuple((confidence, right) for _, confidence, right in bins), join="line"),
        Shape("search dot", _("answers, by confidence"), tuple((confidence, right) for _, confidence, right in bins)),
    )
    total = sum(count for count, *_ in bins)
    sure = sum(count * (confidence - right) for count, confidence, right in bins) / total
    share = words.percent(abs(sure))
    said = (
        tell("Answers are on average {share} too sure.", share=share)
        if sure > 0
        else tell("Answers are on average {share} less sure than they could be.", share=share)
    )
    rows = tuple((words.percent(confidence), words.percent(right), str(count)) for count, confidence, right in bins)
    return Plot(
        "calibration", _("Accuracy by confidence"), Axis(_("confidence"), scale.ticks()), Axis(_("share that is right"), scale.ticks()),
        shapes, said, ("confidence", "right", "answers"), rows, 12.0,
    )  # fmt: skip


def _numbers(rows: Any) -> np.ndarray:
    return np.array([[math.nan if v is None else v for v in row] for row in rows], float)


def _mean(row: np.ndarray) -> float:
    known = row[np.isfinite(row)]
    return float(known.mean()) if len(known) else math.nan


def _points(sizes: np.ndarray, scores: np.ndarray, x: Scale, y: Scale) -> list[tuple[float, float]]:
    return [
        (x.share(n), y.share(v))
        for n, row in zip(sizes, scores, strict=False)
        for v in row.tolist()
        if math.isfinite(v)
    ]
