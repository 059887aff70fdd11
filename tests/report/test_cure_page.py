"""The page of a visit: complete, escaped, forbidden any request; its pictures say what the numbers say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from unstuck._language import speaking
from unstuck.errors import MisuseError
from unstuck.evidence import Event
from unstuck.report._cure_plots import courses, plots, seeds, tried
from unstuck.report._search_plots import Plot, Shape
from unstuck.report.cure_page import render, write
from unstuck.source import Edit
from unstuck.store import Writer
from unstuck.trials.estimate import Effect
from unstuck.trials.job import Outcome
from unstuck.trials.visit import Cure, Dose, Prescription, Trial
from unstuck.verdict import Finding, Verdict

NASTY = "</pre></script><img src=x onerror=alert(1)>&\"'\x1b[31m\u202e"
VOID = {"meta", "link", "br", "hr", "img", "input"}
DIFF = "--- a/train.py\n+++ b/train.py\n@@ -3,2 +3,2 @@\n def go():\n-    lr = 1e-6\n+    lr = 0.01\n"
SLOW = Finding("learning-rate-too-low", "rule", "error", 0.9, "the rate is 1e-6")
DEAD = Finding("dead-units", "rule", "warning", 0.7, "30% are dead")
SICK = Verdict("sick", (SLOW, DEAD))
BASELINE = Outcome("finished", "accuracy", 0.1, 0.0, 4.2, 100, "x")
TRIALS = (
    Trial((Dose("learning-rate", {"rate": 0.01}),), (0.7,), 0.6, 2.5, kept=True),
    Trial((Dose("optimizer"),), (math.nan,), -math.inf, 1.0, why_not="diverged"),
    Trial((Dose("wider"),), (0.05,), -0.05, 3.0),
    Trial((Dose("gating"),), why_not="there are no gates"),
)
FOUND = Prescription(
    (Dose("learning-rate", {"rate": 0.01}), Dose("zero-grad")), Effect(0.5, 0.4, 0.6, 3), "accuracy", "accuracy",
    (0.1, 0.2, math.nan), (0.6, 0.7, 0.8), ("dead-units", "overfitting"), (Edit("train.py", 3, 7, "0.01"),), {}, {}, DIFF,
    gain=Effect(0.55, 0.45, 0.65, 3),
)  # fmt: skip
CURES = {
    "cured": Cure(SICK, BASELINE, TRIALS, FOUND, "", 61.0),
    "not cured": Cure(SICK, BASELINE, TRIALS, None, "nothing that was tried helps", 61.0),
    "healthy": Cure(Verdict("healthy"), BASELINE, why="nothing is wrong with it", seconds=9.0),
    "crashed": Cure(Verdict("unknown", (), "it could not be run"), Outcome("failed", error="boom"), why="boom"),
    "empty": Cure(Verdict("sick"), Outcome("diverged"), (Trial((Dose("wider"),), (math.nan,)),), None, "", 0.0),
}


class Page(HTMLParser):
    """What is on a page; raises where tags don't match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def recorded(folder: Path, losses: list[float], scores: list[float]) -> str:
    folder.mkdir()
    writer = Writer(folder / "record.sqlite", meta={})
    for step, loss in enumerate(losses):
        writer.row(step, (("loss", ""), ("score", "")), (loss, scores[step] if step % 5 == 0 else math.nan))
    writer.event(Event(0, "epoch"))
    writer.close(status="finished")
    return str(folder / "record.sqlite")


@pytest.fixture
def with_records(tmp_path: Path) -> Cure:
    """A cure whose records are there."""
    without = recorded(tmp_path / "without", [2.0] * 39 + [math.nan], [0.1] * 40)
    treated = recorded(tmp_path / "treated", [2.0 * 0.7**i for i in range(60)], [i / 60 for i in range(60)])
    return replace(CURES["cured"], prescription=replace(FOUND, records=((without, treated),)))


def shapes(plot: Plot) -> dict[str, Shape]:
    return {shape.label: shape for shape in plot.shapes}


# ---------------------------------------------------------------------- the page


