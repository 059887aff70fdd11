"""A training in your own process, as objects: a model, a loss, an optimizer and batches, and the points where treatments take hold.

import unstuck

training = unstuck.Training(model, nn.functional.cross_entropy, optimizer, loader, evaluation=held_out, epochs=5)
training.run()
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from unstuck._batches import Forward, copied_batches, generators, numbers_kept, outputs_and_targets
from unstuck._modes import evaluating
from unstuck._training_copies import copied_optimizer, uses
from unstuck.errors import MisuseError
from unstuck.optim.sam import Sam
from unstuck.optim.weight_average import WeightAverage

Each = Literal["step", "epoch"]
_MOST_INPUTS = 20_000
_STOPPING = ("look", "put_back", "reset", "state_dict", "load_state_dict")


@dataclass(frozen=True)
class Epoch:
    """How a pass over the batches went.

    Attributes:
        loss: Mean over its batches, while they were trained on.
        evaluation: Mean loss of the evaluation after it, NaN where there is none.
    """

    loss: float
    evaluation: float = math.nan


@dataclass
class Schedule:
    """A schedule of the rate, and when it steps: after each "step" or each "epoch"."""

    scheduler: Any
    each: Each


class Stopping(Protocol):
    """Ends a training early, and chooses among the weights that were evaluated, as `unstuck.regularization.early_stopping` does."""

    def look(self, training: Training, epoch: Epoch) -> None:
        """Looks at an epoch that is over; `training.ended = True` makes it the last."""

    def put_back(self, training: Training) -> None:
        """Gives the model the weights that were best, when training is over."""

    def reset(self) -> None:
        """Forgets all epochs, for another run."""

    def state_dict(self) -> dict[str, Any]:
        """What it needs to go on between two epochs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where another stood."""


class Training:
    """A training as objects, that can be run, copied, and treated.

    It is trained in the modes that the modules are in: a model that was put into evaluation mode stays there, as it may be meant to.

    Attributes beside the arguments are where treatments take hold, each a list of functions:
        on_loss: Are given the training and the loss before backward, and return the loss that is trained by.
        on_gradients: Are given the training when the gradients are there, before they are clipped and the optimizer steps.
        on_step: Are given the training behind each step of the optimizer.
        on_eval: Are given the training, and outputs and targets of each batch that is evaluated.
        around_eval: Are given the training, and return a context manager in which it is evaluated.
        on_epoch: Are given the training and how the epoch went, when it is over. One that sets `ended` makes it the last.
        on_end: Are given the training when all epochs are over.

    Args:
        model: The network.
        loss: Takes outputs and targets, and returns the loss as one number.
        optimizer: Over the model's parameters.
        batches: What is trained on: a DataLoader, a list, whatever can be gone through once an epoch.
        evaluation: Batches of the same kind that are evaluated after every epoch.
        epochs: Passes over the batches.
        schedule: One of torch's schedules of that optimizer.
        schedule_each: Whether it steps after each "step" or each "epoch".
        accumulate: Batches to a step of the optimizer, whose losses are averaged: a batch that many times as large, in the memory of one.
            The last step of an epoch is made of those that are left. Batch norm still sees one batch at a time.
        clip: Limit of the gradient's L2 norm, None for none.
        penalty: Takes the model and returns what is added to the loss in training, such as a sum of squared weights.
        average: Of the model's weights, brought up to date behind each step: what is evaluated, and what the model is left with when
            training is over. The next run begins another.
        stopping: Looks at every epoch, may make it the last, and gives the model the best weights when training is over, which are
            evaluated again. With an average these are averages, as they are what was evaluated.
        forward: Takes the model and a batch, and returns outputs and targets. By default a batch is inputs and targets; tensors are
            moved to where the model is.

    Raises:
        MisuseError: Something given can't be used so; the message says why.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> with torch.no_grad():
        ...     _ = model.weight.fill_(0.0), model.bias.fill_(0.0)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> x = torch.tensor([[1.0], [-1.0]])
        >>> Training(model, nn.functional.mse_loss, optimizer, [(x, 2 * x)]).run()
        [Epoch(loss=4.0, evaluation=nan)]
        >>> model.weight.item()  # by half the gradient of (2 - w)**2, which is -4
        2.0
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        optimizer: torch.optim.Optimizer,
        batches: Iterable[Any],
        *,
        evaluation: Iterable[Any] | None = None,
        epochs: int = 1,
        schedule: Any = None,
        schedule_each: Each = "epoch",
        accumulate: int = 1,
        clip: float | None = None,
        penalty: Callable[[nn.Module], Tensor] | None = None,
        average: WeightAverage | None = None,
        stopping: Stopping | None = None,
        forward: Forward | None = None,
    ) -> None:
        _check_objects(model, loss, optimizer)
        _check_batches("batches", batches)
        if evaluation is not None:
            _check_batches("evaluation", evaluation)
        for name, count in (("epochs", epochs), ("accumulate", accumulate)):
            if not isinstance(count, Integral) or count < 1:
                raise MisuseError(f"{name} is {count!r}, but must be a whole number from 1 on")
        if clip is not None and not clip > 0:
            raise MisuseError(f"clip is {clip!r}, but must be above 0, or None")
        _check_schedule(schedule, schedule_each, optimizer)
        _check_average(average, model)
        _check_stopping(stopping)
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.batches, self.evaluation, self.epochs = batches, evaluation, epochs
        self.schedules = [Schedule(schedule, schedule_each)] if schedule is not None else []
        self.accumulate, self.clip, self.penalty = accumulate, clip, penalty
        self.average, self.stopping = average, stopping
        self.ended = False
        """Whether the epoch that is over is to be the last."""
        self._is_over = False
        self.forward: Forward = forward or outputs_and_targets
        self.on_loss: list[Callable[[Training, Tensor], Tensor]] = []
        self.on_gradients: list[Callable[[Training], None]] = []
        self.on_step: list[Callable[[Training], None]] = []
        self.on_eval: list[Callable[[Training, Any, Any], None]] = []
        self.around_eval: list[Callable[[Training], contextlib.AbstractContextManager[None]]] = []
        self.on_epoch: list[Callable[[Training, Epoch], None]] = []
        self.on_end: list[Callable[[Training], None]] = []
        self.places = dict(model.named_modules(remove_duplicate=False))
        """Modules by the paths that they had when the training was made: a treatment may put others in their place, or around them."""

    # ------------------------------------------------------------------ training

    def run(self) -> list[Epoch]:
        """Trains for all epochs, or until a hook or `stopping` says that it has ended, and evaluates after each.

        The model is left with what was evaluated: the last weights, or their average, or the best of either.

        Returns:
            How each epoch went.

        Raises:
            MisuseError: Batches are not what the training takes them to be, or there are none.
        """  # noqa: DOC502
        found: list[Epoch] = []
        if self._is_over and self.stopping is not None:  # what it has seen can be asked until then
            self.stopping.reset()
        self.ended = self._is_over = False
        while len(found) < self.epochs and not self.ended:
            found.append(self._epoch())
        self._end()
        return found

    def _end(self) -> None:
        """Leaves the model with what was evaluated."""
        if average := self._current_average():
            average.copy_to()
            average.reset()
        if self.stopping is not None:
            self.stopping.put_back(self)
            self.evaluate()  # who watches sees last what the model is left with
        for hook in self.on_end:
            hook(self)
        self._is_over = True

    def evaluate(self) -> float:
        """The mean loss of the evaluation's batches, in evaluation mode and without gradients; modes are as before afterwards.

        Returns:
            It; NaN where there is no evaluation.

        Raises:
            MisuseError: Batches are not what the training takes them to be.
        """  # noqa: DOC502
        losses: list[Tensor] = []
        if self.evaluation is None:
            return math.nan
        with self.as_evaluated():
            for batch in self.evaluation:
                outputs, targets = self.forward(self.model, batch)
                losses.append(self.loss(outputs, targets))
                for hook in self.on_eval:
                    hook(self, outputs, targets)
        return float(torch.stack([loss.float().reshape(()) for loss in losses]).mean()) if losses else math.nan

    @contextlib.contextmanager
    def as_evaluated(self) -> Iterator[None]:
        """While which the model is as it is evaluated: in evaluation mode, without gradients, with the weights that are evaluated."""
        with evaluating(self.model), torch.no_grad(), contextlib.ExitStack() as around:
            if average := self._current_average():
                around.enter_context(average.swapped_in())
            for hook in self.around_eval:
                around.enter_context(hook(self))
            yield

    def _epoch(self) -> Epoch:
        total: Any = 0.0  # stays where the model is
        count = 0
        batches = iter(self.batches)
        while group := list(islice(batches, self.accumulate)):
            loss = self._step(group)
            total, count = total + len(group) * loss.float().reshape(()), count + len(group)
        if not count:
            raise MisuseError("there are no batches to train on; can they be gone through once only?")
        found = Epoch(float(total / count), self.evaluate())
        for schedule in self.schedules:
            if schedule.each == "epoch":
                by = [found.loss if math.isnan(found.evaluation) else found.evaluation]
                schedule.scheduler.step(*by * isinstance(schedule.scheduler, lr_scheduler.ReduceLROnPlateau))
        if self.stopping is not None:
            self.stopping.look(self, found)
        for hook in self.on_epoch:
            hook(self, found)
        return found

    def _step(self, group: list[Any]) -> Tensor:
        if isinstance(self.optimizer, (torch.optim.LBFGS, Sam)):  # ask for loss and gradient as often as they like
            loss = torch.as_tensor(self.optimizer.step(functools.partial(self._gradients, group)))
        else:
            loss = self._gradients(group)
            self.optimizer.step()
        for schedule in self.schedules:
            if schedule.each == "step":
                schedule.scheduler.step()
        for hook in self.on_step:
            hook(self)
        if average := self._current_average():
            average.update()
        return loss.detach()

    def _current_average(self) -> WeightAverage | None:
        """The average, of the model that treatments have put in the place of the first."""
        if self.average is not None:
            self.average.model = self.model
        return self.average

    def _gradients(self, group: list[Any]) -> Any:  # of LBFGS' closure a float is expected
        self.optimizer.zero_grad()
        losses = [self._backward(batch, len(group)) for batch in group]
        for hook in self.on_gradients:
            hook(self)
        if self.clip is not None:
            nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], self.clip)
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _backward(self, batch: Any, count: int) -> Tensor:
        """Adds a batch's part to the gradients, one of `count`."""
        outputs, targets = self.forward(self.model, batch)
        loss = self.loss(outputs, targets)
        if self.penalty is not None:
            loss = loss + self.penalty(self.model)
        for change in self.on_loss:
            loss = change(self, loss)
        (loss if count == 1 else loss / count).backward()
        return loss if count == 1 else loss.detach()

    # ------------------------------------------------------------------ what it is made of

    @property
    def steps(self) -> int:
        """Steps that `run` makes, 0 where the batches can't be counted."""
        each = math.ceil(len(self.batches) / self.accumulate) if isinstance(self.batches, Sized) else 0
        return each * self.epochs

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def generators(self) -> list[Any]:
        """The generators that batches are drawn by, each once."""
        return generators(self.batches)

    def inputs(self, *, most: int = _MOST_INPUTS) -> Tensor:
        """What the model is given, as many batches of it as hold `most` samples; no random number is drawn by that.

        Args:
            most: Samples.

        Returns:
            First arguments of the model's calls, one batch behind the other, on the processor; empty where they are no tensors.
        """
        found: list[Tensor] = []
        with numbers_kept(), torch.no_grad():
            for batch in copied_batches(self.batches, {}):
                first = _first_argument(self.model, functools.partial(self.forward, self.model, batch))
                if (
                    not isinstance(first, Tensor)
                    or not first.dim()
                    or first.shape[1:] != (found or [first])[0].shape[1:]
                ):
                    break
                found.append(first.detach().cpu())
                if sum(map(len, found)) >= most:
                    break
        return torch.cat(found)[:most] if found else torch.zeros(0)

    def copy(self) -> Self:
        """Another one that starts as this one stands: model, loss, optimizer and schedules are copied together, data are shared.

        Generators that batches are drawn by are copied as well, so that both draw the same.

        Returns:
            The copy.

        Raises:
            MisuseError: The model can't be copied, or a function uses it from outside, and not the one that it is given.
        """
        for what in ("loss", "forward", "penalty"):
            if uses(getattr(self, what), self.model, self.optimizer, self):
                raise MisuseError(
                    f"{what} uses a model or an optimizer from outside, so that a copy of the training would train one and ask another: "
                    "let it use those that it is given, or hand over a function that makes the training"
                )
        memo: dict[int, Any] = {}
        new = copy.copy(self)
        try:
            new.model = copy.deepcopy(self.model, memo)
        except Exception as error:
            raise MisuseError(f"the model can't be copied: {error}") from error
        new.batches = copied_batches(self.batches, memo)
        new.evaluation = copied_batches(self.evaluation, memo)
        new.optimizer = copied_optimizer(self.optimizer, memo)
        for name, value in vars(self).items():
            if name not in ("model", "batches", "evaluation", "optimizer"):
                setattr(new, name, copy.deepcopy(value, memo))
        if new.schedules:
            count_steps(new.optimizer)
        return new


