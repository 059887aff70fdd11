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
PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "examples/README.md")),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "docs" / "tutorials").glob("*.md"),
]


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


@pytest.mark.parametrize("page", ["README.md", "README.zh.md", "docs/run.md"])
def test_the_table_of_causes_holds_codes_that_exist(page: str):
    table = re.split(r"\| (?:cause|原因) \|", (ROOT / page).read_text())[1].split("\n\n")[0]
    codes = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    assert codes
    assert set(codes) <= set(CAUSES)


def test_the_readmes_of_both_languages_have_the_same_parts():
    """The same number of sections, table rows, commands and programs, and the same commands."""
    english, chinese = ((ROOT / name).read_text() for name in ("README.md", "README.zh.md"))
    for part in (r"^## ", r"^\|", r"^```"):
        assert len(re.findall(part, english, re.M)) == len(re.findall(part, chinese, re.M)), part
    commands = r"^    (unstuck [^#\n]+?) *(?:#.*)?$"
    assert re.findall(commands, english, re.M) == re.findall(commands, chinese, re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_on_the_pages_is_python(page: Path):
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        compile(code, str(page), "exec")
