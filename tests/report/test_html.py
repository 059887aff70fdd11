"""The page: complete, escaped, forbidden any request, small, and equal to its charts in words and tables."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unstuck.errors import MisuseError
from unstuck.evidence import Layer, Parameter, Record, Series
from unstuck.report._charts import charts
from unstuck.report._heatmap import heatmap, heatmaps
from unstuck.report.html import fragment, render, write
from unstuck.verdict import Finding, Verdict

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


def test_every_page_asks_for_nothing(page: str) -> None:
    read = _Page(page)
    addresses = [
        (tag, value) for tag, attributes in read.elements for key, value in attributes.items() if key in {"src", "href"}
    ]
    assert addresses == [("link", "data:,"), ("a", "#findings")]
    assert "url(" not in page
    assert "@import" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert "unsafe-eval" not in policy[1]


def test_the_policy_allows_exactly_the_scripts_of_the_page(pages: dict[str, str]) -> None:
    page = pages["vanishing"]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"sha256-([^&]*)&#39;", page) == hashes
    assert len(hashes) == 2


def test_every_page_is_under_a_megabyte(page: str) -> None:
    assert len(page.encode()) < 1_000_000


def test_hostile_names_stay_text(cases: SimpleNamespace, pages: dict[str, str]) -> None:
    for text in (pages["huge"], fragment(*cases.huge)):
        assert "<img" not in text
        assert "\x1b" not in text
        assert "&lt;/script&gt;&lt;img" in text
    data = re.search(r'id="unstuck-charts">(.*?)</script>', pages["huge"], re.S)
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


def _map_record() -> Record:
    names = ["b", "a", "dead"]
    values = {"b": [1e-8, 1e-6, 1e-4], "a": [1.0, np.nan, 1.0], "dead": [0.0, 0.0, 0.0]}
    series = {("back_rms", name): Series.of(values[name], [0, 10, 20]) for name in sorted(names)}
    return Record.of(series, layers=[Layer(name) for name in names])


def test_a_map_has_rows_in_forward_order_and_places_for_zero_and_nan() -> None:
    made = heatmap(_map_record(), "back_rms")
    assert made is not None
    assert [row[0] for row in made.rows] == ["b", "a", "dead"]
    assert made.rows[0] == ("b", "1e-8", "1e-8", "1e-4", "1e-4")
    assert made.rows[1] == ("a", "1.00", "1.00", "1.00", "1.00")
    assert '<path class="broken" d="M1 1h1"/>' in made.svg
    assert '<path class="zero" d="M0 2h3"/>' in made.svg
    assert (made.has_zero, made.has_broken) == (True, True)
    assert made.ticks == ("0", "10", "20")
    assert 'data-steps="0 10 20"' in made.svg
    assert len(re.findall(r'data-cells="([^"]*)"', made.svg)[0]) == 2 * 9
    assert "<title>b: 1e-8 at step 0, 1e-4 at step 20; from 1e-8 to 1e-4 in between</title>" in made.svg
    assert "NaN or Inf was seen in 1 row" in made.summary


def test_cells_can_be_read_back() -> None:
    record = Record.of({("back_rms", "a"): [1e-9, 3.3e-5, 1.0]}, layers=[Layer("a")])
    made = heatmap(record, "back_rms")
    assert made is not None
    facts = dict(re.findall(r'data-(\w+)="([^"]*)"', made.svg))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    code = letters.index(facts["cells"][2]) * 64 + letters.index(facts["cells"][3])
    level = float(facts["low"]) + code / (64**2 - 4) * (float(facts["high"]) - float(facts["low"]))
    # 4092 steps over nine decades: half a step is 0.25%.
    assert 10**level == pytest.approx(3.3e-5, rel=0.004)


def test_shares_are_drawn_from_0_to_1_and_zero_is_a_share() -> None:
    record = Record.of({("dead_share", "a"): [0.0, 0.5, 1.0]}, layers=[Layer("a")])
    made = heatmap(record, "dead_share")
    assert made is not None
    assert made.kind == "share"
    assert made.legend == ("0%", "25%", "50%", "75%", "100%")
    assert not made.has_zero
    assert '<path class="k0" d="M0 0h1"/>' in made.svg
    assert '<path class="k15" d="M2 0h1"/>' in made.svg


@pytest.mark.slow
def test_many_layers_and_steps_are_put_together(cases: SimpleNamespace) -> None:
    made = {m.signal: m for m in heatmaps(cases.huge[1])}
    assert list(made) == ["back_rms", "act_std", "update_ratio", "dead_share", "act_saturated"]
    assert all(m.num_rows == 300 for m in made.values())
    layers = [Layer(f"l{i}") for i in range(1000)]
    record = Record.of({("act_std", layer.name): [1.0, 2.0] for layer in layers}, layers=layers)
    (one,) = heatmaps(record)
    assert one.num_rows == 250
    assert one.note == "1000 places in forward order, every 4th is shown."


def test_one_sample_or_none_makes_no_map() -> None:
    assert heatmaps(Record()) == []
    assert heatmaps(Record.of({("back_rms", "a"): [1.0]}, layers=[Layer("a")])) == []


def test_all_nan_and_all_zero_maps_are_drawn() -> None:
    for value in (np.nan, 0.0):
        record = Record.of({("back_rms", "a"): [value] * 3}, layers=[Layer("a")])
        assert "chart" in render(Verdict("unknown"), record)


def test_tables_list_layers_and_odd_parameters(pages: dict[str, str]) -> None:
    page = pages["vanishing"]
    row = re.search(r'<tr><th scope="row">net\.0</th>(.*?)</tr>', page[page.index("<h3>Layers (39)") :], re.S)
    assert row is not None
    cells = re.findall(r"<td>(.*?)</td>", row[1])
    assert cells[:4] == ["linear", "train.py:14", "64 × 64", "50.2k"]
    assert cells[-1] == "vanishing-gradient, unnormalized-input"
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
