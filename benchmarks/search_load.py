"""How busy a search keeps its workers, and what it costs itself.

    python benchmarks/search_load.py [--workers 200] [--evaluations 4000] [--only inline,simulated,processes]

- `inline`: children that cost nothing, one after the other, with the journal: what is left is the search's own time an evaluation.
- `simulated`: many workers whose children take 5 s on average, by a clock that is moved from one end of a child to the next. The time that
  the search itself takes is real: it is measured, and the clock waits for it, as workers would. One worker in a hundred is lost with its
  child, which another makes again. Nothing new is begun when as many points as asked for have been tried, so the last children
  leave workers idle; that is in the share.
- `processes`: real children of 5 s on this machine's cores; the share of the time in which a core had one.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import machine
from unstuck.search.problems import FunctionProblem, TrainingProblem
from unstuck.search.searching import Plan, Search, search
from unstuck.trials.executor import Feed, Log, Processes
from unstuck.trials.job import Outcome

CHILD = """
import time
import torch
from torch import nn
from unstuck.training import Training

def space(draw):
    return draw.number("rate", 1e-3, 1.0, log=True)

class Slow(list):
    def __iter__(self):
        for batch in super().__iter__():
            end = time.process_time() + 0.05
            while time.process_time() < end:
                pass
            yield batch

def training(rate):
    x = torch.randn(64, 4)
    model = nn.Linear(4, 1)
    return Training(model, nn.functional.mse_loss, torch.optim.SGD(model.parameters(), lr=rate), Slow([(x, x[:, :1])] * 10), epochs=10)
"""


def space(draw: Any) -> list[str]:
    """Six choices of five."""
    return [draw.choice("operation", ["a", "b", "c", "d", "e"], of=i) for i in range(12)]


def score(chosen: list[str]) -> float:
    """How many of them are alike."""
    return max(map(chosen.count, chosen)) / len(chosen)


def inline(sampler: str, evaluations: int) -> float:
    """Milliseconds an evaluation, journal and all."""
    began = time.perf_counter()
    search(space, score, sampler=sampler, evaluations=evaluations, control=False)
    return 1e3 * (time.perf_counter() - began) / evaluations


class Simulated:
    """Workers by the clock: see above.

    Args:
        log: Keeps outcomes.
        workers: Their number.
        mean: Seconds of a child.
        lost: Share of the children whose worker is lost.
    """

    def __init__(self, log: Log, workers: int, *, mean: float = 5.0, lost: float = 0.01) -> None:
        self.log, self.workers, self.mean, self.lost = log, workers, mean, lost
        self.rng, self.now, self.busy, self.lost_children = random.Random(0), 0.0, 0.0, 0
        self._order = itertools.count()

    def run(self, jobs: Any, **_: Any) -> Iterator[tuple[Any, Outcome]]:
        """Makes jobs."""
        feed, ends, last = Feed(jobs, self.log), [], time.perf_counter()
        while feed.goes_on or ends:
            for job, _outcome in feed.taken(lambda: len(ends) < self.workers):
                now = time.perf_counter()
                self.now, last = self.now + now - last, now
                self._begin(ends, job)
            if not ends:
                return
            now = time.perf_counter()
            end, _, job, is_lost = heapq.heappop(ends)
            self.now, last = max(self.now + now - last, end), now
            if is_lost:
                self.lost_children += 1
                self._begin(ends, job)
                continue
            outcome = job.outcome(self.log.folder)
            self.log.add(job, outcome)
            yield job, outcome

    def _begin(self, ends: list[Any], job: Any) -> None:
        seconds = self.rng.lognormvariate(0.0, 0.5) * self.mean / 1.133
        is_lost = self.rng.random() < self.lost
        seconds *= self.rng.random() if is_lost else 1.0
        self.busy += seconds
        heapq.heappush(ends, (self.now + seconds, next(self._order), job, is_lost))

    def later(self, jobs: Any) -> None:
        """Nothing is made before it is wanted."""

    def close(self) -> None:
        """Nothing goes on."""


def simulated(sampler: str, workers: int, evaluations: int) -> tuple[float, int]:
    """The share of the time in which workers had a child, and how many of these were lost."""
    log = Log(Path(tempfile.mkdtemp()), crashes=True)
    executor = Simulated(log, workers)
    plan = Plan(sampler, evaluations=evaluations, control=False, seeds=0, workers=workers)
    Search(FunctionProblem(space, score), executor, log, plan).visit()  # pyright: ignore[reportArgumentType]
    return executor.busy / (workers * executor.now), executor.lost_children


def processes(evaluations: int) -> tuple[float, float]:
    """The share of the time in which cores had a child, and the mean seconds of one."""
    folder = Path(tempfile.mkdtemp())
    (folder / "slow.py").write_text(CHILD)
    log = Log(folder / "run", crashes=True)
    executor = Processes(log)
    problem = TrainingProblem(str(folder / "slow.py"))
    began = time.perf_counter()
    try:
        plan = Plan("random", evaluations=evaluations, seeds=0, halving=False, workers=executor.workers)
        answer = Search(problem, executor, log, plan).visit()
    finally:
        executor.close()
    took = time.perf_counter() - began
    seconds = [c.seconds for c in answer.arms["search"]]
    return sum(seconds) / (took * executor.workers), sum(seconds) / len(seconds)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--evaluations", type=int, default=4000)
    parser.add_argument("--samplers", default="random,local,evolution,fast")
    parser.add_argument("--only", default="inline,simulated,processes")
    options = parser.parse_args()
    print(machine(), "\n")
    for sampler in options.samplers.split(","):
        if "inline" in options.only:
            print(f"{sampler}: {inline(sampler, 300):.2f} ms an evaluation, inline, 12 decisions", flush=True)
        if "simulated" in options.only:
            share, lost = simulated(sampler, options.workers, options.evaluations)
            print(
                f"{sampler}: {share:.1%} of the time of {options.workers} simulated workers, {lost} children lost",
                flush=True,
            )
    if "processes" in options.only:
        share, seconds = processes(16)
        print(f"processes: {share:.1%} of the time of this machine's cores, children of {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
