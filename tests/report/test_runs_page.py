"""The list of runs: numbers and small pictures from whatever was recorded, hostile text as text."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unstuck.evidence import Series
from unstuck.report.runs_page import render, row
from unstuck.report.served import Place, Standing, live, standing, trouble
from unstuck.store import RunSummary

NASTY = "</script><img src=x onerror=alert(1)>&\"'\x1b[31m"
NAN, INF = math.nan, math.inf


def facts(**given: Any) -> RunSummary:
    return RunSummary(given.pop("name", "run"), Path("run"), **{"status": "finished", **given})


def place(**given: Any) -> Place:
    return Place(**{"title": "Runs", "stream": "/changes", "part": "/?part=main", "state": "1", "standing": Standing("live", "live"),
                    "is_list": True, **given})  # fmt: skip


def course(*values: float) -> Series:
    return Series.of(values)


def points(picture: str) -> list[float]:
    return [float(y) for y in re.findall(r"[ML]\d+ ([\d.]+)", picture)]


def test_a_run_that_went_well() -> None:
    told = {"loss": 0.4, "score": 0.8, "score_name": "bit_accuracy"}
    made = row(
        facts(script="/home/me/train.py", started="2025-03-04T10:22:31+01:00", steps=12345, seconds=75.0, verdict="healthy", progress=told),
        "run", {"loss": course(2.0, 1.0, 0.5), "score": course(0.1, 0.9)},
    )  # fmt: skip
    assert (made.script, made.script_path, made.started.text) == (
        "train.py",
        "/home/me/train.py",
        "2025-03-04 10:22:31",
    )
    assert (made.steps.text, made.steps.value, made.seconds.text, made.verdict) == (
        "12,345",
        12345,
        "1 min 15 s",
        "healthy",
    )
    assert (made.loss.text, made.loss.value) == ("0.500", 0.5)
    assert (made.score.text, made.score.name) == ("0.900", "bit accuracy")
    falls, rises = points(made.loss.picture), points(made.score.picture)
    assert falls == sorted(falls) and len(falls) == 3  # downwards is a larger y
    assert rises == sorted(rises, reverse=True)


def test_evaluations_stand_in_where_training_was_not_measured() -> None:
    made = row(facts(), "run", {"eval_loss": course(2.0, 1.0), "eval_score": course(0.1, 0.2)})
    assert (made.loss.text, made.score.text) == ("1.00", "0.200")


def test_before_anything_was_written_what_was_told_counts() -> None:
    made = row(facts(progress={"loss": 2.31}), "run", {})
    assert (made.loss.text, made.loss.picture) == ("2.31", "")
    assert (made.score.text, made.score.value != made.score.value) == ("", True)


def test_a_loss_that_broke_is_nan_and_one_that_was_not_measured_last_is_not() -> None:
    values = course(2.0, 1.0, 0.5, NAN)
    assert row(facts(progress={"loss": NAN}), "run", {"loss": values}).loss.text == "NaN"
    assert row(facts(progress={"loss": 0.5}), "run", {"loss": values}).loss.text == "0.500"


@pytest.mark.parametrize(
    "values", [(), (NAN,), (INF, -INF, NAN), (0.0,), (1.0,), (1e308, -1e308), (1e-320, 1.0), (5.0,) * 9, tuple(np.full(999, NAN))]
)  # fmt: skip
def test_any_numbers_can_be_drawn(values: tuple[float, ...]) -> None:
    with np.errstate(all="raise", under="ignore"):
        made = row(facts(steps=3), "run", {"loss": course(*values), "score": course(*values)})
    assert all(0 <= y <= 12 for y in points(made.loss.picture))


def test_a_run_that_broke_early_shows_what_came_before_and_each_score_its_name() -> None:
    told = {"loss": NAN, "score": 0.5, "score_name": "r2"}
    courses = {"loss": course(1.0, 10.0, 1e4, *[NAN] * 400), "score": course(0.1, 0.5)}
    made = row(facts(progress=told), "run", courses)
    assert made.loss.text == "NaN" and len(points(made.loss.picture)) == 3
    assert "0.500 <small>R2</small>" in render([made], place(), where="runs")


def test_hostile_text_is_text() -> None:
    told = {"loss": NASTY, "score": {"last": 1}, "score_name": NASTY}
    run = facts(name=NASTY, script=NASTY, started=NASTY, status=NASTY, verdict=NASTY, progress=told)
    page = render([row(run, "key", {"score": course(1.0, 2.0)})], place(title=NASTY, state=NASTY), where=NASTY)
    assert "<img" not in page
    assert "\x1b" not in page
    assert page.count("<script>") == 2 and page.count("</script>") == 2
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img" not in trouble(place(is_list=False), NASTY, is_fault=True)
    assert "<img" not in live(place(title=NASTY, is_list=False)).head


def test_an_empty_folder_says_how_to_begin() -> None:
    page = render([], place(), where=".unstuck")
    assert "unstuck run train.py" in page and "0 runs in .unstuck" in page and '<table id="runs">' not in page


def test_how_runs_stand() -> None:
    running = facts(status="running", steps=1200, progress={"loss": 0.25}, changed=1000.0)
    assert standing([running], 1010.0) == Standing("live", "live", "1200 steps · loss 0.250")
    assert standing([running], 1150.0).says.endswith(" · nothing new for 2 min")
    assert standing([running], 900.0).says == "1200 steps · loss 0.250"  # a clock that goes wrong
    killed = facts(status="killed", steps=1, changed=1000.0)
    assert standing([killed], 9999.0) == Standing("ended", "killed", "1 step")
    assert standing([facts(status="empty")], 0.0) == Standing("live", "live", "Nothing is recorded yet.")
    assert standing([running, killed], 0.0) == Standing("live", "live")
    assert standing([killed, facts()], 0.0) == Standing("ended", "killed, finished")
    assert standing([], 0.0) == Standing("live", "live")
