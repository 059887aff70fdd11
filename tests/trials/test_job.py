"""One training in a child process, and what is read from it."""

import json
import math
import time

import pytest

from unstuck.evidence import Record, Task
from unstuck.source import Edit
from unstuck.store import Writer
from unstuck.trials.job import Job, Outcome, Running, measured, score_of

pytestmark = pytest.mark.slow


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, name="script.py"):
        (tmp_path / name).write_text(text)
        return (name,)

    return write


def made(job, folder):
    running = Running(job, folder)
    while not running.poll():
        time.sleep(0.01)
    return running.outcome()


def written(folder, losses):
    folder.mkdir(exist_ok=True)
    writer = Writer(folder / "record.sqlite", meta={"script": "train.py"})
    for step, loss in enumerate(losses):
        writer.row(step, (("loss", ""),), [loss])
    writer.close(status="finished", steps=len(losses))
    return folder


def test_the_key_names_what_would_come_out_the_same():
    job = Job(("train.py", "--rate", "1"))
    edit = Edit("train.py", 0, 0, "x")
    same = [Job(job.command), Job(job.command, limit=9.0), Job(job.command, threads=2)]
    other = [
        Job(("train.py",)), Job(job.command, (edit,)), Job(job.command, seed=1), Job(job.command, survey=True),
        Job(job.command, probe_budget=0.1), Job(("train.py", "--rate 1")),
    ]  # fmt: skip
    assert {j.key for j in same} == {job.key}
    assert len({j.key for j in [job, *other]}) == 1 + len(other)


def test_a_script_that_crashes_is_an_outcome_with_its_last_line(script, tmp_path):
    outcome = made(Job(script("print('begins')\nraise ValueError('mine')\n")), tmp_path / "run")
    assert (outcome.status, outcome.error, outcome.record) == ("failed", "ValueError: mine", "")
    assert outcome.quality == -math.inf
    assert (tmp_path / "run" / "output.txt").read_text().startswith("begins")


def test_a_script_that_is_killed_says_by_what(script, tmp_path):
    outcome = made(Job(script("import os\nprint('epoch 1', flush=True)\nos.kill(os.getpid(), 9)\n")), tmp_path / "run")
    assert (outcome.status, outcome.error) == ("failed", "ended by SIGKILL")


def test_a_script_without_torch_has_failed_and_says_why(script, tmp_path):
    outcome = made(Job(script("print('hello')\n")), tmp_path / "run")
    assert (outcome.status, outcome.error) == ("failed", "the script never imported torch")


def test_a_script_that_takes_too_long_is_stopped_with_all_it_started(script, tmp_path, gone):
    text = "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    text += "open('child', 'w').write(str(child.pid))\nchild.wait()\n"
    began = time.perf_counter()
    outcome = made(Job(script(text), limit=0.7), tmp_path / "run")
    assert (outcome.status, outcome.error) == ("stopped", "it took too long")
    assert time.perf_counter() - began < 10
    assert gone(int((tmp_path / "child").read_text()))


def test_it_asks_nobody_draws_no_window_and_uses_the_threads_it_is_given(script, tmp_path):
    text = "import os, sys\nprint(os.environ['MPLBACKEND'], os.environ['OMP_NUM_THREADS'], repr(sys.stdin.read()))\n"
    made(Job(script(text), threads=3), tmp_path / "run")
    assert (tmp_path / "run" / "output.txt").read_text() == "Agg 3 ''\n"


def test_what_is_left_of_a_run_that_was_broken_off_is_not_taken_for_the_new_one(script, tmp_path):
    written(tmp_path / "run", [1.0, 2.0])
    outcome = made(Job(script("print('hello')\n")), tmp_path / "run")
    assert (outcome.status, outcome.record) == ("failed", "")


def test_the_python_path_is_the_users_own(script, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"))
    made(Job(script("import json, sys\nprint(json.dumps(sys.path))\n")), tmp_path / "run")
    path = json.loads((tmp_path / "run" / "output.txt").read_text())
    assert path[:2] == [str(tmp_path), str(tmp_path / "mine")]
    assert not [p for p in path if "inject" in p]


def test_the_loss_is_what_counts_where_there_is_no_score(tmp_path):
    outcome = measured(written(tmp_path / "run", [3.0, 2.0, 1.0]), "finished", 1.5)
    assert (outcome.status, outcome.score, outcome.steps, outcome.seconds) == ("finished", "loss", 3, 1.5)
    assert outcome.quality == -outcome.value
    assert math.isnan(outcome.skill)


def test_a_loss_that_is_no_number_has_diverged(tmp_path):
    outcome = measured(written(tmp_path / "run", [1.0, 5.0, *[math.nan] * 30]), "finished", 1.0)
    assert (outcome.status, outcome.quality) == ("diverged", -math.inf)


def test_the_score_of_evaluation_comes_before_that_of_training():
    task = Task("classification", 10, "accuracy", 2.3, 0.1)
    both = {("loss", ""): [2.0, 1.0], ("score", ""): [0.2, 0.9], ("eval_score", ""): [0.5]}
    name, value, skill = score_of(Record.of(both, task=task))
    assert (name, value) == ("accuracy", 0.5)
    assert skill == pytest.approx((0.5 - 0.1) / 0.9)
    del both["eval_score", ""]
    assert score_of(Record.of(both, task=task))[0] == "accuracy"


def test_quality_is_the_higher_the_better():
    assert Outcome("finished", "accuracy", 0.9).quality == 0.9
    assert Outcome("finished", "perplexity", 30.0).quality == -30.0
    assert Outcome("finished", "accuracy").quality == -math.inf
