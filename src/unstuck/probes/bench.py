"""The bench on which experiments are made: a copy of a training as it stood when the script ended.

`Bench` holds copies of modules, trained tensors and optimizer, and the batches that the watcher kept as tapes. A probe may do with
the copies what it likes; `restore` puts them back. The script's own tensors are only read, and random numbers, standard
output and the modes of modules are as they were when an experiment is over.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import math
import random
import sys
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unstuck.curvature.objective import Objective
from unstuck.probes.hooks import bring_along
from unstuck.probes.pool import drawn
from unstuck.probes.tape import Tape, walk

Score = Callable[[Tensor, Tensor], float]
Counts = Callable[[Tensor, Tensor], list[list[float]] | None]


@dataclass(frozen=True)
class Snapshot:
    """A training at a step before its end.

    Attributes:
        step: Updates made until then.
        values: Of all tensors of the network, in the order of `tensors_of`.
        state: What the optimizer kept of each tensor that it updates, in its order, as far as its steps depend on it; empty where
            it keeps nothing.
        rates: Learning rates of its groups.
    """

    step: int
    values: Sequence[Tensor]
    state: Sequence[dict[str, Any]] = ()
    rates: Sequence[float] = ()


@dataclass(frozen=True)
class Training:
    """What the watcher hands over when the script has ended.

    Attributes:
        tapes: Losses that can be computed again, the last one last; all of the same network.
        initial: Values at the first step of all tensors of the network, in the order of `tensors_of`; empty when not kept.
        optimizer: What updated it, None when that was done by hand.
        rate: Learning rate at the end.
        first_rate: Learning rate at the start.
        clipping: "norm 1.0", "value 0.5" or "".
        score: Score of outputs against targets, None when there is none.
        score_name: Its name.
        batch_size: Samples in a batch.
        num_classes: Classes, 0 for regression.
        steps: Updates made.
        counts: How often each class is a label, and is the answer, two lists by class; None where there are no classes.
        names: Of all tensors of the network, in the order of `tensors_of`; "" for those that have none.
        snapshots: How it stood at some steps, where that was asked for.
        kind: What targets are, as `evidence.LossCall.target_kind` has it; "" where that isn't known.
        ignored: Target that doesn't count, of classes.
    """

    tapes: Sequence[Tape]
    initial: Sequence[Tensor] = ()
    optimizer: Any = None
    rate: float = math.nan
    first_rate: float = math.nan
    clipping: str = ""
    score: Score | None = None
    score_name: str = ""
    batch_size: int = 1
    num_classes: int = 0
    steps: int = 0
    counts: Counts | None = None
    names: Sequence[str] = ()
    snapshots: Sequence[Snapshot] = ()
    kind: str = ""
    ignored: int = -100

    @property
    def usual_rate(self) -> float:
        """The rate at the end; a tenth of the first, where a schedule took it further down."""
        first = self.first_rate if math.isfinite(self.first_rate) else self.rate
        return max(self.rate, 0.1 * first)


class Clock:
    """Time left for experiments: of the processor, so that a busy machine changes little, and some times as much by the wall.

    Args:
        seconds: From now on.
        processor: Count this thread's processor time; else the wall's alone, as on an accelerator.
        patience: How many times as much may pass by the wall where the processor's time counts.
    """

    def __init__(self, seconds: float, *, processor: bool = True, patience: float = 2.0) -> None:
        self.processor, self.patience = processor, patience
        self.end = time.perf_counter() + (patience if processor else 1) * seconds
        self.processor_end = time.thread_time() + seconds

    @property
    def left(self) -> float:
        """Seconds left, at least 0."""
        left = self.end - time.perf_counter()
        return max(0.0, min(left, self.processor_end - time.thread_time()) if self.processor else left)

    def part(self, share: float) -> Clock:
        """A clock that runs for a share of what is left."""
        return Clock(share * self.left, processor=self.processor, patience=self.patience)


def tensors_of(modules: Sequence[nn.Module], trained: Sequence[Tensor]) -> list[Tensor]:
    """Parameters and buffers of modules, and other trained tensors, each once."""
    found: dict[int, Tensor] = {}
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            found.setdefault(id(tensor), tensor)
    for tensor in trained:
        found.setdefault(id(tensor), tensor)
    return list(found.values())


class Bench:
    """Copies of a training, for experiments.

    Args:
        training: What is copied.

    Raises:
        ValueError: The tapes are of no use: the script overwrote their data, the network overwrites what it is given, or
            the optimizer is of another network.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        last = training.tapes[-1]
        copies: dict[Any, Tensor] = {}
        self.tapes = (
            drawn(_with_own_data(last, copies), [t for t in training.tapes if t.fresh]) if last.fresh else []
        ) or [_with_own_data(t, copies) for t in training.tapes if t.fresh and _alike(t, last)]
        if not self.tapes:
            raise ValueError("the script overwrote the batches")
        memo: dict[int, Any] = {}
        for module in last.modules:
            _prepare(module, memo)
        self.modules: list[nn.Module] = [copy.deepcopy(m, memo) for m in last.modules]
        for module, made in zip(last.modules, self.modules, strict=True):
            bring_along(module, made, memo)
        self.trained: list[Tensor] = [copy.deepcopy(t, memo) for t in last.trained]
        for tensor in self.trained:
            tensor.grad = None
        self._optimizer = _copied(training.optimizer, memo) if training.optimizer is not None else None
        self.tensors = tensors_of(self.modules, self.trained)
        held = _held(self._optimizer)
        known = {id(t) for t in self.tensors}
        if held and not any(id(p) in known for p in held):
            raise ValueError("the optimizer is of another network than the loss")
        self.learned = [t for t in (held or self.tensors) if t.requires_grad]
        updated = {id(t) for t in _held(training.optimizer)}
        self._given = {i for i, t in enumerate(last.trained) if updated and _is_given(t, updated)}
        self._modes: tuple[int, bool] | None = None
        self._end = [t.detach().clone() for t in self.tensors]
        self._buffers = [(part, dict(part._buffers)) for m in self.modules for part in m.modules()]
        self._closure = type(self._optimizer).__name__ in ("LBFGS", "SAM")
        self.device = self.learned[0].device if self.learned else torch.device("cpu")
        self.cost = 1e-6  # seconds of a forward pass
        self._try()

    def _try(self) -> None:
        """Computes a loss once: what can't be computed again, or changes its own data, is of no use.

        Raises:
            ValueError: The network overwrites its inputs.
        """
        tape, began, ours = self.tapes[-1], time.perf_counter(), time.thread_time()
        self.loss([len(self.tapes) - 1])
        on_cpu = self.device.type == "cpu"
        self.cost = max(1e-6, time.thread_time() - ours if on_cpu else time.perf_counter() - began)
        if any(tape.data[i]._version != tape.versions[i] for i in (*tape.inputs, *tape.targets)):
            raise ValueError("the network overwrites its inputs")
        self.restore()

    def some(self, batches: range, clock: Clock, passes: int, *, most: int = 8, samples: int = 256) -> range:
        """The last few of some batches: as many as there is time to go through `passes` times, at least one.

        Args:
            batches: To choose from.
            clock: Time.
            passes: Through all that are chosen.
            most: Batches; small ones may be more.
            samples: In all of them, up to which they may.
        """
        enough = max(most, samples // max(1, self.training.batch_size))
        return batches[-max(1, min(enough, int(clock.left / (passes * self.cost)))) :]

    @property
    def batches(self) -> range:
        """Numbers of the batches, the latest last."""
        return range(len(self.tapes))

    @property
    def fitted(self) -> range:
        """Every other batch: those an experiment trains on."""
        return self.batches[::2]

    @property
    def held(self) -> range:
        """The batches between, to look at; the same one, when there is only one."""
        return self.batches[1::2] or self.batches

    @property
    def has_dropout(self) -> bool:
        """Whether any dropout layer takes something away."""
        parts = [p for m in self.modules for p in m.modules() if isinstance(p, nn.modules.dropout._DropoutNd)]
        return any(p.p > 0 for p in parts)

    @property
    def starts(self) -> bool:
        """Whether the network's values at the first step are known."""
        return len(self.training.initial) == len(self.tensors)

    # ------------------------------------------------------------------ state

    def restore(self, *, start: bool = False) -> None:
        """Puts all tensors back as they were at the end of the script, or at its first step."""
        self.put(self.training.initial if start else self._end)

    def put(self, values: Sequence[Tensor]) -> None:
        """Gives all tensors other values."""
        with torch.no_grad():
            for tensor, value in zip(self.tensors, values, strict=True):
                tensor.copy_(value)
                tensor.grad = None
        for part, buffers in self._buffers:  # a forward pass may put new tensors into their place
            part._buffers.update(buffers)

    def modes(self, tape: Tape, *, train: bool) -> None:
        """Puts all modules into the modes they were trained in, or into evaluation mode."""
        if self._modes == (id(tape), train):
            return
        self._modes = (id(tape), train)
        for module, flags in zip(self.modules, tape.modes, strict=True):
            parts = list(module.modules())
            for part, flag in zip(parts, flags if len(flags) == len(parts) else [True] * len(parts), strict=True):
                part.training = flag and train

    # ------------------------------------------------------------------ losses

    def objective(self, batches: Sequence[int], learned: Sequence[Tensor] | None = None) -> Objective:
        """The mean loss over batches, in the modes they were trained in, as a function of what is learned.

        Args:
            batches: Which; numbers in a row.
            learned: Some of the tensors that are learned; by default all.

        Returns:
            The loss; random numbers in it are those of `forward`.
        """

        def loss(batch: int) -> Tensor:
            self._modes = None  # whoever holds modules still puts their modes back behind our back
            return self.forward(batch)[0]

        sizes = [self._samples(batch) for batch in batches]
        given = self.learned if learned is None else learned
        return Objective(loss, given, list(batches), sizes=sizes, modules=self.modules, seed=batches[0])

    def _samples(self, batch: int) -> float:
        """Samples in a batch, as its targets have it, or its inputs."""
        tape = self.tapes[batch]
        lengths = [len(tape.data[i]) for i in (*tape.targets, *tape.inputs) if tape.data[i].dim()]
        return float(max(1, lengths[0])) if lengths else 1.0

    def forward(
        self, batch: int, *, train: bool = True, data: Sequence[Tensor] | None = None, seed: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Loss and output of a batch.

        Args:
            batch: Its number.
            train: In the modes it was trained in, else in evaluation mode.
            data: In place of the batch's own.
            seed: Of the random numbers in it, such as dropout's; by default the batch's number.

        Returns:
            The loss, and what the loss function took where that is known.
        """
        tape = self.tapes[batch]
        self.modes(tape, train=train)
        torch.default_generator.manual_seed(batch if seed is None else seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed_all(batch if seed is None else seed)
        trained = [
            theirs.detach().requires_grad_() if i in self._given else ours
            for i, (ours, theirs) in enumerate(zip(self.trained, tape.trained, strict=True))
        ]
        loss, output = tape.replay(self.modules, trained, tape.data if data is None else data)
        return loss if loss.numel() == 1 else loss.mean(), output

    def loss(self, batches: Sequence[int] | None = None, *, train: bool = True) -> float:
        """Mean loss over batches, without gradients."""
        with torch.no_grad():
            values = [float(self.forward(b, train=train)[0]) for b in (self.batches if batches is None else batches)]
        return sum(values) / len(values)

    def measured(
        self, batches: Sequence[int], *, train: bool = True, data: Callable[[int], list[Tensor]] | None = None
    ) -> tuple[float, float]:
        """Mean loss and mean score over batches; the score is NaN where there is none.

        Args:
            batches: Which.
            train: In the modes it was trained in, else in evaluation mode.
            data: Gives the data of a batch in place of its own.

        Returns:
            Loss and score.
        """
        losses, scores = [], []
        for batch in batches:
            tape = self.tapes[batch]
            given = tape.data if data is None else data(batch)
            with torch.no_grad():
                loss, output = self.forward(batch, train=train, data=given)
            losses.append(float(loss))
            score = self.training.score
            if score is not None and output is not None and len(tape.targets) == 1:
                scores.append(score(output, given[tape.targets[0]]))
        known = [s for s in scores if math.isfinite(s)]
        return sum(losses) / len(losses), sum(known) / len(known) if known else math.nan

    def gradients(self, batch: int, data: Sequence[Tensor] | None = None) -> tuple[float, list[Tensor]]:
        """Loss of a batch, and its gradient by what is learned (zeros where there is none)."""
        loss, _ = self.forward(batch, data=data)
        found = torch.autograd.grad(loss, self.learned, allow_unused=True)
        return float(loss.detach()), [
            torch.zeros_like(p) if g is None else g for p, g in zip(self.learned, found, strict=True)
        ]

    # ------------------------------------------------------------------ steps

    @property
    def steps_known(self) -> bool:
        """Whether it is known how the script makes a step."""
        return bool(self.learned) and self.training.usual_rate > 0

    def optimizer(self, factor: float = 1.0, *, start: bool = False) -> Any:
        """The script's optimizer with its state as at the end, on the bench's tensors.

        Args:
            factor: Times the usual learning rates, or those at the start.
            start: As at the first step instead.
        """
        usual = self.training.first_rate if start else self.training.usual_rate
        if self._optimizer is None:
            return torch.optim.SGD(self.learned, lr=factor * usual)
        made = _copied(self._optimizer, {id(t): t for t in _held(self._optimizer)})
        for group in made.param_groups:
            end = float(group.get("lr", self.training.rate))
            first = float(group.get("initial_lr", self.training.first_rate))
            other = (
                usual / self.training.rate * end if self.training.rate > 0 else usual / self.training.first_rate * first
            )
            group["lr"] = factor * other
        if start:
            made.state = defaultdict(dict)
        return made

    def adam(self, rate: float) -> torch.optim.Optimizer:
        """A fresh Adam without any decay."""
        return torch.optim.Adam(self.learned, lr=rate)

    def step(
        self,
        optimizer: Any,
        *batches: int,
        data: Callable[[int], Sequence[Tensor]] | None = None,
        seed: int | None = None,
    ) -> float:
        """One update on a batch, or on the mean gradient of several.

        Args:
            optimizer: That makes it.
            *batches: Which.
            data: Gives the data of a batch in place of its own.
            seed: Of the random numbers in the forward passes; by default the batch's number.

        Returns:
            The mean loss before it.
        """
        first: list[float] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            losses: list[float] = []
            for batch in batches:
                loss, _ = self.forward(batch, data=None if data is None else data(batch), seed=seed)
                (loss / len(batches)).backward()
                losses.append(float(loss.detach()))
            self._clip()
            first.append(sum(losses) / len(losses))
            return torch.tensor(first[-1], dtype=torch.float64)

        if self._closure and type(optimizer) is type(self._optimizer):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        return first[0]

    def train(
        self,
        optimizer: Any,
        batches: Sequence[int],
        steps: int,
        clock: Clock | None = None,
        *,
        pooled: int = 1,
        data: Callable[[int], Sequence[Tensor]] | None = None,
    ) -> list[float]:
        """Makes updates on batches in turn, until time is over or the loss is not finite.

        Args:
            optimizer: That makes them.
            batches: Which.
            steps: Updates.
            clock: Limits them; None where nothing does.
            pooled: Batches to an update.
            data: Gives the data of a batch in place of its own.

        Returns:
            The loss before each.
        """
        losses: list[float] = []
        for step in range(steps):
            chosen = [batches[(step * pooled + k) % len(batches)] for k in range(pooled)]
            losses.append(self.step(optimizer, *chosen, data=data, seed=step))
            if not math.isfinite(losses[-1]) or (clock is not None and not clock.left):
                break
        return losses

    def measured_after(self, losses: Sequence[float], batches: Sequence[int]) -> tuple[float, float]:
        """Mean loss and mean score over batches after a training with these losses; infinite and NaN where it diverged."""
        return self.measured(batches) if math.isfinite(losses[-1]) else (math.inf, math.nan)

    def _clip(self) -> None:
        kind, _, limit = self.training.clipping.partition(" ")
        try:
            bound = float(limit)
        except ValueError:
            return
        if kind == "norm":
            nn.utils.clip_grad_norm_(self.learned, bound)
        elif kind == "value":
            nn.utils.clip_grad_value_(self.learned, bound)


SMALL = 2_000_000  # parameters up to which one thread is as fast as several


@contextlib.contextmanager
def no_trace(*, threads: int) -> Iterator[None]:
    """Random numbers, threads, gradient mode and standard output are afterwards as they were; what is printed goes nowhere.

    What the script had compiled runs without the compiler meanwhile.

    Args:
        threads: That torch may use meanwhile.
    """
    numbers, states = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    before = torch.get_num_threads()
    with (
        torch.random.fork_rng(devices=devices), torch.enable_grad(), contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext(),
    ):  # fmt: skip
        try:
            _set_threads(threads)
            yield
        finally:
            _set_threads(before)
            random.setstate(numbers)
            np.random.set_state(states)


def _set_threads(count: int) -> None:
    """Sets the number of torch's threads where it is another: that it is set makes MKL take all of them for the smallest product."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _alike(one: Tape, other: Tape) -> bool:
    return [id(m) for m in one.modules] == [id(m) for m in other.modules] and [t.shape for t in one.trained] == [
        t.shape for t in other.trained
    ]


def _with_own_data(tape: Tape, copies: dict[Any, Tensor]) -> Tape:
    """The tape with copies of its data, each made once, since a forward pass may write into them."""
    data = []
    for tensor in tape.data:
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else id(tensor)
        if place not in copies:
            copies[place] = tensor.clone()
        data.append(copies[place])
    return dataclasses.replace(tape, data=data, versions=[t._version for t in data])


def _prepare(module: nn.Module, memo: dict[int, Any]) -> None:
    """Says how parts of a module are copied that can't be, or should not.

    These are the script's own hooks, which could do anything (torch's own, such as weight norm, stay; see `hooks`), and tensors that
    were computed, such as normalised weights or a hidden state.
    """
    for part in module.modules():
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            hooks = getattr(part, name, None)
            if hooks is not None:
                memo[id(hooks)] = OrderedDict((key, hook) for key, hook in hooks.items() if _of_torch(hook))
        for _, tensor in walk({k: v for k, v in vars(part).items() if k not in ("_parameters", "_modules")}):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()


def _is_given(tensor: Tensor, updated: set[int]) -> bool:
    """Whether a leaf with gradient is changed by no update, such as an input: each batch has its own."""
    return id(tensor) not in updated and not isinstance(tensor, nn.Parameter)


def _held(optimizer: Any) -> list[Tensor]:
    """The tensors an optimizer updates."""
    return [] if optimizer is None else [p for group in optimizer.param_groups for p in group["params"]]


def _copied(optimizer: Any, memo: dict[int, Any]) -> Any:
    """A copy of an optimizer, also of what torch leaves out: attributes that a class has added, but no functions."""
    made = copy.deepcopy(optimizer, memo)
    for name, value in vars(optimizer).items():
        if name not in vars(made) and not callable(value):
            setattr(made, name, copy.deepcopy(value, memo))
    return made


def _of_torch(hook: Any) -> bool:
    kind = hook if hasattr(hook, "__module__") else type(hook)
    return str(getattr(kind, "__module__", "")).startswith("torch")
