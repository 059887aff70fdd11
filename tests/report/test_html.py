"""The page: complete, escaped, forbidden any request, small, and equal to its charts in words and tables."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

from unstuck.errors import MisuseError
from unstuck.evidence import Event, Layer, Parameter, Record, Series, Task
from unstuck.report import html
from unstuck.report._charts import charts
from unstuck.report._data_charts import data_charts
from unstuck.report._next import commands
from unstuck.report.html import Live, fragment, render, write
from unstuck.verdict import Evidence, Finding, Verdict

sys.path.append(str(Path(__file__).parent))
from made_records import hostile, large

VOID = {"meta", "link", "br", "hr", "img", "input"}


class _Page(HTMLParser):
    """Elements as they come, and a check that they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):  # pyright: ignore[reportOptionalMemberAccess]
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and self.open and tag in {"path"}:
            return
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def pages(cases: SimpleNamespace) -> dict[str, str]:
    return {name: render(*made) for name, made in vars(cases).items() if name != "NASTY"}


@pytest.fixture(params=["vanishing", "healthy", "nan", "empty", "bare", "huge"])
def page(request: pytest.FixtureRequest, pages: dict[str, str]) -> str:
    return pages[request.param]


@pytest.mark.slow
def test_every_page_is_well_formed_with_unique_ids(page: str) -> None:
    read = _Page(page)
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))


@pytest.mark.slow
def test_every_page_asks_for_nothing(page: str) -> None:
    read = _Page(page)
    addresses = [
        (tag, value) for tag, attributes in read.elements for key, value in attributes.items() if key in {"src", "href"}
    ]
    assert addresses[0] == ("link", "data:,")
    ids = set(read.ids)
    assert all(tag == "a" and value and value[0] == "#" and value[1:] in ids for tag, value in addresses[1:])
    assert "url(" not in page
    assert "@import" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert "unsafe-eval" not in policy[1]


@pytest.mark.slow
def test_the_policy_allows_exactly_the_scripts_of_the_page(pages: dict[str, str]) -> None:
    page = pages["vanishing"]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"sha256-([^&]*)&#39;", page) == hashes
    assert len(hashes) == 5


def test_every_page_is_under_a_megabyte(page: str) -> None:
    assert len(page.encode()) < 1_000_000


def test_hostile_names_stay_text(cases: SimpleNamespace, pages: dict[str, str]) -> None:
    for text in (pages["huge"], fragment(*cases.huge)):
        assert "<img" not in text
        assert "\x1b" not in text
        assert "&lt;/script&gt;&lt;img" in text
    data = re.search(r'id="data">(.*?)</script>', pages["huge"], re.S)
    assert data is not None
    assert "<" not in data[1]
    json.loads(data[1])


def test_the_page_says_what_the_terminal_says(pages: dict[str, str]) -> None:
    page = pages["vanishing"]
    for words in (
        "train.py can&#39;t train: gradients shrink along depth or time",
        "The gradient of net.0 is 1.7e-16 of that of net.38",
        "very likely (0.93)",
        "net.0 … net.18 (10 layers)",
        "<li>initialization</li><li>activation</li><li>normalization</li>",
        "<code>unstuck cure examples/train.py --depth 20</code>",
        "2.31 → 2.30",
        "0.105 → 0.114",
        "no learning rate scheduler was used",
        "runs/20250304-102231-train/record.sqlite",
        "momentum 0.9",
    ):
        assert words in page
    assert page.index("vanishing-gradient") < page.index("This explains") < page.index("saturated-activation")
    assert page.index("saturated-activation") < page.index("Also found") < page.index("unnormalized-input")


def test_charts_have_words_and_tables(cases: SimpleNamespace) -> None:
    made = {chart.id: chart for chart in charts(*cases.vanishing)}
    assert list(made) == ["loss", "score", "norm", "lr"]
    assert [made[name].unit for name in made] == ["loss", "accuracy", "L2 norm of the gradient", "learning rate"]
    loss = made["loss"]
    assert loss.header == ("steps", "training", "evaluation")
    assert len(loss.rows) == 16
    assert loss.rows[0][0] == "0 – 58"
    assert loss.rows[-1][2] == "2.30"
    assert loss.summary.startswith("Training: 2.32 at step 0, 2.30 at step 937; smallest")
    assert [line.label for line in loss.lines] == ["each step", "training, smoothed", "evaluation"]
    assert made["lr"].summary == "SGD, group 0: 0.100 throughout."
    assert loss.level == (2.302, "chance")


