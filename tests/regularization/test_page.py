"""The programs of docs/regularization.md run, one after the other, and assert what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "regularization.md"


@pytest.mark.slow
def test_the_programs_of_the_page_run():
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(programs) == 10
    names: dict = {}
    for program in programs:
        exec(compile(program, str(PAGE), "exec"), names)
