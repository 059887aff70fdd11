"""A place for a report is refused before the run, in words that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from unstuck.errors import MisuseError
from unstuck.report.output import check, write_text


def test_a_good_place_comes_back_as_a_path(tmp_path: Path) -> None:
    assert check(str(tmp_path / "page.html")) == tmp_path / "page.html"
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("name", ["", ".", "no/page.html"])
def test_a_bad_place_is_misuse(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MisuseError, match="can't write the report"):
        check(name)


def test_text_is_utf8_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_text(path, "longer before")
    write_text(path, "é…")
    assert path.read_bytes() == "é…".encode()
