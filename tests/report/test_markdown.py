"""Markdown: what stands in it, and that nothing from the user's program becomes markup, a link or a mention."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from unstuck.evidence import Event, Layer, Record, Series
from unstuck.report.markdown import render, write
from unstuck.verdict import Evidence, Finding, Verdict

HOSTILE = [
    "</details><img src=x onerror=alert(1)>", "**bold** _it_ __init__ ~~x~~ `code`", "[click](http://evil.test) ![x](y)", "a | b \\| c",
    "<!-- x", "@everyone", "#12 gh-12", "https://evil.test www.evil.test", "$x$", "a\n\n# title\n- item", "&lt;b&gt; &amp;",
]  # fmt: skip


def test_verdict_findings_numbers_and_run_are_told(cases: SimpleNamespace) -> None:
    lines = render(*cases.vanishing).splitlines()
    assert lines[0].startswith("## ✗ SICK: train.py can't train: gradients shrink")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert [row[1] for row in rows[2:6]] == [
        "`vanishing-gradient`", "↳ `undertrained`", "↳ `saturated-activation`", "`unnormalized-input`",
    ]  # fmt: skip
    assert rows[2][0].split("\N{NO-BREAK SPACE}") == ["✗", "error"]
    assert rows[2][2:] == [
        "The gradient of net.0 is 1.7e-16 of that of net.38, and sigmoid layers pass on a quarter at most.",
        "net.0 … net.18 (10 layers)", "very likely (0.93)", "initialization, activation, normalization",
    ]  # fmt: skip
    assert ["accuracy", "0.105", "0.114", "chance 0.112"] in [row[:4] for row in rows]
    assert ["`vanishing-gradient`", "gradient", "net.0", "0", "7.9e-17"] in rows
    assert ["run", "938 steps in 12.1 s, watching took 1.3% of it"] in rows
    assert lines[-1] == "More of a finding: `unstuck explain vanishing-gradient`"


def test_a_healthy_run_has_neither_findings_nor_evidence(cases: SimpleNamespace) -> None:
    text = render(*cases.healthy)
    assert text.startswith("## ✓ HEALTHY: Nothing found")
    assert "cause" not in text and "Evidence" not in text and "explain" not in text


def test_every_report_is_short_enough_for_a_comment_and_its_tables_are_even(case: tuple) -> None:
    text = render(*case)
    assert len(text) < 65_536
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>")


def _hostile(name: str) -> tuple[Verdict, Record]:
    record = Record.of(
        {("loss", ""): Series.of([1.0, 2.0])},
        meta={"script": name, "status": name},
        layers=[Layer(name)],
        not_found=[name],
        events=[Event(0, "exception", data={"type": name, "message": name})],
    )
    finding = Finding(
        "dead-units", name, "error", 0.9, f"{name} is dead", (name,), (Evidence(name, name, 0, 1.0),), (name,)
    )
    run = {"score": {"name": name, "first": 0.1, "last": 0.2}, "record": name}
    return Verdict("sick", (finding,), run=run), record


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_name_is_markup(name: str) -> None:
    parser = (
        pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    )
    shapes = []
    for each in (name, "plain"):
        tokens = parser.parse(render(*_hostile(each)))
        inline = [child for token in tokens for child in token.children or ()]
        shapes.append(
            [token.type for token in tokens] + [child.type for child in inline if child.type != "text_special"]
        )
        assert not any(child.type in ("link_open", "image", "html_inline") for child in inline)
    hostile, plain = ([kind for kind in shape if kind != "text"] for shape in shapes)
    assert hostile == plain


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_shown_is_what_it_is_called(name: str) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True}).enable("table")
    shown = [t.content for token in parser.parse(render(*_hostile(name))) for t in [token] if t.type == "inline"]
    texts = ["".join(c.content for c in parser.parseInline(text)[0].children or ()) for text in shown]
    assert " ".join(name.split()) in [text.replace("\u200b", "") for text in texts]


@pytest.mark.parametrize("name", ["@everyone", "#12", "GH-12", "https://evil.test", "www.evil.test"])
def test_nothing_in_a_name_wakes_github(name: str) -> None:
    assert not re.search(r"@\w|#\d|(?i:gh-\d)|://\w|www\.\w", render(*_hostile(name)))


def test_much_is_cut_and_told_to_be(cases: SimpleNamespace) -> None:
    text = render(*cases.huge)
    assert re.search(r"^\|  \| and \d+ more \|", text, re.MULTILINE)
    assert text.count("`dead-units`") == 25  # the finding, and its 24 numbers


def test_it_is_written(cases: SimpleNamespace, tmp_path: Path) -> None:
    write(*cases.nan, tmp_path / "r.md")
    assert (tmp_path / "r.md").read_text("utf-8") == render(*cases.nan)
