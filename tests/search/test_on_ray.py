"""A search whose controller is spread over processes, which are killed while it goes on. One cluster for all of this file."""

import contextlib
import gc
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest

from unstuck.errors import ClusterError, MissingError, MisuseError
from unstuck.search.problems import FunctionProblem, TrainingProblem
from unstuck.search.samplers.fast import fast
from unstuck.search.sampling import Setting
from unstuck.search.searching import Plan, Search
from unstuck.search.space import Space
from unstuck.trials.executor import Feed, Log
from unstuck.trials.ray import Ray

TARGET = "aebdca"


def six(draw):
    return [draw.choice(f"op{i}", list("abcde")) for i in range(6)]


def hits(chosen):
    """How many of the six are right, and a bonus for neighbours that fit."""
    right = [value == target for value, target in zip(chosen, TARGET, strict=True)]
    return sum(right) + 0.5 * sum(a and b for a, b in itertools.pairwise(right))


class Threads:
    """Children that are calls, a few at a time."""

    def __init__(self, log, workers):
        self.log, self.workers = log, workers

    def run(self, jobs, **_):
        feed, going = Feed(jobs, self.log), {}
        with ThreadPoolExecutor(self.workers) as pool:
            while feed.goes_on or going:
                for job, outcome in feed.taken(lambda: len(going) < self.workers):
                    if outcome is None:
                        going[pool.submit(job.outcome, self.log.folder)] = job
                    else:
                        yield job, outcome
                for done in wait(going, return_when=FIRST_COMPLETED).done if going else ():
                    job = going.pop(done)
                    self.log.add(job, done.result())
                    yield job, done.result()

    def close(self):
        pass


def searching(folder, score, *, evaluations, workers=6, **settings):
    log = Log(folder, crashes=True)
    settings = {"replicas": 2, "shards": 2, "mutations": 0.5, **settings}
    plan = Plan("fast", settings, evaluations=evaluations, control=False, seeds=0, workers=workers)
    return Search(FunctionProblem(six, score), Threads(log, workers), log, plan)


def kill(actor):
    """Ends an actor's process, as the kernel does for want of memory."""
    import ray

    pid = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
    os.kill(pid, signal.SIGKILL)


def settled(sampler):
    """Waits until no replica is about anything."""
    until = time.perf_counter() + 60
    while any(member.order for member in sampler._members):
        sampler._hear(1.0)
        assert time.perf_counter() < until
    return sampler.health()


def asked_and_ended(folder):
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines() if line.endswith("}")]
    return [line for line in lines if line.get("event") == "asked"], Counter(
        line["key"] for line in lines if "outcome" in line
    )


@pytest.mark.slow
def test_a_search_learns_while_replicas_and_shards_are_killed(cluster, tmp_path):
    search = None
    calls = []

    def score(chosen):
        calls.append("".join(chosen))
        if len(calls) in (50, 90):
            crew = search.arms[0].sampler._crew
            kill(crew.replicas[0] if len(calls) == 50 else crew.shards[0])
        time.sleep(0.02)
        return hits(chosen)

    search = searching(tmp_path, score, evaluations=160)
    children = search.visit().arms["search"]
    assert {c.status for c in children} == {"finished"}
    assert len(calls) == len(set(calls)) == len(children) == 160
    sampler = search.arms[0].sampler
    health = settled(sampler)
    assert (health["replica_restarts"], health["shard_restarts"], health["lost"]) == (1, 1, 0)
    waiting = sum(len(member.waiting) for member in sampler._members)
    assert health["updates"] * 4 + waiting == 160  # all was learned from
    assert all(version <= health["updates"] for version in sampler._members[0].report.versions)  # and nothing twice
    assert health["controller"] > 0.05  # one of ten proposals, the rest are mutations
    qualities = [c.quality for c in children]
    assert max(qualities) >= 7.0  # 8.5 is the best there is; 160 at random give 4.5 in the median
    assert sum(qualities[-40:]) / 40 > sum(qualities[:40]) / 40 + 1.0


CHILD = """
import os, torch
from torch import nn
from unstuck.training import Training

def space(draw):
    return [draw.choice("op", list("abcde"), of=i) for i in range(4)]

def training(chosen):
    open("made", "a").write(f"{''.join(chosen)} {os.getpid()}\\n")
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    x = torch.ones(8, 1)
    wrong = sum(a != b for a, b in zip(chosen, "aebd"))
    return Training(model, nn.functional.mse_loss, torch.optim.SGD(model.parameters(), lr=1e-9), [(x, x * wrong)] * 20, epochs=3)
"""


