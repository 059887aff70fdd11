"""What lies under the loss, told in the terminal, as JSON, and on the page."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from unstuck.evidence import Event, Record
from unstuck.report._curvature import gathered
from unstuck.report.curvature import render, to_json, write
from unstuck.report.html import render as page
from unstuck.report.text import render as verdict_text


def told(record: Record, width: int = 100, **settings: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, **settings).print(render(record, width=width))
    return stream.getvalue()


def altered(record: Record, part: str, **given: Any) -> Record:
    """The record with other numbers in one part."""
    events = tuple(
        replace(e, data={**e.data, **given}) if e.data.get("part") == part and "failed" not in e.data else e
        for e in record.events
    )
    return replace(record, events=events)


def test_the_verdict_comes_first_with_its_proof(cases: SimpleNamespace) -> None:
    lines = told(cases.bent[1]).splitlines()
    assert lines[0].startswith("SADDLE  saddle.py ended at a saddle: the gradient is no more than noise")
    assert "A saddle: an eigenvalue is below zero beyond its error" in " ".join(lines)


@pytest.mark.parametrize(
    "words",
    [
        "largest 8.00, 3.00, 1.00; smallest -2.00 (± 0.002); the steepest is 200 times a typical one",
        "12.5 ± 0.20",
        "2.0% of 1234 curve up, 2.0% down, 96% neither (within 0.001 of the largest); each ± 1.0%",
        "from 2.30 to 1.90; on other batches from 2.30 to 1.95",
        "0.100 is 0.40 of the 0.250 that the curvature bears (gradient descent)",
        "the loss rises at no length that was tried",
        "noise equals gradient in a batch of 90 samples; batches have 32",
        "no promise of generalisation",
        "net.4 1.00, net.2 0.100, net.0 0.0100",
        "rate / stable rate, 1 at the edge",
        "the loss, at steps 120 to 399",
        "8 batches, 256 samples; 420 products by double backward, its graph kept, within 2e-5 of finite differences",
        "trace failed: RuntimeError: no memory",
        "curvature took 2.5 s",
    ],
)
def test_numbers_are_told(cases: SimpleNamespace, words: str) -> None:
    assert words in " ".join(told(cases.bent[1]).split())


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_too_long_and_ascii_will_do(cases: SimpleNamespace, width: int) -> None:
    text = told(cases.bent[1], width)
    assert max(map(len, text.splitlines())) <= width
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=stream, width=width).print(render(cases.bent[1]))


@pytest.mark.parametrize(
    ("edge", "words"),
    [
        (0.5, "is 0.50 of the 0.250"),
        (1.0, "at the edge of stability"),
        (1.5, "beyond the edge of stability, which is normal"),
    ],
)
def test_beyond_the_edge_is_no_fault_by_itself(cases: SimpleNamespace, edge: float, words: str) -> None:
    assert words in " ".join(told(altered(cases.bent[1], "rate", edge=edge)).split())


def test_a_way_out_that_other_batches_do_not_know_is_called_none(cases: SimpleNamespace) -> None:
    text = " ".join(told(altered(cases.bent[1], "escape", held_after=2.5)).split())
    assert "the way down that these batches show is none on others" in text
    assert "it doesn't hold there" in text


def test_counts_without_a_bound_are_called_rough(cases: SimpleNamespace) -> None:
    assert "roughly 2.0%" in " ".join(told(altered(cases.bent[1], "density", error=0.9)).split())


def test_why_there_is_nothing(cases: SimpleNamespace) -> None:
    record = Record.of(
        {("loss", ""): [1.0] * 9}, events=[Event(9, "curvature", "", {"part": "none", "why": "it is too large"})]
    )
    assert "was not measured: it is too large" in told(record)
    assert to_json(record)["why_unknown"] == "it is too large"
    assert "no training was seen" in told(Record())
    failed = Record.of(
        {("loss", ""): [1.0]},
        meta={"status": "failed"},
        events=[Event(1, "exception", "", {"type": "E", "message": "m"})],
    )
    assert "the script failed with E: m" in told(failed)


def test_ends_without_a_kind_are_told_with_the_reason(cases: SimpleNamespace) -> None:
    part = {"part": "point", "why": "time is short", "top": 8.0, "bottom": -2.0, "top_error": 0.1, "bottom_error": 0.1,
            "way": "reused", "way_error": 3.9, "batches": 1, "samples": 16.0, "size": 9,
            "stated": "modules as they were", "loss": 1.0, "converged": False}  # fmt: skip
    record = Record.of({("loss", ""): [1.0] * 9}, events=[Event(9, "curvature", "", part)])
    text = " ".join(told(record).split())
    assert "UNKNOWN" in text and "time is short" in text
    assert "largest 8.00; smallest -2.00" in text and "finite differences differ by 3.9" in text
    assert "whose kind isn't known" in text and "time is short" in page(cases.bent[0], record)


def test_the_json_holds_all_of_it(cases: SimpleNamespace, tmp_path: Any) -> None:
    write(cases.bent[1], tmp_path / "c.json")
    data = json.loads((tmp_path / "c.json").read_text())
    assert (data["schema"], data["kind"], data["steps"]) == (1, "saddle", 400)
    assert data["rate"]["stable_rate"] == 0.25 and data["rate"]["critical"] is None
    assert [c["step"] for c in data["course"]] == [0, 50, 100, 200, 300, 400]
    assert data["course"][0]["edge"] == pytest.approx(0.1)
    assert [layer["layer"] for layer in data["layers"]] == ["net.0", "net.2", "net.4"]
    assert data["stalls"] == [[120, 399]]
    assert len(data["density"]["at"]) == 240
    assert data["notes"] == ["trace failed: RuntimeError: no memory"]


def test_parts_that_were_not_measured_are_null(cases: SimpleNamespace) -> None:
    data = to_json(cases.healthy[1])
    assert data["kind"] == "unknown"
    assert data["point"] is None and data["density"] is None and data["layers"] == []


def test_a_record_without_curvature_has_no_panel(cases: SimpleNamespace) -> None:
    assert gathered(cases.vanishing[1]) is None
    assert 'id="curvature"' not in page(*cases.vanishing)


def test_the_page_has_a_panel(cases: SimpleNamespace) -> None:
    html = page(*cases.bent)
    assert 'id="curvature"' in html
    assert "ended at a saddle" in html
    assert "chart-sharpness" in html and "chart-density" in html
    assert "net.4" in html


def test_the_verdict_in_the_terminal_tells_it_in_a_line(cases: SimpleNamespace) -> None:
    stream = io.StringIO()
    Console(file=stream, width=100).print(verdict_text(*cases.bent))
    assert "saddle; 0.100 is 0.40 of the 0.250" in stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, None])
def test_numbers_that_are_none_break_nothing(cases: SimpleNamespace, value: Any) -> None:
    """JSON has no NaN, so that in records they are None."""
    stored = None if value is None or not np.isfinite(value) else value
    for part in ("point", "rate", "escape", "trace", "noise", "sharpness", "layer"):
        events = [e for e in cases.bent[1].events if e.data.get("part") == part]
        for name, number in events[0].data.items():
            if isinstance(number, float):
                record = altered(cases.bent[1], part, **{name: stored})
                told(record)
                to_json(record)
                page(cases.bent[0], record)
