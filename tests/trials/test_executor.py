"""Runs a few at a time; what has finished is kept, what isn't wanted any more is stopped."""

import json
import math
import time

import pytest

from unstuck.errors import UnstuckError
from unstuck.trials import executor as module
from unstuck.trials.executor import Log, Processes
from unstuck.trials.job import Job, Outcome

pytestmark = pytest.mark.slow

COUNTED = "import sys\nopen('made', 'a').write(sys.argv[1] + '\\n')\n"
SLEEPS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open("pids", "a").write(f"{os.getpid()} {child.pid}\\n")
time.sleep(60)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "count.py").write_text(COUNTED)
    (tmp_path / "crash.py").write_text("raise ValueError('mine')\n")
    (tmp_path / "sleep.py").write_text(SLEEPS)
    return tmp_path


def count(*names):
    return [Job(("count.py", name)) for name in names]


def made(here):
    path = here / "made"
    return sorted(path.read_text().split()) if path.exists() else []


def processes(here, **options):
    return Processes(Log(here / "visit"), nursery=False, **options)


def test_each_job_comes_with_its_outcome(here):
    jobs = count("a", "b", "c")
    got = dict(processes(here, workers=2).run(jobs))
    assert set(got) == set(jobs)
    assert made(here) == ["a", "b", "c"]


def test_no_more_run_at_a_time_than_there_are_workers(here, monkeypatch):
    alive, most = set(), []

    class Counting(module.Running):
        def __init__(self, job, folder, nursery):
            super().__init__(job, folder, nursery)
            alive.add(job)
            most.append(len(alive))

        def outcome(self):
            alive.discard(self.job)
            return super().outcome()

    monkeypatch.setattr(module, "Running", Counting)
    list(processes(here, workers=2).run(count("a", "b", "c", "d")))
    assert max(most) == 2


def test_a_job_that_is_in_the_log_is_not_made_again(here):
    first = dict(processes(here).run(count("a", "b")))
    again = dict(processes(here).run(count("a", "b", "c")))
    assert made(here) == ["a", "b", "c"]
    assert {job: str(again[job]) for job in first} == {job: str(out) for job, out in first.items()}


def test_a_crash_is_an_outcome_and_the_others_go_on(here):
    crash, fine = Job(("crash.py",)), count("a")[0]
    got = dict(processes(here, workers=1).run([crash, fine]))
    assert (got[crash].status, got[crash].error) == ("failed", "ValueError: mine")
    assert made(here) == ["a"]


def test_what_crashed_is_made_again_in_another_visit(here):
    """For want of a file, say, that is there the next time."""
    (here / "needs.py").write_text("open('data').close()\n" + COUNTED)
    job = Job(("needs.py", "a"))
    assert "No such file" in dict(processes(here).run([job]))[job].error
    (here / "data").touch()
    assert "No such file" not in dict(processes(here).run([job]))[job].error
    assert made(here) == ["a"]