def count_steps(optimizer: torch.optim.Optimizer) -> None:
    """Lets an optimizer note its steps, as one does for which a schedule was made: schedules that are put to another ask for that."""
    for each in (optimizer, optimizer.base) if isinstance(optimizer, Sam) and optimizer.base else (optimizer,):
        lr_scheduler.ConstantLR(each, factor=1.0, total_iters=0)  # changes no rate


# ---------------------------------------------------------------------- what is given


def _check_objects(model: Any, loss: Any, optimizer: Any) -> None:
    if not isinstance(model, nn.Module):
        raise MisuseError(f"model is a {type(model).__name__}, but must be an nn.Module")
    if not callable(loss):
        raise MisuseError(f"loss is a {type(loss).__name__}, but must be a function of outputs and targets")
    if isinstance(loss, type):
        raise MisuseError(f"loss is the class {loss.__name__}, but must be a function: give {loss.__name__}()")
    groups = getattr(optimizer, "param_groups", None)
    if groups is None or isinstance(optimizer, type):
        raise MisuseError(
            f"optimizer is a {type(optimizer).__name__}, but must be one of torch's, such as Adam(model.parameters())"
        )
    own = {id(p) for p in model.parameters()}
    if not own:
        raise MisuseError("the model has no parameters that could be trained")
    if not own & {id(p) for group in groups for p in group["params"]}:
        raise MisuseError(
            "the optimizer has none of the model's parameters: make it of model.parameters(), when the model is what is trained and "
            "not copied any more"
        )


