"""skorch: a callback that watches `fit`.

from skorch import NeuralNetClassifier
from unstuck.integrations.skorch import UnstuckCallback

net = NeuralNetClassifier(Net, callbacks=[UnstuckCallback(html="report.html")])
net.fit(X, y)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch.optim.lr_scheduler import LRScheduler

from unstuck.errors import MissingError
from unstuck.integrations._watched import Watched

if TYPE_CHECKING:
    from unstuck.verdict import Severity, Verdict
    from unstuck.watching import Watch

try:
    from skorch.callbacks import Callback
except ImportError:
    raise MissingError("unstuck.integrations.skorch needs skorch, which isn't installed: pip install skorch") from None


class UnstuckCallback(Callback):
    """Watches a training, says when it has ended what is wrong with it, where, and how that is known.

    Its options are parameters as scikit-learn knows them: `clone`, a grid search and `net.set_params(callbacks__unstuckcallback__…)`
    have them. They are checked when the net is initialized. Each `fit` is a training of its own. An exception in it is not told to
    callbacks: the report then comes at the end of the notebook's cell or of the program.

    Args:
        html: File for the page, see `Watched` for this and what follows.
        json: File for the verdict.
        report: Print the report.
        fail_on: Raise `SickError` when something this severe was found.
        stop_on: `error` stops the training once it is not finite for good.
        budget: Share of the training's time for watching.
        probe_budget: Share of it for experiments afterwards.
        runs: Folder for the record.
        log_to: A tracker, or a list of them.

    Attributes:
        run: The watch, from the training's start; None before.
        verdict: The verdict over what was recorded; None before.
    """

    def __init__(
        self,
        *,
        html: str | Path | None = None,
        json: str | Path | None = None,
        report: bool = True,
        fail_on: Severity | None = None,
        stop_on: Literal["error"] | None = None,
        budget: float = 0.02,
        probe_budget: float = 0.15,
        runs: str | Path | None = None,
        log_to: Any = None,
    ) -> None:
        self.html, self.json, self.report = html, json, report
        self.fail_on, self.stop_on = fail_on, stop_on
        self.budget, self.probe_budget, self.runs, self.log_to = budget, probe_budget, runs, log_to

    def initialize(self) -> UnstuckCallback:
        """Checks the options.

        Returns:
            This object.

        Raises:
            MisuseError: An option can't be used as given.
        """  # noqa: DOC502
        self.watched_ = Watched(**self.get_params())
        return self

    @property
    def run(self) -> Watch | None:
        """The watch, from the training's start; None before."""
        return self.watched_.run if hasattr(self, "watched_") else None

    @property
    def verdict(self) -> Verdict | None:
        """The verdict over what was recorded; None before."""
        return self.watched_.verdict if hasattr(self, "watched_") else None

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:  # noqa: N803 - skorch's name
        """Begins to watch; schedules of callbacks before this one are there already."""
        made = (getattr(callback, "lr_scheduler_", None) for _, callback in net.callbacks_)
        self.watched_.begin(*(schedule for schedule in made if isinstance(schedule, LRScheduler)), in_cell=True)

    def on_batch_end(self, net: Any, batch: Any = None, training: bool | None = None, **kwargs: Any) -> None:
        """Stops the training, where that is asked for.

        Raises:
            KeyboardInterrupt: It is to be stopped: this is how skorch is told.
        """
        if training and self.watched_.stops():
            raise KeyboardInterrupt

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:  # noqa: N803 - skorch's name
        """Ends the watch and tells what was found."""
        self.watched_.end()

    def __getstate__(self) -> dict[str, Any]:
        """A net is copied and pickled without the watch of its training."""
        state = self.__dict__.copy()
        if state.pop("watched_", None) is not None:
            state["watched_"] = Watched(**self.get_params())
        return state
