"""What makes jobs on a machine, without a cluster."""

import json
import os
import time
from pathlib import Path

import pytest

from unstuck.source import Edit
from unstuck.store import read
from unstuck.trials.job import Job
from unstuck.trials.node import Node, machine
from unstuck.trials.parcel import Place, pack

pytestmark = pytest.mark.slow

NAPS = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
WRITES = """
import json, os, sys, time
from pathlib import Path
from unstuck.store import Writer
folder = Path(json.loads(os.environ["UNSTUCK_RUN"])["folder"])
writer = Writer(folder / "record.sqlite", meta={"cwd": os.getcwd()}, flush_every=0.01)
writer.row(0, (("loss", ""),), [1.0])
writer.flush()
Path("written").write_text("")
while not Path("go").exists():
    time.sleep(0.01)
writer.row(1, (("loss", ""),), [0.5])
writer.close(status="finished", steps=2)
print("in", os.getcwd(), sys.argv)
"""


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    made = Node(nursery=False)
    yield made
    made.stop("the test is over")
    made._guard.close()
    os.environ.clear()
    os.environ.update(before)


def begun(node, name, text, **options):
    Path(name).write_text(text)
    job = Job((name,), **options)
    assert node.begin(job, Place.of(job), None)
    return job


def until(path):
    end = time.monotonic() + 60
    while not Path(path).exists():
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.01)


def ended(node):
    while (news := node.follow(5, look=False)).outcome is None:
        pass
    return news


def test_it_says_who_and_where_it_is(node):
    assert node.about()[1] == machine()


def test_a_crash_comes_with_what_was_printed(node):
    begun(node, "crash.py", "print('begins')\nraise ValueError('mine')\n")
    news = ended(node)
    assert (news.outcome.status, news.outcome.error, news.record) == ("failed", "ValueError: mine", None)
    assert news.printed.startswith(b"begins\n")


def test_a_record_under_way_is_handed_over_when_it_is_new_and_asked_for(node, tmp_path):
    begun(node, "write.py", WRITES)
    until("written")
    assert node.follow(0, look=False).record is None
    first = node.follow(0, look=True).record
    (tmp_path / "first.sqlite").write_bytes(first)
    assert len(read(tmp_path / "first.sqlite").series("loss")) == 1
    assert node.follow(0, look=True).record is None
    Path("go").touch()
    news = ended(node)
    (tmp_path / "last.sqlite").write_bytes(news.record)
    assert (news.outcome.status, read(tmp_path / "last.sqlite").series("loss").values.tolist()) == (
        "finished",
        [1.0, 0.5],
    )


def test_a_record_is_one_file_with_no_log_also_after_a_kill(node, tmp_path):
    begun(node, "write.py", WRITES)
    until("written")
    node.stop("enough")
    news = node.follow(0, look=False)
    assert (news.outcome.status, news.outcome.error) == ("stopped", "enough")
    assert news.record[18:20] == b"\x01\x01"  # SQLite: read and written without a log
    (tmp_path / "record.sqlite").write_bytes(news.record)
    assert len(read(tmp_path / "record.sqlite").series("loss")) == 1


def test_a_damaged_record_is_handed_over_as_it_is(node):
    spoil = (
        "p = folder / 'record.sqlite'\nb = p.read_bytes()\nb = b[:4096] + bytes(4096) + b[8192:]\np.write_bytes(b)\n"
    )
    Path("go").touch()
    begun(node, "write.py", f"{WRITES}{spoil}Path('spoilt').write_bytes(b)\n")
    assert ended(node).record[100:] == Path("spoilt").read_bytes()[100:]  # but for a count of changes


def test_it_is_stopped_when_it_has_had_its_time_though_nobody_asks(node, gone):
    begun(node, "nap.py", NAPS, limit=4)  # enough for a slow machine to start it
    until("pid")
    assert gone(int(Path("pid").read_text()))
    assert ended(node).outcome.error == "it took too long"


def test_its_folder_is_cleared_after_each(node):
    job = begun(node, "crash.py", "raise ValueError")
    ended(node)
    assert not (node.folder / job.key).exists()


def test_variables_are_those_that_are_given_or_the_machines_without_rays(node, monkeypatch):
    monkeypatch.setenv("RAY_JOB_ID", "01")
    text = "import json, os\nprint(json.dumps({k: os.environ.get(k) for k in ('RAY_JOB_ID', 'MINE', 'PATH')}))\n"
    begun(node, "show.py", text)
    assert json.loads(ended(node).printed) == {"RAY_JOB_ID": None, "MINE": None, "PATH": os.environ["PATH"]}
    job = Job(("show.py",))
    node.begin(job, Place.of(job), {"MINE": "1", "PATH": "/bin"})
    assert json.loads(ended(node).printed) == {"RAY_JOB_ID": None, "MINE": "1", "PATH": "/bin"}


def test_where_the_script_is_missing_it_is_sent_and_nobody_sees_that_in_what_comes_back(node, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "src").mkdir(parents=True)
    monkeypatch.chdir(home)
    (home / "src" / "train.py").write_text(WRITES + "raise ValueError(__file__)\n")
    (home / "go").touch()
    edits = (Edit(str(home / "src" / "train.py"), len(WRITES), len(WRITES), "print('changed')\n"),)
    job = Job(("src/train.py", f"--data={home}/data"), edits)
    place, parcel = Place.of(job), pack(Place.of(job), without=home / "runs")
    monkeypatch.chdir(tmp_path)
    home.rename(tmp_path / "away")
    assert not node.begin(job, place, None)
    node.take(place, parcel)
    assert node.begin(job, place, None)
    news = ended(node)
    printed = news.printed.decode()
    assert f"in {home} ['src/train.py', '--data={home}/data']\n" in printed
    assert "changed\n" in printed
    assert news.outcome.error == f"ValueError: {home}/src/train.py"
    assert str(node.folder) not in printed
    (tmp_path / "record.sqlite").write_bytes(news.record)
    assert read(tmp_path / "record.sqlite").meta["cwd"] == str(home)
    assert not (home / "written").exists()
    other = Place(place.cwd, place.root, place.real, place.script, "changed since")
    assert not node.begin(job, other, None)
