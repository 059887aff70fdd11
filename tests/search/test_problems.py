"""What is searched: functions, trainings, scripts; and how their children end."""

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from unstuck.errors import MisuseError, ScriptError
from unstuck.evidence import Record
from unstuck.search.problems import FunctionProblem, ScriptProblem, TrainingProblem
from unstuck.search.searching import Plan, Search
from unstuck.trials.executor import Log, Processes
from unstuck.trials.job import Job

TRAINING = """
import torch
from torch import nn
from unstuck.training import Training

def space(draw):
    return {"width": draw.integer("width", 2, 64), "rate": draw.number("rate", 1e-6, 1.0, log=True)}

def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 4, generator=generator)
    return x, (x[:, 0] > 0).long()

def training(chosen):
    x, y = data()
    model = nn.Sequential(nn.Linear(4, chosen["width"]), nn.ReLU(), nn.Linear(chosen["width"], 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=chosen["rate"])
    return Training(model, nn.functional.cross_entropy, optimizer, [(x[:64], y[:64])] * 4, evaluation=[(x[64:], y[64:])], epochs=9)
"""
FOLDS = TRAINING.replace(
    "def training(chosen):", "def splits():\n    return [0, 1, 2]\n\ndef training(chosen, fold):"
).replace("x, y = data()", "x, y = (t.roll(32 * fold, 0) for t in data())")
SCRIPT = """
import torch
from torch import nn
torch.manual_seed(0)
x = torch.randn(96, 4)
y = (x[:, 0] > 0).long()
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
for step in range(60):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(TRAINING)
    (tmp_path / "folds.py").write_text(FOLDS)
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def searched(problem, folder, **plan):
    log = Log(folder, crashes=True)
    executor = Processes(log)
    try:
        made = problem(executor) if callable(problem) else problem
        return Search(
            made, executor, log, Plan(**{"sampler": "evolution", "top": 1, "seeds": 2, "workers": 2, **plan})
        ).visit()
    finally:
        executor.close()


@pytest.mark.slow
def test_children_of_a_training_are_halved_and_the_best_is_trained_whole(here):
    answer = searched(TrainingProblem("mine.py"), here / "run", evaluations=6)
    children = answer.arms["search"] + answer.arms["control"]
    assert {len(c.values) for c in children} == {1, 2}  # three epochs, or nine as well
    assert sum(c.whole for c in children) == 4  # a third of six, in both arms
    assert all(c.parameters == 4 * c.point.chosen["width"] + 3 * c.point.chosen["width"] + 2 for c in children)
    assert {c.epochs for c in children if c.whole} == {9}
    assert set(answer.best.values) == {1001, 1002}
    assert answer.score == "accuracy"
    json.dumps(answer.to_json(), allow_nan=False)


@pytest.mark.slow
def test_a_search_whose_folder_was_moved_is_gone_on_with(here):
    first = searched(TrainingProblem("mine.py"), here / "run", evaluations=3)
    made = {
        line["key"]
        for line in map(json.loads, (here / "run" / "trials.jsonl").read_text().splitlines())
        if "outcome" in line
    }
    (here / "run").rename(here / "elsewhere")
    again = searched(TrainingProblem("mine.py"), here / "elsewhere", evaluations=3)
    assert again.best.values == first.best.values
    assert again.seconds >= first.seconds - 1.0
    told = list(map(json.loads, (here / "elsewhere" / "trials.jsonl").read_text().splitlines()))
    assert {line["key"] for line in told if "outcome" in line} == made
    assert all(Path(path).exists() for c in again.arms["search"] for path in c.records)


@pytest.mark.slow
def test_an_evaluation_is_the_mean_over_the_splits(here):
    answer = searched(TrainingProblem("folds.py"), here / "run", evaluations=2, control=False, halving=False, seeds=0)
    for child in answer.arms["search"]:
        assert len(child.records) == 3
        values = [Record.read(path).series("eval_score").finite.last for path in child.records]
        assert child.values[-1] == pytest.approx(sum(values) / 3, abs=1e-6)


@pytest.mark.slow
def test_a_child_that_is_killed_is_made_again_and_counts_once(here):
    """By SIGKILL, in the midst of its epochs, the first three."""
    slow = (
        "    import os, time\n    time.sleep(0.3)\n    open('pids', 'a').write(f'{os.getpid()}\\n')\n    x, y = data()"
    )
    (here / "mine.py").write_text(TRAINING.replace("    x, y = data()", slow))
    stop, killed = threading.Event(), set()

    def kill():
        pids = here / "pids"
        while not stop.is_set() and len(killed) < 3:
            for pid in list(set(pids.read_text().split() if pids.exists() else []) - killed)[: 3 - len(killed)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
                    killed.add(pid)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        answer = searched(TrainingProblem("mine.py"), here / "run", evaluations=4, seeds=0)
    finally:
        stop.set()
        thread.join()
    assert len(killed) >= 3
    assert {c.status for arm in answer.arms.values() for c in arm} <= {"finished", "failed"}
    told = [json.loads(line) for line in (here / "run" / "trials.jsonl").read_text().splitlines()]
    keys = [line["key"] for line in told if "outcome" in line]
    assert len(keys) == len(set(keys))
    failed = [line["outcome"]["error"] for line in told if line.get("outcome", {}).get("status") == "failed"]
    assert len(failed) <= 1  # one that was killed twice
    assert set(failed) <= {"ended by SIGKILL"}


@pytest.mark.slow
def test_a_script_is_searched_as_it_is(here):
    def problem(executor):
        [(_, baseline)] = executor.run([Job(("train.py",), survey=True)])
        return ScriptProblem(["train.py"], baseline, over=["learning-rate", "momentum"])

    answer = searched(problem, here / "run", evaluations=8, sampler="local", control=False)
    assert (here / "train.py").read_text() == SCRIPT
    assert {d.remedy for d in answer.best.child.point.chosen.treatment} == {"learning-rate", "momentum"}
    assert answer.best.mean > 0.8  # a rate of 1e-4 leaves it at chance


@pytest.mark.slow
def test_a_script_that_trains_nothing_is_refused(here):
    (here / "train.py").write_text("print(1)")
    [(_, baseline)] = Processes(Log(here / "run", crashes=True)).run([Job(("train.py",), survey=True)])
    with pytest.raises(MisuseError, match=r"train\.py trained nothing: no step of an optimizer was seen"):
        ScriptProblem(["train.py"], baseline)


def test_the_journal_knows_another_file(here):
    log = Log(here / "run", crashes=True)
    executor = Processes(log)
    Search(TrainingProblem("mine.py"), executor, log, Plan(sampler="random"))
    (here / "mine.py").write_text(TRAINING + "\n# changed\n")
    with pytest.raises(MisuseError, match="was of another digest"):
        Search(TrainingProblem("mine.py"), executor, Log(here / "run", crashes=True), Plan(sampler="random"))


def test_a_file_without_its_functions_is_refused(here):
    with pytest.raises(ScriptError, match="has no function 'space'"):
        TrainingProblem("train.py")


def test_a_function_that_raises_or_gives_no_number():
    problem = FunctionProblem(lambda draw: draw.choice("n", [1, 2]), lambda n: "no number")
    point = problem.space.at({"n": 1})
    outcome = problem.job(point, part=0, stage=-1, seed=0, saved="").outcome(Path())
    assert (outcome.status, outcome.error) == ("failed", "ValueError: could not convert string to float: 'no number'")
