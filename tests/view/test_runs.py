"""Which runs there are: what lies in the folder and nothing else, asked again only where something changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unstuck.view.runs
from unstuck.view.runs import Runs, name_of


def test_no_folder_no_runs(tmp_path: Path) -> None:
    assert Runs(tmp_path / "nothing").look() == {}


def test_the_newest_first_and_nothing_else(folder: Path, grow: Callable[..., Any]) -> None:
    grow("20250101-000000-old", started="2025-01-01T00:00:00+00:00").grow(2)
    grow("other name", started="2025-06-01T00:00:00+00:00").grow(2)
    grow("20250301-000000-mid", started="2025-03-01T00:00:00+00:00").grow(2)
    (folder / "no run").mkdir()
    (folder / "file").write_text("x")
    found = Runs(folder).look()
    assert list(found) == ["other name", "20250301-000000-mid", "20250101-000000-old"]
    assert found["other name"].facts.steps == 2
    assert found["other name"].facts.status == "running"


def test_links_that_lead_out_are_no_runs(folder: Path, tmp_path: Path, grow: Callable[..., Any]) -> None:
    grow("20250101-000000-in").grow(2)
    grow("../outside/20250101-000000-out").grow(2)
    (folder / "20250102-000000-link").symlink_to(tmp_path / "outside" / "20250101-000000-out")
    (folder / "20250103-000000-inner").symlink_to(folder / "20250101-000000-in")
    inside = folder / "20250104-000000-file"
    inside.mkdir()
    (inside / "record.sqlite").symlink_to(tmp_path / "outside" / "20250101-000000-out" / "record.sqlite")
    (folder / "20250105-000000-loop").symlink_to(folder / "20250105-000000-loop")
    assert set(Runs(folder).look()) == {"20250101-000000-in", "20250103-000000-inner"}
    assert set(Runs(tmp_path / "outside").look()) == {"20250101-000000-out"}


def test_a_run_that_stands_still_is_not_read_again(
    folder: Path, grow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    summary = unstuck.view.runs.summary
    monkeypatch.setattr(unstuck.view.runs, "summary", lambda path: read.append(path.name) or summary(path))
    ended, growing = grow("20250101-000000-ended"), grow("20250102-000000-growing")
    ended.grow(3)
    ended.end()
    growing.grow(3)
    runs = Runs(folder)
    before = runs.look()
    assert sorted(read) == ["20250101-000000-ended", "20250102-000000-growing"]
    read.clear()
    again = runs.look()
    assert read == ["20250102-000000-growing"]  # whose process may have died
    assert {name: run.state for name, run in again.items()} == {name: run.state for name, run in before.items()}
    growing.grow(3)
    after = runs.look()
    assert after["20250101-000000-ended"].state == before["20250101-000000-ended"].state
    assert after["20250102-000000-growing"].state != before["20250102-000000-growing"].state
    assert after["20250102-000000-growing"].facts.steps == 6


def test_a_death_is_a_change(folder: Path, grow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    grow("20250101-000000-run").grow(3)
    runs = Runs(folder)
    before = runs.look()["20250101-000000-run"]
    monkeypatch.setattr("unstuck.store.status", lambda meta: "killed")
    after = runs.look()["20250101-000000-run"]
    assert (before.facts.status, after.facts.status) == ("running", "killed")
    assert before.state != after.state


def test_one_that_has_recorded_nothing_yet_is_there(folder: Path) -> None:
    (folder / "20250101-000000-soon").mkdir(parents=True)
    run = Runs(folder).look()["20250101-000000-soon"]
    assert run.facts.status == "empty"
    assert run.is_running


def test_a_single_run_from_elsewhere(tmp_path: Path, grow: Callable[..., Any]) -> None:
    grow("20250101-000000-run").grow(3)
    run = grow("../elsewhere/one")
    run.grow(4)
    run.end()
    found = Runs(tmp_path / "runs", only=tmp_path / "elsewhere" / "one").look()
    assert {name: run.facts.steps for name, run in found.items()} == {"one": 4}
    moved = (tmp_path / "elsewhere" / "one" / "record.sqlite").rename(tmp_path / "copied.sqlite")
    found = Runs(tmp_path / "runs", only=moved).look()
    assert {name: run.facts.steps for name, run in found.items()} == {"copied": 4}


def test_names(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.sqlite").touch()
    assert name_of(tmp_path / "run") == "run"
    assert name_of(tmp_path / "run" / "record.sqlite") == "run"
    assert name_of(tmp_path / "mine.sqlite") == "mine"
