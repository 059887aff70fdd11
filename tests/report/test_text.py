"""The verdict in the terminal: what it says, that it fits, and that it needs neither colour nor Unicode."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from unstuck.evidence import Record
from unstuck.report.text import TALLEST, WIDEST, render
from unstuck.verdict import Finding, Verdict


def _lines(case: tuple, columns: int = 80, **options: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=columns, legacy_windows=False, **options)
    console.print(render(*case))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # pyright: ignore[reportAttributeAccessIssue]


class _Ascii(io.StringIO):
    encoding = "ascii"  # pyright: ignore[reportAssignmentType]


def test_a_sick_run_is_told_whole(cases: SimpleNamespace) -> None:
    text = "\n".join(_lines(cases.vanishing))
    assert text.startswith("✗ SICK  train.py can't train: gradients shrink along depth or time")
    assert "vanishing-gradient  error, very likely (0.93)" in text
    assert "The gradient of net.0 is 1.7e-16 of that of net.38" in text
    assert "net.0 … net.18 (10 layers)" in text
    assert "net.0 ▁▁" in text
    assert "█ net.38" in text
    assert "log scale, step 0" in text
    assert "gradient of net.0 7.9e-17, net.38 0.460 (step 0)" in text
    assert "fits         initialization, activation, normalization" in text
    assert "├─ undertrained (warning, 0.71): the loss went from 2.32" in text
    assert "└─ saturated-activation (warning, 0.66)" in text
    assert "· unnormalized-input (note, 0.55)" in text
    assert "SGD, lr 0.1, momentum 0.9" in text
    assert "938 steps in 12.1 s, watching took 1.3% of it" in text
    assert "no learning rate scheduler was used" in text
    assert "runs/20250304-102231-train/record.sqlite" in text


def test_a_healthy_run_is_short_and_calm(cases: SimpleNamespace) -> None:
    lines = _lines(cases.healthy)
    assert lines[0] == "✓ HEALTHY  Nothing found that keeps pretrain.py from training, in 5000 steps."
    assert len(lines) <= 12
    assert any("perplexity" in line and "lower is better" in line for line in lines)


def test_notes_on_a_healthy_run_are_worth_knowing_not_a_diagnosis() -> None:
    note = Finding("batch-too-large", "noise", "note", 0.6, "the noise scale is 12 at a batch of 512")
    text = "\n".join(_lines((Verdict("healthy", (note,)), Record.of({("loss", ""): [2.0, 1.0]}))))
    assert "Worth knowing" in text
    assert "where" not in text


def test_unknown_says_why(cases: SimpleNamespace) -> None:
    assert _lines(cases.empty)[:2] == [
        "? UNKNOWN  No backward pass was seen: the script ended after 0.4 s without",
        "           training.",
    ]


def test_a_run_that_ended_in_nan_shows_it(cases: SimpleNamespace) -> None:
    text = "\n".join(_lines(cases.nan))
    assert "×× NaN" in text
    assert "failed with" in text
    assert "by lag" in text


@pytest.mark.parametrize("columns", [30, 60, 80, 200])
def test_it_fits(case: tuple, columns: int) -> None:
    lines = _lines(case, columns)
    assert max(map(cell_len, lines)) <= min(columns, WIDEST)
    if columns >= 80:
        assert len(lines) <= TALLEST + 2


def test_a_width_can_be_given(cases: SimpleNamespace) -> None:
    console = Console(file=io.StringIO(), width=90)
    console.print(render(*cases.vanishing, width=50))
    assert max(map(len, console.file.getvalue().splitlines())) <= 50  # pyright: ignore[reportAttributeAccessIssue]


def test_without_unicode_it_is_ascii_and_fits(case: tuple) -> None:
    stream = _Ascii()
    Console(file=stream, width=80).print(render(*case))
    assert stream.getvalue().isascii()
    assert max(map(len, stream.getvalue().splitlines())) <= 80


def test_colour_adds_nothing_that_words_do_not_say(cases: SimpleNamespace) -> None:
    plain = _lines(cases.vanishing)
    coloured = io.StringIO()
    console = Console(file=coloured, width=80, force_terminal=True, color_system="truecolor", _environ={})
    console.print(render(*cases.vanishing))
    assert "\x1b[" in coloured.getvalue()
    assert [line.rstrip() for line in _stripped(coloured.getvalue()).splitlines()] == plain


def test_hostile_names_reach_no_terminal(cases: SimpleNamespace) -> None:
    text = "\n".join(_lines(cases.huge))
    assert "\x1b" not in text
    assert "</script>" in text
    # rich's own markup in a name is text
    finding = Finding("dead-units", "r", "error", 0.9, "[red]x[/red] is [/] dead", ("[bold]a",))
    told = "\n".join(_lines((Verdict("sick", (finding,)), Record())))
    assert "[red]x[/red] is [/] dead" in told
    assert "[bold]a" in told


def test_the_page_is_named_when_there_is_one(cases: SimpleNamespace) -> None:
    verdict, record = cases.vanishing
    told = Verdict(verdict.verdict, verdict.findings, None, {**verdict.run, "html": "out/page.html"})
    assert "  page         out/page.html" in _lines((told, record))


def _stripped(text: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", text)
