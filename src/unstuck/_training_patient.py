"""A training in one's own process, as what is treated."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

from unstuck.errors import MisuseError
from unstuck.evidence import LossCall, Record
from unstuck.patients import Written
from unstuck.program import loss_of, with_survey
from unstuck.training import Training
from unstuck.trials.inline import TrainingJob
from unstuck.trials.visit import Treatment
from unstuck.watcher.seeds import shifted


class TrainingPatient:
    """A training in one's own process.

    Args:
        training: It: all its runs begin with its weights, and differ by batches and noise alone. Or a function without arguments that
            makes one, which is called anew for each run: the weights differ as well.

    Raises:
        MisuseError: It is neither, or can't be copied.
    """

    record: Record

    def __init__(self, training: Training | Callable[[], Training]) -> None:
        if not isinstance(training, Training) and not callable(training):
            raise MisuseError(
                f"what is to be cured is a {type(training).__name__}, but must be a Training or a function that makes one"
            )
        self._make = _copies_of(training.copy()) if isinstance(training, Training) else training
        self._whose = uuid.uuid4().hex  # nothing is known of it from other visits
        with shifted(0):
            made = self._make()
        if not isinstance(made, Training):
            raise MisuseError(f"the function gives a {type(made).__name__}, but must give a Training")

    def see(self, record: Record) -> None:
        """Takes in what the run as it stands has told."""
        self.record = record

    def proposing(self, record: Record) -> Program:
        """What remedies propose for: the training, as a run of it was, with what only the surveyed run tells."""
        return Program(with_survey(record, self.record))

    def check(self, treatment: Treatment) -> None:
        """Whether a treatment can be given.

        Raises:
            EditError: A dose can't.
        """  # noqa: DOC502
        self._treated(treatment)

    def job(self, treatment: Treatment = (), **given: Any) -> Any:
        """A run of it."""
        return TrainingJob(self._make, self._whose, treatment, self.record if treatment else None, **given)

    def written(self, treatment: Treatment) -> Written:
        """A training with the treatment, to go on with; nothing is written into files."""
        return Written(training=self._treated(treatment))

    def _treated(self, treatment: Treatment) -> Training:
        with shifted(0):
            return self.job(treatment).treated()


@dataclasses.dataclass(frozen=True)
class Program:
    """A training as remedies see it when they propose.

    Attributes:
        record: Of a run of it.
    """

    record: Record

    @property
    def loss(self) -> LossCall:
        """The loss that is trained.

        Raises:
            EditError: There is none.
        """  # noqa: DOC502
        return loss_of(self.record)


def _copies_of(training: Training) -> Callable[[], Training]:
    return lambda: training.copy()
