"""The controller: a recurrent network that decides one thing after the other, and says how likely each was.

Its weights are tensors by name, not one long vector: a role that is met late in a search, as a network grows or behind a condition, only
adds names, and what has been learned stays where it was. A parameter server holds some of the names, a replica pushes gradients by name.
A tensor starts from a seed and its name alone (`initial`), so all sides make the same one whenever they first meet it.
"""

from __future__ import annotations

import hashlib
import random
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.search.space import AnyDecision, Choice, Links, Point, Range, Space

SPREAD = 0.08  # weights start uniformly between minus this and this
_PLACES = 64  # of parts before that have vectors of their own; more share them


def initial(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """What a tensor of the weights is before anything is learned.

    Args:
        name: Its name.
        shape: Its shape.
        seed: Of the controller.

    Returns:
        Numbers from -.08 to .08 that depend on nothing else.
    """
    mixed = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big")
    return torch.empty(tuple(shape)).uniform_(-SPREAD, SPREAD, generator=torch.Generator().manual_seed(mixed))


@dataclass(frozen=True)
class Reading:
    """What the controller thinks of points, each tensor of shape `(batch,)`.

    Attributes:
        log_prob: Of the decisions that were taken, nats.
        entropy: Of the distributions from which they were taken, summed over the decisions, nats.
        highest: The entropy if all were uniform, nats.
        density: How far the links' probabilities are from the wanted share, Kullback-Leibler, nats summed over the links.
    """

    log_prob: Tensor
    entropy: Tensor
    highest: Tensor
    density: Tensor


@dataclass(frozen=True)
class _Head:
    """Where the levels of a role are among the rows of all."""

    name: str
    start: int
    size: int


@dataclass
class _Track:
    """A point as numbers: of each step where its levels start and end, and which was taken; of links whence and whither."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)  # row; -1 at links
    links: list[_LinkStep] = field(default_factory=list)


@dataclass(frozen=True)
class _LinkStep:
    role: str
    step: int
    bits: tuple[int, ...]
    anchors: tuple[int, ...]  # steps; -1, -2 and so on are parts that had no decision


class Policy:
    """A recurrent network over decisions, and a softmax for each role.

    The input of a step is the vector of what was decided before it. A role has as many outputs as its decisions have levels; a range's
    level gives a number at random from around it. `Links` are decided by anchors: the part j leads to the part i with probability
    sigmoid(v · tanh(W_prev h_j + W_curr h_i)), where h_j and h_i are the hidden states at the decisions on links of j and i.
    Parts that had no such decision, as the first, have a vector each instead.

    Args:
        seed: Of the weights.
        hidden_size: Units of a layer, and numbers in a vector.
        num_layers: One upon the other.
        grown: Decisions that `grow` are no step of it: they are set by a schedule.

    Source:
        Zoph & Le 2017, sections 3.1 and 3.3. How chosen links become an input isn't told there: here it is the mean of learned vectors of
        the parts, with one more for "none".
    """

    def __init__(self, seed: int = 0, *, hidden_size: int = 35, num_layers: int = 2, grown: bool = False) -> None:
        self.seed = seed
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.grown = grown
        self.tensors: dict[str, Tensor] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self._heads: dict[str, _Head] = {}
        self._by_decision: dict[AnyDecision, _Head] = {}
        self._tracks: weakref.WeakKeyDictionary[Point, _Track] = weakref.WeakKeyDictionary()
        self._rows = 0
        self._add("start", (1, hidden_size))
        for layer in range(num_layers):
            for kind in ("ih", "hh"):
                self._add(f"lstm.weight_{kind}_l{layer}", (4 * hidden_size, hidden_size))
                self._add(f"lstm.bias_{kind}_l{layer}", (4 * hidden_size,))

    def weights(self) -> dict[str, Tensor]:
        """Copies of all tensors, by name."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Sets some or all of the tensors; those of roles that weren't met yet wait for them.

        Args:
            weights: By name, as from `weights` of a controller of the same sizes.

        Raises:
            MisuseError: A tensor has another shape than the one of that name here.
        """
        for name, tensor in weights.items():
            if name not in self.tensors:
                self._add(name, tuple(tensor.shape))
            if self.tensors[name].shape != tensor.shape:
                raise MisuseError(
                    f"the controller's {name} has the shape {tuple(self.tensors[name].shape)}, what is loaded has {tuple(tensor.shape)}: "
                    "load weights of a controller of the same sizes"
                )
            with torch.no_grad():
                self.tensors[name].copy_(tensor)

    def propose(self, space: Space, rng: random.Random, *, depth: Callable[[Range], float] | None = None) -> Point:
        """A point, each decision drawn from the controller's distribution.

        Args:
            space: It is of.
            rng: Draws.
            depth: Gives decisions that grow; needed where they are `grown`.

        Returns:
            The point.
        """
        walk = _Walk(self)

        def choose(decision: AnyDecision) -> object:
            if self._skips(decision):
                assert depth is not None
                return depth(decision)  # pyright: ignore[reportArgumentType] - only ranges grow
            value = _drawn(decision, walk.chances(decision), rng)
            walk.take(decision, value)
            return value

        return space.point(choose)

    def chances(self, point: Point) -> dict[str, np.ndarray]:
        """How likely each level of each decision was, given those before it.

        Args:
            point: Whose decisions.

        Returns:
            By the name of the decision: a probability for each level; of links one for each.
        """
        walk, found = _Walk(self), {}
        for decision in self._steps(point):
            found[decision.name] = walk.chances(decision)
            walk.take(decision, point.values[decision.name])
        return found

    def log_probs(self, points: Sequence[Point]) -> Tensor:
        """Logarithm of how likely points were, shape `(batch,)`, with a graph; a number within a level of a range counts as that level."""
        return self.read(points).log_prob

    def read(self, points: Sequence[Point], *, density: float = 0.4) -> Reading:
        """What the controller thinks of points, all in one run of its network, with a graph.

        Args:
            points: Some, of any number of decisions.
            density: Wanted share of links.

        Returns:
            Log-probabilities, entropies and more.
        """
        tracks = [self._track(point) for point in points]
        table = torch.cat(
            [self.tensors[h.name] for h in self._heads.values()] or [torch.zeros(0, 2 * self.hidden_size + 1)]
        )
        hidden = self._run(tracks, table[:, self.hidden_size + 1 :])
        choices = self._read_choices(tracks, hidden, table[:, : self.hidden_size + 1])
        links = self._read_links(tracks, hidden, density)
        return Reading(*(a + b for a, b in zip(choices, links, strict=True)))

    def _run(self, tracks: Sequence[_Track], vectors: Tensor) -> Tensor:
        """Hidden states of the last layer, shape `(batch, steps, hidden)`."""
        link_steps = [step for track in tracks for step in track.links]
        inputs = torch.cat([self.tensors["start"], vectors, self._link_vectors(link_steps)])
        length = max(1, *(len(track.taken) for track in tracks)) if tracks else 1
        rows, seen = np.zeros((len(tracks), length), dtype=np.int64), 0
        for b, track in enumerate(tracks):
            for t, row in enumerate(track.taken[:-1]):
                if row < 0:
                    rows[b, t + 1] = 1 + self._rows + seen
                    seen += 1
                else:
                    rows[b, t + 1] = 1 + row
            seen += int(bool(track.taken) and track.taken[-1] < 0)  # what is decided last is no input
        weights = [self.tensors[f"lstm.{w}_l{layer}"] for layer in range(self.num_layers) for w in _LSTM_WEIGHTS]
        zeros = torch.zeros(self.num_layers, len(tracks), self.hidden_size)
        return torch.lstm(
            inputs[torch.from_numpy(rows)], (zeros, zeros), weights, True, self.num_layers, 0.0, False, False, True
        )[0]

    def _link_vectors(self, steps: Iterable[_LinkStep]) -> Tensor:
        """What links that were decided are as an input, shape `(steps, hidden)`."""
        steps = list(steps)
        if not steps:
            return torch.zeros(0, self.hidden_size)
        found = torch.empty(len(steps), self.hidden_size)
        for role in dict.fromkeys(step.role for step in steps):
            which = [i for i, step in enumerate(steps) if step.role == role]
            shares = torch.from_numpy(np.stack([_shares(steps[i].bits) for i in which]))
            found = found.index_put((torch.tensor(which),), shares @ self.tensors[f"links[{role}].values"])
        return found

    def _read_choices(self, tracks: Sequence[_Track], hidden: Tensor, table: Tensor) -> tuple[Tensor, ...]:
        batch, length = hidden.shape[:2]
        where, starts, ends, taken = [], [], [], []
        for b, track in enumerate(tracks):
            for t, row in enumerate(track.taken):
                if row >= 0:
                    where.append(b * length + t)
                    starts.append(track.starts[t])
                    ends.append(track.ends[t])
                    taken.append(row)
        zero = torch.zeros(batch)
        if not where:
            return zero, zero, zero, zero
        at, first, last = torch.tensor(where), torch.tensor(starts), torch.tensor(ends)
        logits = torch.addmm(table[:, -1], hidden.reshape(batch * length, -1)[at], table[:, :-1].T)
        row = torch.arange(len(table))
        other = (row < first[:, None]) | (row >= last[:, None])
        log_p = logits.masked_fill(other, -torch.inf).log_softmax(1)
        point = at // length
        log_prob = log_p.gather(1, torch.tensor(taken)[:, None])[:, 0]
        entropy = -(log_p.exp() * log_p.masked_fill(other, 0.0)).sum(1)
        sums = [zero.index_add(0, point, each) for each in (log_prob, entropy, (last - first).float().log())]
        return (*sums, zero)

    def _read_links(self, tracks: Sequence[_Track], hidden: Tensor, density: float) -> tuple[Tensor, ...]:
        batch, length = hidden.shape[:2]
        sums = tuple(torch.zeros(batch) for _ in range(4))
        flat = hidden.reshape(batch * length, -1)
        for role in dict.fromkeys(step.role for track in tracks for step in track.links):
            pairs = [
                (b, b * length + s.step, b * length + a if a >= 0 else len(flat) + (-1 - a) % _PLACES, bit)
                for b, track in enumerate(tracks)
                for s in track.links
                if s.role == role
                for a, bit in zip(s.anchors, s.bits, strict=True)
            ]
            point, current, previous, bits = torch.tensor(pairs).reshape(-1, 4).T
            previous_, current_, v, first = (
                self.tensors[f"links[{role}].{n}"] for n in ("previous", "current", "vector", "first")
            )
            to = torch.tanh(torch.cat([flat, first])[previous] @ previous_.T + flat[current] @ current_.T)
            logit = to @ v
            p, yes, no = torch.sigmoid(logit), F.logsigmoid(logit), F.logsigmoid(-logit)
            each = (
                torch.where(bits > 0, yes, no),
                -(p * yes + (1 - p) * no),
                torch.full_like(logit, float(np.log(2))),
                p * (yes - float(np.log(density))) + (1 - p) * (no - float(np.log1p(-density))),
            )
            sums = tuple(s.index_add(0, point, e) for s, e in zip(sums, each, strict=True))
        return sums

    def _track(self, point: Point) -> _Track:
        track = self._tracks.get(point)
        if track is None:
            track = self._tracks[point] = self._tracked(point)
        return track

    def _tracked(self, point: Point) -> _Track:
        track, anchors = _Track(), dict[str, list[int]]()
        for t, decision in enumerate(self._steps(point)):
            value = point.values[decision.name]
            if isinstance(decision, Links):
                self._meet_links(decision.role)
                before = anchors.setdefault(decision.role, [])
                missing = [-1 - i for i in range(decision.count - len(before))]
                found = tuple([*missing, *before[len(before) + len(missing) - decision.count :]])
                track.links.append(_LinkStep(decision.role, t, tuple(map(int, value)), found))
                before.append(t)
                track.starts.append(0)
                track.ends.append(0)
                track.taken.append(-1)
            else:
                head = self._head(decision)
                track.starts.append(head.start)
                track.ends.append(head.start + head.size)
                track.taken.append(head.start + decision.nearest(value))
        return track

    def _steps(self, point: Point) -> list[AnyDecision]:
        return [decision for decision in point.decisions if not self._skips(decision)]

    def _skips(self, decision: AnyDecision) -> bool:
        return self.grown and isinstance(decision, Range) and decision.grows

    def _head(self, decision: Choice | Range) -> _Head:
        head = self._by_decision.get(decision)
        if head is None:
            levels = decision.levels()
            told = hashlib.sha256(repr(levels).encode()).hexdigest()[:6]  # a role may have other levels elsewhere
            name = f"choice[{decision.role}/{told}]"
            if name not in self._heads:
                # Of each level, side by side: weights and bias of its output, and the vector that it is as an input.
                self._add(name, (len(levels), 2 * self.hidden_size + 1))
                self._heads[name] = _Head(name, self._rows, len(levels))
                self._rows += len(levels)
            head = self._by_decision[decision] = self._heads[name]
        return head

    def _meet_links(self, role: str) -> None:
        size = self.hidden_size
        shapes = {"previous": (size, size), "current": (size, size), "vector": (size,)}
        shapes |= {"first": (_PLACES, size), "values": (_PLACES + 1, size)}
        for name, shape in shapes.items():
            self._add(f"links[{role}].{name}", shape)

    def _add(self, name: str, shape: Sequence[int]) -> None:
        if name not in self.tensors:
            tensor = initial(name, shape, self.seed)
            self._arrays[name] = tensor.numpy()  # the same memory: what is learned is seen by both
            self.tensors[name] = tensor.requires_grad_()


class _Walk:
    """Goes along one point step by step, without gradients; NumPy, as calls are many and small."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.arrays = policy._arrays
        self.input = self.arrays["start"][0]
        self.hidden = [np.zeros(policy.hidden_size, np.float32) for _ in range(policy.num_layers)]
        self.cell = list(self.hidden)
        self.anchors: dict[str, list[np.ndarray]] = {}

    def chances(self, decision: AnyDecision) -> np.ndarray:
        """Probabilities of the levels, or of the links, of the decision that is next."""
        self._step()
        if isinstance(decision, Links):
            return self._link_chances(decision)
        rows = self.arrays[self.policy._head(decision).name]
        size = self.policy.hidden_size
        logits = rows[:, :size] @ self.hidden[-1] + rows[:, size]
        p = np.exp(logits - logits.max())
        return p / p.sum()

    def take(self, decision: AnyDecision, value: Any) -> None:
        """Goes on with a value of it."""
        if isinstance(decision, Links):
            self.input = _shares(value) @ self.arrays[f"links[{decision.role}].values"]
        else:
            self.input = self.arrays[self.policy._head(decision).name][
                decision.nearest(value), self.policy.hidden_size + 1 :
            ]

    def _step(self) -> None:
        x, size = self.input, self.policy.hidden_size
        for layer in range(self.policy.num_layers):
            w, u, b, a = (self.arrays[f"lstm.{name}_l{layer}"] for name in _LSTM_WEIGHTS)
            gates = w @ x + u @ self.hidden[layer] + b + a
            i, f, o = (_sigmoid(gates[k * size : (k + 1) * size]) for k in (0, 1, 3))
            self.cell[layer] = f * self.cell[layer] + i * np.tanh(gates[2 * size : 3 * size])
            x = self.hidden[layer] = o * np.tanh(self.cell[layer])

    def _link_chances(self, decision: Links) -> np.ndarray:
        self.policy._meet_links(decision.role)
        previous, current, v, first = (
            self.arrays[f"links[{decision.role}].{n}"] for n in ("previous", "current", "vector", "first")
        )
        before = self.anchors.setdefault(decision.role, [])
        missing = max(0, decision.count - len(before))
        rows = [previous @ first[i % _PLACES] for i in range(missing)] + before[
            len(before) + missing - decision.count :
        ]
        before.append(previous @ self.hidden[-1])
        if not rows:
            return np.zeros(0, np.float32)
        return _sigmoid(np.tanh(np.stack(rows) + current @ self.hidden[-1]) @ v)


_LSTM_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _drawn(decision: AnyDecision, chances: np.ndarray, rng: random.Random) -> object:
    if isinstance(decision, Links):
        return [int(rng.random() < p) for p in chances.tolist()]
    sums = np.cumsum(chances)
    i = min(int(np.searchsorted(sums, rng.random() * sums[-1], side="right")), len(sums) - 1)
    return _around(decision, i, rng) if isinstance(decision, Range) else decision.levels()[i]


def _around(decision: Range, i: int, rng: random.Random) -> float:
    """A number whose nearest level is the given one: from halfway to the level before to halfway to the one behind."""
    levels = decision.levels()
    if decision.whole and decision.high - decision.low < len(levels):
        return levels[i]
    low, high = (_between(decision, levels[i], levels[j]) for j in (max(0, i - 1), min(i + 1, len(levels) - 1)))
    value = _between(decision, low, high, rng.random())
    value = round(value) if decision.whole else float(f"{value:.4g}")
    return value if decision.admits(value) and decision.nearest(value) == i else levels[i]


def _between(decision: Range, low: float, high: float, share: float = 0.5) -> float:
    return low * (high / low) ** share if decision.log else low + share * (high - low)


def _shares(bits: Sequence[int]) -> np.ndarray:
    """Links as weights of the vectors of the parts they come from; one more vector is always there."""
    found = np.zeros(_PLACES + 1, np.float32)
    found[-1] = 1.0
    for i, bit in enumerate(bits):
        found[i % _PLACES] += bit
    return found / found.sum()


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)  # exp(-x) would overflow
