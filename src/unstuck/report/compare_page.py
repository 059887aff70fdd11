"""Two runs side by side, as a page: verdicts, what differs, and their numbers on the same axes."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from unstuck.evidence import Record
from unstuck.report import _words as words
from unstuck.report._links import Links
from unstuck.report.comparison import Comparison, Side, compare, scores_of, summary, until
from unstuck.report.html import _data, _embedded
from unstuck.report.served import Place, page
from unstuck.verdict import Verdict

_NO_MORE = {part: () for part in ("curvature_charts", "given", "maps", "more_maps", "tables")}


@np.errstate(all="ignore")
def render(a: Side, b: Side, place: Place) -> str:
    """The page.

    Args:
        a: The one run; its lines are drawn through.
        b: The other; its lines are dashed.
        place: The page.

    Returns:
        An HTML document that asks only the server it came from.
    """
    found = compare(a, b)
    links = Links(Verdict("unknown"), found.charts, (), {})
    return page(
        "compare.html",
        place,
        scripts=("uplot/uPlot.iife.min.js", "charts.js", "filter.js", "page.js"),
        styles=("uplot/uPlot.min.css", "page.css", "run.css"),
        sides=[("A", a, found.found[0]), ("B", b, found.found[1])],
        compared=found,
        summary=summary(found),
        grid=_grid(found),
        links=links,
        scores=scores_of(a, b),
        data=Markup(
            _embedded(_data(Record(a.record.program), links, charts=found.charts, **_NO_MORE) | {"until": until(a, b)})
        ),
    )


def _grid(found: Comparison) -> list[tuple[str, list[tuple[str, bool]]]]:
    """The layers' table: name, and the cells of all quantities with whether they are far apart."""
    return [
        (
            words.place(row.name, 60),
            [
                cell
                for ratio in row.ratios
                for cell in (
                    ((ratio.first, False), (ratio.second, False), (ratio.text, ratio.is_far))
                    if ratio
                    else (("", False),) * 3
                )
            ],
        )
        for row in found.layers
    ]
