"""Early stopping: training ends when its evaluation gets no better, and the best weights are put back.

    stopping = EarlyStopping(patience=10)
    training = unstuck.Training(model, loss, optimizer, batches, evaluation=held_out, epochs=500, stopping=stopping)
    training.run()
    stopping.best, stopping.best_epoch

or in a loop of one's own:

    for epoch in range(500):
        ...
        stopping.better(accuracy, model)
        if stopping.ended:
            break
    stopping.restore_to(model)

What is stopped by is no longer a fair test: keep a third part of the data, which had no say.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Protocol

from torch import nn

from unstuck.errors import MisuseError

if TYPE_CHECKING:
    from unstuck.training import Epoch, Training


class Criterion(Protocol):
    """Tells when it is time to end."""

    def ends(self, values: Sequence[float], losses: Sequence[float]) -> bool:
        """Whether the epoch that is over should be the last.

        Args:
            values: What is stopped by, of each epoch, to be low.
            losses: Of each epoch in training; NaN where it isn't known.
        """
        ...


@dataclass(frozen=True)
class GL:
    """Ends when the generalization loss is above `alpha` percent: 100 * (E_va(t) / E_opt(t) - 1), E_opt the lowest E_va up to then.

    It looks at one epoch alone: fit for smooth evaluations.

    Source: Prechelt 1998, "Early stopping - but when?", section 2.2, first class.

    Args:
        alpha: Percent; the paper tries 1, 2, 3 and 5.

    Example:
        >>> GL(5).ends([2.0, 1.0, 1.06], [])
        True
    """

    alpha: float

    def ends(self, values: Sequence[float], losses: Sequence[float]) -> bool:
        """Whether it is above; see `Criterion`."""
        return generalization_loss(values) > self.alpha


@dataclass(frozen=True)
class PQ:
    """Ends when the generalization loss is more than `alpha` times the progress of training, asked at the end of each strip of epochs.

    As long as training goes on well, what was lost in evaluation may be won back. The progress is how much larger the mean loss in
    training over the strip is than its least, in thousandths.

    Source: Prechelt 1998, section 2.2, second class, for strips of 5.

    Args:
        alpha: The paper tries 0.5, 0.75, 1, 2 and 3.
        strip: Epochs to a strip.
    """

    alpha: float
    strip: int = 5

    def ends(self, values: Sequence[float], losses: Sequence[float]) -> bool:
        """Whether it is more; see `Criterion`.

        Args:
            values: As there.
            losses: As there.

        Returns:
            Whether.

        Raises:
            MisuseError: The losses aren't known.
        """
        if len(values) % self.strip:
            return False
        last = losses[-self.strip :]
        if any(math.isnan(loss) for loss in last):
            raise MisuseError(
                "PQ asks for the training's loss of each epoch, and one is NaN: give it by better(value, model, loss=...)"
            )
        return generalization_loss(values) > self.alpha * training_progress(last)


@dataclass(frozen=True)
class UP:
    """Ends when the value got higher over each of so many strips of epochs in a row, whatever the size.

    Source: Prechelt 1998, section 2.2, third class, for strips of 5.

    Args:
        strips: In a row; the paper tries 2, 3, 4, 6 and 8.
        strip: Epochs to a strip.
    """

    strips: int
    strip: int = 5

    def ends(self, values: Sequence[float], losses: Sequence[float]) -> bool:
        """Whether it did; see `Criterion`."""
        ends = values[self.strip - 1 :: self.strip]
        if len(values) % self.strip or len(ends) <= self.strips:
            return False
        last = ends[-self.strips - 1 :]
        return all(after > before for before, after in pairwise(last))


def generalization_loss(values: Sequence[float]) -> float:
    """How much worse the last value is than the best, in percent (Prechelt 1998, GL).

    Args:
        values: Errors above 0, of each epoch.

    Returns:
        Percent; NaN where the last value is.

    Raises:
        MisuseError: A value below 0, of which no percentage can be told.
    """
    best = min((v for v in values if not math.isnan(v)), default=math.nan)
    if best < 0:
        raise MisuseError(
            f"a value of {best}: Prechelt's GL and PQ are for errors from 0 on; stop by UP or by patience"
        )
    last = values[-1]
    if best == 0:
        return math.inf if last > 0 else 0.0
    return 100 * (last / best - 1)


def training_progress(losses: Sequence[float]) -> float:
    """How much larger the mean loss of a strip is than its least, in thousandths (Prechelt 1998, P_k).

    Args:
        losses: In training, of each epoch of the strip.

    Returns:
        Thousandths, from 0 on.
    """
    least = min(losses)
    return 1000 * (sum(losses) / (len(losses) * least) - 1) if least > 0 else math.inf if max(losses) > 0 else 0.0


class EarlyStopping:
    """Ends a training when it gets no better, and keeps the best weights.

    With averaged weights, those that are evaluated are kept, the averages, whatever it goes by.

    Attributes:
        ended: Whether it is time to end.
        best: The best value so far, NaN before the first.
        best_epoch: Its epoch, counted from 0; None before the first.

    Args:
        patience: Epochs in a row without an improvement, of which the last ends the training; None to stop by the criterion alone.
        smallest: An improvement that doesn't exceed it is none for the patience. The best weights are kept all the same.
        by: What of an epoch is looked at, the loss of its "evaluation" or its "loss" in training.
        mode: Whether "lower" or "higher" is better.
        restore: Whether the best weights are kept, a copy of the model's state, and put back.
        criterion: Ends it as well: `GL`, `PQ` or `UP`, or another; for values that should be low.

    Raises:
        MisuseError: Neither patience nor criterion, or one of them that can't be.

    Example:
        >>> stopping, model = EarlyStopping(patience=2), nn.Linear(1, 1)
        >>> [stopping.better(value, model) for value in (3.0, 2.0, 2.5, 2.5)]
        [True, True, False, False]
        >>> stopping.ended, stopping.best, stopping.best_epoch
        (True, 2.0, 1)
    """

    def __init__(
        self,
        patience: int | None = None,
        *,
        smallest: float = 0.0,
        by: Literal["evaluation", "loss"] = "evaluation",
        mode: Literal["lower", "higher"] = "lower",
        restore: bool = True,
        criterion: Criterion | None = None,
    ) -> None:
        if patience is None and criterion is None:
            raise MisuseError(
                "nothing says when to stop: give patience=10, epochs without an improvement, or criterion=GL(5)"
            )
        if patience is not None and (not isinstance(patience, Integral) or patience < 1):
            raise MisuseError(f"patience is {patience!r}, but must be a whole number of epochs from 1 on")
        if not smallest >= 0:
            raise MisuseError(f"smallest is {smallest!r}, but must be a number from 0 on")
        for name, value, known in (("by", by, ("evaluation", "loss")), ("mode", mode, ("lower", "higher"))):
            if value not in known:
                raise MisuseError(f"{name} is {value!r}, but must be {known[0]!r} or {known[1]!r}")
        if criterion is not None and mode == "higher":
            raise MisuseError('Prechelt\'s criteria are for errors, which should be low: mode must be "lower"')
        self.patience, self.smallest, self.by, self.mode = patience, smallest, by, mode
        self.restore, self.criterion = restore, criterion
        self.reset()

    def reset(self) -> None:
        """Forgets all, for a new run."""
        self.ended, self.best = False, math.nan
        self.best_epoch: int | None = None
        self.waited = 0
        """Epochs in a row without an improvement."""
        self.values: list[float] = []
        """What was looked at, of each epoch."""
        self.losses: list[float] = []
        """The training's loss of each epoch, NaN where it wasn't given."""
        self._improved = math.nan  # the value of the last improvement that exceeded the smallest
        self._state: dict[str, Any] = {}

    # ------------------------------------------------------------------ of a Training

    def look(self, training: Training, epoch: Epoch) -> None:
        """Looks at an epoch that is over, and ends the training when it is time; a hook of `on_epoch`.

        Args:
            training: The training.
            epoch: How it went.

        Raises:
            MisuseError: It should stop by the evaluation, and there is none.
        """
        if self.by == "evaluation" and training.evaluation is None:
            raise MisuseError(
                'early stopping goes by the evaluation, and the training has none: give evaluation=..., held-out batches, or by="loss"'
            )
        if self._note(epoch.loss if self.by == "loss" else epoch.evaluation, epoch.loss) and self.restore:
            with training.as_evaluated():
                self._keep(training.model)
        training.ended = training.ended or self.ended

    def put_back(self, training: Training) -> None:
        """Puts the best weights back when training is over; a hook of `on_end`.

        Args:
            training: The training.
        """
        self.restore_to(training.model)

    # ------------------------------------------------------------------ of a loop of one's own

    def better(self, value: float, model: nn.Module, *, loss: float = math.nan) -> bool:
        """Looks at the value of one more epoch, or of whatever is between two evaluations.

        Args:
            value: Of the evaluation. NaN is no improvement.
            model: As it was evaluated; kept if it is the best so far.
            loss: In training, for `PQ`.

        Returns:
            Whether it is the best so far; `ended` says whether it is time to end.
        """
        found = self._note(float(value), float(loss))
        if found and self.restore:
            self._keep(model)
        return found

    def restore_to(self, model: nn.Module) -> None:
        """Puts the best weights back, where they were kept.

        Args:
            model: That was trained.
        """
        if self._state:
            model.load_state_dict(self._state)

    def _note(self, value: float, loss: float) -> bool:
        self.values.append(value)
        self.losses.append(loss)
        found = self._gain(value, self.best) > 0
        if found:
            self.best, self.best_epoch = value, len(self.values) - 1
        if self._gain(value, self._improved) > self.smallest:
            self._improved, self.waited = value, 0
        else:
            self.waited += 1
        out = self.patience is not None and self.waited >= self.patience
        self.ended = out or (self.criterion is not None and self.criterion.ends(self.values, self.losses))
        return found

    def _gain(self, value: float, before: float) -> float:
        """How much better a value is; whatever is a number is better than none at all."""
        if math.isnan(before) and not math.isnan(value):
            return math.inf
        return before - value if self.mode == "lower" else value - before

    def _keep(self, model: nn.Module) -> None:
        self._state = copy.deepcopy(model.state_dict())

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: what was seen, and the best weights."""
        names = ("ended", "best", "best_epoch", "waited", "values", "losses", "_improved", "_state")
        return {name.lstrip("_"): copy.copy(getattr(self, name)) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint.

        Args:
            state: What `state_dict` gave.
        """
        self.ended, self.best, self.best_epoch = state["ended"], state["best"], state["best_epoch"]
        self.waited, self.values, self.losses = state["waited"], list(state["values"]), list(state["losses"])
        self._improved, self._state = state["improved"], dict(state["state"])
