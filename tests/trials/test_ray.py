"""Jobs on a Ray of this machine, and on clusters that lose machines. One cluster for all of this file, as it takes seconds to start."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from unstuck.errors import ClusterError, UnstuckError
from unstuck.evidence import Record
from unstuck.trials import ray as module
from unstuck.trials.executor import Log, Processes
from unstuck.trials.job import Job
from unstuck.trials.ray import Ray

COUNTED = "import sys\nopen('made', 'a').write(sys.argv[1] + '\\n')\n"
SLEEPS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open("pids", "a").write(f"{os.getpid()} {child.pid}\\n")
time.sleep(60)
"""
ONCE = """
import os, time
open("began", "a").write(f"{os.getpid()}\\n")
if open("began").read().count("\\n") == 1:
    time.sleep(60)
"""
TRAINS = """
import torch
torch.manual_seed(0)
net = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
x = torch.randn(64, 4)
for step in range(50):
    optimizer.zero_grad()
    loss = ((net(x) - x.sum(1, keepdim=True)) ** 2).mean()
    loss.backward()
    optimizer.step()
"""
STAYS = """
import os, sys, time
from pathlib import Path
from unstuck.store import Writer
import json
with open(f"began-{sys.argv[1]}", "a") as file:
    file.write(f"{os.getpid()}\\n")
writer = Writer(Path(json.loads(os.environ["UNSTUCK_RUN"])["folder"]) / "record.sqlite", meta={}, flush_every=0.01)
step = 0
while not Path("go").exists():
    writer.row(step, (("loss", ""),), [1.0])
    step += 1
    time.sleep(0.01)
writer.row(step, (("loss", ""),), [1.0])
writer.close(status="finished", steps=step)
"""
GROWS = """
import json, os, time
from pathlib import Path
from unstuck.store import Writer
writer = Writer(Path(json.loads(os.environ["UNSTUCK_RUN"])["folder"]) / "record.sqlite", meta={}, flush_every=0.01)
for step in range(6000):
    writer.row(step, (("loss", ""),), [1.0])
    time.sleep(0.01)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "count.py": COUNTED, "sleep.py": SLEEPS, "once.py": ONCE, "grow.py": GROWS, "train.py": TRAINS,
        "kills.py": "import os\nopen('made', 'a').write('x\\n')\nos.kill(os.getppid(), 9)\n",
        "crash.py": "raise ValueError('mine')\n", "where.py": "import os\nprint(os.getcwd())\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def made(cluster, here):
    executors = []

    def make(**options):
        for before in executors:  # its workers hold the cores
            before.close()
        executors.append(Ray(Log(here / "visit"), **{"nursery": False, **options}))
        return executors[-1]

    yield make
    for executor in executors:
        executor.close()


def count(*names):
    return [Job(("count.py", name)) for name in names]


def counted(here):
    path = here / "made"
    return sorted(path.read_text().split()) if path.exists() else []


def pids(here, *, lines=1):
    """Numbers of the processes that sleep, once there are so many lines of them."""
    for _ in range(3000):
        with contextlib.suppress(FileNotFoundError):
            text = (here / "pids").read_text()
            if text.count("\n") >= lines:
                return [int(pid) for pid in text.split()]
        time.sleep(0.01)
    raise AssertionError("it was never begun")


def worker_of(pid):
    """The process that started another."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# ---------------------------------------------------------------------- with it


@pytest.mark.slow
def test_the_outcomes_are_those_of_processes(made, here):
    jobs = [Job(("train.py",)), Job(("train.py",), seed=1), Job(("crash.py",)), *count("a")]
    got = dict(made(nursery=True).run(jobs))
    expected = dict(Processes(Log(here / "other")).run(jobs))
    for job in jobs:
        one, other = got[job], expected[job]
        assert (one.status, one.score, str(one.value), one.steps, one.error) == (
            other.status, other.score, str(other.value), other.steps, other.error,
        )  # fmt: skip
    record, other = (Record.read(out[jobs[1]].record) for out in (got, expected))
    assert got[jobs[1]].record == str(here / "visit" / jobs[1].key / "record.sqlite")
    assert record.series("loss").values.tolist() == other.series("loss").values.tolist()
    assert (record.meta["status"], record.meta["cwd"]) == ("finished", str(here))
    assert (here / "visit" / jobs[2].key / "output.txt").read_text().endswith("ValueError: mine\n")


@pytest.mark.slow
def test_a_job_that_is_in_the_log_is_not_made_again(made, here):
    list(made().run(count("a", "b")))
    got = [job for job, _ in made().run(count("c", "a", "b"))]
    assert (got[:2], counted(here)) == (count("a", "b"), ["a", "b", "c"])
    got = [job for job, _ in Processes(Log(here / "visit")).run(count("a", "b", "c"))]
    assert (len(got), counted(here)) == (3, ["a", "b", "c"])


