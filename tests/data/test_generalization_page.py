"""The programs of docs/generalization.md run, one after the other, and assert what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "generalization.md"


@pytest.mark.slow
def test_the_programs_of_the_page_run():
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(programs) == 8
    names: dict = {}
    for program in programs:
        exec(compile(program, str(PAGE), "exec"), names)