def test_a_run_that_ended_in_nan_has_a_gap_a_mark_and_a_lag_curve(cases: SimpleNamespace) -> None:
    made = {chart.id: chart for chart in charts(*cases.nan)}
    assert made["loss"].to_json()["lines"][0]["y"][-2:] == [339.0, None]
    assert made["loss"].is_log
    assert made["loss"].rows[-1] == ("113 – 119", "NaN")
    assert made["loss"].marks == ((77, "NaN or Inf"), (120, "exception"))
    assert made["lag"].axis == "lag"
    assert made["lag"].marks == ()


def test_a_score_without_a_loss_and_an_evaluation_without_training() -> None:
    record = Record.of({("eval_score", ""): Series.of([0.1, 0.9], [10, 20])})
    (chart,) = charts(Verdict("healthy"), record)
    assert [line.label for line in chart.lines] == ["evaluation"]
    assert "chart-score" in render(Verdict("healthy"), record)


def test_rates_are_told_apart_by_group(cases: SimpleNamespace) -> None:
    rates = next(chart for chart in charts(*cases.healthy) if chart.id == "lr")
    assert [line.label for line in rates.lines] == ["AdamW, group 0", "AdamW, group 1"]


def test_all_nan_and_all_zero_maps_are_drawn() -> None:
    for value in (np.nan, 0.0):
        record = Record.of({("back_rms", "a"): [value] * 3}, layers=[Layer("a")])
        assert "chart" in render(Verdict("unknown"), record)


def test_tables_list_layers_and_odd_parameters(pages: dict[str, str]) -> None:
    page = pages["vanishing"]
    row = re.search(
        r'<tr id="layer-0"><th scope="row">net\.0</th>(.*?)</tr>', page[page.index("<h3>Layers (39)") :], re.S
    )
    assert row is not None
    cells = re.findall(r"<td>(.*?)</td>", row[1])
    assert cells[:4] == ["linear", "train.py:14", "64 × 64", "50.2k"]
    assert cells[-1] == '<a href="#finding-1">vanishing-gradient</a>, <a href="#finding-4">unnormalized-input</a>'
    odd = Parameter("emb.weight", (10, 4), trainable=True, used=False, got_grad=False, optimizers=(), changed=False)
    told = render(Verdict("sick"), Record.of(parameters=[odd, Parameter("fc.weight")]))
    assert "not used on the way to the loss, in no optimizer, never had a gradient, never changed" in told
    assert "fc.weight" not in told


def test_missing_facts_leave_no_empty_tables() -> None:
    page = render(Verdict("unknown"), Record())
    assert "<table" not in page
    assert "There is no finding." in page


def test_findings_of_an_unknown_run_are_listed() -> None:
    finding = Finding("parameters-not-trained", "r", "warning", 0.4, "fc.weight is in no optimizer")
    page = render(Verdict("unknown", (finding,), "the run was killed at step 2"), Record())
    assert "The run was killed at step 2." in page
    assert "parameters-not-trained means: trainable parameters are never updated." in page


def test_fragments_need_no_script_and_no_network(case: tuple) -> None:
    text = fragment(*case)
    assert _Page(text).open == []
    assert text.startswith('<div class="unstuck-verdict">')
    assert "<script" not in text
    assert not re.search(r'(src|href)="', text)
    assert len(text) < 60_000


def test_write(cases: SimpleNamespace, pages: dict[str, str], tmp_path: Path) -> None:
    verdict, record = cases.nan
    path = tmp_path / "page.html"
    write(verdict, record, path)
    assert path.read_text("utf-8") == pages["nan"]
    with pytest.raises(MisuseError, match="there is no folder"):
        write(verdict, record, tmp_path / "no" / "page.html")