def _check_batches(name: str, batches: Any) -> None:
    if isinstance(batches, Iterator):
        raise MisuseError(
            f"{name} can be gone through once only: give a list or a DataLoader, which begin anew each epoch"
        )
    if not isinstance(batches, Iterable) and not hasattr(batches, "__getitem__"):
        raise MisuseError(f"{name} is a {type(batches).__name__}, but must be batches, such as a list or a DataLoader")
    if isinstance(batches, (Tensor, Mapping, str)):
        raise MisuseError(
            f"{name} is a {type(batches).__name__}, but must be batches: pairs of inputs and targets in a list or DataLoader"
        )
    if isinstance(batches, (list, tuple)) and not batches:
        raise MisuseError(f"{name} is empty")


def _check_schedule(schedule: Any, each: Any, optimizer: Any) -> None:
    if each not in ("step", "epoch"):
        raise MisuseError(f'schedule_each is {each!r}, but must be "step" or "epoch"')
    if schedule is None:
        return
    if not callable(getattr(schedule, "step", None)) or isinstance(schedule, type):
        raise MisuseError(f"schedule is a {type(schedule).__name__}, but must be one of torch.optim.lr_scheduler")
    inner = optimizer.base if isinstance(optimizer, Sam) else None
    if getattr(schedule, "optimizer", optimizer) not in (optimizer, inner):
        raise MisuseError("the schedule is one of another optimizer")
    if each == "step" and isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
        raise MisuseError('ReduceLROnPlateau goes by the loss of an epoch: schedule_each must be "epoch"')


