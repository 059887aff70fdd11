"""Tutorials run: their programs are written to files, their commands run in order, and they quote what comes out.

In a page a block ```python title="NAME" is a file, a block ```sh holds commands, and a ```text behind it quotes their output. Where that
hangs on how fast a machine is, `<!-- partly: one | other -->` before it says what comes out wherever it runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("sklearn")

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "quick_start.md", *sorted((DOCS / "tutorials").glob("[!i]*.md"))]
_BLOCK = re.compile(
    r'^(?:<!-- partly: (?P<partly>.*?) -->\n\n)?```(?P<kind>python title="(?P<name>[\w.]+)"|sh|text)\n(?P<body>.*?)^```$',
    re.M | re.S,
)
_CURVE = re.compile(r"^[▁▂▃▄▅▆▇█×]+$")


def words(text: str) -> list[str]:
    """The words of a text, one sign for each that holds a number, without curves: what is the same wherever it runs."""
    return ["#" if re.search(r"\d", word) else word for word in text.split() if not _CURVE.match(word)]


def quotes(quoted: str) -> list[list[str]]:
    """The words of each part of a quotation between what is left out; a line that was cut at the edge counts up to its middle."""
    quoted = re.sub(
        r"^(.+)…$", lambda line: f"{line[1][: len(line[1]) // 2].rpartition(' ')[0]}\n...", quoted, flags=re.M
    )
    return [found for part in re.split(r"^\.\.\.$", quoted, flags=re.M) if (found := words(part))]


def missing(quoted: str, output: str) -> str | None:
    """The first part of a quotation that isn't in the output behind the parts before it, None when all are."""
    rest = f" {' '.join(words(output))} "
    for part in quotes(quoted):
        before, found, rest = rest.partition(f" {' '.join(part)} ")
        if not found:
            return f"{' '.join(part)}\nin\n{before}"
        rest = f" {rest}"
    return None


def printed(commands: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-ec", commands],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_quotation_that_is_not_what_comes_out_is_found():
    output = "loss 2.14 ▁▂▃ 139\naccuracy 0.9\nend"
    assert missing("loss 2.5 ▃▃ 1\n...\nend\n", output) is None
    assert missing("end\n...\nloss 2.5 1", output) is not None
    assert missing("accuracy high", output) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs_and_quotes_what_comes_out(page: Path, tmp_path: Path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "PATH": path}
    output, quoted = "", 0
    for block in _BLOCK.finditer(page.read_text()):
        if block["name"]:
            (tmp_path / block["name"]).write_text(block["body"])
        elif block["kind"] == "sh":
            output = printed(block["body"], tmp_path, environment)
        else:
            told = block["partly"].replace("|", "\n...\n") if block["partly"] else block["body"]
            absent = missing(told, output)
            assert absent is None, absent
            quoted += 1
    assert quoted
