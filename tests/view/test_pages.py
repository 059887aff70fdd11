"""Pages over the wire: what they show, what they cost, what they leave alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import unstuck.view.pages

ONE, TWO = "20250101-000000-one", "20250202-000000-two"


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything in a folder: names, sizes and times."""
    return {
        str(p.relative_to(folder)): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps each record had of which the page of a run was drawn."""
    steps: list[int] = []
    render = unstuck.view.pages.html.render
    monkeypatch.setattr(
        unstuck.view.pages.html, "render", lambda v, r, **live: steps.append(r.steps) or render(v, r, **live)
    )
    return steps


def test_the_list_tells_how_runs_stand(grow: Callable[..., Any], serve: Callable[..., Any]) -> None:
    run = grow(ONE)
    run.grow(50)
    run.end(verdict="sick", seconds=75.0)
    grow(TWO, script="/home/me/<b>models</b>/other.py").grow(7)
    _, _, text = serve().ask("/")
    first, second = re.findall(r'<tr class="(\w+)">(.*?)</tr>', text, re.S)
    assert (first[0], second[0]) == ("running", "finished")  # the newest first
    assert TWO in first[1] and "/runs/" + TWO in first[1] and "other.py" in first[1] and "<b>" not in first[1]
    assert "running" in first[1] and ">7<" in first[1]
    assert "sick" in second[1] and "1 min 15 s" in second[1] and ">50<" in second[1]
    assert '<svg class="spark"' in second[1] and ">1.41<" in second[1]  # 2.3 * 0.99 ** 49


def test_ten_windows_cost_as_one(grow: Callable[..., Any], serve: Callable[..., Any], drawn: list[int]) -> None:
    run = grow(ONE)
    run.grow(20)
    served = serve()
    with ThreadPoolExecutor(10) as many:
        answers = list(many.map(lambda _: served.ask(f"/runs/{ONE}"), range(10)))
    assert drawn == [20]
    assert len({answer[2] for answer in answers}) == 1
    run.grow(20)
    served.ask(f"/runs/{ONE}")
    served.ask(f"/runs/{ONE}?part=main")
    assert drawn == [20, 40]


@pytest.mark.slow
def test_a_part_is_what_changes_of_the_page(grow: Callable[..., Any], serve: Callable[..., Any]) -> None:
    grow(ONE).grow(20)
    grow(TWO).grow(20)
    served = serve()
    for path, part in (("/", "/?part=main"), (f"/runs/{ONE}", f"/runs/{ONE}?part=main"),
                       (f"/compare?a={ONE}&b={TWO}", f"/compare?a={ONE}&b={TWO}&part=main")):  # fmt: skip
        _, headers, whole = served.ask(path)
        _, _, main = served.ask(part)
        assert main.startswith("<main") and main.endswith("</main>") and main.count("<main") == 1
        assert main in whole
        assert "<script>" not in main
        assert "can't be shown" not in main
        assert f'data-state="{headers["etag"]}"' in whole


def test_a_page_of_a_moment_ago_will_do_for_a_window_that_follows(
    grow: Callable[..., Any], serve: Callable[..., Any], drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unstuck.view.pages, "_REST", 1e6)
    run = grow(ONE)
    run.grow(20)
    served = serve()
    _, before, _ = served.ask(f"/runs/{ONE}?part=main")
    run.grow(20)
    _, after, _ = served.ask(f"/runs/{ONE}?part=main")
    assert before["etag"] == after["etag"]  # which tells that it is old
    assert drawn == [20]
    _, now, _ = served.ask(f"/runs/{ONE}")
    assert now["etag"] != before["etag"]
    assert drawn == [20, 40]


def test_a_broken_record_says_so_and_the_list_goes_on(
    folder: Path, grow: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    grow(ONE).grow(5)
    (folder / TWO).mkdir()
    (folder / TWO / "record.sqlite").write_bytes(b"this is no record" * 1000)
    (folder / "20250303-000000-soon").mkdir()
    served = serve()
    status, _, text = served.ask("/")
    assert status == 200 and "unreadable" in text and "nothing recorded" in text and ONE in text
    status, _, text = served.ask(f"/runs/{TWO}")
    assert status == 200 and "is not a record of unstuck" in text and "fault of unstuck" not in text
    status, _, text = served.ask("/runs/20250303-000000-soon")
    assert status == 200 and "nothing was recorded there" in text and 'class="live screen"' in text
    assert served.ask(f"/compare?a={ONE}&b={TWO}")[0] == 200
    assert served.ask(f"/runs/{ONE}")[0] == 200


def test_a_run_that_goes_on_was_not_stopped_too_early(grow: Callable[..., Any], serve: Callable[..., Any]) -> None:
    run = grow(ONE)
    run.grow(100)  # the loss falls all the time
    served = serve()
    assert "<code>undertrained</code>" not in served.ask(f"/runs/{ONE}")[2]
    run.end()
    assert "<code>undertrained</code>" in served.ask(f"/runs/{ONE}")[2]


def test_a_fault_of_ours_is_shown_and_told(
    grow: Callable[..., Any], serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    grow(ONE).grow(5)
    monkeypatch.setattr(unstuck.view.pages, "diagnose", lambda record, settings: 1 / 0)
    served = serve()
    status, _, text = served.ask(f"/runs/{ONE}")
    assert status == 200 and "ZeroDivisionError" in text and "fault of unstuck" in text
    assert "Traceback" in caplog.text
    assert served.ask("/")[0] == 200


@pytest.mark.slow
def test_the_stream_tells_of_growth_and_of_the_end(grow: Callable[..., Any], serve: Callable[..., Any]) -> None:
    run = grow(ONE)
    run.grow(5)
    stream = serve().listen(f"/changes?run={ONE}")
    first = next(stream)
    assert (first["kind"], first["word"]) == ("live", "live") and first["says"].startswith("5 steps")
    run.grow(5)
    second = next(s for s in stream if s["says"].startswith("10 steps"))
    assert second["state"] != first["state"]
    run.end()
    last = next(s for s in stream if s["kind"] == "ended")
    assert last["word"] == "finished"
    assert last["state"] not in (first["state"], second["state"])


@pytest.mark.slow
def test_nothing_is_written(folder: Path, grow: Callable[..., Any], serve: Callable[..., Any]) -> None:
    ended, growing = grow(ONE), grow(TWO)
    ended.grow(30)
    ended.end()
    growing.grow(30)
    (folder / "20250303-000000-soon").mkdir()
    killed = folder / "20250404-000000-killed"  # the log is left, what readers share of it is not
    killed.mkdir()
    for name in ("record.sqlite", "record.sqlite-wal"):
        (killed / name).write_bytes((growing.path / name).read_bytes())
    before, here = tree(folder.parent), set(Path.cwd().iterdir())
    served = serve()
    for path in ("/", f"/runs/{ONE}", f"/runs/{TWO}", "/runs/20250404-000000-killed", "/runs/20250303-000000-soon",
                 f"/compare?a={ONE}&b={TWO}"):  # fmt: skip
        assert served.ask(path)[0] == 200
    next(served.listen("/changes"))
    next(served.listen(f"/changes?run={TWO}"))
    assert tree(folder.parent) == before
    assert set(Path.cwd().iterdir()) == here
    growing.grow(5)  # its writer was not disturbed


def test_many_runs_come_at_once_and_pictures_follow(
    grow: Callable[..., Any], serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(ONE).grow(20)
    monkeypatch.setattr(unstuck.view.pages, "_PICTURES", -1.0)
    served = serve()
    _, headers, text = served.ask("/")
    assert headers["etag"].endswith("-1") and '<svg class="spark"' not in text and ONE in text
    monkeypatch.setattr(unstuck.view.pages, "_PICTURES", 60.0)
    _, headers, text = served.ask("/")
    assert "-" not in headers["etag"] and '<svg class="spark"' in text
    assert next(served.listen("/changes"))["state"] == headers["etag"]


def test_names_that_need_quoting(grow: Callable[..., Any], serve: Callable[..., Any]) -> None:
    name = 'a&b="c"?#% 100 \u00e9\u202e<script>'
    grow(name).grow(20)
    grow(ONE).grow(5)
    served = serve()
    _, _, text = served.ask("/")
    [address] = [a for a in re.findall(r'href="(/runs/[^"]*)"', text) if ONE not in a]
    assert "<script>a" not in text and "<script>alert" not in text
    status, _, page = served.ask(address)
    assert status == 200 and "20" in page
    key = address.removeprefix("/runs/")
    assert "Two runs side by side" in served.ask(f"/compare?a={key}&b={ONE}")[2]
    assert next(served.listen(f"/changes?run={key}"))["says"].startswith("20 steps")
