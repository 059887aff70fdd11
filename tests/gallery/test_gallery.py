"""Every program of the gallery runs, its claims hold, and it draws something; the page shows what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
PROGRAMS = sorted(GALLERY.glob("*.py"))
FIGURES = sorted(f for f in GALLERY.iterdir() if f.suffix in {".png", ".gif"})
IMAGE = pytest.importorskip("PIL.Image")
# What makes those short that train.
QUICK = {
    "greedy_and_beam": ("--steps", "300"),
    "search_cell": ("--evaluations", "3", "--top", "1", "--seeds", "2", "--characters", "10000"),
    "search_cnn": ("--evaluations", "4", "--top", "1", "--seeds", "2"),
    "small_set": ("--seeds", "4"),
    "search_script": ("--evaluations", "4", "--top", "1", "--seeds", "3"),
}


def is_blank(figure: Path) -> bool:
    with IMAGE.open(figure) as image:
        colours = image.convert("RGB").getcolors(2**24)
    return len(colours) < 50  # a blank page has one, text on it some shades of grey


def test_the_page_lists_every_program_and_shows_every_figure():
    page = (GALLERY / "README.md").read_text()
    assert re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\)", page, re.MULTILINE) != []
    assert set(re.findall(r"\]\((\w+\.py)\)", page)) == {p.name for p in PROGRAMS}
    assert set(re.findall(r"^!\[.+\]\((\S+)\)", page, re.MULTILINE)) == {f.name for f in FIGURES}
    assert {f.stem for f in FIGURES} == {p.stem for p in PROGRAMS}


@pytest.mark.slow
@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f.name)
def test_figures_are_small_and_not_blank(figure: Path):
    assert figure.stat().st_size < (1_500_000 if figure.suffix == ".gif" else 300_000)
    assert not is_blank(figure)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stem)
def test_its_claims_hold_and_it_draws_them(program: Path, tmp_path: Path):
    suffix = next(f.suffix for f in FIGURES if f.stem == program.stem)
    figure = tmp_path / f"figure{suffix}"
    command = [sys.executable, "-W", "error", program, "--out", figure, *QUICK.get(program.stem, ())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not is_blank(figure)
    with IMAGE.open(figure) as image:
        assert getattr(image, "n_frames", 1) > 10 or suffix == ".png"


def test_a_blank_figure_is_told(tmp_path: Path):
    IMAGE.new("RGB", (200, 100), "white").save(tmp_path / "blank.png")
    assert is_blank(tmp_path / "blank.png")
