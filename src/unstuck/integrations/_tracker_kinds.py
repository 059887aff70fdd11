"""The trackers that are known by themselves: TensorBoard, Weights & Biases, MLflow, Aim. None is imported before it is used."""

from __future__ import annotations

import importlib
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstuck.errors import MissingError, MisuseError

if TYPE_CHECKING:
    from unstuck.integrations.trackers import Tracker

_MOST_METRICS = 500  # in one request to MLflow, which takes a thousand


def _is(given: Any, kind: str, *packages: str) -> bool:
    """Whether something is of a class of that name, from one of these packages, without importing them."""
    return any(c.__name__ == kind and c.__module__.split(".")[0] in packages for c in type(given).__mro__)


def _package(name: str, install: str = "") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = install or name
        raise MissingError(f"{package} is needed to log to it: pip install {package}") from error


# ---------------------------------------------------------------------- TensorBoard


class TensorBoard:
    """Events for TensorBoard; the page is laid beside them, as `unstuck.html`.

    Args:
        writer: `SummaryWriter` of torch or tensorboardX.
        owned: Close it at the end.
    """

    def __init__(self, writer: Any, *, owned: bool) -> None:
        self._writer, self._owned = writer, owned
        self._step = 0

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._step = max(self._step, step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def text(self, name: str, markdown: str) -> None:
        self._writer.add_text(name, markdown, self._step)

    def file(self, path: Path) -> None:
        folder = self._writer.get_logdir() if hasattr(self._writer, "get_logdir") else self._writer.logdir
        shutil.copy(path, Path(folder) / path.name)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        if self._owned:
            self._writer.close()
        else:
            self._writer.flush()


def _tensorboard(given: Any, where: Any) -> Tracker | None:
    if given == "tensorboard":
        _package("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        return TensorBoard(SummaryWriter(None if where is None else str(where)), owned=True)
    return TensorBoard(given, owned=False) if _is(given, "SummaryWriter", "torch", "tensorboardX") else None


# ---------------------------------------------------------------------- Weights & Biases


class WeightsAndBiases:
    """A run of W&B. Its charts have `unstuck/step` as their axis; the page is a panel and an artifact.

    Rows are logged without `step=`, as W&B's own integrations do.

    Args:
        run: The run.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        run.define_metric("unstuck/step", hidden=True)
        run.define_metric("unstuck/*", step_metric="unstuck/step")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "unstuck/step": step})

    def text(self, name: str, markdown: str) -> None:
        self._run.summary[name] = markdown

    def file(self, path: Path) -> None:
        wandb = sys.modules["wandb"]
        self._run.log({"unstuck/report": wandb.Html(path.read_text("utf-8"), inject=False)})
        artifact = wandb.Artifact(f"unstuck-{self._run.id}", type="report")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def flush(self) -> None:
        return

    def close(self) -> None:
        return


def _wandb(given: Any, where: Any) -> Tracker | None:
    wandb = _package("wandb") if given == "wandb" else given
    if getattr(wandb, "__name__", "") == "wandb":
        given = wandb.run
        if given is None:
            raise MisuseError("W&B has no run that could be logged to: call wandb.init() first")
    return WeightsAndBiases(given) if _is(given, "Run", "wandb") else None


# ---------------------------------------------------------------------- MLflow


class MLflow:
    """A run of MLflow; the page is an artifact, the verdict also a tag.

    Args:
        client: `MlflowClient`.
        run_id: The run.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._waiting: list[Any] = []

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now = int(time.time() * 1000)
        self._waiting += [Metric(_allowed(name), value, now, step) for name, value in values.items()]

    def text(self, name: str, markdown: str) -> None:
        self._client.log_text(self._run_id, markdown, f"{name}.md")

    def file(self, path: Path) -> None:
        self._client.log_artifact(self._run_id, str(path), "unstuck")

    def flush(self) -> None:
        while self._waiting:
            self._client.log_batch(self._run_id, metrics=self._waiting[:_MOST_METRICS])
            del self._waiting[:_MOST_METRICS]

    def close(self) -> None:
        self.flush()


def _allowed(name: str) -> str:
    """A name as MLflow takes it: letters, digits and a few signs."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


def _mlflow(given: Any, where: Any) -> Tracker | None:
    mlflow = _package("mlflow") if given == "mlflow" else given
    run: Any = given
    if getattr(mlflow, "__name__", "") == "mlflow":
        run = mlflow.active_run()
        if run is None:
            raise MisuseError("MLflow has no active run that could be logged to: call mlflow.start_run() first")
    if _is(given, "MlflowClient", "mlflow"):
        if where is None:
            raise MisuseError("an MlflowClient needs the id of the run to log to: log_to(client, run_id)")
        return MLflow(given, str(where))
    if _is(run, "Run", "mlflow"):
        return MLflow(sys.modules["mlflow"].MlflowClient(), run.info.run_id)
    return None


# ---------------------------------------------------------------------- Aim


class Aim:
    """A run of Aim, with the layer as a sequence's context. Aim has no place for the page.

    Args:
        run: The run.
        owned: Close it at the end.
    """

    def __init__(self, run: Any, *, owned: bool) -> None:
        self._run, self._owned = run, owned

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            whole_name, place = _apart(name)
            self._run.track(value, name=whole_name, step=step, context={"layer": place} if place else {})

    def text(self, name: str, markdown: str) -> None:
        self._run.track(sys.modules["aim"].Text(markdown), name=name)

    def file(self, path: Path) -> None:
        return

    def flush(self) -> None:
        return

    def close(self) -> None:
        if self._owned:
            self._run.close()


def _apart(name: str) -> tuple[str, str]:
    """`unstuck/gradient/net.0` as `unstuck/gradient` and `net.0`."""
    room, signal, *place = name.split("/", 2)
    return f"{room}/{signal}", "".join(place)


def _aim(given: Any, where: Any) -> Tracker | None:
    if given == "aim":
        return Aim(_package("aim").Run(repo=None if where is None else str(where)), owned=True)
    return Aim(given, owned=False) if _is(given, "Run", "aim") else None


MAKERS: dict[str, Callable[[Any, Any], Tracker | None]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "aim": _aim,
}
