"""Records read as bytes: consistent while they grow, from copies and over shared folders, and nothing is written."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unstuck import _store_file, _store_image, store
from unstuck.errors import RecordError
from unstuck.evidence import Event
from unstuck.store import Writer

ROW = (("loss", ""), ("score", ""))
WIDE = tuple((f"signal{i}", "layer") for i in range(300))
Start = Callable[..., Writer]
KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from unstuck.store import Writer
writer = Writer(Path(sys.argv[1]) / "record.sqlite", meta={"script": "train.py"}, flush_every=60)
for step in range(600):
    writer.row(step, (("loss", ""), ("score", "")), (step, -step))
    if step % 20 == 19:
        writer.sample(step, (("act_std", "fc1"),), [step])
        writer.note(steps=step + 1, progress={"step": step, "loss": float(step)})
        writer.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts writers, and closes those a test leaves open."""
    writers: list[Writer] = []

    def start(**settings: Any) -> Writer:
        writers.append(Writer(tmp_path / "record.sqlite", meta={"script": "train.py"}, flush_every=60, **settings))
        return writers[-1]

    yield start
    for writer in writers:
        writer.close(status="finished")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a killed process leaves behind: 600 steps, most of them in the log."""
    folder = tmp_path_factory.mktemp("killed")
    child = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False, timeout=120)
    assert child.returncode == -signal.SIGKILL
    assert (folder / "record.sqlite-wal").stat().st_size
    return folder


def copy(folder: Path, to: Path, *names: str) -> Path:
    """A folder with copies of some files of a record."""
    to.mkdir(parents=True)
    for name in names or ("record.sqlite", "record.sqlite-wal"):
        shutil.copyfile(folder / name, to / name)
    return to


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """All that writing would change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino)
        for path in [folder, *folder.rglob("*")]
    }


def read_all_ways(folder: Path) -> None:
    """Asks everything that can be asked of a run."""
    store.read(folder)
    store.read(folder / "record.sqlite")
    store.summary(folder)
    store.progress(folder)
    store.course(folder)
    store.list_runs(folder.parent)


def steps_of(folder: Path) -> int:
    """How many steps there are, all of them as they were written."""
    record = store.read(folder)
    loss, score = record.series("loss"), record.series("score")
    assert loss.steps.tolist() == loss.values.tolist() == list(range(len(loss)))
    assert score.values.tolist() == (-loss.values).tolist()
    assert record.series("act_std", "fc1").values.tolist() == list(range(19, len(loss), 20))
    assert "damaged" not in record.meta
    return len(loss)


# ---------------------------------------------------------------------- nothing is written


@pytest.mark.parametrize("names", [(), ("record.sqlite", "record.sqlite-wal", "record.sqlite-shm")])
def test_readers_of_a_killed_record_write_nothing(killed: Path, tmp_path: Path, names: tuple[str, ...]):
    folder = copy(killed, tmp_path / "runs" / "run", *names)
    for path in [*folder.iterdir(), folder]:
        path.chmod(0o555)
    before = state(tmp_path)
    read_all_ways(folder)
    assert state(tmp_path) == before
    assert steps_of(folder) == 600


@pytest.mark.slow
def test_readers_of_a_growing_record_write_nothing(start: Start, tmp_path: Path):
    writer = start()
    for step in range(200):
        writer.row(step, ROW, (step, -step))
    assert writer.flush()
    before = state(tmp_path)
    assert "record.sqlite-wal" in before
    read_all_ways(tmp_path)
    assert state(tmp_path) == before


@pytest.mark.slow
def test_readers_of_a_finished_record_write_nothing(start: Start, tmp_path: Path):
    writer = start()
    writer.row(0, ROW, (0.0, 0.0))
    writer.close(status="finished")
    before = state(tmp_path)
    assert set(before) == {".", "record.sqlite"}
    read_all_ways(tmp_path)
    assert state(tmp_path) == before


# ---------------------------------------------------------------------- one moment


@pytest.mark.slow
def test_whatever_is_read_while_it_grows_is_of_one_moment(start: Start, tmp_path: Path, monkeypatch: Any):
    # A log of 60 kB is carried over again and again, and rows are rewritten in pages that others had.
    monkeypatch.setattr(_store_file, "LOG_SIZE", 60_000)
    writer, over, seen = start(), threading.Event(), []

    def watch() -> None:
        while not over.is_set():
            record = store.read(tmp_path)
            loss, wide = record.series("loss"), record.series("signal299", "layer")
            assert loss.values.tolist() == list(range(len(loss)))
            assert (wide.values == wide.steps).all()
            assert len(record.happened("epoch")) == len(wide)
            seen.append(len(loss))

    failures: list[BaseException] = []
    watcher = threading.Thread(target=lambda: _caught(watch, failures))
    watcher.start()
    for step in range(6000):
        writer.row(step, ROW, (step, -step))
        if step % 10 == 9:
            writer.sample(step, WIDE, np.full(300, step, np.float32))
            writer.event(Event(step, "epoch"))
            writer.flush()
    over.set()
    watcher.join(60)
    assert failures == []
    assert seen == sorted(seen)
    assert len(set(seen)) > 5
    assert _folded(tmp_path) > 5
    assert len(store.read(tmp_path).series("loss")) == 6000


def _caught(action: Callable[[], None], failures: list[BaseException]) -> None:
    try:
        action()
    except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
        failures.append(error)


def _folded(folder: Path) -> int:
    return _store_file.facts(folder / "record.sqlite")[_store_image.FOLDED]