@pytest.mark.parametrize("name", CURES)
def test_every_page_is_well_formed_and_asks_for_nothing(name: str):
    page = Page(render(CURES[name], "train.py", ["train.py", "--fast"]))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert not {"script", "iframe", "object", "form", "img"} & {tag for tag, _ in page.tags}
    assert all(attrs.get("href", "").startswith(("#", "data:")) for tag, attrs in page.tags if tag in ("a", "link"))
    (policy,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("name", "says"), [("cured", "cure"), ("not cured", "no cure found"), ("healthy", "no cure needed"), ("crashed", "no cure found")]
)  # fmt: skip
def test_the_verdict_of_the_visit_comes_first(name: str, says: str):
    text = Page(render(CURES[name], "train.py")).text
    head = text.split("The visit")[0].split("unstuck cure train.py", 1)[1]
    assert head.strip().startswith(says)
    if name != "cured":
        assert CURES[name].why in head[:80].lower()


def test_effect_interval_seeds_and_findings_are_told():
    text = Page(render(CURES["cured"], "train.py")).text
    for told in (
        "learning-rate (rate 0.01) + zero-grad", "effect on the accuracy +0.5 95% interval +0.4 to +0.6", "diverged in 1 of 3",
        "accuracy with the change 0.7 3 pairs of fresh seeds", "tried 3 1 could not be written", "the visit took 1 min 1 s",
        "learning-rate-too-low gone", "dead-units still found", "overfitting new", "gating there are no gates",
    ):  # fmt: skip
        assert told.replace("0.7 3", "0.700 3") in text, told


def test_what_to_type_next_names_the_script():
    text = Page(render(CURES["cured"], "train.py", ["train.py", "--fast"])).text
    assert "unstuck cure --diff train.py --fast | patch -p1" in text
    assert "patch" not in Page(render(CURES["cured"], "training")).text
    assert "unstuck run --html report.html train.py" in Page(render(CURES["not cured"], "train.py", ["train.py"])).text


def test_the_change_keeps_its_spaces_and_says_what_goes_and_what_comes():
    page = render(CURES["cured"])
    assert '<del class="gone">-    lr = 1e-6</del><ins class="added">+    lr = 0.01</ins>' in page
    assert '<span class="same"> def go():</span>' in page
    long = replace(FOUND, diff="\n".join(f"+{i}" for i in range(2500)))
    assert "and 500 lines more" in Page(render(replace(CURES["cured"], prescription=long))).text


def test_every_picture_has_a_summary_a_label_and_a_table(with_records: Cure):
    drawn = plots(with_records)
    assert [plot.id for plot in drawn] == ["tried", "seeds", "course-loss", "course-score"]
    page = Page(render(with_records))
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "img"]
    assert labels == [f"{plot.title}. {plot.summary}" for plot in drawn]
    assert all(plot.rows and all(len(row) == len(plot.header) for row in plot.rows) for plot in drawn)


def test_hostile_texts_are_text():
    dose = (Dose(NASTY, {NASTY: NASTY}),)
    trials = (Trial(dose, (0.5,), 0.1, why_not=NASTY), Trial(dose, why_not=NASTY))
    verdict = Verdict("sick", (Finding("dead-units", NASTY, "error", 0.9, NASTY),))
    found = replace(FOUND, treatment=dose, diff=f"+{NASTY}", score=NASTY, effect_of=NASTY)
    page = render(Cure(verdict, replace(BASELINE, score=NASTY), trials, found, NASTY), NASTY, [NASTY])
    parsed = Page(page)
    assert not {"script", "img"} & {tag for tag, _ in parsed.tags}
    assert not re.search("[\x1b\u202e]", page)


def test_it_speaks_other_languages():
    with speaking("zh"):
        assert '<html lang="zh' in render(CURES["cured"], "train.py")


def test_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(MisuseError, match="is a folder"):
        write(CURES["cured"], tmp_path)
    write(CURES["cured"], tmp_path / "cure.html", name="train.py")
    assert "train.py" in (tmp_path / "cure.html").read_text("utf-8")


# ---------------------------------------------------------------------- the pictures