def test_a_torn_last_line_is_survived_and_spoils_no_other(here):
    list(processes(here, workers=1).run(count("a", "b")))
    log = here / "visit" / "trials.jsonl"
    whole = log.read_text()
    log.write_text(whole[: len(whole) // 2 + 40])
    assert not whole[: len(whole) // 2 + 40].endswith("\n")
    list(processes(here, workers=1).run(count("a", "b")))
    assert made(here) == ["a", "b", "b"]
    list(processes(here, workers=1).run(count("a", "b")))  # the one made after it is in the log
    assert made(here) == ["a", "b", "b"]


@pytest.mark.parametrize("line", ["[]", "{}", "null", '{"key": 1}', '{"key": "a", "outcome": {"colour": 1}}', "\udcff"])
def test_lines_that_are_no_outcomes_are_passed_over(tmp_path, line):
    (tmp_path / "trials.jsonl").write_text(line + "\n", errors="surrogateescape")
    assert Log(tmp_path).known == {}


def test_what_was_stopped_for_good_is_kept_and_what_has_lost_its_record_is_made_again(tmp_path):
    log = Log(tmp_path)
    (tmp_path / "kept.sqlite").write_text("")
    jobs = count("stopped", "lost", "kept")
    log.add(jobs[0], Outcome("stopped"))
    log.add(jobs[1], Outcome("finished", record=str(tmp_path / "gone.sqlite")))
    log.add(jobs[2], Outcome("finished", record=str(tmp_path / "kept.sqlite")))
    assert set(Log(tmp_path).known) == {jobs[0].key, jobs[2].key}


def test_enough_stops_what_is_under_way_and_its_children(here, gone):
    def enough(job, outcome):
        while not (here / "pids").exists() or not (here / "pids").read_text().endswith("\n"):
            time.sleep(0.01)
        return True

    jobs = [Job(("sleep.py",)), *count("a", "b")]
    got = [job for job, _ in processes(here, workers=2).run(jobs, enough=enough)]
    assert got == [jobs[1]]
    assert made(here) == ["a"]
    assert all(gone(int(pid)) for pid in (here / "pids").read_text().split())
    assert jobs[0].key not in Log(here / "visit").known


def test_enough_is_asked_of_what_the_log_holds_as_well(here):
    list(processes(here).run(count("a")))
    got = [job for job, _ in processes(here).run(count("b", "a", "c"), enough=lambda *_: True)]
    assert (got, made(here)) == (count("a"), ["a"])
    assert not (here / "visit" / count("b")[0].key).exists()  # nothing was begun for it


def test_what_is_hopeless_is_stopped_with_the_reason_and_is_not_made_again(here, monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.05)
    hangs, fine = Job(("sleep.py",)), count("a")[0]

    def hopeless(job, record):
        return "far behind" if job == hangs and (here / "pids").exists() else ""

    got = dict(processes(here, workers=2).run([hangs, fine], hopeless=hopeless))
    assert (got[hangs].status, got[hangs].error, made(here)) == ("stopped", "far behind", ["a"])
    (here / "pids").unlink()
    assert dict(processes(here, workers=2).run([hangs]))[hangs].error == "far behind"
    assert not (here / "pids").exists()


def test_nothing_is_left_running_when_nobody_listens_any_more(here, gone):
    going = processes(here, workers=2).run([Job(("sleep.py",)), *count("a")])
    next(going)
    while not (here / "pids").exists() or not (here / "pids").read_text().endswith("\n"):
        time.sleep(0.01)
    going.close()
    assert all(gone(int(pid)) for pid in (here / "pids").read_text().split())


def test_a_script_that_hangs_is_stopped_and_the_next_has_its_turn(here):
    hangs, fine = Job(("sleep.py",), limit=0.3), count("a")[0]
    got = dict(processes(here, workers=1).run([hangs, fine]))
    assert (got[hangs].status, got[hangs].error) == ("stopped", "it took too long")
    assert made(here) == ["a"]


def test_what_cannot_be_started_is_told(here, monkeypatch):
    monkeypatch.setattr("sys.executable", str(here / "no-python"))
    with pytest.raises(UnstuckError, match="can't be started"):
        list(processes(here).run(count("a")))


def test_the_log_holds_no_numbers_that_json_lacks(tmp_path):
    job = count("a")[0]
    Log(tmp_path).add(job, Outcome("diverged", "loss", math.inf, math.nan))
    assert json.loads((tmp_path / "trials.jsonl").read_text(), parse_constant=pytest.fail)["outcome"]["value"] is None
    assert math.isnan(Log(tmp_path).known[job.key].value)


def test_of_an_iterator_each_is_taken_only_when_there_is_room(here):
    taken, ended = [], []

    def stream():
        for i in range(5):
            taken.append((i, len(ended)))
            yield count(f"job{i}")[0]

    for job, _ in processes(here, workers=2).run(stream()):
        ended.append(job)
    assert len(ended) == 5
    assert [when for _, when in taken] == sorted(when for _, when in taken)
    assert all(when >= i - 1 for i, when in taken)


def test_none_says_that_something_must_end_first(here):
    ended, first = [], count("first")[0]

    def stream():
        yield first
        while not ended:
            yield None
        yield count("second")[0]

    for job, _ in processes(here, workers=2).run(stream()):
        ended.append(job)
    assert [job.command[1] for job in ended] == ["first", "second"]


def test_none_ends_it_where_nothing_is_under_way(here):
    assert list(processes(here).run(iter([None]))) == []


def test_what_is_known_of_an_iterator_comes_without_being_made(here):
    list(processes(here).run(count("a")))
    got = [job.command[1] for job, _ in processes(here).run(iter(count("a", "b")))]
    assert sorted(got) == ["a", "b"]
    assert made(here) == ["a", "b"]


def test_a_child_that_somebody_killed_is_made_once_more_where_it_can_go_on(here):
    """One that saves itself; any other is as it ended."""
    (here / "dies.py").write_text(
        "import os, signal\nopen('made', 'a').write('tried\\n')\n"
        "if len(open('made').read().split()) < 2: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    [(_, outcome)] = processes(here).run([Job(("dies.py",), file="dies.py")])
    assert made(here) == ["tried", "tried"]
    assert "SIGKILL" not in outcome.error
    (here / "made").unlink()
    [(_, outcome)] = processes(here).run([Job(("dies.py", "again"))])
    assert (outcome.status, outcome.error) == ("failed", "ended by SIGKILL")


def test_notes_and_outcomes_are_read_in_order(here):
    log = Log(here / "visit", crashes=True)
    log.note(event="asked", number=1)
    log.add(Job(("a.py",)), Outcome("failed", error="mine"))
    log.note(event="asked", number=2)
    again = Log(here / "visit", crashes=True)
    assert [line.get("event", "outcome") for line in again.lines] == ["asked", "outcome", "asked"]
    assert len(again.known) == 1
    assert not Log(here / "visit").known
