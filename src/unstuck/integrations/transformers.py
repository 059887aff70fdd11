"""Hugging Face Transformers: a callback that watches `Trainer.train`.

from transformers import Trainer
from unstuck.integrations.transformers import UnstuckCallback

trainer = Trainer(model, args, train_dataset=data, callbacks=[UnstuckCallback(html="report.html")])
trainer.train()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from unstuck.errors import MissingError
from unstuck.integrations._watched import Options, Watched, agreed

if TYPE_CHECKING:
    from unstuck.verdict import Verdict
    from unstuck.watching import Watch

try:
    from transformers import TrainerCallback
except ImportError:
    raise MissingError(
        "unstuck.integrations.transformers needs Transformers, which isn't installed: pip install 'unstuck[transformers]'"
    ) from None

_AGREES_EVERY = 16  # steps after which processes agree on stopping


class UnstuckCallback(TrainerCallback):
    """Watches a training, says when it has ended what is wrong with it, where, and how that is known.

    Recorded is what `train` does. The trainer doesn't tell its callbacks of an exception: what was found until then is told when the
    program, or the notebook's cell, ends by it. Nothing is pushed to a hub or a tracker unless `log_to` asks for it.

    Args:
        **options: `html`, `json`, `report`, `fail_on`, `stop_on`, `budget`, `probe_budget`, `runs` and `log_to`, see `Watched`.

    Raises:
        MisuseError: An option can't be used as given.

    Attributes:
        run: The watch, from the training's start; None before.
        verdict: The verdict over what was recorded; None before.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__()
        self._watched = Watched(**options)

    @property
    def run(self) -> Watch | None:
        """The watch, from the training's start; None before."""
        return self._watched.run

    @property
    def verdict(self) -> Verdict | None:
        """The verdict over what was recorded; None before."""
        return self._watched.verdict

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The model is where it will be trained, and no batch was asked for."""
        schedule = kwargs.get("lr_scheduler")
        known = [] if schedule is None else [getattr(schedule, "scheduler", schedule)]  # Accelerate wraps it
        self._watched.begin(*known, rank=args.process_index, in_cell=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks the trainer to stop, where that is asked for."""
        if not self._watched.may_stop:
            return
        stop = self._watched.stops()
        if args.world_size > 1:
            if state.global_step % _AGREES_EVERY:
                return
            stop = agreed(stop, args.device)
        control.should_training_stop = control.should_training_stop or stop

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the watch and tells what was found."""
        self._watched.end()
