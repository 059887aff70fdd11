"""How fast a controller spread over Ray is, how stale its gradients are, and how long it takes to recover from kills.

    python benchmarks/search_ray.py [--evaluations 400] [--only load,kills]

- `load`: a search of 12 choices of five whose children take 20 ms (they sleep, so that the machine's cores are free for the controller),
  16 at a time, timed from when all replicas have something to propose; what is before that is their start, on a Ray that runs. With the
  preset `fast` as it is, and with nothing but what the controller draws. `replicas` 0 is the controller in one process.
- `kills`: SIGKILL of a replica and of a shard in the middle of such a search: seconds until it has reported again, and the longest time in
  which no child ended meanwhile; of a worker of the executor, with real children: seconds until its child has begun again; and of the
  driver: seconds from the start of the process that goes on until its first child has begun.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from measure import machine, machine_line, table
from unstuck.search.distributed import Distributed
from unstuck.search.problems import FunctionProblem, TrainingProblem
from unstuck.search.searching import Plan, Search
from unstuck.trials.executor import Feed, Log
from unstuck.trials.job import Outcome
from unstuck.trials.ray import Ray

SECONDS = 0.02  # of a child
ALONE = {"first": 0, "mutations": 0.0, "elites": 0}
CHILD = """
import os, time, torch
from torch import nn
from unstuck.training import Training

def space(draw):
    return [draw.choice("op", list("abcde"), of=i) for i in range(4)]

def training(chosen):
    open("begun", "a").write(f"{time.time()} {''.join(chosen)}\\n")
    time.sleep(1.0)
    model, x = nn.Linear(1, 1), torch.ones(8, 1)
    return Training(model, nn.functional.mse_loss, torch.optim.SGD(model.parameters(), lr=1e-3), [(x, x)] * 20)
"""


def space(draw: Any) -> list[str]:
    """Twelve choices of five."""
    return [draw.choice("operation", ["a", "b", "c", "d", "e"], of=i) for i in range(12)]


class Threads:
    """Children that are calls, a few at a time.

    Args:
        log: Keeps outcomes.
        workers: At a time.

    Attributes:
        ended: When each child ended.
    """

    def __init__(self, log: Log, workers: int) -> None:
        self.log, self.workers, self.ended = log, workers, list[float]()

    def run(self, jobs: Any, **_: Any) -> Iterator[tuple[Any, Outcome]]:
        feed, going = Feed(jobs, self.log), dict[Future[Outcome], Any]()
        with ThreadPoolExecutor(self.workers) as pool:
            while feed.goes_on or going:
                for job, outcome in feed.taken(lambda: len(going) < self.workers):
                    if outcome is None:
                        going[pool.submit(job.outcome, self.log.folder)] = job
                    else:
                        yield job, outcome
                for done in wait(going, return_when=FIRST_COMPLETED).done if going else ():
                    job = going.pop(done)
                    self.ended.append(time.perf_counter())
                    self.log.add(job, done.result())
                    yield job, done.result()


def score(chosen: list[str]) -> float:
    """Noise, so that the controller finds nothing to settle on and its work stays the same."""
    time.sleep(SECONDS)
    return random.Random("".join(chosen)).random()


def searching(folder: Path, evaluations: int, calls: Any = score, **settings: Any) -> Search:
    log = Log(folder, crashes=True)
    plan = Plan("fast", settings, evaluations=evaluations, control=False, seeds=0, workers=16)
    return Search(FunctionProblem(space, calls), Threads(log, 16), log, plan)  # pyright: ignore[reportArgumentType]


def warm(sampler: Any) -> None:
    """Waits until all replicas have something to propose."""
    while isinstance(sampler, Distributed) and not all(member.stock for member in sampler._members):
        sampler._hear(1.0)


def load(evaluations: int, replicas: int, shards: int, settings: dict[str, Any]) -> list[Any]:
    """Replicas, shards, seconds to start, children and updates a second, staleness of gradients and of results, repeats."""
    folder, began = Path(tempfile.mkdtemp()), time.perf_counter()
    search = searching(folder, evaluations, replicas=replicas, shards=shards, **settings)
    sampler: Any = search.arms[0].sampler
    warm(sampler)
    started = time.perf_counter()
    search.visit()
    took = time.perf_counter() - started
    health = sampler.health()
    if isinstance(sampler, Distributed):
        sampler._crew.close()  # pyright: ignore[reportAttributeAccessIssue]
    shutil.rmtree(folder, ignore_errors=True)
    return [
        replicas, shards if replicas else 0, f"{started - began:.1f}", f"{evaluations / took:.0f}", f"{health['updates'] / took:.1f}",
        f"{health.get('push_staleness', 0.0):.2f}", f"{health.get('push_staleness_max', 0.0):.0f}", f"{health['staleness']:.1f}",
        f"{health.get('stand_ins', 0.0):.0f}",
    ]  # fmt: skip


def killed(actor: Any) -> float:
    """Ends an actor's process, and says when."""
    import ray

    pid = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    return time.perf_counter()


