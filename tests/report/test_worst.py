"""The samples that a run gets most wrong, on its page: shown, escaped, left out of the table of events."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from unstuck.data.sketch import sketch
from unstuck.evidence import Event, Record
from unstuck.report._worst import worst_samples
from unstuck.report.html import render


def with_worst(record: Record, samples: object, **data: object) -> Record:
    told = {"name": "worst", "kind": "classes", "looked": 640, "wrong": 7, "samples": samples, **data}
    return dataclasses.replace(record, events=(*record.events, Event(9, "probe", "", told)))


def sample(**other: object) -> dict[str, object]:
    picture = sketch(np.arange(64.0).reshape(8, 8))
    return {"target": "3", "prediction": "8", "confidence": 0.98, "loss": 4.2, "error": 1.0, "input": picture} | other


def test_the_page_shows_samples_with_their_pictures(cases: SimpleNamespace):
    verdict, record = cases.healthy
    page = render(verdict, with_worst(record, [sample(), sample(input=None)]))
    assert "Samples it gets most wrong" in page and page.count("data:image/png;base64,") == 1
    assert "Of 640 training samples that were looked at, 7 were wrong" in page and "98% sure" in page
    assert "height 8" not in page  # not among the events


def test_a_run_without_them_has_no_such_section(cases: SimpleNamespace):
    verdict, record = cases.healthy
    assert "most wrong" not in render(verdict, record)
    assert "most wrong" not in render(verdict, with_worst(record, []))


def test_names_are_escaped(cases: SimpleNamespace):
    verdict, record = cases.healthy
    page = render(verdict, with_worst(record, [sample(target=cases.NASTY, prediction=cases.NASTY)]))
    assert "<img src=x" not in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "samples",
    [None, "abc", [None, 3], [{}], [sample(input="x", loss=None, confidence=None)], [sample(loss="x", error=[])]],
)
def test_what_is_broken_is_shown_as_it_is(cases: SimpleNamespace, samples: object):
    verdict, record = cases.healthy
    assert "</html>" in render(verdict, with_worst(record, samples, looked=None, wrong="x"))


def test_there_are_twelve_at_most(cases: SimpleNamespace):
    found = worst_samples(with_worst(cases.healthy[1], [sample()] * 40))
    assert found is not None and len(found["cards"]) == 12


def test_where_most_are_wrong_the_page_blames_no_samples(cases: SimpleNamespace):
    assert worst_samples(with_worst(cases.healthy[1], [sample()], wrong=320)) is not None
    assert worst_samples(with_worst(cases.healthy[1], [sample()], wrong=321)) is None
