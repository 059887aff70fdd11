"""The page in a real browser: no error, no request, steps on the axes, readable on a phone, in the dark and on paper."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unstuck.report.html import write

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium was found on the PATH"),
    pytest.mark.slow,
]

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# A canvas keeps no text: what is written on it is noted down as it is written.
NOTE_TEXTS = """
window.written = [];
const write = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
  window.written.push([this.canvas.closest("figure")?.id ?? "", String(text)]);
  return write.call(this, text, ...rest);
};
"""
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def show(browser: Any, cases: SimpleNamespace, tmp_path: Path) -> Iterator[Open]:
    """Open the page of a made-up run; afterwards nothing may have been said or asked for."""
    troubles: list[str] = []
    contexts = []

    def open_page(name: str, width: int = 1200, scheme: str = "light") -> Any:
        path = tmp_path / f"{name}.html"
        verdict, record = getattr(cases, name)
        write(verdict, record, path)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(NOTE_TEXTS)
        page.on("console", lambda message: troubles.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda request: troubles.append(request.url) if _is_far(request.url) else None)
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def _is_far(url: str) -> bool:
    return not url.startswith(("file:", "data:"))


def _written(page: Any, chart: str) -> list[str]:
    page.wait_for_function("window.written.length > 0")
    page.wait_for_timeout(50)
    return [text for figure, text in page.evaluate("window.written") if figure == f"chart-{chart}"]


@pytest.mark.parametrize("name", ["vanishing", "healthy", "nan", "empty", "bare", "huge", "bent"])
@pytest.mark.parametrize("width", [1200, 390])
def test_no_error_no_request_and_nothing_sticks_out(show: Open, name: str, width: int) -> None:
    page = show(name, width, "dark" if width == 390 else "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    charts = page.locator("figure.chart").count()
    assert page.locator("figure.chart canvas").count() == charts
    assert charts == {"vanishing": 4, "healthy": 4, "nan": 4, "huge": 4, "bent": 3}.get(name, 0)


def test_axes_are_labelled_by_steps_and_not_by_times(show: Open) -> None:
    texts = _written(show("vanishing"), "loss")
    assert "step" in texts
    assert {"0", "200", "400", "600", "800"} <= set(texts)
    assert "2.3" in texts
    assert "chance" in texts
    # every text is a number, the axis' name or a mark: no "12:00am", no "1/1/70", no ":15"
    assert [text for text in texts if not re.fullmatch(r"[\d.e-]*|step|chance", text)] == []


def test_log_axes_show_powers_of_ten_and_lags_are_called_lags(show: Open) -> None:
    page = show("nan")
    assert {"1", "100", "1000"} <= set(_written(page, "loss"))
    assert "NaN or Inf" in _written(page, "loss")
    lags = _written(page, "lag")
    assert {"lag", "0", "10", "50", "1e6", "10000"} <= set(lags)
    assert "step" not in lags


def test_eigenvalues_are_numbers_on_an_axis_of_their_own(show: Open) -> None:
    page = show("bent")
    texts = set(_written(page, "density"))
    assert {"eigenvalue", "-2", "0", "2", "8", "1", "100"} <= texts
    assert "step" not in texts
    assert {"step", "0", "100", "400", "10"} <= set(_written(page, "sharpness"))


def test_the_scale_can_be_changed(show: Open) -> None:
    page = show("healthy")
    button = page.locator("#chart-loss button")
    assert button.get_attribute("aria-pressed") == "false"
    assert "100" not in _written(page, "loss")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert {"1", "10", "100"} <= set(_written(page, "loss"))


def test_a_few_steps_have_whole_numbers_below_them(browser: Any, tmp_path: Path) -> None:
    from unstuck.evidence import Record
    from unstuck.verdict import Verdict

    for count in (1, 2, 3):
        path = tmp_path / f"{count}.html"
        write(Verdict("unknown"), Record.of({("loss", ""): [2.0, 1.0, 0.5][:count]}), path)
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        page.add_init_script(NOTE_TEXTS)
        page.goto(path.as_uri())
        texts = _written(page, "loss")
        assert errors == []
        assert {str(step) for step in range(count)} <= set(texts)
        assert not any(text in texts for text in ("0.5", "0.25", "1.5")) or count == 3  # 0.5 is a loss there
        page.close()


def test_the_cell_under_the_pointer_is_read_out(show: Open) -> None:
    page = show("vanishing")
    figure = page.locator("figure.map").first
    figure.scroll_into_view_if_needed()
    box = figure.locator(".cells").bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    assert re.fullmatch(
        r"net\.0, step 0: gradient about \d\.\d?e-17|net\.0, step 0: gradient about .*",
        figure.locator(".reading").inner_text(),
    )
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] - 1)
    assert figure.locator(".reading").inner_text().startswith("net.38, step 920: gradient about 0.")
    assert figure.locator("title").first.text_content().startswith("net.0: ")


def test_colours_follow_the_reader_and_paper_is_light(show: Open) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    assert show("vanishing", 1200, "light").evaluate(ground) == "rgb(247, 247, 245)"
    page = show("vanishing", 1200, "dark")
    assert page.evaluate(ground) == "rgb(19, 21, 24)"
    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert len(page.pdf(format="A4")) > 10_000


def test_tables_behind_charts_open(show: Open) -> None:
    page = show("vanishing")
    details = page.locator("#chart-loss details")
    assert not details.locator("table").is_visible()
    details.locator("summary").click()
    assert details.locator("table").is_visible()
    assert details.locator("tbody tr").count() == 16
    assert "Training: 2.32 at step 0" in page.locator("#chart-loss .plot").get_attribute("aria-label")


def test_hostile_names_run_nothing(show: Open) -> None:
    page = show("huge")
    assert page.locator("img").count() == 0
    assert "<img src=x onerror=alert(1)>" in page.locator("h1").inner_text()