def _check_average(average: Any, model: nn.Module) -> None:
    if average is None:
        return
    if not isinstance(average, WeightAverage):
        raise MisuseError(f"average is a {type(average).__name__}, but must be a WeightAverage(model)")
    if not average.is_of(model):
        raise MisuseError("average is one of another model: make it of the one that is trained")


def _check_stopping(stopping: Any) -> None:
    lacking = [name for name in _STOPPING if not callable(getattr(stopping, name, None))]
    if stopping is not None and (lacking or isinstance(stopping, type)):
        raise MisuseError(
            f"stopping is a {type(stopping).__name__}{' without ' + lacking[0] if lacking else ''}, but must be such as "
            "unstuck.regularization.early_stopping.EarlyStopping()"
        )


# ---------------------------------------------------------------------- what the model is given


class _Seen(Exception):  # noqa: N818 - no error
    """Ends a forward pass of which no more than its inputs is wanted."""


def _first_argument(model: nn.Module, compute: Callable[[], Any]) -> Any:
    """What the model is given first when something is computed by it, None where it isn't called with an argument."""
    seen: list[Any] = []

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.extend(args[:1])
        raise _Seen

    handle = model.register_forward_pre_hook(look, prepend=True)
    try:
        compute()
    except _Seen:
        pass
    finally:
        handle.remove()
    return seen[0] if seen else None