def test_the_license_of_what_is_vendored_is_there() -> None:
    from importlib.resources import files

    folder = files("unstuck.report").joinpath("assets", "uplot")
    assert "MIT" in folder.joinpath("LICENSE").read_text("utf-8")
    assert "uPlot (v1.6.32)" in folder.joinpath("uPlot.iife.min.js").read_text("utf-8")


@pytest.mark.slow
def test_a_server_adds_scripts_styles_and_a_bar_and_may_be_asked(case: tuple) -> None:
    page = render(*case, live=Live(("let added;",), ("#bar{color:red}",), Markup('<div id="bar">live</div>')))
    assert "connect-src &#39;self&#39;;" in page
    assert "connect-src" not in render(*case)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert scripts[-1] == "let added;"
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"sha256-([^&]*)&#39;", page) == hashes
    assert "<style>#bar{color:red}</style>" in page
    assert (
        page.index('<div id="bar">live</div>') < page.index("<main>") < page.index('id="data"') < page.index("</main>")
    )


def test_each_finding_leads_to_its_numbers_and_back(cases: SimpleNamespace, pages: dict[str, str]) -> None:
    page = pages["vanishing"]
    evidence = '<a href="#map-back_rms" data-step="0" data-place="net.0">gradient</a>'
    assert page.count(evidence) == 1
    assert '<a href="#chart-loss" data-step="937" data-place="">loss</a>' in page
    marked = page[page.index('id="map-back_rms"') :]
    assert '<a href="#finding-1"><b class="no">1</b> vanishing-gradient</a> <span>(net.0, net.38, step 0)' in marked
    flags = re.findall(r'<a class="flag" href="#finding-(\d)" style="left:([\d.]+)%;top:([\d.]+)%"', marked)
    # 39 layers: the first row and the last; 56 sampled steps are one column each, of which step 0 is the first.
    assert [(number, float(left) < 2, float(top)) for number, left, top in flags[:2]] == [
        ("1", True, 1.28),
        ("1", True, 98.72),
    ]
    # There is no picture of an input's mean, but a row of its layer in the table.
    assert '<a href="#layer-0" data-step="0" data-place="net.0">input mean</a>' in page
    data = _data(page)
    loss = next(chart for chart in data["charts"] if chart["id"] == "loss")
    assert loss["found"] == [{"number": 2, "x": 937}]
    assert data["findings"][0] == [[i, 1] for i in range(0, 20, 2)]


def test_causes_are_explained_once_where_they_are_first_found(pages: dict[str, str]) -> None:
    page = pages["vanishing"]
    told = page[page.index('id="cause-vanishing-gradient"') : page.index('id="finding-2"')]
    for words in (
        "How it is told apart",
        "When that is wrong",
        "What treats it",
        "Gradients shrink from layer to layer",
        "<dt>initialization</dt><dd>weights scaled by the number of their inputs",
        "<code>vanishing-gradient.ratio=0.001</code>",
        "unstuck run --set vanishing-gradient.ratio=0.001 changes one.",
        '<a href="#finding-1">Back to the finding</a>',
    ):
        assert words in told
    assert page.count('id="cause-vanishing-gradient"') == 1
    assert "cause-dead-units" not in page
    twice = Finding(
        "dead-units", "dead-units", "error", 0.9, "dead", explains=(Finding("dead-units", "x", "note", 0.5, "too"),)
    )
    page = render(Verdict("sick", (twice,)), Record())
    assert page.count('id="cause-dead-units"') == 1
    assert '<a href="#cause-dead-units">What this means</a>' in page


def test_docstrings_become_html() -> None:
    from unstuck.report._explained import _html

    made, _is_ours = _html("A `<code>` *word*.\n\n- one\n  line\n- two\n\n| a | b |\n|---|---|\n| 1 | `2` |")
    assert made == (
        "<p>A <code>&lt;code&gt;</code> <em>word</em>.</p><ul><li>one line</li><li>two</li></ul>"
        '<table><thead><tr><th scope="col">a</th><th scope="col">b</th></tr></thead><tbody>'
        "<tr><td>1</td><td><code>2</code></td></tr></tbody></table>"
    )