@pytest.mark.slow
def test_enough_stops_what_is_under_way_and_its_children(made, here, gone):
    executor = made()
    jobs = [Job(("sleep.py",)), *count("a", "b")]
    got = [job for job, _ in executor.run(jobs, enough=lambda *_: bool(pids(here)))]
    assert (got, counted(here)) == ([jobs[1]], ["a"])
    assert all(gone(pid) for pid in pids(here))
    assert jobs[0].key not in Log(here / "visit").known
    assert [job for job, _ in executor.run(count("b"))] == count("b")  # the workers are still of use


@pytest.mark.slow
def test_enough_is_asked_of_what_the_log_holds_as_well(made, here):
    list(made().run(count("a")))
    got = [job for job, _ in made().run(count("b", "a", "c"), enough=lambda *_: True)]
    assert (got, counted(here)) == (count("a"), ["a"])


@pytest.mark.slow
def test_nothing_is_left_running_when_nobody_listens_any_more(made, here, gone):
    going = made().run([Job(("sleep.py",)), *count("a")])
    next(going)
    left = pids(here)
    going.close()
    assert all(gone(pid) for pid in left)


@pytest.mark.slow
def test_closing_ends_what_is_under_way(made, here, gone):
    executor = made()
    going = executor.run([Job(("sleep.py",)), *count("a")])
    next(going)
    left = pids(here)
    executor.close()
    assert all(gone(pid) for pid in left)


@pytest.mark.slow
def test_what_will_be_wanted_is_made_while_there_is_room_and_not_made_again(made, here):
    executor = made(workers=2)
    both = "os.path.exists('made') and os.path.exists('pids')"  # the other worker has made one, and begun the next
    (here / "wait.py").write_text(f"import os, time\nwhile not ({both}):\n    time.sleep(0.01)\n")
    first = Job(("wait.py",))
    executor.later([*count("a"), Job(("sleep.py",))])
    assert [job for job, _ in executor.run([first])] == [first]  # as it waits for what nobody has asked for yet
    assert pids(here)
    (here / "pids").unlink()
    assert [job for job, _ in executor.run([*count("a", "b")])] == count("a", "b")
    assert counted(here) == ["a", "b"]
    assert not (here / "pids").exists()


@pytest.mark.slow
def test_what_is_hopeless_is_stopped_with_the_reason(made, here, monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.1)
    grows, seen = Job(("grow.py",)), []

    def hopeless(job, record):
        seen.append(Record.read(record).steps)
        return "far behind" if len(seen) == 3 else ""

    got = dict(made().run([grows], hopeless=hopeless))
    assert (got[grows].status, got[grows].error) == ("stopped", "far behind")
    assert seen == sorted(set(seen))  # it grew each time
    assert Record.read(got[grows].record).steps >= seen[-1]


@pytest.mark.slow
def test_a_script_that_hangs_is_stopped(made, here):
    hangs = Job(("sleep.py",), limit=0.5)
    got = dict(made(workers=1).run([hangs, *count("a")]))
    assert (got[hangs].status, got[hangs].error, counted(here)) == ("stopped", "it took too long", ["a"])


@pytest.mark.slow
def test_no_more_run_at_a_time_than_there_are_workers(made, here):
    (here / "alone.py").write_text("import os, time\nos.mkdir('alone')\ntime.sleep(0.1)\nos.rmdir('alone')\n")
    got = made(workers=1).run([Job(("alone.py",), seed=seed) for seed in range(3)])
    assert [out.error for _, out in got] == ["the script never imported torch"] * 3


@pytest.mark.slow
def test_variables_set_since_are_those_of_the_script(made, here, monkeypatch):
    executor = made(workers=1)
    (here / "show.py").write_text(
        "import os\nprint(os.environ.get('MINE'), os.environ.get('RAY_JOB_ID'), os.environ['OMP_NUM_THREADS'])\n"
    )
    for seed, value in enumerate("ab"):
        monkeypatch.setenv("MINE", value)
        job = Job(("show.py",), seed=seed)
        list(executor.run([job]))
        assert (here / "visit" / job.key / "output.txt").read_text() == f"{value} None 1\n"


@pytest.mark.slow
def test_the_job_of_a_worker_that_is_killed_is_made_again_and_what_has_finished_is_kept(made, here, gone):
    slow, executor = Job(("once.py",)), made(workers=1)
    got = []
    for job, outcome in executor.run([*count("a"), slow, *count("b")], hopeless=kill_once(here)):
        got.append((job, outcome.error))
    assert [job for job, _ in got] == [*count("a"), slow, *count("b")]
    assert counted(here) == ["a", "b"]
    first, second = (here / "began").read_text().split()
    assert first != second
    assert gone(int(first))


