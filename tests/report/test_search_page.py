"""The page of a search: complete, escaped, forbidden any request, small; its pictures say what the numbers say."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from unstuck._json import plain
from unstuck.errors import MisuseError
from unstuck.report._search_charts import fresh, progress
from unstuck.report._search_plots import SIZE, Scale, Shape, powers, rounds, short
from unstuck.report._search_sampler import health
from unstuck.report._search_values import costs, decisions
from unstuck.report.search import text
from unstuck.report.search_page import render, write

NASTY = "</script><img src=x onerror=alert(1)>&\"'\x1b[31m"
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M0 0h9"/></svg>'
VOID = {"meta", "link", "br", "hr", "img", "input"}
Told = dict[str, Any]


def child(number: int, score: float | None = 0.5, arm: str = "search", **other: Any) -> Told:
    return {
        "number": number, "arm": arm, "origin": "random", "values": {"rate": 0.1, "kind": "SGD"}, "chosen": "x", "scores": {"0": score},
        "score": score, "quality": score, "stage": 0, "whole": True, "status": "finished" if score is not None else "failed",
        "cause": None if score is not None else "ValueError: no", "seconds": 2.0, "epochs": 3, "parameters": 1234, "records": [], **other,
    }  # fmt: skip


def final(one: Told, scores: tuple[float | None, ...]) -> Told:
    sound = [s for s in scores if s is not None]
    return {
        **{key: one[key] for key in ("number", "arm", "values", "chosen")},
        "scores": {str(1001 + i): s for i, s in enumerate(scores)},
        "mean": sum(sound) / len(sound) if sound else None,
    }


def told(children: list[Told], finals: list[Told] | None = None, **other: Any) -> Told:
    finals = [final(c, (0.9, 0.92)) for c in children[:2] if c["score"] is not None] if finals is None else finals
    return {
        "schema": 1, "text": "", "score": "accuracy", "lower_is_better": False, "seconds": 61.0, "says": "", "health": [],
        "plan": {"sampler": "local", "settings": {}, "evaluations": 1, "seed": 0, "halving": True, "top": 1, "seeds": 3, "seconds": None},
        "problem": {"file": "examples/mlp.py", "digest": "1f"}, "better_than_random": None, "finalists": finals, "children": children,
        "best": next((f for f in finals if f["arm"] == "search"), None),
        "control": next((f for f in finals if f["arm"] == "control"), None), "effect": None, **other,
    }  # fmt: skip


def many(count: int, num_decisions: int = 3, seed: int = 0, name: str = "decision", **other: Any) -> Told:
    """A search with everything in it, children of the arms in order."""
    chance, children = random.Random(seed), []
    for i in range(2 * count):
        arm = "search" if i < count else "control"
        values: Told = {
            f"{name} {j}": _value(chance, j) for j in range(num_decisions) if j < 3 or chance.random() < 0.8
        }
        score = (
            None if chance.random() < 0.1 else 1 - abs(math.log10(values[f"{name} 0"]) + 2) / 3 + chance.gauss(0, 0.03)
        )
        stage = chance.randrange(3)
        cause = None if score is not None else chance.choice(["non-finite", "ValueError: no"])
        origin = "random" if i % count < 10 or arm == "control" else chance.choice(["controller", "mutation"])
        children.append(
            child(2 * (i % count) + (i >= count), score, arm, values=values, whole=stage == 2, stage=stage, epochs=3 ** (stage + 1),
                  origin=origin, parameters=chance.randrange(100, 100_000), cause=cause)
        )  # fmt: skip
    best = [
        max((c for c in children if c["arm"] == arm and c["score"]), key=lambda c: c["score"])
        for arm in ("search", "control")
    ]
    finals = [final(c, (c["score"], c["score"] - 0.01, c["score"] + 0.01)) for c in best]
    return told(
        children, finals, importance=[{"name": f"{name} {j}", "share": 0.5 / (j + 1) if j < 8 else 0.0} for j in range(num_decisions)],
        drawings={str(best[0]["number"]): DRAWING}, verdicts=["the controller learns"], effect={"mean": 0.1, "low": 0.05, "high": 0.15},
        health=[{"updates": i, "entropy_share": 1 - i / 10, "repeats": i / 20} for i in range(9)], better_than_random=0.01,
        diff="--- a\n+++ b\n-old <b>\n+new", **other,
    )  # fmt: skip


def _value(chance: random.Random, j: int) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: 10 ** chance.uniform(-4, 1), lambda: chance.choice(["relu", "tanh", None]), lambda: chance.randrange(1, 30),
        lambda: [chance.randrange(2) for _ in range(4)], lambda: chance.random() < 0.5, lambda: f"option {chance.randrange(30)}",
    ]  # fmt: skip
    return kinds[j % len(kinds)]()


def extreme(seed: int) -> Told:
    """Whatever may come: few children, numbers beyond all bounds, nothing that is asked for by chance."""
    chance = random.Random(seed)
    children = [_odd(chance, i) for i in range(chance.choice([1, 2, 3, 12]))]
    finals = [final(c, tuple(chance.choices([None, 0.0, 1e308, 0.3], k=chance.randrange(4)))) for c in children[:2]]
    return told(
        children,
        chance.choice([[], finals]),
        effect=chance.choice([None, {"mean": None, "low": None, "high": None}]),
        lower_is_better=chance.random() < 0.5,
        score=chance.choice(["", "loss", NASTY]),
        health=chance.choice([[], [{"repeats": None}] * 3, [{"entropy_share": 1.0, "updates": 0}] * 3]),
        drawings={"0": chance.choice([DRAWING, "<html>", "<!DOCTYPE svg><svg/>"])},
        importance=chance.choice([[], [{"name": "a", "share": 0.3}]]),
    )


def _odd(chance: random.Random, i: int) -> Told:
    values = {"a": chance.choice([0, 1e-300, 1e300, -5, 3.5]), "b": chance.choice([None, NASTY, "x"]), "l": [1, 0]}
    return child(
        i,
        chance.choice([None, 0.0, -0.0, 1.0, 1e308, -1e308, 5e-324, 1e-300, 0.5]),
        chance.choice(["search", "control"]),
        status=chance.choice(["", "finished", "failed", "stopped", "diverged"]),
        cause=chance.choice([None, "nan", NASTY]),
        seconds=chance.choice([None, 0.0, 1e9]),
        parameters=chance.choice([0, 1, 10**12]),
        epochs=chance.choice([0, 5]),
        whole=chance.random() < 0.5,
        stage=chance.choice([-1, 0, 3]),
        origin=chance.choice(["random", "odd", NASTY]),
        values={k: v for k, v in values.items() if chance.random() < 0.8},
    )


class _Page(HTMLParser):
    """Elements as they come, and a check that they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "path":
            assert self.open.pop() == tag