@pytest.mark.parametrize(
    ("meta", "typed"),
    [
        ({"script": "a b.py", "argv": ["a b.py", "--lr", "1"]}, "unstuck cure 'a b.py' --lr 1"),
        ({"script": "-m pack", "argv": ["-m", "pack", "x"]}, "unstuck cure -m pack x"),
        ({"script": "/home/me/runs/t.py", "argv": ["/home/me/runs/t.py"], "cwd": "/home/me"}, "unstuck cure runs/t.py"),
        ({}, "unstuck explain dead-units"),
    ],
)
def test_the_next_command_is_one_to_type(meta: dict, typed: str) -> None:
    finding = Finding("dead-units", "dead-units", "error", 0.9, "dead", treated_by=("activation",))
    (first, _does), *_rest = commands(Verdict("sick", (finding,)), Record.of(meta=meta))
    assert first == typed


def test_phases_and_jumps_of_the_rate_are_marked() -> None:
    record = Record.of(
        {("loss", ""): [1.0] * 30, ("lr", ""): [0.1] * 20 + [0.01] * 10},
        events=[Event(step, kind) for step in (0, 10, 20) for kind in ("epoch", "eval")],
    )
    page = render(Verdict("healthy"), record)
    data = _data(page)
    assert data["phases"] == {"epochs": [0, 10, 20], "evals": [0, 10, 20]}
    assert data["charts"][0]["marks"] == [{"x": 20, "label": "rate × 0.10"}]
    assert "Phases: 3 epochs; 3 evaluations; at step 20: rate × 0.10." in page


def test_a_rate_that_changes_all_the_time_has_marks_only_where_it_jumps() -> None:
    cosine = 0.1 * (1 + np.cos(np.pi * np.arange(12) / 12)) / 2
    dropped = np.append(np.linspace(0.1, 0.09, 12), np.linspace(0.009, 0.008, 12))
    told = []
    for rates in (cosine, dropped, 0.1 * 0.5 ** np.arange(6)):
        (chart,) = charts(Verdict("healthy"), Record.of({("lr", ""): np.repeat(rates, 10)}))
        told.append([step for step, _ in chart.marks])
    assert told == [[], [120], [10, 20, 30, 40, 50]]


def test_shares_are_on_a_plain_axis_and_losses_on_one_of_decades_where_they_are_wide() -> None:
    series = {("loss", ""): [3.0, 1.0, 0.001], ("score", ""): [0.01, 0.5, 1.0]}
    for score, is_log in (("accuracy", False), ("r2", False), ("perplexity", True)):
        drawn = charts(Verdict("healthy"), Record.of(series, task=Task("x", 10, score, 2.3, 0.1)))
        assert {chart.id: chart.is_log for chart in drawn} == {"loss": True, "score": is_log}


def test_an_evaluation_says_how_many_samples_it_is_of() -> None:
    series = {("loss", ""): [3.0, 1.0], ("eval_score", ""): [0.5, 0.6]}
    seen = [Event(step, "eval", "", {"samples": samples}) for step, samples in ((1, 297), (2, 100))]
    told = {chart.id: chart.summary for chart in charts(Verdict("healthy"), Record.of(series, events=seen))}
    assert told["score"].endswith("The last evaluation is of 100 samples that were looked at.")
    assert "samples" not in told["loss"]


def test_evidence_that_has_no_place_needs_no_column_for_it() -> None:
    found = Finding("undertrained", "x", "warning", 0.7, "it was", evidence=(Evidence("loss", "", 3, 1.0),))
    page = render(Verdict("sick", (found,)), Record.of({("loss", ""): [1.0] * 4}))
    (rows,) = re.findall(r'aria-label="Evidence for undertrained">(.*?)</div>', page, re.DOTALL)
    assert re.findall(r'<th scope="col">(.*?)</th>', rows) == ["what", "step", "value"]


