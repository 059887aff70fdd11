"""The picture of the loss in a plane: where its parts lie, and what it says."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unstuck._json import plain
from unstuck._language import speaking
from unstuck.evidence import Event, Record
from unstuck.report._surface import contours, span_of, surface
from unstuck.report.curvature import to_json
from unstuck.report.html import render as page


def part(losses: Any = None, **given: Any) -> dict[str, Any]:
    """A bowl x² + y² + 1 on five points by five, and a path that comes in from the right."""
    x = [-1.0, 0.0, 1.0, 2.0, 3.0]
    y = [-2.0, -1.0, 0.0, 1.0, 2.0]
    bowl = [[a**2 + b**2 + 1 for a in x] for b in y]
    axes = [{"kind": "path", "made": "", "length": 1.0, "share": s, "eigenvalue": None} for s in (0.9, 0.05)]
    path = {"points": [[3.0, 1.0], [1.0, 1.0], [0.0, 0.0]], "steps": [0, 5, 9], "inside": [0.9, 0.8, 1.0], "share": 0.93,
            "losses": [6.5, 3.5, 1.0]}  # fmt: skip
    return {"x": x, "y": y, "losses": bowl if losses is None else losses, "centre": 1.0, "asked": 5, "axes": axes,
            "path": path, "samples": 64.0, "batches": 2, "stopped": "", "note": "", **given}  # fmt: skip


def with_surface(record: Record, **given: Any) -> Record:
    return replace(record, events=(*record.events, Event(400, "curvature", "", {"part": "surface", **given})))


def made(**given: Any) -> Any:
    found = surface(plain(part(**given)), 1234)
    assert found is not None
    return found


# ------------------------------------------------------------------ geometry


def test_a_contour_of_a_slope_is_a_straight_line_where_it_crosses() -> None:
    """Of the plane z = column it is the line at 0.25."""
    found = contours(np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), 0.25)
    assert sorted(sorted(piece) for piece in found) == [[(0.25, 0.0), (0.25, 1.0)], [(0.25, 1.0), (0.25, 2.0)]]


def test_a_contour_of_a_peak_goes_around_it() -> None:
    values = np.zeros((3, 3))
    values[1, 1] = 1.0
    ends = [end for piece in contours(values, 0.5) for end in piece]
    assert sorted(set(ends)) == [(0.5, 1.0), (1.0, 0.5), (1.0, 1.5), (1.5, 1.0)]
    assert len(ends) == 8  # each is the end of two pieces: the line is closed


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("low", "apart"), [(-1.0, "high"), (0.9, "low")])
def test_at_a_saddle_the_mean_decides_what_belongs_together(low: float, apart: str, mirrored: bool) -> None:
    """Two opposite corners are 1, two lower: a mean below the level keeps the high ones apart, one above it the low ones."""
    values = np.array([[1.0, low], [low, 1.0]])
    values = values[:, ::-1] if mirrored else values
    level = 0.25 if apart == "high" else 0.92
    found = contours(values, level)
    assert len(found) == 2
    mean_is_high = (1 + low) / 2 >= level
    around = {(0, 0), (1, 1)} if mirrored == mean_is_high else {(0, 1), (1, 0)}
    for piece in found:
        middle = np.mean(piece, axis=0)
        assert tuple(int(v) for v in np.round(middle)) in around
    assert mean_is_high == (apart == "low")


def test_there_is_no_contour_beside_what_is_not_a_number() -> None:
    values = np.array([[0.0, 1.0, math.nan], [0.0, 1.0, 1.0]])
    assert [max(c for c, _ in piece) for piece in contours(values, 0.5)] == [0.5]


def test_the_path_lies_in_the_middles_of_its_cells() -> None:
    """Of five cells a way the point (3, 1) is in the fifth from the left and the second from above, (0, 0) in the second and third."""
    found = made()
    way = re.search(r'class="way" d="M([\d. ]+)L([\d. ]+)L([\d. ]+)"', str(found.lines))
    assert way is not None
    assert [tuple(map(float, point.split())) for point in way.groups()] == [(900, 300), (500, 300), (300, 500)]
    assert [(one.left, one.top, one.text) for one in found.labels] == [
        (pytest.approx(90), pytest.approx(30), "start"),
        (pytest.approx(50), pytest.approx(30), "5"),
        (pytest.approx(30), pytest.approx(50), "end, step 9"),
    ]
    assert (0.3, "0") in [(round(at, 6), text) for at, text in found.x.ticks]
    assert (0.5, "0") in [(round(at, 6), text) for at, text in found.y.ticks]


def test_the_highest_row_of_the_grid_is_drawn_at_the_top() -> None:
    losses = [[1.0] * 5 for _ in range(5)]
    losses[4][0] = 2.0
    assert re.search(r'class="k15" d="M0 0h1"', str(made(losses=losses).cells))


def test_walls_do_not_take_all_colours() -> None:
    low, high = span_of(np.array([*np.linspace(0, 1, 99), 1000.0]), is_log=False)
    assert low == 0 and 1 < high < 5
    steep = [[1.0, 2.0, 3.0, 2.0, 1.0]] * 4 + [[-1.0, 2.0, 1e9, 2.0, 1.0]]
    assert made(losses=steep).legend[-1].startswith("≥")
    assert not made().legend[-1].startswith("≥")


# ------------------------------------------------------------------ words


def test_it_says_what_is_seen() -> None:
    found = made()
    assert found.summary == (
        "The loss is 6.50 at the start and 1.00 at the end. Nowhere else on this grid is it lower. The plane shows 93% of the path."
    )
    lower = part()["losses"]
    lower[0][4] = 0.5
    assert "In this plane it is lowest, 0.500, at (3.0, -2.0), 3.6 from the end." in made(losses=lower).summary
    assert "1234 directions" in found.warning
    assert "90% of the path" in found.x.label and "5.0% of the path" in found.y.label
    assert found.rows[0] == ("0", "3.00", "1.00", "6.500", "90%")
    assert made(stopped="25 of 81 points", asked=9).note.startswith("The grid has 25 of 81 points")


def test_ratios_are_drawn_on_a_log_scale() -> None:
    assert made().kind == "share"
    wide = made(losses=[[10.0**i for i in range(5)]] * 5)
    assert wide.kind == "log" and wide.unit.endswith("log scale")
    assert [float(value) for value in wide.legend] == [1, 10, 100, 1000, 1e4]


def test_without_a_path_the_grid_is_the_table() -> None:
    axes = [{"kind": "hessian", "made": "", "length": 1.0, "share": None, "eigenvalue": v} for v in (8.0, -2.0)]
    found = made(path=None, axes=axes, note="the path is a straight line")
    assert found.x.label.startswith("eigenvector of 8.00") and found.y.label.startswith("eigenvector of -2.00")
    assert found.note == "Not the plane of the path: the path is a straight line."
    (label,) = found.labels
    assert (label.text, label.left, label.top) == ("end", pytest.approx(30), pytest.approx(50))
    assert 'class="way"' not in found.lines and "random walk" not in found.warning
    assert len(found.rows) == 5 and found.rows[0][:2] == ("2.0", "6.00")
    assert "path" not in found.summary


# ------------------------------------------------------------------ hostile numbers


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308, -1e308, 0.0, 5e-324])
def test_any_number_makes_a_picture(value: float) -> None:
    for losses in ([[value] * 5] * 5, [[value, 1.0, 2.0, 3.0, 4.0]] * 5, [[-value, value, value, 1.0, value]] * 5):
        found = made(losses=losses, centre=value)
        told = f"{found.cells}{found.lines}{found.legend}{found.summary}{found.x}"
        assert "nan" not in re.sub("NaN", "", str(found.lines)) and "inf" not in str(found.lines)
        assert found.has_broken == ("broken" in str(found.cells)) == (not math.isfinite(value))
        assert len(found.legend) == 5 and told


def test_nothing_finite_is_said() -> None:
    assert "finite nowhere on this grid" in made(losses=[[math.nan] * 5] * 5).summary


def test_texts_are_escaped_and_translated() -> None:
    with speaking("zh"):
        found = made(note="<script>", path=None, axes=part()["axes"])
        assert "损失" in found.title and "损失在终点为" in found.summary and "平面" in found.warning
    assert "<script>" in found.note  # as it is here: the page escapes it


# ------------------------------------------------------------------ the page and the JSON


def test_the_page_shows_it_with_a_name(cases: SimpleNamespace) -> None:
    verdict, record = cases.bent
    html = page(verdict, with_surface(record, **plain(part(note="<script>alert(1)</script>"))))
    figure = html[html.index('id="surface"') : html.index("</figure>", html.index('id="surface"'))]
    assert 'role="img" aria-label="Loss in the plane of the path. The loss is 6.50 at the start' in figure
    assert "<script>alert" not in figure and "<table" in figure
    assert 'id="surface"' not in page(verdict, record)


def test_the_json_has_it_and_the_reason_where_there_is_none(cases: SimpleNamespace) -> None:
    data = to_json(with_surface(cases.bent[1], **plain(part())))
    assert data["surface"]["losses"][2] == [2.0, 1.0, 2.0, 5.0, 10.0]
    assert to_json(cases.bent[1])["surface"] is None
    none = with_surface(cases.bent[1], why="no time was left for it")
    assert "no picture of the surface: no time was left for it" in to_json(none)["notes"]
    assert 'id="surface"' not in page(cases.bent[0], none)
