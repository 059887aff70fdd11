"""The runs as a table in the terminal: names whole, numbers as reports have them, what is unknown a dash."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from unstuck.report.runs import table
from unstuck.store import RunSummary

LONG = "20250304-102231-a_script_with_quite_a_long_name"


def summary(name: str, **given: Any) -> RunSummary:
    return RunSummary(name, Path(name), **{"status": "finished", **given})


def lines(*runs: RunSummary, width: int = 80) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(table(runs))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_run_is_one_line_with_its_whole_name() -> None:
    told = {"loss": 0.52341, "score": math.nan}
    run = summary("20250304-102231-train", steps=938, seconds=75.0, verdict="sick", size_bytes=1_640_000, progress=told)
    header, row = lines(run, width=100)
    assert header.split() == ["run", "status", "verdict", "steps", "loss", "time", "score", "MB"]
    assert row.split() == [
        "20250304-102231-train",
        "finished",
        "✗",
        "sick",
        "938",
        "0.523",
        "1",
        "min",
        "15",
        "s",
        "NaN",
        "1.6",
    ]
    narrow = lines(run, summary("x" * 40))[0].split()
    assert narrow == ["run", "status", "verdict", "steps", "loss"]


def test_what_is_unknown_is_a_dash() -> None:
    row = lines(summary("a", status="empty"))[1]
    assert row.split() == ["a", "empty", "–", "–", "–", "–", "–", "0.0"]


@pytest.mark.parametrize("width", [80, 120])
def test_names_are_never_broken(width: int) -> None:
    row = lines(summary(LONG, steps=12, seconds=3.0, verdict="healthy", progress={"loss": 1.0}), width=width)[1]
    assert row.split()[0] == LONG and max(map(len, lines(summary(LONG), width=width))) <= width


def test_hostile_names_act_on_nothing() -> None:
    assert "\x1b" not in "".join(lines(summary("[red]a\x1b[31m")))


def test_a_terminal_without_more_than_ascii_gets_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=file, width=80, color_system=None).print(table([summary("a", verdict="sick")]))
    file.flush()
    assert b"x sick" in file.buffer.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