def test_what_the_network_was_given_is_drawn() -> None:
    vectors = {
        ("label_count", ""): [[8.0, 2.0]] * 4, ("prediction_count", ""): [[10.0, 0.0]] * 4,
        ("input_mean", "input"): [[0.0, 5.0]], ("eval_input_mean", "input"): [[0.0, 7.0]],
    }  # fmt: skip
    series = {("loss_part", "train.py:3"): [0.7, 0.6], ("loss_part", "train.py:4"): [0.3, 0.4]}
    made = {chart.id: chart for chart in data_charts(Record.of(series, vectors=vectors))}
    assert list(made) == ["classes", "features", "parts"]
    assert made["classes"].rows == (("0", "0.800", "1.00"), ("1", "0.200", "0"))
    assert made["features"].header == ("features", "training", "evaluation")
    assert made["parts"].unit == "share of the training loss"
    assert (
        [line.kind for line in made["classes"].lines]
        == [line.kind for line in made["features"].lines]
        == ["bars", "checks"]
    )
    many = data_charts(Record.of({}, vectors={("input_mean", "input"): [[0.0] * 41]}))
    assert [line.kind for line in many[0].lines] == ["plain"]  # no room for so many bars


@pytest.mark.slow
def test_many_layers_are_left_to_the_script(large_page: str) -> None:
    data = _data(large_page)
    assert data["num_layers"] == 1000
    names = _whole(data["names"])
    assert names[:2] == ["encoder.blocks.0.query", "encoder.blocks.0.key"]
    assert names[1000] == "encoder.blocks.0.query.weight"
    assert [len(column.split("\n")) for column in data["more"]["layers"]] == [900] * len(data["more"]["layers"])
    assert data["findings"] == [[[0, 500]]]
    assert large_page.count('<tr id="layer-') == 100


@pytest.fixture(scope="module")
def large_page() -> str:
    return render(*large(1000, 50))


@pytest.mark.slow
def test_a_run_of_10_000_steps_and_100_layers_with_every_signal_is_under_a_megabyte() -> None:
    assert len(render(*large(100, 10_000)).encode()) < 1_000_000  # 0.82 MB of noise, which nothing can shorten


@pytest.mark.slow
def test_10_000_layers_are_under_two_and_a_half_megabytes() -> None:
    assert len(render(*large(10_000, 2000)).encode()) < 2_500_000  # 2.3 MB


def test_a_page_of_nothing_but_trouble_is_well_formed() -> None:
    page = render(*hostile())
    read = _Page(page)
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))
    assert "<img" not in page
    assert not any(mark in page for mark in ("\x1b", "\u202e", "\u2066"))
    assert "x" * 1000 not in page
    assert "NaN" in page


def _data(page: str) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def _whole(shortened: list[Any]) -> list[str]:
    names = [""]
    for same, rest in zip(shortened[::2], shortened[1::2], strict=True):
        names.append(names[-1][:same] + rest)
    return names[1:]


def test_colours_are_told_apart_from_their_ground() -> None:
    sheet = (Path(html.__file__).parent / "assets" / "page.css").read_text("utf-8")
    grounds = [
        dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r"\{([^{}]*--page:[^{}]*)\}", sheet)
    ]
    light_and_dark = [colours for colours in grounds if "pale" in colours]
    assert len(light_and_dark) == 2
    for colours in light_and_dark:
        for name in (
            "text",
            "soft",
            "accent",
            "check",
            "sick",
            "healthy",
            "unknown",
            "error",
            "warning",
            "note",
            "mark",
        ):
            assert min(_contrast(colours[name], colours[ground]) for ground in ("page", "card")) >= 4.5, (
                name
            )  # WCAG AA, text
        for name in ("pale", "strong", "band", "edge", "zero", "broken"):
            assert _contrast(colours[name], colours["card"]) >= 3, name  # WCAG AA, graphical objects


def _contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it, from 1 to 21."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    digits = colour.lstrip("#") if len(colour) == 7 else "".join(2 * digit for digit in colour.lstrip("#"))
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_score_measured_at_few_steps_is_a_coarse_line() -> None:
    scores = np.full(100, np.nan)
    scores[[0, 1, 2, 4, 8, 16, 32, 64]] = 0.5
    (chart,) = charts(Verdict("healthy"), Record.of({("score", ""): Series.of(scores)}))
    assert chart.to_json()["lines"][0]["x"] == [0, 1, 2, 4, 8, 16, 32, 64]
    assert None not in chart.to_json()["lines"][0]["y"]
