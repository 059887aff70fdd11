"""The documentation site: it builds without a warning, all of it hangs together, and it needs no other host."""

from __future__ import annotations

import html.parser
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from unstuck._discover import find
from unstuck.report._remedies import REMEDIES
from unstuck.verdict import CAUSES

pytestmark = pytest.mark.slow
pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parents[1]
HAS_A_BROWSER = Path("/usr/bin/chromium")


@dataclass
class Page(html.parser.HTMLParser):
    """What a page offers to links, what it links to, and what it loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    navigation: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
            if "md-nav__link" in found.get("class", ""):
                self.navigation.append(found["href"])
        elif tag in ("script", "img", "iframe", "source") and "src" in found:
            self.loaded.append(found["src"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect", "preload", "prefetch"):
            self.loaded.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site. Any warning of the build is an error: `--strict`."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site, by its file."""
    found = {}
    for file in site.rglob("*.html"):
        found[file] = Page()
        found[file].feed(file.read_text())
    return found


def led_to(link: str, file: Path) -> tuple[Path, str]:
    parts = urlsplit(link)
    return ((file.parent / unquote(parts.path)).resolve() if parts.path else file), unquote(parts.fragment)


def test_every_link_and_anchor_leads_somewhere(pages: dict[Path, Page]):
    broken = []
    for file, page in pages.items():
        for link in page.links if file.name != "404.html" else ():
            if urlsplit(link).scheme:
                continue
            target, anchor = led_to(link, file)
            leads = target.exists() and (not anchor or target not in pages or anchor in pages[target].anchors)
            broken += [] if leads else [(str(file), link)]
    assert not broken


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]):
    for file, page in pages.items():
        elsewhere = [url for url in page.loaded if urlsplit(url).netloc]
        assert not elsewhere, file
        missing = [url for url in page.loaded if not urlsplit(url).scheme and not led_to(url, file)[0].exists()]
        assert not missing or file.name == "404.html", (file, missing)


def test_every_cause_rule_and_remedy_has_its_page(site: Path):
    for room, names in {"causes": CAUSES, "rules": find("rules"), "remedies": REMEDIES}.items():
        assert {file.stem for file in (site / room).glob("*.html")} == {*names, "index"}


def test_a_page_of_a_cause_holds_what_its_rule_says(site: Path):
    text = (site / "causes" / "vanishing-gradient.html").read_text()
    for said in (
        "How it is told apart",
        "When it is wrong",
        "What treats it",
        "../remedies/activation.html",
        "dead-units.html",
    ):
        assert said in text
    thresholds = (site / "rules" / "vanishing-gradient.html").read_text()
    assert "<code>lag_ratio</code>" in thresholds
    assert "<code>0.001</code>" in thresholds


def test_every_page_of_docs_is_in_the_navigation(site: Path, pages: dict[Path, Page]):
    listed = {
        led_to(link, file)[0] for file, page in pages.items() if file.name != "404.html" for link in page.navigation
    }
    written = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "tutorials").glob("*.md")]
    assert written
    for page in written:
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")) in listed, page


def test_the_reference_holds_modules_that_pages_link_to(site: Path):
    text = (site / "reference" / "optim" / "lamb.html").read_text()
    assert "Adam with a trust ratio" in text
    assert 'href="reference/optim/lamb.html"' in (site / "optim.html").read_text()


@pytest.mark.skipif(not HAS_A_BROWSER.exists(), reason="no chromium")
def test_pages_read_from_a_folder_show_and_search_without_an_error_or_a_request(site: Path):
    playwright = pytest.importorskip("playwright.sync_api")
    wrong: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(HAS_A_BROWSER), args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith(("http", "ws")) else None)
        for name in (
            "index",
            "causes/dead-units",
            "tutorials/nan",
            "gallery/index",
            "reference/optim/lamb",
            "examples/deep_sigmoid.py",
        ):
            page.goto((site / f"{name}.html").as_uri())
            page.wait_for_selector("article h1")
        page.goto((site / "index.html").as_uri())
        page.locator("input.md-search__input").fill("vanishing gradient")
        first = page.locator(".md-search-result__link").first
        first.wait_for(state="visible", timeout=60_000)
        assert "vanishing-gradient" in (first.get_attribute("href") or "")
        browser.close()
    assert not wrong
