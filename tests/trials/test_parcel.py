"""A script's folder goes to a machine that lacks it, and its paths go with it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from unstuck.errors import MisuseError
from unstuck.evidence import Event
from unstuck.source import Edit
from unstuck.store import Writer, read
from unstuck.trials import parcel as module
from unstuck.trials.job import Job
from unstuck.trials.parcel import Place, moved, moved_back, pack, unpack


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "train.py").write_text("import model\n")
    (folder / "src" / "deep.py").write_text("1\n")
    monkeypatch.chdir(folder)
    return folder


def test_a_script_in_the_working_folder_is_taken_with_all_of_that(project):
    place = Place.of(Job(("src/deep.py",)))
    assert (place.root, place.script) == (str(project), str(project / "src" / "deep.py"))
    assert place.here()


def test_a_script_elsewhere_is_taken_with_its_own_folder(project, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    for command in (("../project/train.py",), (str(project / "train.py"),)):
        assert Place.of(Job(command)).root == str(project)


@pytest.mark.parametrize("name", ["src.deep", "src"])
def test_a_module_is_looked_for_in_the_working_folder(project, name):
    (project / "src" / "__main__.py").write_text("")
    assert Place.of(Job(("-m", name))).script.startswith(str(project / "src"))
    assert Place.of(Job(("-m", "timeit"))).script == ""


def test_a_machine_lacks_what_is_missing_or_differs(project):
    place = Place.of(Job(("train.py",)))
    (project / "train.py").write_text("import other\n")
    assert not place.here()
    assert Place.of(Job(("train.py",))).here()
    assert not place.moved(project / "src").here()
    assert Place.of(Job(("missing.py",))).here()  # Python itself says what is wrong


def test_a_parcel_holds_the_folder_but_not_what_can_be_had_there(project, tmp_path):
    for name in (
        ".git/config",
        ".unstuck/a",
        "src/__pycache__/deep.pyc",
        "env/pyvenv.cfg",
        "runs/a/record.sqlite",
        "data/x.csv",
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    (project / "broken").symlink_to("nowhere")
    (project / "linked.csv").symlink_to("data/x.csv")
    (project / "loop").symlink_to(project)
    os.mkfifo(project / "pipe")
    unpack(pack(Place.of(Job(("train.py",))), without=Path("runs")), tmp_path / "copy")
    got = {str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*") if p.is_file()}
    assert got == {"train.py", "src/deep.py", "data/x.csv", "linked.csv"}
    assert (tmp_path / "copy" / "linked.csv").read_text() == "x"


def test_what_is_too_large_is_refused_with_what_to_do(project, monkeypatch):
    monkeypatch.setattr(module, "MOST", 1000)
    (project / "data.bin").write_bytes(b"0" * 1001)
    with pytest.raises(MisuseError, match=r"project'.*MiB.*the same path"):
        pack(Place.of(Job(("train.py",))), without=project / "runs")


def test_paths_into_the_folder_lead_into_the_copy(project):
    job = Job(
        ("train.py", "data", str(project / "data"), f"--out={project}/out", f"--rate=0.1,{project}", "/etc/passwd", f"{project}2"),
        (Edit(str(project / "train.py"), 0, 1, "x", 3), Edit("src/deep.py", 0, 1, "y"), Edit("/lib/other.py", 0, 1, "z")),
        seed=3,
    )  # fmt: skip
    got = moved(job, Place.of(job), Path("/copy"))
    assert got.command == (
        "train.py",
        "data",
        "/copy/data",
        "--out=/copy/out",
        f"--rate=0.1,{project}",
        "/etc/passwd",
        f"{project}2",
    )
    assert [e.file for e in got.edits] == ["/copy/train.py", "/copy/src/deep.py", "/lib/other.py"]
    assert (got.edits[0].text, got.edits[0].rank, got.seed) == ("x", 3, 3)


def test_paths_through_a_link_lead_there_as_well(project, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(project)
    job = Job((str(tmp_path / "link" / "train.py"),), (Edit(str(project / "src" / "deep.py"), 0, 1, "x"),))
    monkeypatch.chdir("/")
    got = moved(
        job, Place("/", str(tmp_path / "link"), str(project), str(tmp_path / "link" / "train.py"), ""), Path("/copy")
    )
    assert (got.command, got.edits[0].file) == (("/copy/train.py",), "/copy/src/deep.py")


def test_a_script_outside_of_the_working_folder_goes_by_its_whole_path(project, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    job = Job(("../project/train.py", "here.csv"))
    place = Place.of(job)
    assert moved(job, place, Path("/copy")).command == ("/copy/train.py", "here.csv")
    assert place.moved(Path("/copy")).cwd == "/copy"
    monkeypatch.chdir(project)
    assert Place.of(Job(("train.py",))).moved(Path("/copy")).cwd == "/copy"


def test_a_record_names_the_files_of_the_place_again(tmp_path):
    place = Place('/home/"me"/é', '/home/"me"/é', '/home/"me"/é', "", "")
    writer = Writer(
        tmp_path / "record.sqlite", meta={"cwd": "/tmp/copy", "argv": ["/tmp/copy/train.py"], "other": "/tmp/cop"}
    )
    writer.row(0, (("loss", ""),), [1.0])
    writer.event(Event(0, "site", "", {"file": "/tmp/copy/train.py", "line": 3}))
    writer.close(status="finished", steps=1)
    moved_back(tmp_path / "record.sqlite", place, Path("/tmp/copy"))
    record = read(tmp_path / "record.sqlite")
    assert (record.meta["cwd"], record.meta["argv"]) == ('/home/"me"/é', ['/home/"me"/é/train.py'])
    assert record.meta["other"] == "/tmp/cop"
    assert [e.data["file"] for e in record.happened("site")] == ['/home/"me"/é/train.py']
    with closing(sqlite3.connect(tmp_path / "record.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
