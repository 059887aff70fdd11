"""Experiment trackers that a training's record is sent to: TensorBoard, Weights & Biases, MLflow, Aim, and others by entry point.

    with unstuck.watch(model).log_to(writer) as run:
        ...

Sent are loss, score, learning rate and gradient norm, of each layer with weights the gradient and the update relative to the
weight, shares of dead and of saturated units, each under its own step; and at the end the verdict, as text and as the page.
NaN and Inf are not sent: trackers can't draw them, and the verdict says where they came from.

Another package brings its tracker by an entry point of the group `unstuck.trackers`:

    [project.entry-points."unstuck.trackers"]
    my-tracker = "my_package.my_tracker:my_tracker"

It is a function `(given, where) -> Tracker | None`: it makes a `Tracker` of what it knows, and gives None for everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from unstuck.errors import MisuseError, NotFoundError
from unstuck.integrations._growing import whole
from unstuck.integrations._points import Names, points
from unstuck.integrations._sending import send, tell
from unstuck.integrations._tracker_kinds import MAKERS

if TYPE_CHECKING:
    from unstuck.evidence import Record

_MOST = 2000  # numbers of each series of a record that is sent as a whole


@runtime_checkable
class Tracker(Protocol):
    """Where a record is sent. What it raises ends the sending, not the training."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Takes the numbers of one step, by names such as `unstuck/gradient/net.0`; steps come in ascending order but for stragglers."""
        ...

    def text(self, name: str, markdown: str) -> None:
        """Takes a text."""
        ...

    def file(self, path: Path) -> None:
        """Takes a file, which is gone afterwards."""
        ...

    def flush(self) -> None:
        """Is called after some steps were given."""
        ...

    def close(self) -> None:
        """Is called at the end; closes what was opened for this alone."""
        ...


Maker = Callable[[Any, Any], Tracker | None]


def tracker(given: Any, where: Any = None) -> Tracker:
    """The tracker that is meant.

    Args:
        given: TensorBoard's `SummaryWriter`; a run of W&B, MLflow or Aim; an `MlflowClient`; the module `wandb` or `mlflow`, for its
            active run; a `Tracker`; or a name: "tensorboard", "wandb", "mlflow", "aim", or that of an entry point, with what
            belongs to it as `where` or behind a colon ("tensorboard:logs").
        where: Of "tensorboard" the folder, of "aim" the repository, of an `MlflowClient` the run's id.

    Returns:
        The tracker.

    Raises:
        MisuseError: It is none.
        NotFoundError: There is no tracker of that name.
        MissingError: Its package is not installed.
    """  # noqa: DOC502
    if isinstance(given, str):
        name, _, rest = given.partition(":")
        return _named(name, where if where is not None else rest or None)
    if isinstance(given, Tracker) and not isinstance(given, type):
        return given
    for make in (*MAKERS.values(), *_others().values()):
        made = make(given, where)
        if made is not None:
            return made
    raise MisuseError(f"can't log to a {type(given).__name__}; there are {', '.join(sorted(MAKERS | _others()))}")


def export(record: Record | str | Path, given: Any, where: Any = None) -> None:
    """Sends a record that is finished, thinned to 2,000 numbers of each series.

    Args:
        record: The record, its file, or the folder of its run.
        given: As for `tracker`.
        where: As for `tracker`.

    Raises:
        MisuseError: `given` is no tracker.
        NotFoundError: There is no tracker of that name.
        MissingError: Its package is not installed.
        RecordError: There is no record, or it can't be read.
    """  # noqa: DOC502
    from unstuck.doctor import diagnose
    from unstuck.evidence import Record

    found = record if isinstance(record, Record) else Record.read(record)
    to = tracker(given, where)
    series = {
        (signal, place): found.series(signal, place) for signal in found.signals() for place in found.places(signal)
    }
    send(to, points(whole(series), Names(found.program), _MOST))
    tell(to, diagnose(found), found)


def _named(name: str, where: Any) -> Tracker:
    makers = MAKERS | _others()
    if name not in makers:
        raise NotFoundError(f"there is no tracker {name!r}; there are {', '.join(sorted(makers))}")
    made = makers[name](name, where)
    if made is None:
        raise MisuseError(f"the tracker {name!r} can't be had by its name alone: give its object")
    return made


def _others() -> dict[str, Maker]:
    return {entry.name: entry.load() for entry in entry_points(group="unstuck.trackers")}
