"""Programs on pages of the docs run, one after the other, and assert what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("page", "count"),
    [
        ("data.md", 7),
        pytest.param("generalization.md", 8, marks=pytest.mark.slow),
        pytest.param("regularization.md", 10, marks=pytest.mark.slow),
    ],
)
def test_the_programs_of_a_page_run(page: str, count: int):
    programs = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert len(programs) == count
    names: dict = {}
    for program in programs:
        exec(compile(program, page, "exec"), names)
