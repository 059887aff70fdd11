"""From a finding to the picture that shows its numbers, and from the marks in the pictures back to the finding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unstuck._language import tell
from unstuck.report._charts import Chart
from unstuck.report._heatmap import Heatmap
from unstuck.report._words import place
from unstuck.verdict import Evidence, Finding, Verdict, flatten

_CHARTS = {
    "loss": "loss", "eval_loss": "loss", "score": "score", "eval_score": "score", "grad_norm": "norm", "lr": "lr",
    "lag_grad": "lag", "step_seconds": "time", "hessian_top": "sharpness", "hessian_bottom": "sharpness",
    "sharpness": "sharpness", "stable_rate": "sharpness", "edge": "sharpness", "loss_part": "parts", "batch_size": "batch",
    "label_count": "classes", "prediction_count": "classes", "eval_label_count": "eval-classes",
    "eval_prediction_count": "eval-classes", "input_mean": "features", "input_std": "deviations", "eval_input_mean": "features",
    "eval_input_std": "deviations",
}  # fmt: skip
_MOST_PLACES = 3


@dataclass(frozen=True)
class Target:
    """Where a number can be seen: an address on the page, and the step and the place within what is there."""

    href: str
    step: int
    place: str = ""


@dataclass(frozen=True)
class Mark:
    """A finding in a picture: its number on the page, what it is of, and where in the picture it lies."""

    number: int
    cause: str
    step: int
    place: str = ""


class Links:
    """What leads from findings to pictures and back.

    Attributes:
        findings: All of them, in the order of the page; the first is number 1.
        layers: Layers that have a row in the table of layers, with its address.
    """

    def __init__(
        self, verdict: Verdict, charts: Sequence[Chart], maps: Sequence[Heatmap], layers: Mapping[str, str]
    ) -> None:
        self.findings = flatten(verdict.findings)
        self.layers = layers
        self._charts = {chart.id: chart for chart in charts}
        self._maps = {found.signal: found for found in maps}

    def number(self, finding: Finding) -> int:
        """The number a finding is marked by."""
        return next(i for i, one in enumerate(self.findings, 1) if one is finding)

    def is_first(self, finding: Finding) -> bool:
        """Whether it is the first with its cause, which is explained there."""
        return next(one for one in self.findings if one.cause == finding.cause) is finding

    def target(self, item: Evidence) -> Target | None:
        """Where a number can be seen: in a chart, a map, or the table of layers; None where it is in none."""
        chart, found = _CHARTS.get(item.signal, ""), self._maps.get(item.signal)
        if chart in self._charts:
            return Target(f"#chart-{chart}", item.step)
        if found is not None and item.layer in found.places:
            return Target(f"#map-{found.signal}", item.step, item.layer)
        return Target(f"#{self.layers[item.layer]}", item.step, item.layer) if item.layer in self.layers else None

    def first(self, finding: Finding) -> Target | None:
        """Where the first of a finding's numbers that can be seen is."""
        return next(filter(None, map(self.target, finding.evidence)), None)

    @cached_property
    def _marks(self) -> dict[str, list[Mark]]:
        marks: dict[str, list[Mark]] = {}
        for number, finding in enumerate(self.findings, 1):
            for item in finding.evidence:
                if (target := self.target(item)) is not None:
                    mark = Mark(number, finding.cause, target.step, target.place)
                    if mark not in marks.setdefault(target.href, []):
                        marks[target.href].append(mark)
        return marks

    def marks(self, href: str) -> list[Mark]:
        """What is marked in a picture."""
        return self._marks.get(href, [])

    def told(self, href: str) -> Iterator[tuple[int, str, str]]:
        """The findings marked in a picture: number, cause, and where, in words."""
        for number in dict.fromkeys(mark.number for mark in self.marks(href)):
            mine = [mark for mark in self.marks(href) if mark.number == number]
            yield number, mine[0].cause, _where(mine)

    def cells(self, found: Heatmap) -> Iterator[dict[str, Any]]:
        """The marks in a map, one a cell: finding, index of the place, column; and where it lies among the rows that are shown."""
        seen = set()
        for mark in self.marks(f"#map-{found.signal}"):
            row, column = found.cell(mark.place, mark.step) or (0, 0)
            if (mark.number, row, column) not in seen:
                seen.add((mark.number, row, column))
                yield {
                    "number": mark.number, "cause": mark.cause, "row": found.row(row), "column": column, "place": place(mark.place, 60),
                    "left": 100 * (column + 0.5) / len(found.columns),
                    "top": 100 * min(1, (row - found.shown.start + 0.5 * found.shown.step) / found.shown.step / found.num_rows),
                }  # fmt: skip

    def steps(self, chart: Chart) -> list[dict[str, int]]:
        """The marks in a chart over steps: finding and step."""
        marks = self.marks(f"#chart-{chart.id}") if chart.axis == "step" else []
        pairs: Iterable[tuple[int, int]] = dict.fromkeys((mark.number, mark.step) for mark in marks)
        return [{"number": number, "x": step} for number, step in pairs]


def _where(marks: Sequence[Mark]) -> str:
    steps = sorted({mark.step for mark in marks})
    where = tell(
        "step {step}", step=", ".join(map(str, steps[:_MOST_PLACES])) + (", …" if len(steps) > _MOST_PLACES else "")
    )
    places = list(dict.fromkeys(mark.place for mark in marks if mark.place))
    if not places:
        return where
    names = ", ".join(place(name) for name in places[:_MOST_PLACES])
    more = len(places) - _MOST_PLACES
    names += " " + tell("and {number} more", number=more) if more > 0 else ""
    return tell("{places}, {where}", places=names, where=where)