def kill_once(here):
    """Kills the worker of what sleeps, from a thread, when it has begun."""

    def kill():
        while not (here / "began").exists() or not (here / "began").read_text():
            time.sleep(0.01)
        os.kill(worker_of(int((here / "began").read_text())), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    return lambda job, record: ""


@pytest.mark.slow
def test_a_job_whose_worker_is_lost_each_time_has_failed_and_may_be_made_another_time(made, here):
    kills = Job(("kills.py",))
    got = dict(made(workers=1).run([kills, *count("a")]))
    assert got[kills].status == "failed"
    assert "lost 3 times" in got[kills].error
    assert counted(here) == ["a", "x", "x", "x"]
    assert set(Log(here / "visit").known) == {count("a")[0].key}


@pytest.mark.slow
def test_what_cannot_be_started_is_told(made):
    with pytest.raises(UnstuckError, match="can't be started: .*too long") as caught:
        list(made(workers=1).run(count("x" * 2**20)))
    assert type(caught.value) is UnstuckError  # without Ray's own words


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused(made, here, monkeypatch):
    monkeypatch.setattr(module, "__version__", "9.9")
    with pytest.raises(ClusterError, match=r"install unstuck==9\.9 there"):
        list(made().run(count("a")))


# ---------------------------------------------------------------------- machines


@pytest.mark.slow
def test_the_jobs_of_a_machine_that_is_lost_are_made_elsewhere(cluster, made, here, gone):
    node = cluster.add_node(num_cpus=1)
    (here / "stay.py").write_text(STAYS)
    jobs = [Job(("stay.py", name)) for name in "abc"]
    lost = threading.Thread(target=lose, args=(cluster, node, here, gone), daemon=True)
    lost.start()
    got = dict(made().run(jobs))
    lost.join()
    assert {out.status for out in got.values()} == {"finished"}
    assert len(began(here)) == 4  # one was made again
    assert all(gone(pid) for pid in began(here))
    assert all(Record.read(out.record).meta["status"] == "finished" for out in got.values())


def lose(cluster, node, here, gone):
    """Ends a machine when all three jobs have begun, and lets them end when what was on it has ended."""
    while len(began(here)) < 3:
        time.sleep(0.01)
    cluster.remove_node(node, allow_graceful=False)
    while not any(gone(pid) for pid in began(here)):
        time.sleep(0.01)
    (here / "go").touch()


def began(here):
    return [int(pid) for path in here.glob("began-*") for pid in path.read_text().split("\n")[:-1]]


@pytest.mark.slow
def test_a_machine_without_the_script_gets_it(cluster, made, here):
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("another view of the files needs rights")
    (here / "data").mkdir()
    (here / "data" / "x.txt").write_text("4")
    text = TRAINS.replace("torch.randn(64, 4)", "torch.randn(64, int(open('data/x.txt').read()))")
    (here / "train.py").write_text(text + "print('in', __import__('os').getcwd())\n")
    start = f"mount -t tmpfs none {here} && exec ray start --address={cluster.address} --num-cpus=1 --resources='{{\"bare\": 1}}' --block"
    node = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", start], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        executor = made(workers=1)
        executor._node = executor._node.options(resources={"bare": 1})
        job = Job(("train.py",), survey=True)
        got = dict(executor.run([job]))
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.communicate()
    assert got[job].status == "finished"
    record = Record.read(got[job].record)
    assert record.meta["cwd"] == str(here)
    assert {e.data["file"] for e in record.happened("site")} == {str(here / "train.py")}
    assert (here / "visit" / job.key / "output.txt").read_text() == f"in {here}\n"


# ---------------------------------------------------------------------- a Ray of our own

DRIVER = """
import os, signal, sys, time
from pathlib import Path
from unstuck.trials.executor import Log
from unstuck.trials.job import Job
from unstuck.trials.ray import Ray
before = {s: signal.getsignal(s) for s in signal.valid_signals()}
with Ray(Log(Path("visit")), workers=2, nursery=False) as executor:
    assert {s: signal.getsignal(s) for s in signal.valid_signals()} == before
    print([out.error for _, out in executor.run([Job((name, "a")) for name in ("count.py", "kills.py")])], flush=True)
    if len(sys.argv) > 2:
        list(executor.run([Job(("sleep.py", "1")), Job(("sleep.py", "2"))]))
import ray
print(ray.is_initialized(), "RAY_USAGE_STATS_ENABLED" in os.environ)
"""


@pytest.fixture
def driver(here):
    pytest.importorskip("ray")
    started = []
    folder = tempfile.mkdtemp(prefix="u", dir="/tmp")  # short, as Ray's sockets lie there

    def start(*arguments):
        with (here / "told").open("wb") as told:
            process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, *arguments, folder],
                stdout=told,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": folder},
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)  # guards may yet be clearing it away too


@pytest.mark.slow
def test_a_ray_of_our_own_says_nothing_takes_no_signal_and_is_gone_at_the_end(driver, here):
    process = driver()
    assert process.wait(60) == 0
    outcomes, after = (here / "told").read_text().splitlines()
    assert outcomes.startswith("['the script never imported torch', 'its worker was lost 3 times: ")
    assert after == "False False"
    assert not list(Path(process.args[-1]).iterdir())


@pytest.mark.slow
def test_nothing_is_left_when_the_driver_is_killed(driver, here, gone):
    process = driver("on")
    left = pids(here, lines=2)
    workers = {worker_of(pid) for pid in left[::2]}
    process.kill()
    process.wait()
    killed = time.perf_counter()
    while not all(gone(pid) for pid in [*left, *workers]):  # workers see within seconds that they are alone
        assert time.perf_counter() - killed < 30