def test_a_log_that_was_carried_over_is_short_again(start: Start, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(_store_file, "LOG_SIZE", 200_000)
    writer, sizes = start(), []
    for step in range(600):
        writer.sample(step, WIDE, np.zeros(300, np.float32))
        if step % 10 == 9:
            writer.flush()
            sizes.append((tmp_path / "record.sqlite-wal").stat().st_size)
    assert max(sizes) < 400_000
    assert min(sizes[20:]) < 100_000
    assert _folded(tmp_path) >= 2


def test_a_file_that_changes_all_the_time_is_given_up(killed: Path, monkeypatch: Any):
    stamps = iter(range(10_000))
    monkeypatch.setattr(_store_image, "stamp", lambda _: next(stamps))
    monkeypatch.setattr(_store_file, "_PATIENCE", 0.05)
    with pytest.raises(RecordError):
        _store_file.facts(killed / "record.sqlite")


# ---------------------------------------------------------------------- copies


def test_a_copy_of_file_and_log_is_the_last_flushed_state(killed: Path, tmp_path: Path):
    folder = copy(killed, tmp_path / "copy")
    assert steps_of(folder) == 600
    found = store.summary(folder)
    assert (found.steps, found.progress["loss"], found.status) == (600, 599.0, "killed")
    assert found.changed == pytest.approx((folder / "record.sqlite-wal").stat().st_mtime)


def test_a_copy_whose_log_is_cut_short_is_an_earlier_state(killed: Path, tmp_path: Path):
    folder = copy(killed, tmp_path / "copy")
    log = folder / "record.sqlite-wal"
    whole, seen = log.read_bytes(), []
    for size in np.linspace(0, len(whole), 25).astype(int).tolist():
        log.write_bytes(whole[:size])
        seen.append(steps_of(folder))
        assert store.summary(folder).steps == seen[-1]
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 600)


def test_a_log_ends_before_what_is_broken_in_it(killed: Path, tmp_path: Path):
    folder = copy(killed, tmp_path / "copy")
    log = folder / "record.sqlite-wal"
    whole = log.read_bytes()
    for at in np.linspace(60, len(whole) - 60, 12).astype(int).tolist():
        log.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert steps_of(folder) <= 600


def test_file_and_log_of_different_moments_are_refused(start: Start, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(_store_file, "LOG_SIZE", 100_000)
    writer, (early, late) = start(), (tmp_path / "early", tmp_path / "late")
    for step in range(2000):
        writer.row(step, ROW, (step, -step))
        if step % 20 == 19:
            writer.sample(step, WIDE, np.zeros(300, np.float32))
            writer.flush()
        if step == 199:
            copy(tmp_path, early)
    copy(tmp_path, late)
    shutil.copyfile(late / "record.sqlite-wal", early / "record.sqlite-wal")
    with pytest.raises(RecordError, match="are copies of different moments: copy both again"):
        store.read(early)
    assert store.summary(early).status == "unreadable"
    (early / "record.sqlite-wal").unlink()
    assert 0 < len(store.read(early).series("loss")) <= 200


def test_a_file_ahead_of_its_log_is_refused(start: Start, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(_store_file, "LOG_SIZE", 100_000)
    writer, log = start(), tmp_path / "record.sqlite-wal"
    while not _folded(tmp_path):
        writer.sample(0, WIDE, np.zeros(300, np.float32))
        writer.flush()
    folder = copy(tmp_path, tmp_path / "copy")
    expected = len(store.read(folder).series("signal0", "layer"))
    (folder / log.name).write_bytes(log.read_bytes()[:60_000])
    with pytest.raises(RecordError, match="different moments"):
        store.read(folder)
    (folder / log.name).unlink()
    assert len(store.read(folder).series("signal0", "layer")) == expected


def test_a_change_that_nobody_finished_is_undone_in_a_copy(start: Start, tmp_path: Path):
    writer = start()
    for step in range(500):
        writer.row(step, ROW, (step, -step))
        writer.sample(step, WIDE, np.zeros(300, np.float32))
    writer.close(status="finished")
    code = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 2")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE samples SET data = zeroblob(length(data))")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "record.sqlite")], check=True, timeout=60)
    journal = tmp_path / "record.sqlite-journal"
    assert journal.stat().st_size
    os.utime(journal, (1e9, 1e9))
    before = state(tmp_path)
    assert store.read(tmp_path).series("loss").values.tolist() == list(range(500))
    assert store.summary(tmp_path).status == "finished"
    assert state(tmp_path) == before


# ---------------------------------------------------------------------- cost


def test_a_summary_reads_a_few_pages_only(start: Start, tmp_path: Path, monkeypatch: Any):
    writer = start()
    for step in range(3000):
        writer.sample(step, WIDE, np.zeros(300, np.float32))
    writer.note(steps=3000)
    writer.close(status="finished")
    read, sizes = os.pread, []

    def noted(file: int, size: int, at: int) -> bytes:
        sizes.append(size)
        return read(file, size, at)

    monkeypatch.setattr(os, "pread", noted)
    assert store.summary(tmp_path).steps == 3000
    assert sum(sizes) < 200_000 < (tmp_path / "record.sqlite").stat().st_size / 10


def test_what_the_facts_are_is_what_sqlite_finds(killed: Path, tmp_path: Path):
    folder = copy(killed, tmp_path / "copy")
    with closing(sqlite3.connect(folder / "record.sqlite")) as connection:
        told = {key: _store_file.decode(value) for key, value in connection.execute("SELECT * FROM meta")}
    assert _store_file.facts(killed / "record.sqlite") == told
