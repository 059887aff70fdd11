"""A controller in this process, or its replicas and shards as actors of Ray, on one machine or many."""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import shutil
import sys
import tempfile
import uuid
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from unstuck._language import say
from unstuck.errors import ClusterError, MisuseError, UnstuckError
from unstuck.search.controller import Controller, Growth, Mixture
from unstuck.search.distributed import Distributed
from unstuck.search.learner import Recipe
from unstuck.search.replicas import Order, Replica, Report
from unstuck.search.sampling import Sampler, Setting
from unstuck.search.shards import Shard, Shards
from unstuck.search.space import Space
from unstuck.trials.connection import connected, cores, last_line


def controller(
    setting: Setting,
    recipe: Recipe,
    mixture: Mixture,
    *,
    replicas: int,
    shards: int,
    staleness: int,
    growth: Growth | None = None,
    reward: Callable[[float], float] = float,
) -> Sampler:
    """A controller: in this process, or spread over a Ray.

    That is the Ray which this process is connected to, else that of RAY_ADDRESS, else one of this machine. Replicas and shards take next
    to no time of a processor, so they claim none: all cores are left to children.

    Args:
        setting: What it is made for. Its folder has the shards' checkpoints, in a folder `shards`.
        recipe: How the controller learns; with replicas a batch is of the children of one of them.
        mixture: What else is proposed.
        replicas: How many there are; 0 for a controller in this process.
        shards: How many there are.
        staleness: Beyond it gradients are scaled down.
        growth: How decisions that grow do so.
        reward: Of a quality.

    Returns:
        The sampler.

    Raises:
        MissingError: Ray isn't installed.
        ClusterError: The cluster can't be reached.
        MisuseError: A number is out of range, or the space can't be sent to other processes.
    """  # noqa: DOC502
    for name, value, least in (("replicas", replicas, 0), ("shards", shards, 1), ("staleness", staleness, 0)):
        if value < least:
            raise MisuseError(
                say("{name} is {value}, but must be {least} or more", name=name, value=value, least=least)
            )
    if not replicas:
        return Controller(setting, recipe, mixture, growth=growth, reward=reward)
    crew = Actors(setting, recipe, growth, replicas=replicas, shards=shards, cap=staleness)
    return Distributed(setting, recipe, mixture, crew, growth=growth, reward=reward)


class Actors:
    """Replicas and shards, each an actor that is begun anew wherever it was lost, and called again with what it hadn't answered.

    They end when this is closed, or is no more, at the latest with this process.

    Args:
        setting: What the search is of.
        recipe: How the controller learns.
        growth: How decisions that grow do so.
        replicas: How many there are.
        shards: How many there are.
        cap: Of the shards.

    Attributes:
        size: Of the crew.
        replicas, shards: Their handles.
        close: Ends them.
    """

    def __init__(
        self, setting: Setting, recipe: Recipe, growth: Growth | None, *, replicas: int, shards: int, cap: int | None
    ) -> None:
        self._ray, leave = connected(os.environ.get("RAY_ADDRESS"), cores())
        self.size = replicas
        sent = _packed(self._ray, setting.space)
        folder = (setting.folder or Path(tempfile.mkdtemp(prefix="unstuck-"))).absolute() / "shards"
        shutil.rmtree(folder, ignore_errors=True)  # of a session that was broken off: its journal says more
        told = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        names = [f"unstuck-{told}-{uuid.uuid4().hex[:8]}-shard-{i}" for i in range(shards)]
        lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        here = {} if _is_client(self._ray) else {"scheduling_strategy": _here(self._ray)}
        make = self._ray.remote(**lasting)(ShardActor)
        self.shards = [
            make.options(name=name, **here).remote(str(folder / f"{name}.pt"), seed=setting.seed, rate=recipe.rate, cap=cap)
            for name in names
        ]  # fmt: skip
        make = self._ray.remote(**lasting)(ReplicaActor)
        self.replicas = [make.remote(i, sent, setting.seed, recipe, growth, names) for i in range(replicas)]
        self._awaited: dict[Any, int] = {}
        self.close = weakref.finalize(self, _end, self._ray, [*self.replicas, *self.shards], leave, folder)

    def send(self, index: int, order: Order) -> None:
        """See `Crew`."""
        self._awaited[self.replicas[index].work.remote(order)] = index

    def reports(self, seconds: float) -> list[tuple[int, Report]]:
        """See `Crew`.

        Raises:
            ClusterError: A replica can't be made.
        """  # noqa: DOC502
        awaited = list(self._awaited)
        if not awaited or not self._ray.is_initialized():
            return []
        ready, _ = self._ray.wait(awaited, num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(awaited, num_returns=len(awaited), timeout=0)
        return [(self._awaited.pop(ref), self._report(ref)) for ref in ready]

    def _report(self, ref: Any) -> Report:
        """What a replica has reported.

        Raises:
            ClusterError: It can't be made.
        """
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, UnstuckError):
                raise cause from None
            raise ClusterError(say("a replica of the controller can't work: {error}", error=last_line(error))) from None


class ShardActor(Shard):
    """A shard in a process of its own; its checkpoint is in the folder of temporary files where that of the search isn't there."""

    def __init__(self, path: str, **how: Any) -> None:
        torch.set_num_threads(1)
        there = Path(path).parents[1].is_dir()
        super().__init__(path if there else Path(tempfile.gettempdir(), Path(path).name), **how)


class ReplicaActor(Replica):
    """A replica in a process of its own, which knows the shards by their names: handles would go with who made them (ray#53727)."""

    def __init__(
        self, index: int, sent: bytes, seed: int, recipe: Recipe, growth: Growth | None, names: Sequence[str]
    ) -> None:
        ray: Any = importlib.import_module("ray")
        torch.set_num_threads(1)
        handles: dict[int, Any] = {}

        def call(calls: Sequence[tuple[int, str, Any]]) -> list[Any]:
            for i, _, _ in calls:
                if i not in handles:
                    handles[i] = ray.get_actor(names[i])
            return ray.get([getattr(handles[i], method).remote(given) for i, method, given in calls])

        super().__init__(index, ray.cloudpickle.loads(sent), seed, recipe, growth, Shards(len(names), call))


def _packed(ray: Any, space: Space) -> bytes:
    """A space, for other processes; with the module that it is defined in, which these may not find.

    Raises:
        MisuseError: It can't be sent.
    """
    module = sys.modules.get(getattr(space.define, "__module__", None) or "")
    theirs = module is not None and module.__name__.partition(".")[0] not in ("unstuck", "__main__")
    if theirs:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        return ray.cloudpickle.dumps(space)
    except (pickle.PicklingError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise MisuseError(
            say(
                "the space can't be sent to replicas of the controller ({error}): draw from what can be pickled, "
                "or set replicas=0",
                error=last_line(error),
            )
        ) from error
    finally:
        if theirs:
            ray.cloudpickle.unregister_pickle_by_value(module)


def _is_client(ray: Any) -> bool:
    """Whether the driver is outside of the cluster: ray://."""
    return ray.util.client.ray.is_connected()


def _here(ray: Any) -> Any:
    """Rather on this machine, which has the folder of the search."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def _end(ray: Any, actors: Sequence[Any], leave: Callable[[], None], folder: Path) -> None:
    if ray.is_initialized():
        for actor in actors:
            ray.kill(actor)
    leave()
    shutil.rmtree(folder, ignore_errors=True)
