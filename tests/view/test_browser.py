"""The live view in a real browser: runs are seen growing, the reader's place is kept, nothing is asked of anybody else."""

from __future__ import annotations

import importlib.resources
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.slow

PATIENCE = 90_000  # milliseconds
LAST_STEP = """(() => {
  const charts = JSON.parse(document.getElementById("data")?.textContent ?? '{"charts": []}').charts;
  const lines = charts.find((chart) => chart.id === "loss")?.lines ?? [];
  return Math.max(-1, ...lines.flatMap((line) => line.x));
})()"""
# In one go, as the chart may be drawn anew between two questions.
PLACE_OF_PLOT = """(() => {
  const plot = document.querySelector("#chart-loss .u-over");
  plot.scrollIntoView({block: "center", behavior: "instant"});
  const {x, y, width} = plot.getBoundingClientRect();
  return {x, y, width};
})()"""
ONE, TWO = "20250101-000000-one", "20250202-000000-two"
NASTY = "</script><img src=x onerror=alert(1)>&\"'"
TRAINING = """
    import sys, time
    from pathlib import Path

    import torch
    from torch import nn

    torch.manual_seed(0)
    x = torch.randn(512, 8)
    y = (x[:, 0] * x[:, 1] > 0).long()
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    while not Path(sys.argv[1]).exists():
        pick = torch.randint(0, 512, (32,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[pick]), y[pick]).backward()
        optimizer.step()
        time.sleep(0.002)
"""


@pytest.fixture
def show(serve: Callable[..., Any], browsed: Callable[..., Any]) -> Callable[..., Any]:
    """Opens a page that asks nobody but its server, which ends after the page does."""

    def open_page(url: str, width: int = 1280, scheme: str = "light") -> Any:
        own = "/".join(url.split("/")[:3]) + "/"
        return browsed(url, width, scheme, own=own, patience=PATIENCE)

    return open_page


@pytest.fixture
def training(tmp_path: Path, folder: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[bytes], Path]]]:
    """Starts a real training under `unstuck run`, and gives the file that ends it."""
    started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start() -> tuple[subprocess.Popen[bytes], Path]:
        script, enough = tmp_path / "small.py", tmp_path / "enough"
        script.write_text(textwrap.dedent(TRAINING))
        command = [
            sys.executable,
            "-m",
            "unstuck",
            "run",
            "--quiet",
            "--probe-budget",
            "0",
            "--runs",
            str(folder),
            str(script),
            str(enough),
        ]
        started.append((subprocess.Popen(command, cwd=tmp_path), enough))
        return started[-1]

    yield start
    for child, enough in started:
        enough.touch()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def ended_run(grow: Callable[..., Any], name: str = ONE, **meta: Any) -> None:
    run = grow(name, **meta)
    run.grow(300)
    run.end(verdict="healthy", seconds=3.0)


def until(page: Any, claim: str) -> None:
    """Waits until a claim holds; asked from outside, since what the page may run is forbidden to be made of strings."""
    for _ in range(PATIENCE // 50):
        if page.evaluate(f"Boolean({claim})"):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"waited in vain for {claim}")


def texts(page: Any, chart: str) -> set[str]:
    """What is written on a chart."""
    return {text for figure, text in page.evaluate("window.written") if figure == f"chart-{chart}"}


def steps_on_axis(page: Any) -> list[int]:
    """Numbers below the chart of the loss; those of the loss itself are smaller than 5."""
    return sorted({int(t) for t in texts(page, "loss") if t.isdigit() and int(t) >= 5})


def bar(page: Any) -> str:
    return page.locator("#live .word").inner_text()


