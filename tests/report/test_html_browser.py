"""The page in a real browser: no error, no request, steps on the axes, readable on a phone, in the dark and on paper."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unstuck.evidence import Event, Record
from unstuck.report.html import write
from unstuck.verdict import Verdict

sys.path.append(str(Path(__file__).parent))
from made_records import hostile, large

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.slow

Open = Callable[..., Any]
MADE: dict[str, Callable[[], tuple[Verdict, Record]]] = {"hostile": hostile, "large": lambda: large(10_000, 200)}


@pytest.fixture
def show(browsed: Open, cases: SimpleNamespace, tmp_path: Path) -> Open:
    """Opens the page of a made-up run."""

    def open_page(name: str, width: int = 1200, scheme: str = "light", **settings: Any) -> Any:
        path = tmp_path / f"{name}.html"
        verdict, record = MADE[name]() if name in MADE else getattr(cases, name)
        write(verdict, record, path)
        return browsed(path.as_uri(), width, scheme, **settings)

    return open_page


def _written(page: Any, chart: str) -> list[str]:
    page.wait_for_function("window.written.length > 0")
    page.wait_for_timeout(50)
    return [text for figure, text in page.evaluate("window.written") if figure == f"chart-{chart}"]


@pytest.mark.parametrize("name", ["vanishing", "healthy", "nan", "empty", "bare", "huge", "bent", "hostile"])
@pytest.mark.parametrize("width", [1200, 390])
def test_no_error_no_request_and_nothing_sticks_out(show: Open, name: str, width: int) -> None:
    page = show(name, width, "dark" if width == 390 else "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    charts = page.locator("figure.chart").count()
    assert page.locator("figure.chart canvas").count() == charts
    assert charts == {"vanishing": 4, "healthy": 4, "nan": 4, "huge": 4, "bent": 3, "hostile": 7}.get(name, 0)


def test_axes_are_labelled_by_steps_and_not_by_times(show: Open) -> None:
    texts = _written(show("vanishing"), "loss")
    assert "step" in texts
    assert {"0", "200", "400", "600", "800"} <= set(texts)
    assert "2.3" in texts
    assert "chance" in texts
    assert "loss" in texts
    # every text is a number, an axis' name or a mark: no "12:00am", no "1/1/70", no ":15"
    assert [text for text in texts if not re.fullmatch(r"[\d.e-]*|step|loss|chance", text)] == []
    assert texts.count("2") > 0  # the mark of the second finding, which rests on the last loss


def test_a_run_that_broke_early_shows_what_came_before_and_on_demand_the_rest(browsed: Open, tmp_path: Path) -> None:
    path = tmp_path / "broken.html"
    series = {("loss", ""): [9.0, 20.0, 1e4, 1e8] + [math.nan] * 396, ("lr", ""): [1.2] * 400}
    write(Verdict("sick"), Record.of(series, events=[Event(4, "non-finite")]), path)
    page = browsed(path.as_uri(), 1200, "light")
    assert {"0", "2", "4", "6", "8", "NaN or Inf"} <= set(_written(page, "loss")) and "300" not in _written(
        page, "loss"
    )
    assert {"0", "2", "4", "6", "8"} <= set(_written(page, "lr"))  # one span for all
    page.locator("#chart-loss .whole").click()
    page.wait_for_function("window.written.some(([id, text]) => id === 'chart-lr' && text === '300')")


def test_classes_are_bars_from_zero_that_keys_read_out(browsed: Open, tmp_path: Path) -> None:
    path = tmp_path / "classes.html"
    counts = {("label_count", ""): [[30.0, 70.0]], ("prediction_count", ""): [[45.0, 55.0]]}
    write(Verdict("healthy"), Record.of({("loss", ""): [1.0]}, vectors=counts), path)
    page = browsed(path.as_uri(), 1200, "light")
    assert {"0", "1", "0.2", "0.6"} <= set(_written(page, "classes"))
    page.locator("#chart-classes .plot").press("End")
    assert page.locator("#chart-classes .reading").text_content() == "class 1: labels 0.700, predictions 0.550"


def test_log_axes_show_powers_of_ten_and_lags_are_called_lags(show: Open) -> None:
    page = show("nan")
    assert {"1", "100", "1000"} <= set(_written(page, "loss"))
    assert "NaN or Inf" in _written(page, "loss")
    lags = _written(page, "lag")
    assert {"time lag, in steps", "gradient, relative to lag 0", "0", "10", "50", "1e6", "10000"} <= set(lags)
    assert "step" not in lags


def test_eigenvalues_are_numbers_on_an_axis_of_their_own(show: Open) -> None:
    page = show("bent")
    texts = set(_written(page, "density"))
    assert {"eigenvalue", "-2", "0", "2", "8", "1", "100"} <= texts
    assert "step" not in texts
    assert {"step", "0", "100", "400", "10"} <= set(_written(page, "sharpness"))


def test_the_scale_can_be_changed(show: Open) -> None:
    page = show("healthy")
    button = page.locator("#chart-loss .scale")
    assert button.get_attribute("aria-pressed") == "false"
    assert "100" not in _written(page, "loss")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert {"1", "10", "100"} <= set(_written(page, "loss"))


def test_a_few_steps_have_whole_numbers_below_them(browsed: Open, tmp_path: Path) -> None:
    for count in (1, 2, 3):
        path = tmp_path / f"{count}.html"
        write(Verdict("unknown"), Record.of({("loss", ""): [2.0, 1.0, 0.5][:count]}), path)
        page = browsed(path.as_uri(), 1280, "light")
        texts = _written(page, "loss")
        assert {str(step) for step in range(count)} <= set(texts)
        assert not any(text in texts for text in ("0.5", "0.25", "1.5")) or count == 3  # 0.5 is a loss there
        page.close()


def test_the_cell_under_the_pointer_is_read_out(show: Open) -> None:
    page = show("vanishing")
    figure = page.locator("#map-back_rms")
    figure.scroll_into_view_if_needed()
    box = figure.locator(".cells").bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    assert re.fullmatch(
        r"net\.0, step 0: gradient about \d\.\d?e-17|net\.0, step 0: gradient about .*",
        figure.locator(".reading").inner_text(),
    )
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] - 1)
    assert figure.locator(".reading").inner_text().startswith("net.38, step 920: gradient about 0.")
    assert figure.locator(".unit").inner_text().startswith("root mean square of the loss's gradient")
    assert figure.locator(".axis").all_inner_texts()[0] == "layer"
    assert "training step" in figure.locator(".axis").all_inner_texts()[1]


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
    canvas = page.locator("#chart-loss canvas")
    assert canvas.get_attribute("role") == "img"
    assert "Training: 2.32 at step 0" in canvas.get_attribute("aria-label")


def test_hostile_names_run_nothing(show: Open) -> None:
    page = show("huge")
    assert page.locator("img").count() == 0
    assert "<img src=x onerror=alert(1)>" in page.locator("h1").inner_text()


def test_a_page_that_grows_is_drawn_again_with_what_the_reader_chose(show: Open) -> None:
    page = show("vanishing")
    page.locator("#chart-loss .scale").click()
    canvas = page.locator("#chart-loss .u-over")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20, steps=4)
    page.mouse.up()
    page.evaluate(
        """() => {
          const copy = new DOMParser().parseFromString(document.documentElement.outerHTML, "text/html");
          copy.querySelectorAll(".plot").forEach((place) => place.replaceChildren());
          unstuck.erase();
          document.querySelector("main").replaceWith(document.importNode(copy.querySelector("main"), true));
          window.written = [];
          unstuck.draw();
        }"""
    )
    assert page.locator("figure.chart canvas").count() == 4
    assert page.locator("#chart-loss .scale").get_attribute("aria-pressed") == "true"
    assert page.locator("#chart-loss .whole").is_visible()
    steps = [int(text) for text in _written(page, "loss") if text.isdigit() and int(text) > 100]
    assert 200 <= min(steps) < max(steps) <= 500


def test_charts_and_maps_are_read_by_keyboard(show: Open) -> None:
    page = show("vanishing")
    plot, reading = page.locator("#chart-loss .plot"), page.locator("#chart-loss .reading")
    assert reading.get_attribute("aria-live") == "polite"
    plot.focus()
    page.keyboard.press("ArrowRight")
    assert re.fullmatch(r"step 0: each step 2\.3\d, training, smoothed 2\.3\d", reading.inner_text())
    page.keyboard.press("ArrowRight")
    assert reading.inner_text().startswith("step 2: ")  # the next point of the thinned line
    page.keyboard.press("End")
    assert re.match(r"step 937: .*evaluation 2\.30", reading.inner_text())
    page.keyboard.press("Home")
    page.keyboard.press("+")
    whole = page.locator(".whole:visible")
    assert whole.count() == 4  # charts over steps look closer together
    page.keyboard.press("Escape")
    assert whole.count() == 0
    page.locator("#map-back_rms .cells").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.locator("#map-back_rms .reading").inner_text().startswith("net.1, step 0: gradient about ")
    assert page.locator("#map-back_rms .cells .at").count() == 1


def test_everything_is_reached_by_tab_and_seen(show: Open) -> None:
    page = show("vanishing")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "findings"
    found = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        found.add(
            page.evaluate(
                "(() => { const e = document.activeElement, o = getComputedStyle(e);"
                " return `${e.closest('figure')?.id ?? ''} ${e.className} ${o.outlineStyle !== 'none'}` })()"
            )
        )
        if "map-back_rms cells true" in found:
            break
    assert {"chart-loss plot true", "chart-lr plot true", "chart-loss scale true", "map-back_rms cells true"} <= found
    assert not any(one.endswith("false") for one in found)


def test_a_finding_leads_to_its_mark_and_the_mark_back(show: Open) -> None:
    page = show("vanishing")
    page.locator("#finding-1 .scroll a").first.click()
    page.wait_for_function("document.querySelector('#map-back_rms .reading').textContent !== ''")
    assert page.locator("#map-back_rms .reading").inner_text().startswith("net.0, step 0: gradient about ")
    page.locator("#map-back_rms .flag").first.click()
    assert page.evaluate("location.hash") == "#finding-1"
    page.locator("#chart-loss .marked a").click()
    # It lies in something closed, which opens.
    assert page.locator("#finding-2").get_attribute("open") is not None
    page.locator("#finding-2 .scroll a").first.click()
    page.wait_for_function("document.querySelector('#chart-loss .reading').textContent !== ''")
    assert page.locator("#chart-loss .reading").inner_text().startswith("step 937: ")
    explained = page.locator("#cause-vanishing-gradient")
    assert not explained.locator(".prose").is_visible()
    explained.locator("summary").click()
    assert "When that is wrong" in explained.inner_text()


def test_a_filter_by_layer_reaches_maps_tables_and_findings(show: Open) -> None:
    page = show("vanishing")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.type("NET.3")
    shown = page.locator("#shown")
    playwright.expect(shown).to_have_text("10 of 39 layers")  # net.3 and net.30 to net.38
    assert page.locator("#map-back_rms .names button").all_inner_texts()[:2] == ["net.3", "net.30"]
    assert page.locator("#map-back_rms svg").get_attribute("viewBox").endswith(" 10")
    layers = page.locator("#table-layers")
    layers.locator("summary").click()
    playwright.expect(layers.locator("tbody tr:visible")).to_have_count(10)
    # The first finding sits elsewhere, but explains one that fits.
    assert page.locator("#finding-1").is_visible()
    assert not page.locator("#finding-4").is_visible()
    assert page.locator(".filtered").inner_text() == "3 of 4 findings"
    page.locator("#map-back_rms .names button", has_text="net.38").click()
    playwright.expect(shown).to_have_text("1 of 39 layers")
    assert page.locator("#filter").input_value() == '"net.38"'
    assert page.locator("#map-update_ratio .names button").all_inner_texts() == ["net.38.weight"]
    page.locator("#filter").focus()
    page.keyboard.press("Escape")
    playwright.expect(shown).to_have_text("")
    playwright.expect(layers.locator("tbody tr:visible")).to_have_count(39)
    assert page.locator("#finding-4").is_visible()


def test_10_000_layers_are_all_found(show: Open) -> None:
    page = show("large")
    page.locator("#table-layers summary").click()
    layers = page.locator("#table-layers tbody tr:visible")
    playwright.expect(layers).to_have_count(100)
    assert page.locator("#table-layers .rows").inner_text() == "100 of 10000 rows are shown"
    page.locator("#filter").fill("blocks.2499 out")
    playwright.expect(page.locator("#shown")).to_have_text("1 of 10000 layers")
    playwright.expect(layers).to_have_count(1)
    assert layers.first.locator("th").inner_text() == "encoder.blocks.2499.out"
    assert layers.first.locator("td").nth(1).inner_text() == "model.py:9999"
    box = page.locator("#map-back_rms .cells")
    box.focus()
    page.keyboard.press("End")
    assert page.locator("#map-back_rms .reading").inner_text().startswith("encoder.blocks.2499.out, step 1")
    page.locator("#filter").fill("query")
    playwright.expect(page.locator("#shown")).to_have_text("2500 of 10000 layers")
    assert page.locator("#map-back_rms .reading").inner_text() == "2500 rows fit the filter, one of every 8 is shown."
    page.locator("#filter").fill("nowhere")
    playwright.expect(page.locator("#map-back_rms .reading")).to_have_text("No row fits the filter.")
    # What was closed is drawn, and filtered, when it is opened.
    page.locator("#filter").fill('"encoder.blocks.7.key"')
    page.locator("details.more > summary").click()
    playwright.expect(page.locator("#map-weight_rms .reading")).to_have_text("No row fits the filter.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["vanishing", "nan", "bent"])
def test_axe_finds_nothing(show: Open, name: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    page = show(name, 1200, scheme, bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text("utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    told = [(v["id"], [node["html"][:200] for node in v["nodes"][:3]]) for v in found["violations"]]
    assert told == []


def test_paper_opens_what_matters_and_closes_it_again(show: Open) -> None:
    page = show("vanishing", 1200, "dark")
    explained = page.locator("#cause-vanishing-gradient")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert explained.get_attribute("open") is not None
    assert page.locator("#chart-loss canvas").bounding_box()["width"] <= 43 * 16
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert explained.get_attribute("open") is None


@pytest.mark.parametrize("width", [320, 390, 700])
def test_maps_with_long_names_stay_in_their_cards(show: Open, width: int) -> None:
    page = show("huge", width)
    sticking = """() => {
      const right = (part) => part.getBoundingClientRect().right;
      const parts = [...document.querySelectorAll("figure.map :is(.cells, .names, .ticks, .legend)")];
      return parts.filter((part) => part.clientWidth && right(part) > right(part.closest("figure"))).length;
    }"""
    assert page.locator("figure.map").count() > 0 and page.evaluate(sticking) == 0


def test_forced_colours_and_still_pages_draw_all(show: Open) -> None:
    page = show("vanishing", 1200, "light", forced_colors="active", reduced_motion="reduce")
    assert page.locator("figure.chart canvas").count() == 4
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_nothing_of_a_hostile_record_runs(show: Open) -> None:
    page = show("hostile")
    assert page.evaluate("document.scripts.length") == 6  # five of ours, and the data
    assert page.locator("main img").count() == 0
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    page.locator("#filter").fill("</script>")
    playwright.expect(page.locator("#shown")).to_have_text("3 of 6 layers")
    page.locator("#table-layers .pick:visible").first.click()
    playwright.expect(page.locator("#shown")).to_have_text("1 of 6 layers")
