"""A copy of a process that has imported torch is what a new interpreter would be."""

import json
import os
import signal
import time

import pytest

from unstuck.evidence import Record
from unstuck.trials.executor import Log, Processes
from unstuck.trials.job import Job, Running
from unstuck.trials.nursery import Nursery, imported

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Nursery.possible(), reason="processes can't be copied here"),
]
TELLS = """
import atexit, json, os, random, sys, threading
import numpy as np, torch
import beside
told = dict(
    argv=sys.argv, path=sys.path[0], file=__file__, name=__name__, cwd=os.getcwd(), mine=os.environ.get("MINE"), stdin=sys.stdin.read(),
    threads=torch.get_num_threads(), alive=threading.active_count(),
    numbers=[random.random(), float(np.random.rand()), float(torch.rand(()))],
    inject=[p for p in sys.path if "inject" in p], here=beside.HERE,
)
net = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
x = torch.randn(64, 4)
for _ in range(20):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(net(x), x.sum(1, keepdim=True))
    loss.backward()
    optimizer.step()
told["loss"] = loss.item()
json.dump(told, open(sys.argv[1], "w"))
atexit.register(lambda: print("ended"))
"""


@pytest.fixture(scope="module")
def nursery():
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tells.py").write_text(TELLS)
    (tmp_path / "beside.py").write_text("HERE = True\n")
    (tmp_path / "sleep.py").write_text("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    return tmp_path


def ended(running):
    while not running.poll():
        time.sleep(0.01)
    return running.outcome()


def test_a_script_can_not_tell_a_copy_from_a_new_interpreter(here, nursery, monkeypatch):
    monkeypatch.setenv("MINE", "set after it began")
    new = ended(Running(Job(("tells.py", "new.json"), seed=3), here / "new"))
    copy = ended(Running(Job(("tells.py", "copy.json"), seed=3), here / "copy", nursery))
    told = [json.loads((here / f"{name}.json").read_text()) for name in ("new", "copy")]
    for each, name in zip(told, ("new", "copy"), strict=True):
        assert each.pop("argv") == ["tells.py", f"{name}.json"]
    assert told[0] == told[1]
    assert (new.status, new.steps, new.value) == (copy.status, copy.steps, copy.value)
    assert (here / "copy" / "output.txt").read_text() == (here / "new" / "output.txt").read_text() == "ended\n"
    assert (
        Record.read(new.record).series("loss").values.tolist()
        == Record.read(copy.record).series("loss").values.tolist()
    )


def test_the_exit_code_and_the_last_line_are_told(here, nursery):
    (here / "crash.py").write_text("def f():\n    raise ValueError('mine')\nf()\n")
    (here / "leave.py").write_text("import sys\nsys.exit(3)\n")
    (here / "killed.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    got = [ended(Running(Job((f"{name}.py",)), here / name, nursery)) for name in ("crash", "leave", "killed")]
    assert [o.status for o in got] == ["failed"] * 3
    assert (got[0].error, got[2].error) == ("ValueError: mine", "ended by SIGKILL")
    assert "nursery.py" not in (here / "crash" / "output.txt").read_text()


def test_a_copy_can_be_stopped_and_others_go_on(here, nursery, gone):
    one = Running(Job(("sleep.py",), limit=1.0), here / "one", nursery)
    outcome = ended(one)
    assert (outcome.status, outcome.error) == ("stopped", "it took too long")
    assert gone(int((here / "pid").read_text()))
    (here / "fine.py").write_text("print('fine')\n")
    assert ended(Running(Job(("fine.py",)), here / "two", nursery)).status == "finished"


def test_when_it_is_closed_its_copies_end(here, gone):
    nursery = Nursery()
    running = Running(Job(("sleep.py",)), here / "one", nursery)
    while not (here / "pid").exists() or not (here / "pid").read_text():
        time.sleep(0.01)
    nursery.close()
    assert gone(int((here / "pid").read_text()))
    del running


def test_a_nursery_that_was_killed_is_begun_again(here, gone):
    nursery = Nursery()
    lost = Running(Job(("sleep.py",)), here / "one", nursery)
    while not (here / "pid").exists() or not (here / "pid").read_text():
        time.sleep(0.01)
    os.kill(nursery._server.pid, signal.SIGKILL)
    assert ended(lost).status == "failed"
    assert gone(int((here / "pid").read_text()))
    (here / "fine.py").write_text("print('fine')\n")
    assert ended(Running(Job(("fine.py",)), here / "two", nursery)).status == "finished"
    nursery.close()


def test_what_is_slow_to_import_is_known_from_the_script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("import torch, sklearn.datasets\nimport mine\nfrom pandas import DataFrame\nfrom .near import x\n")
    assert imported(str(path)) == ["sklearn.datasets", "pandas"]
    assert imported("-m") == imported(str(tmp_path / "nowhere.py")) == []


def test_the_executor_uses_it(here):
    executor = Processes(Log(here / "visit"), workers=2)
    got = dict(executor.run([Job(("tells.py", f"{i}.json"), seed=i) for i in (1, 2)]))
    assert {o.status for o in got.values()} == {"finished"}
    assert executor.nursery is not None
    executor.close()
    assert executor.nursery is None


@pytest.mark.parametrize(
    ("last", "code", "said"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('no good')", 1, "no good\n"),
        ("raise ValueError('mine')", 1, "ValueError: mine\n"),
        ("threading.Thread(target=lambda: (time.sleep(0.3), print('late'))).start()", 0, "late\n"),
        ("sys.stdout.write('not flushed')", 0, "not flushed"),
    ],
)
def test_a_copy_ends_as_an_interpreter_does(here, nursery, last, code, said):
    (here / "last.py").write_text(f"import atexit, sys, threading, time\natexit.register(open, 'gone', 'w')\n{last}\n")
    running = Running(Job(("last.py",)), here / "run", nursery)
    assert running.process.wait() == code
    assert (here / "run" / "output.txt").read_text().endswith(said)
    assert (here / "gone").exists(), "what was to be done at the exit"
