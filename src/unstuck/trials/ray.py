"""Jobs on a Ray cluster, or on a Ray of this machine alone: the same code for both."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unstuck import __version__
from unstuck._language import say
from unstuck.errors import ClusterError, UnstuckError
from unstuck.trials.connection import connected, cores, last_line
from unstuck.trials.executor import LOOK, Feed, Log
from unstuck.trials.job import Job, Outcome, was_killed
from unstuck.trials.node import News, Node, machine
from unstuck.trials.parcel import Place, pack

TRIES = 3  # of a job whose worker is lost each time
_PATIENCE = 10.0  # seconds that a worker has to end what it makes, before it is killed


@dataclass
class _Worker:
    """An actor, and what it does.

    Attributes:
        actor: A `Node` somewhere.
        awaited: The call that is under way, None while it has nothing to do.
        then: What is done with what that gives; an outcome when the job has ended.
        job, place: What it makes, and where that lies here.
        machine: Where it is.
        hopeless: What it makes has been stopped as hopeless.
    """

    actor: Any
    awaited: Any = None
    then: Callable[[_Worker, Any], Outcome | None] = lambda worker, got: None
    job: Job | None = None
    place: Place | None = None
    machine: str = ""
    hopeless: bool = False

    def call(self, awaited: Any, then: Callable[[_Worker, Any], Outcome | None]) -> None:
        self.awaited, self.then = awaited, then


class Ray:
    """Jobs on a Ray cluster, each on one core.

    A job is made by a worker, an actor with one core, in a child process with a folder of its own on that machine; its record is sent back
    into the folder of the log. When the worker or its machine is lost, another makes the job again, three times at most; what has
    finished is kept. Whatever ends a worker, what it had started ends with it: also when this process is killed.

    A machine that has the script by the same path, with the same text, runs it there. To one that doesn't, the working folder is
    sent (the script's own folder where that lies elsewhere), but for what git, caches and virtual environments keep in it and for what
    is behind links to folders; it may hold 256 MiB. What a script writes there is gone when the worker is. All else that a script
    needs must be on each machine, and the same version of unstuck.

    Close it, or use it in a `with` statement. While the cluster has no free core it waits for one.

    Args:
        log: Keeps what has finished; a job that is in it is not made again.
        address: Of the cluster: "auto", "HOST:6379", "ray://HOST:10001". By default what the variable RAY_ADDRESS says, else a Ray of
            this machine alone is started. A Ray that this process is connected to already is used as it is, and left so.
        workers: At a time; by default one for each core of the cluster, also of machines that join it.
        nursery: Whether each begins as a copy of a process that has imported torch, where that can be; else each is a new interpreter.

    Raises:
        MissingError: Ray isn't installed.
        ClusterError: The cluster can't be reached.
    """

    def __init__(
        self, log: Log, *, address: str | None = None, workers: int | None = None, nursery: bool = True
    ) -> None:
        self.log, self.workers, self._copies = log, workers, nursery
        self._ray, self._leave = connected(address or os.environ.get("RAY_ADDRESS"), workers or cores())
        self._node = self._ray.remote(num_cpus=1, max_concurrency=4)(Node)
        self._pool: list[_Worker] = []
        self._parcels: dict[str, Any] = {}
        self._waiting, self._later = deque[Job](), deque[Job]()
        self._wanted: dict[str, Job] = {}
        self._tries = Counter[
            str
        ]()  # by job; under "", workers that were lost one after the other before they could do anything
        self._hopeless: Callable[[Job, Path], str] | None = None

    def __enter__(self) -> Ray:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is under way, all workers, and the Ray that was started for them."""
        self._later.clear()
        for worker in list(self._pool):
            self._dismiss(worker)
        self._leave()

    def run(
        self,
        jobs: Iterable[Job | None],
        *,
        enough: Callable[[Job, Outcome], bool] | None = None,
        hopeless: Callable[[Job, Path], str] | None = None,
    ) -> Iterator[tuple[Job, Outcome]]:
        """Makes jobs, see `Executor`; one run at a time.

        Raises:
            ClusterError: The machines can't make anything.
        """  # noqa: DOC502
        feed = Feed(jobs, self.log)
        self._hopeless = hopeless
        self._tries.clear()
        self._waiting.clear()
        try:
            while feed.goes_on or self._wanted:
                for job, outcome in feed.taken(self._has_room):
                    if outcome is None:
                        self._want(job)
                        continue
                    yield job, outcome
                    if enough is not None and enough(job, outcome):
                        return
                if not self._wanted:
                    if feed.rests:
                        return
                    continue
                self._hire()
                self._give_out()
                for worker in self._answering():
                    key, outcome = worker.job and worker.job.key, self._hear(worker)
                    if outcome is not None and key in self._wanted:
                        job = self._wanted.pop(key)
                        yield job, outcome
                        if enough is not None and enough(job, outcome):
                            return
        finally:
            self._parcels.clear()
            self._stop(self._wanted)
            self._wanted, self._hopeless = {}, None

    def later(self, jobs: Iterable[Job]) -> None:
        """Notes jobs that will be wanted, see `Executor`."""
        self._later.extend(job for job in jobs if job.key not in self.log.known)

    def _want(self, job: Job) -> None:
        """Takes a job; one that is under way already goes on."""
        if job.key in self._wanted:
            return
        self._wanted[job.key] = job
        self._later = deque(other for other in self._later if other.key != job.key)
        if job.key not in {w.job.key for w in self._pool if w.job}:
            self._waiting.append(job)

    def _has_room(self) -> bool:
        """Whether a worker has nothing to do, or could be hired."""
        return len(self._waiting) + sum(w.job is not None for w in self._pool) < self._most()

    def _most(self) -> int:
        """Workers at a time."""
        return self.workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def _give_out(self) -> None:
        """Gives workers that have nothing to do what is wanted first, then what will be."""
        for worker in [w for w in self._pool if w.awaited is None]:
            queue = self._waiting or self._later
            if queue:
                self._give(worker, queue.popleft())

    # ------------------------------------------------------------------ workers

    def _hire(self) -> None:
        """As many workers as there is work for, and room."""
        ahead = len(self._waiting) + len(self._later)
        if not ahead:
            return
        free = sum(w.job is None for w in self._pool)
        for _ in range(min(ahead - free, self._most() - len(self._pool))):
            worker = _Worker(self._node.remote(nursery=self._copies))
            worker.call(worker.actor.about.remote(), self._hired)
            self._pool.append(worker)

    def _hired(self, worker: _Worker, about: tuple[str, str]) -> None:
        """Makes sure that a worker that has started is of use.

        Raises:
            ClusterError: It isn't.
        """
        version, worker.machine = about
        if version != __version__:
            raise ClusterError(
                say(
                    "unstuck is {version} on {machine} and {ours} here: install unstuck=={ours} there",
                    version=version,
                    machine=worker.machine.split()[0],
                    ours=__version__,
                )
            )
        del self._tries[""]

    def _dismiss(self, worker: _Worker) -> None:
        self._pool.remove(worker)
        if self._ray.is_initialized():
            self._ray.kill(worker.actor)

    def _answering(self) -> list[_Worker]:
        """Workers that have answered; waits a little for one."""
        awaited = {w.awaited: w for w in self._pool if w.awaited is not None}
        ready, _ = self._ray.wait(list(awaited), num_returns=1, timeout=LOOK)
        return [awaited[ref] for ref in ready]

    def _hear(self, worker: _Worker) -> Outcome | None:
        """Takes a worker's answer, and goes on with it; gives an outcome when its job has ended."""
        try:
            got = self._ray.get(worker.awaited)
        except self._ray.exceptions.RayError as error:
            return self._lose(worker, error)
        worker.awaited = None
        return worker.then(worker, got)

    def _lose(self, worker: _Worker, error: Exception) -> Outcome | None:
        """What becomes of the job of a worker that is no more: another worker makes it, while it may.

        That it could not be made isn't kept in the log, as the job itself is not to blame, as far as is known.

        Raises:
            ClusterError: There are no workers to be had.
        """
        job = worker.job
        self._dismiss(worker)
        cause = getattr(error, "cause", None)
        if isinstance(cause, UnstuckError):
            raise cause
        self._tries[job.key if job else ""] += 1
        if job is None:
            if "No module named 'unstuck" in str(error):
                raise ClusterError(
                    say(
                        "a machine of the cluster has no unstuck: install unstuck=={ours} on all of them",
                        ours=__version__,
                    )
                )
            if getattr(error, "actor_init_failed", False) or self._tries[""] >= TRIES:
                raise ClusterError(say("no worker can be started: {error}", error=last_line(error))) from None
        elif self._tries[job.key] >= TRIES:
            return Outcome("failed", error=f"its worker was lost {TRIES} times: {last_line(error)}")
        else:
            (self._waiting if job.key in self._wanted else self._later).appendleft(job)
        return None

    def _stop(self, keys: Collection[str]) -> None:
        """Ends what is under way of some jobs; who doesn't answer is killed, and so is what it had started."""
        busy = [w for w in self._pool if w.job is not None and w.job.key in keys]
        try:
            if busy and self._ray.is_initialized():
                self._wait([w.awaited for w in busy])  # what has just been begun is stopped only when it has
                stopped = [(w, w.actor.stop.remote("no more are wanted")) for w in busy]
                self._wait([ref for _, ref in stopped])
                for worker, ref in stopped:
                    with contextlib.suppress(self._ray.exceptions.RayError):
                        self._ray.get(ref, timeout=0)
                        worker.job = worker.awaited = None
        finally:
            for worker in busy:
                if worker.job is not None:
                    self._dismiss(worker)

    def _wait(self, calls: list[Any]) -> None:
        self._ray.wait(calls, num_returns=len(calls), timeout=_PATIENCE, fetch_local=False)

    # ------------------------------------------------------------------ a job

    def _give(self, worker: _Worker, job: Job) -> None:
        shutil.rmtree(self.log.folder / job.key, ignore_errors=True)  # what is left of one that was broken off
        worker.job, worker.place, worker.hopeless = job, Place.of(job), False
        self._begin(worker, self._begun)

    def _begin(self, worker: _Worker, then: Callable[[_Worker, Any], Outcome | None]) -> None:
        environment = dict(os.environ) if worker.machine == machine() else None
        worker.call(worker.actor.begin.remote(worker.job, worker.place, environment), then)

    def _begun(self, worker: _Worker, begun: bool) -> None:
        if begun:
            return self._follow(worker)
        place = worker.place
        assert place is not None
        if place.root not in self._parcels:
            self._parcels[place.root] = self._ray.put(pack(place, without=self.log.folder))
        worker.call(worker.actor.take.remote(place, self._parcels[place.root]), self._taken)
        return None

    def _taken(self, worker: _Worker, _: None) -> None:
        self._begin(worker, self._begun_there)

    def _begun_there(self, worker: _Worker, begun: bool) -> Outcome | None:
        if begun:
            return self._follow(worker)
        assert worker.place is not None
        self._parcels.pop(worker.place.root, None)
        return self._lose(worker, ClusterError(f"{worker.place.script} has changed while it was sent"))

    def _follow(self, worker: _Worker) -> None:
        assert worker.job is not None
        look = self._hopeless is not None and not worker.hopeless and worker.job.key in self._wanted
        worker.call(worker.actor.follow.remote(LOOK, look=look), self._followed)

    def _followed(self, worker: _Worker, news: News) -> Outcome | None:
        job = worker.job
        assert job is not None
        record = self._kept(job, news)
        if news.outcome is None:
            wanted = self._wanted.get(job.key)
            if wanted and self._hopeless is not None and news.record and (why := self._hopeless(wanted, record)):
                worker.hopeless = True
                worker.actor.stop.remote(why)
            return self._follow(worker)
        worker.job = None
        if was_killed(job, news.outcome) and not self._tries[job.key]:
            self._tries[job.key] += 1
            (self._waiting if job.key in self._wanted else self._later).appendleft(job)
            return None
        outcome = replace(news.outcome, record=str(record) if news.record else "")
        self.log.add(job, outcome)
        return outcome

    def _kept(self, job: Job, news: News) -> Path:
        """Where a job's record is, after what is new of it has been put there."""
        folder = self.log.folder / job.key
        folder.mkdir(parents=True, exist_ok=True)
        if news.outcome is not None:
            (folder / "output.txt").write_bytes(news.printed)
        record = folder / "record.sqlite"
        if news.record is not None:
            part = record.with_suffix(".part")
            part.write_bytes(news.record)
            part.replace(record)
        return record
