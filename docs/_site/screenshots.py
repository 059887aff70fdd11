"""Takes the pictures of reports on the pages of the documentation: `python docs/_site/screenshots.py`.

A run of `examples/deep_sigmoid.py` writes its page, Chromium shows it in light colours, and parts of it are written to `docs/assets` with
few colours, so that they stay small. Take them anew when the page has changed, and look at them.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 1280, 860
PARTS = {"report_top.png": None, "report_course.png": "#course", "report_layers.png": "#layers"}
"""Pictures, and the part of the page that each shows; None for what is seen first."""
_COLOURS, _MARGIN = 96, 20


def report(script: Path, folder: Path) -> Path:
    """The page that a watched run of a script writes.

    Args:
        script: What is run.
        folder: Where its record and its page go.

    Returns:
        The page.
    """
    page = folder / "report.html"
    command = [sys.executable, "-m", "unstuck", "run", "--quiet", "--runs", folder / "runs", "--html", page, script]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return page


def taken(page: Page, part: str | None) -> Image.Image:
    """A picture of one part of a page, as high as a screen at most."""
    page.evaluate("document.querySelector('.tools').style.position = 'static'")  # it would stand over what is below
    page.evaluate("scrollTo(0, 0)")
    if part is None:
        shown = page.screenshot()
    else:
        box = page.locator(part).bounding_box()
        assert box is not None, part
        around = {
            "x": box["x"] - _MARGIN,
            "y": box["y"] - _MARGIN,
            "width": box["width"] + 2 * _MARGIN,
            "height": HEIGHT,
        }
        shown = page.screenshot(full_page=True, clip=around)
    return Image.open(io.BytesIO(shown)).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)


def main() -> None:
    """Takes all pictures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    arguments.add_argument("--out", type=Path, default=ROOT / "docs" / "assets", help="folder of the pictures")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        shown = report(ROOT / "examples" / "deep_sigmoid.py", Path(folder))
        browser = playwright.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(shown.as_uri())
        page.wait_for_selector("canvas")
        page.wait_for_timeout(500)  # until charts are drawn
        for name, part in PARTS.items():
            taken(page, part).save(given.out / name, optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
