"""Where the weights of a controller are that several replicas learn with: each shard holds some of the names, with their Adam.

A replica pulls weights, makes a gradient with them, and pushes it: to each shard the names that it holds. Nobody waits for anybody else, so
what a gradient was made with may be older than what it is applied to; how many updates lie between is its staleness. A shard is a plain
object. What makes it one that outlives its process is a checkpoint behind each push: a new one made with the same path goes on from there.

A push may come twice, since what wasn't answered is sent again. The second time does nothing: each replica numbers its pushes, the shard
remembers the last of each, and writes that down together with the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from unstuck.search.learner import Adam
from unstuck.search.policy import initial

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Push:
    """A gradient on its way to a shard.

    Attributes:
        replica: Who made it.
        number: Of this replica's gradients, from 1.
        gradient: By name, as far as the shard holds the names.
        version: Of the shard's weights that it was made with.
    """

    replica: int
    number: int
    gradient: Mapping[str, Tensor]
    version: int


@dataclass(frozen=True)
class Pushed:
    """What became of a gradient.

    Attributes:
        fate: "applied", "scaled" down or "dropped" as it was too stale, or "repeated": it had come before, and nothing was done.
        staleness: Updates of the shard since the weights that it was made with.
    """

    fate: Literal["applied", "scaled", "dropped", "repeated"]
    staleness: int


@dataclass(frozen=True)
class Pulled:
    """What a shard holds.

    Attributes:
        weights: By name.
        version: How many gradients have been applied to them.
        restarts: How often the shard has gone on from a checkpoint.
        lost: How many gradients that were applied weren't in it.
    """

    weights: dict[str, Tensor]
    version: int
    restarts: int
    lost: int


class Shard:
    """Holds some of the weights, and applies gradients to them.

    Args:
        path: Of the checkpoint; what is there is gone on with.
        seed: Of the controller: a name that is met first starts from this and the name alone.
        rate: Of Adam.
        cap: Staleness up to which a gradient counts whole; None for any.
        beyond: What becomes of one beyond it: it is dropped, or scaled by 1/(1 + staleness).
        every: Pushes after which a checkpoint is written. With 1 nothing that was answered is ever lost; with more at most one less.

    Attributes:
        weights: By name.
        version: How many gradients have been applied.
        restarts: How often one like this has gone on from the checkpoint.
        lost: How many gradients weren't in it.

    Source:
        Zoph & Le 2017, section 3.2, after Dean et al. 2012, Large scale distributed deep networks, section 4.1. Departs from these by the
        checkpoint, by counting repeats out, and by the cap. The scale is that of Zhang et al. 2016, Staleness-aware async-SGD, but for the
        1, and for being used beyond the cap only: Adam undoes a scale that all gradients have.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        seed: int,
        rate: float,
        cap: int | None = None,
        beyond: Literal["drop", "scale"] = "scale",
        every: int = 1,
    ) -> None:
        self.weights: dict[str, Tensor] = {}
        self.version = self.restarts = self.lost = 0
        self._path, self._count = Path(path), Path(path).with_suffix(".count")
        self._seed, self._cap, self._beyond, self._every = seed, cap, beyond, every
        self._adam = Adam(rate)
        self._last: dict[int, int] = {}  # push that was taken, by replica
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._go_on()
        self._save()

    def pull(self, shapes: Shapes) -> Pulled:
        """All that it holds.

        Args:
            shapes: By names that the shard is to hold from now on, if it doesn't yet.
        """
        for name, shape in shapes.items():
            self._meet(name, shape)
        return Pulled({n: w.clone() for n, w in self.weights.items()}, self.version, self.restarts, self.lost)

    def push(self, push: Push) -> Pushed:
        """Takes a gradient, once."""
        staleness = max(0, self.version - push.version)  # a shard that was restarted may be behind
        if push.number <= self._last.get(push.replica, 0):
            return Pushed("repeated", staleness)
        self._last[push.replica] = push.number
        stale = self._cap is not None and staleness > self._cap
        if stale and self._beyond == "drop":
            return Pushed("dropped", staleness)
        share = 1.0 / (1 + staleness) if stale else 1.0
        for name, gradient in push.gradient.items():
            self._meet(name, tuple(gradient.shape))
        self._adam.step(self.weights, {n: g * share if stale else g for n, g in push.gradient.items()})
        self.version += 1
        if self.version % self._every:
            with self._count.open("a", encoding="utf-8") as count:
                count.write(f"{self.version}\n")
        else:
            self._save()
        return Pushed("scaled" if stale else "applied", staleness)

    def _meet(self, name: str, shape: Sequence[int]) -> None:
        if name not in self.weights:
            self.weights[name] = initial(name, shape, self._seed)

    def _save(self) -> None:
        told = {
            "weights": self.weights, "adam": self._adam.state(), "last": self._last,
            "version": self.version, "restarts": self.restarts, "lost": self.lost,
        }  # fmt: skip
        part = self._path.with_suffix(".part")
        torch.save(told, part)
        part.replace(self._path)
        self._count.unlink(missing_ok=True)

    def _go_on(self) -> None:
        told: dict[str, Any] = torch.load(self._path, weights_only=True)
        self.weights, self._last, self.version = told["weights"], told["last"], told["version"]
        self._adam.load(told["adam"])
        counted = self._count.read_text(encoding="utf-8").split("\n")[:-1] if self._count.exists() else []
        self.restarts, self.lost = (
            told["restarts"] + 1,
            told["lost"] + len([v for v in counted if int(v) > self.version]),
        )


def owner(name: str, shards: int) -> int:
    """Which of some shards holds a name: the same on all sides, without asking."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % shards


@dataclass(frozen=True)
class Exchanged:
    """What came of an exchange with all shards.

    Attributes:
        weights: By name, all there are.
        pushed: What became of the gradient, of each shard that had a part in it.
        versions, restarts, lost: By shard.
    """

    weights: dict[str, Tensor]
    pushed: list[Pushed]
    versions: list[int]
    restarts: list[int]
    lost: list[int]


class Shards:
    """All shards, as a replica sees them.

    Args:
        count: How many.
        call: Makes calls of shards, each a number, a method and what it is given; those of one shard in the order in which they come.
            Gives what they return.
    """

    def __init__(self, count: int, call: Callable[[Sequence[tuple[int, str, Any]]], list[Any]]) -> None:
        self._count, self._call = count, call
        self._versions = [0] * count

    def exchange(
        self, shapes: Shapes, gradient: Mapping[str, Tensor] | None = None, *, replica: int = 0, number: int = 0
    ) -> Exchanged:
        """Pushes a gradient that was made with what was pulled last, and pulls.

        Args:
            shapes: By name, of all that the replica knows.
            gradient: By name; none where there is nothing to be pushed.
            replica: Who made it.
            number: Of its gradients.
        """
        parts = self._shared_out(gradient or {})
        pushes = [(i, "push", Push(replica, number, part, self._versions[i])) for i, part in enumerate(parts) if part]
        pulls = [(i, "pull", known) for i, known in enumerate(self._shared_out(shapes))]
        answers = self._call([*pushes, *pulls])
        pulled: list[Pulled] = answers[len(pushes) :]
        self._versions = [each.version for each in pulled]
        return Exchanged(
            {name: weight for each in pulled for name, weight in each.weights.items()}, answers[: len(pushes)],
            self._versions, [each.restarts for each in pulled], [each.lost for each in pulled],
        )  # fmt: skip

    def _shared_out(self, by_name: Mapping[str, Any]) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = [{} for _ in range(self._count)]
        for name, each in by_name.items():
            parts[owner(name, self._count)][name] = each
        return parts