def actor_kill(kind: str, evaluations: int) -> list[Any]:
    """Of a replica or a shard: seconds until it is back, the longest without a child's end, gradients that were lost or came twice."""
    folder, when, back = Path(tempfile.mkdtemp()), list[float](), list[float]()

    def calls(chosen: list[str]) -> float:
        if len(search.executor.ended) >= evaluations // 4 and not when:  # pyright: ignore[reportAttributeAccessIssue]
            when.append(0.0)
            when[0] = killed(sampler._crew.replicas[0] if kind == "replica" else sampler._crew.shards[0])
        return score(chosen)

    search = searching(folder, evaluations, calls, replicas=4, shards=2)
    sampler: Any = search.arms[0].sampler
    warm(sampler)
    take = sampler._take

    def taken(member: Any, report: Any) -> None:
        take(member, report)
        restarts = sum(m.restarts for m in sampler._members) if kind == "replica" else sum(report.restarts)
        if restarts and not back:
            back.append(time.perf_counter())

    sampler._take = taken
    search.visit()
    until = time.perf_counter() + 60
    while not back and time.perf_counter() < until:
        for member in sampler._members:
            if member.order is None:
                sampler._order(member)
        sampler._hear(1.0)
    ended: list[float] = search.executor.ended  # pyright: ignore[reportAttributeAccessIssue]
    gap = max((b - a for a, b in itertools.pairwise(ended) if b > when[0] and a < back[0]), default=0.0)
    health = sampler.health()
    if isinstance(sampler, Distributed):
        sampler._crew.close()  # pyright: ignore[reportAttributeAccessIssue]
    shutil.rmtree(folder, ignore_errors=True)
    return [kind, f"{back[0] - when[0]:.2f}", f"{gap:.2f}", f"{health['lost']:.0f}", f"{health['repeated']:.0f}"]


def worker_kill() -> list[Any]:
    """Of a worker of the executor: seconds until its child has begun again."""
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    Path("mine.py").write_text(CHILD)
    log, when = Log(folder / "search", crashes=True), list[float]()

    def begun() -> list[list[str]]:
        return [line.split() for line in Path("begun").read_text().splitlines()] if Path("begun").exists() else []

    def kill() -> None:
        while len(begun()) < 3:
            time.sleep(0.01)
        killed(next(w for w in executor._pool if w.job is not None).actor)
        when.append(time.time())

    with Ray(log, workers=1) as executor:
        plan = Plan("fast", {"replicas": 1, "shards": 1}, evaluations=6, control=False, seeds=0, halving=False)
        search = Search(TrainingProblem("mine.py"), executor, log, plan)
        threading.Thread(target=kill, daemon=True).start()
        search.visit()
    again = next((float(at) for at, _ in begun() if float(at) > when[0]), float("nan"))
    os.chdir("/")
    shutil.rmtree(folder, ignore_errors=True)
    return ["executor's worker", f"{again - when[0]:.2f}", "", "0", "0"]


def driver_kill(evaluations: int) -> list[Any]:
    """Of the driver, after half of its children: seconds until the process that goes on has begun a child; children made again."""
    folder = Path(tempfile.mkdtemp())
    command = [sys.executable, __file__, "--drive", str(folder), "--evaluations", str(evaluations)]
    first = subprocess.Popen(command)
    journal = folder / "trials.jsonl"
    while not journal.exists() or journal.read_text().count('"outcome"') < evaluations // 2:
        time.sleep(0.01)
    first.kill()
    first.wait()
    before, began = journal.read_text().count('"asked"'), time.perf_counter()
    second = subprocess.Popen(command)
    while journal.read_text().count('"asked"') <= before:
        time.sleep(0.01)
    took = time.perf_counter() - began
    second.wait()
    outcomes = journal.read_text().count('"outcome"')
    shutil.rmtree(folder, ignore_errors=True)
    return ["driver", f"{took:.2f}", "", "0", f"{outcomes - evaluations}"]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=400)
    parser.add_argument("--only", default="load,kills")
    parser.add_argument("--drive", type=Path)
    options = parser.parse_args()
    if options.drive:
        searching(options.drive, options.evaluations, replicas=2, shards=2).visit()
        return
    print(machine_line(machine()), "\n")
    if "kills" in options.only:
        alone = [worker_kill(), driver_kill(options.evaluations)]  # these have a Ray of their own
    from unstuck.trials.connection import connected, cores

    _, leave = connected(None, cores())
    try:
        if "load" in options.only:
            head = [
                "replicas",
                "shards",
                "start, s",
                "children/s",
                "updates/s",
                "staleness",
                "most",
                "of results",
                "stand-ins",
            ]
            for words, settings in (("`fast`", {}), ("what the controller draws alone", ALONE)):
                rows = [load(options.evaluations, *n, settings) for n in ((0, 1), (1, 1), (2, 2), (4, 2), (8, 4))]
                print(f"{words}:\n\n{table(head, rows)}\n", flush=True)
        if "kills" in options.only:
            rows = [actor_kill(kind, 2 * options.evaluations) for kind in ("replica", "shard")]
            print(
                table(["killed", "back after, s", "longest pause, s", "gradients lost", "came twice"], [*rows, *alone])
            )
    finally:
        leave()


if __name__ == "__main__":
    main()