CASES: dict[str, Callable[[], Told]] = {
    "many": lambda: many(60), "wide": lambda: many(20, num_decisions=43), "hostile": lambda: many(12, name=NASTY),
    "lower": lambda: many(30, lower_is_better=True, score="perplexity"),
    "alone": lambda: told([child(i, i / 10) for i in range(10)]), "one": lambda: told([child(0, 0.9)]),
    "nothing": lambda: told([child(0, None)]), "empty": lambda: told([]),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(CASES))
def page(request: pytest.FixtureRequest) -> str:
    return render(json.loads(json.dumps(CASES[request.param]())))


@pytest.mark.slow
def test_every_page_is_well_formed_with_unique_ids(page: str) -> None:
    read = _Page(page)
    assert read.open == []
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_every_page_asks_for_nothing_and_allows_only_its_script(page: str) -> None:
    read = _Page(page)
    addresses = {value for _, a in read.elements for key, value in a.items() if key in {"src", "href"}}
    assert all(a in {"data:,", "#found"} or a.startswith("data:image/svg+xml;base64,") for a in addresses if a)
    assert "url(" not in page
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;; style" in page


def test_every_picture_has_a_summary_a_label_and_a_table(page: str) -> None:
    for figure in re.findall(r'<figure class="card plotted".*?</figure>', page, re.DOTALL):
        title, label = re.search(r"<h3>(.*?)</h3>", figure), re.search(r'role="img" aria-label="(.*?)"', figure)
        summary = re.search(r'<p class="summary">(.*?)</p>', figure)
        assert title and label and summary
        assert label[1] == f"{title[1]}. {summary[1]}"
        assert figure.count("<tr>") > 1


@pytest.mark.parametrize("seed", range(30))
def test_whatever_came_of_a_search_is_written(seed: int) -> None:
    given = plain(extreme(seed))
    assert _Page(render(given)).open == []
    stream = io.StringIO()
    text(given, stream)
    assert "\x1b" not in stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("num_decisions", [3, 43])
def test_two_thousand_children_need_less_than_a_megabyte(num_decisions: int) -> None:
    page = render(many(1000, num_decisions))
    assert len(page.encode()) < 1_000_000
    assert "1800 more, all worse than these or without a score, are not listed." in page


def test_hostile_names_are_text() -> None:
    page = render(CASES["hostile"]())
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert sum(tag == "script" for tag, _ in _Page(page).elements) == 2