@pytest.mark.slow
def test_children_and_workers_that_are_killed_cost_a_search_of_trainings_nothing(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CHILD)
    log = Log(tmp_path / "search", crashes=True)
    settings = {"replicas": 1, "shards": 1, "first": 4, "mutations": 0.3}
    plan = Plan("fast", settings, evaluations=10, control=False, seeds=0, halving=False, workers=2)
    with Ray(log, workers=2) as executor:
        search = Search(TrainingProblem("mine.py"), executor, log, plan)
        killing = threading.Thread(target=kill_child_and_worker, args=(tmp_path / "made", executor), daemon=True)
        killing.start()
        children = search.visit().arms["search"]
        killing.join(10)
        assert not killing.is_alive()
        assert settled(search.arms[0].sampler)["updates"] == 2
    asked, ended = asked_and_ended(tmp_path / "search")
    assert len(asked) == len(ended) == len(children) == 10 and set(ended.values()) == {1}
    assert {c.status for c in children} == {"finished"}
    made = [line.split()[0] for line in (tmp_path / "made").read_text().splitlines()]
    assert len(set(made)) == 10 and len(made) <= 10 + 2  # what was under way there is made again, and nothing else


def kill_child_and_worker(made, executor):
    """When so many children have begun."""

    def begun(count):
        while not made.exists() or made.read_text().count("\n") < count:
            time.sleep(0.005)
        return int(made.read_text().splitlines()[-1].split()[1])

    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(begun(3), signal.SIGKILL)
    begun(6)
    kill(next(worker for worker in executor._pool if worker.job is not None).actor)


DRIVER = """
import sys, time
from pathlib import Path
import importlib.util
spec = importlib.util.spec_from_file_location("of_the_tests", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
sys.modules["of_the_tests"] = tests
spec.loader.exec_module(tests)

def score(chosen):
    with open(sys.argv[2] + "/calls", "a") as file:
        file.write("".join(chosen) + "\\n")
    time.sleep(0.03)
    return tests.hits(chosen)

search = tests.searching(Path(sys.argv[2]), score, evaluations=100, replicas=1, shards=1)
answer = search.visit()
health = tests.settled(search.arms[0].sampler)
waiting = sum(len(member.waiting) for member in search.arms[0].sampler._members)
print(len(answer.arms["search"]), health["updates"] * 4 + waiting, health["random"], answer.best is not None)
"""


@pytest.mark.slow
def test_the_driver_is_killed_and_the_search_goes_on_by_its_journal(cluster, tmp_path):
    rng = random.Random(0)
    for last in (False, True):
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, __file__, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "RAY_ADDRESS": cluster.address},
        )  # fmt: skip
        if not last:
            wanted = rng.randrange(40, 70)
            while process.poll() is None and ended_lines(tmp_path) < wanted:
                time.sleep(0.01)
            process.kill()
        told, complaints = process.communicate()
    assert process.returncode == 0, complaints.decode()
    assert told.split()[:2] == [b"100", b"100.0"]  # all children of both sessions are learned from
    asked, ended = asked_and_ended(tmp_path)
    assert sorted(line["number"] for line in asked) == list(range(100))
    assert len(ended) == 100 and set(ended.values()) == {1}
    calls = Counter((tmp_path / "calls").read_text().split())
    assert sum(calls.values()) <= 100 + 6  # only what was under way is made again
    assert len(calls) == 100
    assert float(told.split()[2]) < 0.25  # the random ones at first aren't drawn again


def ended_lines(folder):
    path = folder / "trials.jsonl"
    return path.read_text().count('"outcome"') if path.exists() else 0


class Unreadable:
    """Can be sent, but not be received."""

    def __call__(self, draw):
        return draw.choice("n", [1, 2])

    def __reduce__(self):
        return int, ("no number",)


@pytest.mark.slow
def test_a_replica_that_cannot_be_made_ends_the_search_with_the_reason(cluster, tmp_path):
    sampler = fast(Setting(Space(Unreadable()), folder=tmp_path), replicas=1, shards=1, first=0, mutations=0.0)
    with pytest.raises(ClusterError, match="a replica of the controller can't work: .*no number"):
        sampler.ask()


@pytest.mark.slow
def test_a_space_that_cannot_be_sent_is_refused(cluster, tmp_path):
    lock = threading.Lock()
    space = Space(lambda draw: (lock, draw.choice("n", [1, 2]))[1])
    with pytest.raises(MisuseError, match="can't be sent .*lock.* replicas=0"):
        fast(Setting(space, folder=tmp_path), replicas=1)


@pytest.mark.slow
def test_its_actors_and_checkpoints_go_with_it(cluster, tmp_path):
    import ray

    sampler = fast(Setting(Space(six), folder=tmp_path), replicas=1, shards=1, first=0)
    assert sampler.ask() is not None
    actors = [*sampler._crew.replicas, *sampler._crew.shards]
    assert len(list((tmp_path / "shards").glob("*.pt"))) == 1
    del sampler
    gc.collect()  # what it is part of may hold itself
    for actor in actors:
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(actor.__ray_call__.remote(lambda self: 1), timeout=30)
    assert not (tmp_path / "shards").exists()


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingError, match=r"pip install 'unstuck\[ray\]'"):
        fast(Setting(Space(six)), replicas=2)


@pytest.mark.parametrize(("given", "words"), [({"replicas": -1}, "replicas is -1"), ({"replicas": 1, "shards": 0}, "shards is 0"),
                                              ({"staleness": -1}, "staleness is -1")])  # fmt: skip
def test_numbers_out_of_range_are_refused(given, words):
    with pytest.raises(MisuseError, match=words):
        fast(Setting(Space(six)), **given)
