"""Hugging Face Accelerate: a tracker, or a context, that watches the loop of your own.

from accelerate import Accelerator
from unstuck.integrations.accelerate import UnstuckTracker

accelerator = Accelerator(log_with=UnstuckTracker(html="report.html"))
accelerator.init_trackers("my-project")
...  # prepare, train
accelerator.end_training()

Where there are no trackers, `with watched(accelerator, html="report.html"):` around the loop does the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack

from unstuck.errors import MissingError
from unstuck.integrations._watched import Options, Watched

if TYPE_CHECKING:
    from unstuck.verdict import Verdict
    from unstuck.watching import Watch

try:
    from accelerate.state import PartialState
    from accelerate.tracking import GeneralTracker
except ImportError:
    raise MissingError(
        "unstuck.integrations.accelerate needs Accelerate, which isn't installed: pip install 'unstuck[transformers]'"
    ) from None


class UnstuckTracker(GeneralTracker):
    """Watches from `init_trackers` to `end_training`, then says what is wrong with the training, where, and how that is known.

    It is given to `Accelerator(log_with=...)`, also in a list with other trackers. What the script logs is no matter to it. When the
    program ends by an error before `end_training`, what was found until then is told.

    Args:
        **options: `html`, `json`, `report`, `fail_on`, `budget`, `probe_budget`, `runs` and `log_to`, see `Watched`; whether to stop
            the loop is yours to ask: `tracker.stops()`, with `stop_on`.

    Raises:
        MisuseError: An option can't be used as given.

    Attributes:
        run: The watch, from the training's start; None before.
        verdict: The verdict over what was recorded; None before.
    """

    name = "unstuck"
    requires_logging_directory = False
    main_process_only = False  # each process has a record

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

    @property
    def tracker(self) -> Watch | None:
        """What `accelerator.get_tracker("unstuck", unwrap=True)` gives: the watch."""
        return self.run

    def start(self) -> None:
        """Watches from here on."""
        self._watched.begin(rank=PartialState().process_index)

    def stops(self) -> bool:
        """Whether the loop should be left now, as `stop_on` asks: of this process, for next to nothing."""
        return self._watched.stops()

    def finish(self) -> None:
        """Ends the watch and tells what was found."""
        self._watched.end()


@contextmanager
def watched(accelerator: Any, *known: Any, **options: Unpack[Options]) -> Iterator[Watch]:
    """Watches the training in the `with` block, in each of the accelerator's processes; the first one tells what was found.

    Args:
        accelerator: An `accelerate.Accelerator`.
        *known: Models, optimizers and schedules, prepared or not; only a schedule that was made before need be named.
        **options: As for `UnstuckTracker`.

    Yields:
        The watch, which has record and verdict.

    Raises:
        MisuseError: An option can't be used as given.
        SickError: Something was found that `fail_on` asks to fail on.
    """  # noqa: DOC502
    watch = Watched(**options)
    watch.begin(*map(_unwrapped, known), rank=accelerator.process_index)
    assert watch.run is not None
    try:
        yield watch.run
    except BaseException as error:
        watch.end(error)
        raise
    watch.end()


def _unwrapped(prepared: Any) -> Any:
    """The optimizer or schedule inside of Accelerate's own."""
    inner = {"AcceleratedOptimizer": "optimizer", "AcceleratedScheduler": "scheduler"}.get(type(prepared).__name__)
    return prepared if inner is None else getattr(prepared, inner)