def test_drawings_stand_in_images_and_what_is_none_is_left_out() -> None:
    given = told([child(0, 0.9), child(1, 0.8)], drawings={"0": DRAWING, "1": "<!DOCTYPE svg><svg/>", "7": DRAWING})
    images = [a for tag, a in _Page(render(given)).elements if tag == "img"]
    assert len(images) == 1
    assert base64.b64decode(str(images[0]["src"]).partition(",")[2]).decode() == DRAWING
    assert str(images[0]["alt"]).startswith("Drawing of search 0")


def test_the_course_is_the_best_so_far_of_either_arm_by_its_own_evaluations() -> None:
    scores = [(None, 0.3), (0.2, 0.1), (0.5, None), (0.4, 0.6)]
    children = [
        child(2 * i + k, s[k], arm) for k, arm in enumerate(("search", "control")) for i, s in enumerate(scores)
    ]
    plot = progress(told(children))
    assert plot is not None
    assert plot.rows == (("1", "–", "0.300"), ("2", "0.200", "0.300"), ("3", "0.500", "0.300"), ("4", "0.500", "0.600"))
    assert plot.summary == (
        "Search: accuracy 0.500, reached by evaluation 3 of 4. Random: accuracy 0.600, reached by evaluation 4 of 4."
    )
    lost = [s for s in plot.shapes if s.kind == "lost"]
    assert sorted(number for s in lost for number in s.of) == [0, 5]
    assert all(y == 0 for s in lost for _, y in s.points)


def test_where_lower_is_better_the_course_falls_and_failures_are_at_the_top() -> None:
    plot = progress(
        told([child(0, 50.0), child(1, 70.0), child(2, None), child(3, 1.5)], score="perplexity", lower_is_better=True)
    )
    assert plot is not None
    assert [row[1] for row in plot.rows] == ["50.0", "50.0", "50.0", "1.50"]
    assert [y for s in plot.shapes if s.kind == "lost" for _, y in s.points] == [1.0]


def test_a_score_far_below_all_others_is_at_the_edge_and_said_to_be_beyond() -> None:
    plot = progress(told([child(i, 0.5 + 0.01 * (i % 10)) for i in range(40)] + [child(40, -1e9)]))
    assert plot is not None
    assert plot.summary.endswith("1 score so bad as to lie beyond the edge.")
    assert min(y for s in plot.shapes if s.kind == "search dot" for _, y in s.points) == 0.0


def test_fresh_seeds_come_best_first_with_students_interval() -> None:
    children = [child(0), child(1, arm="control"), child(2)]
    finals = [
        final(children[0], (0.7, 0.8, 0.9)),
        final(children[1], (0.9, 0.9, 0.9)),
        final(children[2], (0.99, None)),
    ]
    plot = fresh(told(children, finals))
    assert plot is not None
    half = 4.303 * 0.1 / math.sqrt(3)
    assert plot.rows == (
        ("random 1", "0.900, 0.900, 0.900", "0.900", "0.900 to 0.900"),
        ("search 0", "0.700, 0.800, 0.900", "0.800", f"{0.8 - half:.3f} to {0.8 + half:.2f}"),
        ("search 2", "0.990, failed", "0.990", "–"),
    )
    assert fresh(told(children, [final(children[0], ())])) is None


def test_the_front_is_what_nothing_cheaper_beats() -> None:
    costly = [(10, 0.5), (20, 0.4), (30, 0.7), (30, 0.8), (40, 0.8), (50, 0.9)]
    plot = costs(told([child(i, score, parameters=size) for i, (size, score) in enumerate(costly)]))
    assert plot is not None
    assert plot.rows == (("search 0", "10", "0.500"), ("search 3", "30", "0.800"), ("search 5", "50", "0.900"))
    by_time = costs(told([child(i, i / 10, parameters=0, seconds=float(i + 1)) for i in range(4)]))
    assert by_time is not None
    assert by_time.x.label == "seconds"
    assert costs(told([child(i, i / 10, parameters=0, seconds=1e-5 * i) for i in range(4)])) is None


def test_each_decision_that_mattered_has_a_picture_by_what_it_is() -> None:
    children = [
        child(i, i / 30, values={"rate": 10.0 ** (i % 5), "act": ["a", "b"][i % 2], "links": [i % 2, 1], "flat": i % 3}) for i in range(30)
    ]  # fmt: skip
    given = told(children, importance=[{"name": n, "share": 0.1} for n in ("rate", "act", "links", "flat", "gone")])
    rate, act, links, flat = decisions(given)
    assert [text for _, text in rate.x.ticks] == ["1", "10", "100", "1000", "10000"]
    assert [text for _, text in act.y.ticks] == ["b", "a"]
    assert act.rows[0][:3] == ("b", "15", "0.967")
    assert act.summary == "The median accuracy is best, 0.500, with b (15 of 30 children)."
    assert [row[0] for row in links.rows] == ["1", "2"]
    assert [row[0] for row in flat.rows] == ["0", "1", "2"]
    assert [p.title for p in decisions(told(children, importance=[{"name": "act", "share": 0.0}]))] == [
        "rate",
        "act",
        "links, how many",
        "flat",
    ]


