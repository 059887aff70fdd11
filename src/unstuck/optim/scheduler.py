"""Optimizers that follow schedules: torch's kind of schedule, made of a function of the step, and a warm-up before a plateau.

    rates = scheduler(optimizer, WarmUp(500, then=Cosine(10_000)))
    ...
    optimizer.step()
    rates.step()

It is stepped after every update, or every epoch, if steps are meant to be epochs; `unstuck.Training` takes it as `schedule=`, with
`schedule_each="step"`. The functions are those of `unstuck.optim.schedules`, or any others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from unstuck.errors import MisuseError
from unstuck.optim.schedules import Schedule, WarmUp


class Scheduler(LRScheduler):
    """Lets the rates of an optimizer follow schedules, and its momentum if wanted. `scheduler` makes one.

    It is one of torch's schedules. Other than `LambdaLR`'s, its state is numbers alone, so that `torch.load` takes it; loading it sets
    the rates; and a group that joins later follows from the rate it comes with.

    Args:
        optimizer: Whose rates they are. A rate may be a tensor, which is written to.
        schedule: For all groups, or a list of one for each.
        momentum: Momentum by step (Adam's and its kin's beta1), None to leave it.
        step: Updates that were made already.

    Raises:
        MisuseError: As many schedules as groups are needed, or there is no momentum to be set.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Schedule | Sequence[Schedule],
        *,
        momentum: Schedule | None = None,
        step: int = 0,
    ) -> None:
        groups = getattr(optimizer, "param_groups", [])
        if isinstance(schedule, Sequence) and len(schedule) != len(groups):
            raise MisuseError(
                f"{len(schedule)} schedules for {len(groups)} parameter groups: give one, or one for each"
            )
        for wanted in schedule if isinstance(schedule, Sequence) else [schedule]:
            if not callable(wanted):
                raise MisuseError(f"a schedule is {wanted!r}, but must be a function of the step, such as Cosine(1000)")
        if momentum is not None and not all("momentum" in group or "betas" in group for group in groups):
            raise MisuseError(f"{type(optimizer).__name__} has neither momentum nor betas that a schedule could set")
        self.schedule, self.momentum = schedule, momentum
        for group in groups:
            _base(group)
        super().__init__(optimizer, step - 1)

    def get_lr(self) -> list[float | Tensor]:
        """The rates for the number of steps made, of each group."""
        groups = self.optimizer.param_groups
        for group in groups[len(self.base_lrs) :]:
            self.base_lrs.append(_base(group))
        return [base * self._factor(i) for i, base in enumerate(self.base_lrs)]

    def step(self, epoch: int | None = None) -> None:
        """To be called after every update (or epoch, if steps are meant so): sets the rates for the next.

        Args:
            epoch: Torch's old way to go to a step.
        """
        super().step(epoch)
        self._set_momentum()

    def state_dict(self) -> dict[str, Any]:
        """Steps made, and the rates that factors are of: numbers only, schedules are not in it."""
        return {key: vars(self)[key] for key in ("last_epoch", "base_lrs", "_step_count", "_last_lr")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where a state was taken, and sets the rates of that step.

        A group that had joined behind the last step stays at the rate that it came with until the next.

        Args:
            state_dict: What `state_dict` gave.

        Raises:
            MisuseError: It is of more parameter groups than there are.
        """
        groups, known = self.optimizer.param_groups, len(state_dict["base_lrs"])
        if known > len(groups):
            raise MisuseError(
                f"the schedule's state is of {known} parameter groups, and the optimizer has {len(groups)}: give it the same groups first"
            )
        super().load_state_dict(state_dict)
        for i, (group, base) in enumerate(zip(groups, self.base_lrs, strict=False)):
            group["initial_lr"] = base
            _write(group, base * self._factor(i))
        self._last_lr = [_noted(group["lr"]) for group in groups]
        self._set_momentum()

    def _factor(self, group: int) -> float:
        """Of the rate of a group at this step; no number of numpy's, which `torch.load` wouldn't take from a checkpoint."""
        return float(self._of(group)(self.last_epoch))

    def _of(self, group: int) -> Schedule:
        if not isinstance(self.schedule, Sequence):
            return self.schedule
        if group >= len(self.schedule):
            raise MisuseError(
                f"parameter group {group} joined later and has no schedule: give one schedule for all groups"
            )
        return self.schedule[group]

    def _set_momentum(self) -> None:
        if self.momentum is None:
            return
        value = float(self.momentum(self.last_epoch))
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
            else:
                group["momentum"] = value


def scheduler(
    optimizer: Optimizer, schedule: Schedule | Sequence[Schedule], *, momentum: Schedule | None = None, step: int = 0
) -> Scheduler:
    """One of torch's schedules: rates are those that the optimizer was made with, times the factor of the step.

    Args:
        optimizer: Whose rates they are.
        schedule: For all groups, or a list of one for each group (layer-wise).
        momentum: Momentum by step, as `OneCycle(…).momentum()`; None to leave it.
        step: Updates that were made already, to go on from there.

    Returns:
        What is stepped after every update.

    Raises:
        MisuseError: As many schedules as groups are needed, or there is no momentum to be set.

    Example:
        >>> import torch
        >>> from unstuck.optim.schedules import Step
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
        >>> rates = scheduler(optimizer, Step(2, 0.5))
        >>> for _ in range(4):
        ...     optimizer.step()
        ...     rates.step()
        >>> optimizer.param_groups[0]["lr"]
        0.2
    """  # noqa: DOC502
    return Scheduler(optimizer, schedule, momentum=momentum, step=step)


class WarmUpPlateau(ReduceLROnPlateau):
    """A warm-up, and then torch's `ReduceLROnPlateau`, which torch can't chain: its `SequentialLR` hands on no metric.

    After every update call `warm()`, after every evaluation `step(metric)`. While it warms up the metric sets the best so far and lowers
    nothing. With `unstuck.Training`: `schedule=` it, and `training.on_step.append(lambda training:
    training.schedules[0].scheduler.warm())`.

    Args:
        optimizer: Whose rates they are.
        warm_up: The warm-up, of which `then` is not used.
        settings: Those of `ReduceLROnPlateau`: factor, patience, threshold, cooldown, mode.

    Raises:
        MisuseError: The warm-up is none.
    """

    def __init__(self, optimizer: Optimizer, warm_up: WarmUp, **settings: Any) -> None:
        if not isinstance(warm_up, WarmUp):
            raise MisuseError(f"warm_up is {warm_up!r}, but must be a WarmUp, such as WarmUp(500)")
        self._rise = WarmUp(warm_up.steps, start=warm_up.start, shape=warm_up.shape)
        self.updates = 0
        """Updates made, counted up to the end of the warm-up."""
        super().__init__(optimizer, **settings)
        self._base = [_base(group) for group in optimizer.param_groups]
        self._set()

    @property
    def is_warm(self) -> bool:
        """Whether the warm-up is over."""
        return self.updates >= self._rise.steps

    def warm(self) -> None:
        """Notes an update; while it warms up, the rates are set for the next."""
        if not self.is_warm:
            self.updates += 1
            self._set()

    def step(self, metrics: Any, epoch: Any = None) -> None:
        """Notes how the training fares, and lowers the rates if it hasn't got better for long enough.

        Args:
            metrics: A loss, or what `mode="max"` says is better when higher.
            epoch: Torch's old way to name the epoch.
        """
        super().step(metrics, epoch)
        if not self.is_warm:
            self.num_bad_epochs = 0

    def _reduce_lr(self, epoch: Any) -> None:
        if self.is_warm:
            super()._reduce_lr(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Its numbers; the warm-up itself is not in it."""
        return {key: value for key, value in super().state_dict().items() if key != "_rise"}

    def _set(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self._base, strict=False):  # later groups aren't warmed up
            _write(group, base * self._rise(self.updates))
        self._last_lr = [_noted(group["lr"]) for group in self.optimizer.param_groups]


def _base(group: dict[str, Any]) -> Any:
    """The rate that factors are of, which is noted in the group as torch does."""
    rate = group["lr"]
    return _noted(group.setdefault("initial_lr", _noted(rate)))


def _noted(rate: Any) -> Any:
    """A rate as it is now; one in a tensor is written to later."""
    return rate.clone() if isinstance(rate, Tensor) else rate


def _write(group: dict[str, Any], rate: Any) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
