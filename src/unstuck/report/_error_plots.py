"""Pictures of the page on errors: the learning curve by training samples, and how far confidence can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

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
        Shape("control dot", "training", tuple(_points(sizes, trained, x, y))),
        Shape("search best", "power law through the evaluation", fitted, join="line"),
        Shape("search dot", "evaluation", tuple(_points(sizes, scores, x, y))),
        Shape("search mean", "expected with twice the data", ((far, y.share(twice["score"])),)),
    )
    said = (
        f"With {twice['num_samples']} samples {words.number(twice['score'])} is to be expected "
        f"(95% interval {words.number(twice['low'])} to {words.number(twice['high'])}), if the power law holds so far."
    )
    rows = tuple(
        (str(int(n)), words.number(_mean(row)), words.number(_mean(on)) if len(trained) else "–")
        for n, row, on in zip(sizes, scores, trained if len(trained) else scores, strict=True)
    )
    return Plot(
        "by-size", "Score by number of training samples", Axis("training samples (log scale)", x.ticks()),
        Axis("score", y.ticks()), shapes, said, ("samples", "evaluation", "training"), rows,
    )  # fmt: skip


def reliability(calibration: Mapping[str, Any] | None) -> Plot | None:
    """Accuracy by confidence, with the line on which both are equal; None where there is none."""
    if not calibration or not calibration["bins"]:
        return None
    bins = calibration["bins"]
    scale = Scale(0.0, 1.0)
    shapes = (
        Shape("own span", "as sure as right", ((0.0, 0.0), (1.0, 1.0)), join="line"),
        Shape("search best", "", tuple((confidence, right) for _, confidence, right in bins), join="line"),
        Shape("search dot", "answers, by confidence", tuple((confidence, right) for _, confidence, right in bins)),
    )
    total = sum(count for count, *_ in bins)
    sure = sum(count * (confidence - right) for count, confidence, right in bins) / total
    said = f"Answers are on average {words.percent(abs(sure))} {'too sure' if sure > 0 else 'less sure than they could be'}."
    rows = tuple((words.percent(confidence), words.percent(right), str(count)) for count, confidence, right in bins)
    return Plot(
        "calibration", "Accuracy by confidence", Axis("confidence", scale.ticks()), Axis("share that is right", scale.ticks()),
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