def test_shares_by_origin_go_by_spans_of_the_search_alone() -> None:
    children = [child(i, origin="random" if i < 50 else "model") for i in range(100)] + [
        child(100, arm="control", origin="odd")
    ]
    (plot,) = health(told(children))
    assert plot.header == ("evaluations", "random", "model")
    assert plot.rows[0][1:] == ("100%", "0%")
    assert plot.rows[-1][1:] == ("0%", "100%")
    assert plot.summary == "Of all: random 50%, model 50%."
    assert health(told(children[:40])) == []


def test_what_the_sampler_says_of_itself_goes_by_its_updates() -> None:
    (plot,) = health(
        told([child(0)], health=[{"updates": 2 * i, "entropy_share": 1 - i / 10, "repeats": 0.1} for i in range(4)])
    )
    assert plot.rows[-1] == ("6", "70%", "10%")
    assert "Entropy, of the highest: 100% at first, 70% at last." in plot.summary


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3, 47, [0, 10, 20, 30, 40]),
        (0.931, 0.934, [0.931, 0.9315, 0.932, 0.9325, 0.933, 0.9335, 0.934]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert rounds(low, high) == pytest.approx(expected)


def test_ticks_by_ratios() -> None:
    assert powers(-4.1, 1.0) == pytest.approx([1e-4, 1e-3, 1e-2, 0.1, 1, 10])
    assert powers(0.3, 2.05) == pytest.approx([2, 5, 10, 20, 50, 100])
    assert [short(v) for v in (1e-4, 2e-7, 0.001, 12345.0, 1e6, 0.0)] == ["1e-4", "2e-7", "0.001", "12345", "1e6", "0"]


def test_a_scale_goes_from_end_to_end() -> None:
    scale = Scale.of([10.0, 1000.0], is_log=True, whole=True)
    assert [scale.share(v) for v in (1.0, 10.0, 100.0, 1000.0, 0.0)] == pytest.approx([0, 0, 0.5, 1, 0])


def test_shapes_are_written_and_read_back() -> None:
    shape = Shape("search dot", "", ((0.0, 0.0), (0.5, 0.25)), (3, 4))
    assert shape.path() == f"M0 {SIZE}h0M500 750h0"
    assert Shape("", "", ((0, 0), (0.5, 1)), join="steps").path() == "M0 1000H500V0"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisuseError):
        write(told([child(0)]), tmp_path)


# ---------------------------------------------------------------------- in a browser


@pytest.fixture
def show(browsed: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Opens the page of a search."""

    def open_page(given: Told, width: int = 1200, scheme: str = "light") -> Any:
        path = tmp_path / "page.html"
        write(given, path)
        return browsed(path.as_uri(), width, scheme)

    return open_page


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("width", [1200, 390])
def test_no_error_no_request_and_nothing_sticks_out(show: Callable[..., Any], name: str, width: int) -> None:
    page = show(CASES[name](), width, "dark" if width == 390 else "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dots = "[...document.querySelectorAll('.plot-shapes')].every(s => s.getBoundingClientRect().height > 40)"
    assert page.evaluate(dots)


@pytest.mark.slow
def test_the_child_under_the_pointer_is_named_and_shown_in_all_pictures(show: Callable[..., Any]) -> None:
    values = [{"rate": 10.0**-i} for i in range(5)]
    children = [child(i, 0.5 + 0.1 * i, values=values[i], parameters=100 * (i + 1)) for i in range(5)]
    page = show(told(children, importance=[{"name": "rate", "share": 0.5}]))
    area = page.locator("#chart-progress .area")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    path = page.locator('#chart-progress path[data-of="0 1 2 3 4"]').get_attribute("d")
    x, y = (int(v) / SIZE for v in re.findall(r"M(\d+) (\d+)", path)[2])
    page.mouse.move(box["x"] + x * box["width"] + 2, box["y"] + y * box["height"] - 2)
    assert (
        page.locator("#chart-progress .reading").inner_text()
        == "search 2 (random): accuracy 0.700, 3 epochs, all, 2.0 s, rate 0.01000"
    )
    assert page.locator("#chart-progress .ring, #chart-decision-0 .ring, #chart-costs .ring").count() == 3
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 60)
    assert page.locator(".ring").count() == 0
    assert not page.locator("#chart-progress .reading").is_visible()


@pytest.mark.slow
def test_colours_follow_the_reader_and_paper_is_light(show: Callable[..., Any]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page = show(CASES["many"](), 1200, "dark")
    assert page.evaluate(ground) == "rgb(19, 21, 24)"
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert len(page.pdf(format="A4")) > 10_000
