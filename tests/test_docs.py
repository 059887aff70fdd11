"""The pages under docs/ say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from unstuck import evidence
from unstuck.verdict import CAUSES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md", *(ROOT / "docs").glob("*.md")]


def rows(text: str) -> list[str]:
    """Rows of the first Markdown table behind a heading line `| signal |...`."""
    found = re.search(r"^\| signal \|.*\n(?:\|.*\n)+", text, re.MULTILINE)
    assert found
    return found[0].splitlines()


def test_the_table_of_signals_is_that_of_the_code():
    assert rows((ROOT / "docs" / "record.md").read_text()) == rows(evidence.__doc__ or "")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "cure", "curvature", "batch", "diagnose", "search"])
def test_the_table_of_options_is_that_of_the_command(command: str):
    code = f"import sys; sys.argv = ['unstuck', {command!r}, '--help']; from unstuck.cli import main; main()"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    table = (ROOT / "docs" / f"{command}.md").read_text().split("## Exit codes")[0]
    listed = re.findall(r"^\| `(--[\w-]+)", table, re.MULTILINE)
    offered = re.findall(r"^ {2,}(?:-\w, )?(--[\w-]+)", shown, re.MULTILINE)
    assert sorted(listed) == sorted(set(offered) - {"--help"})


@pytest.mark.parametrize("page", ["README.md", "docs/run.md"])
def test_the_table_of_causes_holds_codes_that_exist(page: str):
    table = (ROOT / page).read_text().split("| cause |")[1].split("\n\n")[0]
    codes = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    assert codes
    assert set(codes) <= set(CAUSES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_on_the_pages_is_python(page: Path):
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        compile(code, str(page), "exec")
