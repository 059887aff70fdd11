"""A place for a report is refused before the run, in words that say what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from unstuck.errors import MisuseError, RecordError
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


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    write_text(path, "before")

    def full(self: Path, content: bytes) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RecordError, match="No space left"):
        write_text(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_and_permissions_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "page.html", tmp_path / "link"
    path.touch()
    path.chmod(0o640)
    link.symlink_to(path)
    write_text(link, "new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_text(path, "new")
    assert os.read(reader, 9) == b"new"
    os.close(reader)
    assert path.is_fifo()