def test_the_winner_comes_first_with_its_interval_and_zero_is_marked():
    plot = tried(CURES["cured"])
    assert plot is not None
    drawn = shapes(plot)
    (low, y), (high, _) = drawn["95% interval"].points
    ((mean, at),) = drawn["prescribed: mean over fresh seeds"].points
    (zero, _), _ = drawn["no gain"].points
    assert zero < low < mean < high
    assert mean == pytest.approx((low + high) / 2)
    assert at == y == max(place for place, _ in plot.y.ticks)
    (best, worse), (_, broken) = (
        drawn["one run with one seed"].points,
        (None, drawn["diverged, crashed or stopped"].points),
    )
    assert best[0] > zero > worse[0]
    assert len(broken) == 1
    assert (zero, "0") in plot.x.ticks
    assert [text for _, text in plot.y.ticks][1:] == ["learning-rate (rate 0.01)", "wider", "optimizer"]
    assert plot.x.label == "gain, as a share of the way from chance to perfect"
    assert [row[1] for row in plot.rows] == ["+0.55", "+0.60", "-0.05", "–"]


def test_gains_that_cannot_be_measured_from_chance_are_shares_of_the_loss():
    plot = tried(replace(CURES["not cured"], baseline=replace(BASELINE, skill=math.nan)))
    assert plot is not None
    assert plot.x.label == "gain, as a share of the loss"


def test_most_treatments_are_in_the_table_only():
    plot = tried(replace(CURES["not cured"], trials=TRIALS[:1] * 60))
    assert plot is not None
    assert (len(plot.y.ticks), len(plot.rows)) == (24, 60)
    assert "36 more are in the table." in plot.summary


def test_seeds_are_drawn_in_pairs_and_what_broke_is_said():
    plot = seeds(FOUND)
    assert plot is not None
    drawn = shapes(plot)
    assert len(drawn["without"].points) == 2
    assert len(drawn["with the change"].points) == 3
    assert len(drawn["diverged"].points) == 1
    assert len(drawn[""].points) == 4
    assert [row[3] for row in plot.rows] == ["+0.5", "+0.5", "–"]
    assert seeds(replace(FOUND, without=(math.nan,), treated=(math.nan,))) is None


def test_courses_are_those_of_the_first_pair_and_say_where_one_broke(with_records: Cure):
    assert with_records.prescription is not None
    loss, score = courses(with_records.prescription)
    assert "From 2.00 to NaN or Inf without the change" in loss.summary
    assert loss.rows[0] == ("0", "2.00", "2.00")
    assert (score.x.label, score.y.label) == ("training step", "accuracy")
    assert "NaN" not in score.summary
    assert courses(replace(FOUND, records=(("", ""), ("/nowhere/a", "/nowhere/b")))) == []


def test_losses_that_are_not_of_one_kind_are_said_not_to_compare(with_records: Cure):
    assert with_records.prescription is not None
    changed = replace(with_records.prescription, treatment=(Dose("output-loss"),))
    assert "the two losses can't be compared" in courses(changed)[0].summary
    assert "compared" not in courses(with_records.prescription)[0].summary


# ---------------------------------------------------------------------- in a browser


@pytest.fixture
def show(browsed: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Opens the page of a visit."""

    def open_page(cure: Cure, width: int, scheme: str) -> Any:
        write(cure, tmp_path / "cure.html", name="train.py", command=["train.py"])
        return browsed((tmp_path / "cure.html").as_uri(), width, scheme)

    return open_page


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
@pytest.mark.parametrize("name", ["cured", "not cured"])
def test_nothing_sticks_out_and_axe_finds_nothing(
    show: Callable[..., Any], with_records: Cure, width: int, scheme: str, name: str
):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = show(with_records if name == "cured" else CURES[name], width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.slow
def test_axes_and_keyboard(show: Callable[..., Any], with_records: Cure):
    page = show(with_records, 1280, "light")
    assert page.locator("#chart-course-loss .across span").first.inner_text() == "0"
    assert page.locator("#chart-course-loss .axis").inner_text() == "training step"
    assert page.locator("#chart-tried .axis").inner_text() == "gain, as a share of the way from chance to perfect"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "lines"
    page.locator("#chart-seeds summary").click()
    assert page.locator("#chart-seeds table tbody tr").count() == 3


def test_a_script_that_took_no_step_did_not_diverge():
    assert "score as it is – " in Page(render(CURES["crashed"], "train.py")).text
    diverged = Cure(Verdict("sick", run={"steps": 9}), Outcome("diverged"), why="nothing helps")
    assert "score as it is diverged " in Page(render(diverged, "train.py")).text
    assert "accuracy as it is 0.100 " in Page(render(CURES["not cured"], "train.py")).text