def test_a_run_is_seen_growing(show: Callable[..., Any], serve: Callable[..., Any], training: Any) -> None:
    served = serve()
    page = show(served.url)
    assert "There are no runs yet" in page.locator("main").inner_text()
    child, enough = training()
    page.locator("#runs tbody tr.running").wait_for()
    page.locator("#runs tbody a").click()
    until(page, f"{LAST_STEP} > 100")
    assert bar(page) == "live"
    first = page.evaluate(LAST_STEP)

    # the reader looks closer, filters, opens a table
    box = page.evaluate(PLACE_OF_PLOT)
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 50, steps=5)
    page.evaluate("window.written = []")
    page.mouse.up()
    until(page, "window.written.length > 0")
    page.locator("#filter").fill("0")
    details = page.locator("#chart-loss details").first
    details.locator("summary").click()
    page.evaluate("window.written = []")
    seen = page.evaluate(LAST_STEP)
    until(page, f"{LAST_STEP} > {seen} && window.written.length > 0")
    closer = steps_on_axis(page)
    assert closer and max(closer) <= first
    page.evaluate("window.written = []")
    seen = page.evaluate(LAST_STEP)
    until(page, f"{LAST_STEP} > {seen} + 100 && window.written.length > 0")
    assert steps_on_axis(page) == closer
    assert page.locator("#filter").input_value() == "0"
    assert page.locator("#filter").evaluate("(field) => field === document.activeElement") is False
    assert page.locator("#chart-loss details").first.evaluate("(details) => details.open")
    assert re.search(r"\b1 of \d+ layers", page.locator("#shown").inner_text())

    # the reader wants it to stand still for a while
    page.locator("#live button").click()
    page.locator("#live.paused").wait_for()
    still = page.evaluate(LAST_STEP)
    page.get_by_text("There is something new.").wait_for()
    assert page.evaluate(LAST_STEP) == still
    page.locator("#live button").click()
    until(page, f"{LAST_STEP} > {still}")

    enough.touch()
    assert child.wait(120) == 0
    page.locator("#live.ended").wait_for()
    until(page, "document.querySelector('#live .word').textContent === 'finished'")
    until(page, "!document.querySelector('main').textContent.includes('still running')")
    page.locator("#live a").click()
    page.locator("#runs tbody tr.finished .verdict").wait_for()


def test_the_place_on_the_page_is_kept(show: Callable[..., Any], serve: Callable[..., Any], grow: Any) -> None:
    run = grow()
    run.grow(300)
    page = show(f"{serve().url}/runs/{run.path.name}")
    until(page, f"{LAST_STEP} === 299")
    summary = page.locator("#details details summary").last
    summary.scroll_into_view_if_needed()
    summary.focus()
    before = summary.bounding_box()["y"]
    run.grow(50)
    until(page, f"{LAST_STEP} === 349")
    summary = page.locator("#details details summary").last
    assert abs(summary.bounding_box()["y"] - before) < 60
    assert summary.evaluate("(element) => element === document.activeElement")
    run.end()
    page.locator("#live.ended").wait_for()


def test_what_is_marked_stays_while_it_is(show: Callable[..., Any], serve: Callable[..., Any], grow: Any) -> None:
    run = grow()
    run.grow(20)
    page = show(f"{serve().url}/runs/{run.path.name}")
    until(page, f"{LAST_STEP} === 19")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    run.grow(20)
    until(page, "document.querySelector('#live .told').textContent.startsWith('40 steps')")
    page.wait_for_timeout(1000)
    assert page.evaluate(LAST_STEP) == 19
    assert page.evaluate("getSelection().toString().length") > 5
    page.evaluate("getSelection().removeAllRanges()")
    until(page, f"{LAST_STEP} === 39")


def test_a_server_that_is_gone_is_missed(browser: Any, serve: Callable[..., Any], grow: Any) -> None:
    grow().grow(20)
    served = serve()
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(served.url)
    page.locator("#live.live").wait_for()
    page.route("**/changes", lambda route: route.abort())
    page.route("**/*part=main*", lambda route: route.abort())
    served.view.news.close()  # the stream ends, and can't be opened again
    page.locator("#live.lost").wait_for()
    assert bar(page) == "no contact"
    assert "Is `unstuck view` still running?" in page.locator("#live").inner_text()
    page.close()


def test_the_list_sorts_filters_and_compares(show: Callable[..., Any], serve: Callable[..., Any], grow: Any) -> None:
    ended_run(grow, ONE, script="alpha.py", started="2025-01-01T00:00:00+00:00")
    other = grow(TWO, script="beta.py", started="2025-02-02T00:00:00+00:00")
    other.grow(40)
    page = show(serve().url)
    names = lambda: page.locator("#runs tbody tr:not([hidden]) th").all_inner_texts()  # noqa: E731
    assert names() == [TWO, ONE]
    page.get_by_role("button", name="steps").click()
    assert names() == [ONE, TWO]
    page.get_by_role("button", name="steps").click()
    assert names() == [TWO, ONE]
    assert page.locator('th[data-key="steps"]').get_attribute("aria-sort") == "ascending"
    page.keyboard.press("/")
    page.keyboard.type("beta")
    assert names() == [TWO]
    assert page.locator("#found").inner_text() == "1 of 2 shown"
    other.grow(400)  # more than the other has now
    until(page, "document.querySelector('#runs').textContent.includes('440')")
    assert names() == [TWO]
    assert page.locator("#filter").evaluate("(field) => field === document.activeElement && field.selectionStart === 4")
    page.keyboard.press("Escape")
    assert names() == [ONE, TWO]  # sorted as was asked for, by what is there now
    page.locator("#runs input").nth(0).check()
    assert page.locator("#compare").get_attribute("aria-disabled") == "true"
    page.locator("#runs input").nth(1).check()
    page.locator("#compare").click()
    page.locator("#chart-loss canvas").wait_for()
    assert page.url.endswith(f"/compare?a={ONE}&b={TWO}")


