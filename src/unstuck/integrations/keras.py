"""Keras 3 on the torch backend: a callback that watches `fit`.

from unstuck.integrations.keras import UnstuckCallback

model.fit(x, y, callbacks=[UnstuckCallback(html="report.html")])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from unstuck.errors import MissingError, MisuseError
from unstuck.integrations._watched import Options, Watched

if TYPE_CHECKING:
    from unstuck.verdict import Verdict
    from unstuck.watching import Watch

try:
    import keras
except ImportError as error:
    raise MissingError(
        f"unstuck.integrations.keras needs Keras 3 on torch, which can't be imported ({error}): "
        "pip install keras, and set KERAS_BACKEND=torch"
    ) from None


class UnstuckCallback(keras.callbacks.Callback):
    """Watches a training, says when it has ended what is wrong with it, where, and how that is known.

    Each `fit` is a training of its own. An exception in `fit` is not told to callbacks: the report then comes at the end of the
    notebook's cell or of the program.

    Args:
        **options: `html`, `json`, `report`, `fail_on`, `stop_on`, `budget`, `probe_budget`, `runs` and `log_to`, see `Watched`.

    Raises:
        MisuseError: An option can't be used as given, or Keras uses another backend than torch.

    Attributes:
        run: The watch, from the training's start; None before.
        verdict: The verdict over what was recorded; None before.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__()
        if keras.backend.backend() != "torch":
            raise MisuseError(
                f"Keras uses the backend {keras.backend.backend()!r}, but only torch can be watched: "
                "set KERAS_BACKEND=torch before Keras is imported"
            )
        self._watched = Watched(**options)

    @property
    def run(self) -> Watch | None:
        """The watch, from the training's start; None before."""
        return self._watched.run

    @property
    def verdict(self) -> Verdict | None:
        """The verdict over what was recorded; None before."""
        return self._watched.verdict

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins to watch."""
        self._watched.begin(in_cell=True)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stops the training, where that is asked for."""
        if self._watched.stops() and self.model is not None:
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Ends the watch and tells what was found."""
        self._watched.end()
