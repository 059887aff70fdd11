"""The page on batch sizes: complete in itself, safe, and with every number of its pictures in a table."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from unstuck._language import speaking
from unstuck.report.batch_page import render, write


class Reader(HTMLParser):
    """Collects tags, attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "path", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_and_asks_for_nothing(batches: SimpleNamespace) -> None:
    read = Reader(render(batches.record()))
    assert read.open == []
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in read.tags}
    policy = next(a["content"] for tag, a in read.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    links = [a.get("href") or a.get("src") or "" for _, a in read.tags]
    assert not [link for link in links if "//" in link]


def test_four_pictures_with_their_tables(batches: SimpleNamespace) -> None:
    page = render(batches.record())
    assert re.findall(r'<figure class="card plotted" id="chart-(\w+)"', page) == ["time", "noise", "update", "pass"]
    assert page.count("<summary>Numbers</summary>") == 4
    assert 'class="band"' in page
    assert 'class="advised"' in page


def test_the_band_lies_about_the_line(batches: SimpleNamespace) -> None:
    """Of each size its low end is drawn below and its high end above its time; the drawing's axis points down."""
    page = render(batches.record())
    path = re.search(r'<path class="band" d="([^"]+)"', page[page.index('plot-shapes" viewBox') :])
    assert path
    boxes = [
        [tuple(map(int, xy.split())) for xy in re.split("[ML]", box) if xy] for box in re.findall(r"M[^M]+", path[1])
    ]
    assert len(boxes) == len(batches.sizes) - 1
    for (x0, low0), (x1, high0), (x2, high1), (x3, low1) in boxes:
        assert x0 == x1 < x2 == x3
        assert low0 >= high0
        assert low1 >= high1


def test_words_and_numbers_are_there(batches: SimpleNamespace) -> None:
    text = " ".join(Reader(render(batches.record())).text.split())
    for words in (
        "With batches of 128 instead of 32",
        "learning rate times 3.3",
        "Least with batches of 128: 45% of the time",
        "recommended",
        "Time of an update",
        "Noise scale along the run",
    ):
        assert words in text


def test_its_own_is_kept(batches: SimpleNamespace) -> None:
    page = render(batches.record(choice={"recommended": 32, "why": "fastest"}))
    assert "keep it" in page
    assert 'class="advised"' not in page


def test_text_of_the_user_is_escaped(batches: SimpleNamespace, cases: SimpleNamespace) -> None:
    page = render(batches.record(own={"batch_norms": [cases.NASTY], "optimizer": cases.NASTY, "clipping": cases.NASTY}))
    assert "<img" not in page
    assert "\x1b" not in page


def test_it_is_written(batches: SimpleNamespace, tmp_path: Path) -> None:
    write(batches.record(), tmp_path / "b.html")
    assert (tmp_path / "b.html").read_text() == render(batches.record())


@pytest.mark.parametrize("left", [0, 1])
def test_a_pass_needs_the_number_of_samples(batches: SimpleNamespace, left: int) -> None:
    sizes = [{**s, "epoch_seconds": None} if left == 0 else s for s in batches.sizes]
    assert ("chart-pass" in render(batches.record(sizes=sizes))) == bool(left)


def test_where_nothing_could_be_told_it_says_so_in_chinese_too(batches: SimpleNamespace) -> None:
    busy = batches.record(own={"threads": 2}, choice={"recommended": 32, "why": "busy", "waited": 0.43})
    with speaking("zh_CN"):
        assert '<span class="badge">未知</span>' in render(busy)