def test_two_runs_on_the_same_axes(show: Callable[..., Any], serve: Callable[..., Any], grow: Any) -> None:
    ended_run(grow, ONE)
    other = grow(TWO)
    other.grow(100, scale=20.0, rate=0.3)
    page = show(f"{serve().url}/compare?a={ONE}&b={TWO}")
    page.locator("#chart-loss canvas").wait_for()
    until(page, "window.written.some(([id]) => id === 'chart-loss')")
    assert {"step", "loss", "0", "100", "200"} <= texts(page, "loss")
    assert "L2 norm of the gradient" in texts(page, "grad_norm")
    assert page.locator("#chart-loss .u-legend .u-label").all_inner_texts()[1:] == ["A", "B"]
    assert "lr" not in page.locator("#differs").inner_text()  # what the optimizer was made with is the same
    row = page.locator("#layers tbody tr", has_text="net.0")
    assert row.locator("td").all_inner_texts()[:3] == ["0.00100", "0.0200", "× 20"]
    assert row.locator("td.far").count() == 1
    page.locator("#filter").fill("net.2")
    until(page, "document.querySelectorAll('#layers tbody tr:not([hidden])').length === 1")
    assert bar(page) == "live"
    other.grow(50)
    until(
        page, f"{LAST_STEP} === 299 && document.querySelector('#chart-loss .summary').textContent.includes('step 149')"
    )
    until(page, "document.querySelectorAll('#layers tbody tr:not([hidden])').length === 1")


def test_hostile_names_run_nothing(show: Callable[..., Any], serve: Callable[..., Any], grow: Any) -> None:
    name = "a&b='c'<img src=x onerror=alert(1)>"
    ended_run(grow, name, script=NASTY)
    ended_run(grow, TWO, script="x" * 3000)
    page = show(serve().url)
    assert page.locator("img").count() == 0
    assert name in page.locator("#runs").inner_text()
    page.get_by_role("link", name=name).click()
    page.locator("#chart-loss canvas").wait_for()
    assert page.locator("img").count() == 0
    assert name in page.locator("#live").inner_text()
    page.locator("#live a").click()
    for box in page.locator("#runs input").all():
        box.check()
    page.locator("#compare").click()
    page.locator("#chart-loss canvas").wait_for()
    assert page.locator("img").count() == 0


PAGES = {
    "list": "/",
    "run": f"/runs/{ONE}",
    "compare": f"/compare?a={ONE}&b={TWO}",
    "trouble": "/runs/20250303-000000-soon",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everyone_can_read_it(
    show: Callable[..., Any], serve: Callable[..., Any], grow: Any, folder: Path, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    script = importlib.resources.files(axe).joinpath("axe.min.js").read_text("utf-8")
    ended_run(grow, ONE)
    grow(TWO, script="a_rather_long_name_of_a_script_as_people_have_them.py").grow(100, scale=20.0)
    (folder / "20250303-000000-soon").mkdir()
    served = serve()
    for name, path in PAGES.items():
        page = show(served.url + path, width, scheme)
        page.locator("#live .word").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        page.evaluate(script)
        found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
        told = [(v["id"], [(n["html"][:200], n["failureSummary"]) for n in v["nodes"][:3]]) for v in found]
        assert told == [], name
        page.context.close()


def test_in_chinese(show: Callable[..., Any], serve: Callable[..., Any], grow: Any) -> None:
    from unstuck._language import speaking

    ended_run(grow, ONE)
    with speaking("zh"):
        page = show(serve().url)
    assert page.locator("html").get_attribute("lang") == "zh"
    assert "unstuck" in page.locator("#live").inner_text()
