"""The tools that `overhead.py` measures, each in the use its documentation shows first. A tool is one class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Tool:
    """A tool in the use its documentation shows first. As it stands, the plain loop.

    Making one imports what it needs, outside the timing, and raises `ImportError` when it is not installed.
    """

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        """Start watching; files go to `folder`, which is new and empty."""

    def after_backward(self, step: int, loss: Tensor) -> None:
        """Called between backward and the optimizer's step."""

    def after_step(self, step: int, loss: Tensor) -> None:
        """Called after the optimizer's step."""

    def close(self) -> None:
        """Stop watching and write what the tool writes."""

    def account(self) -> float | None:
        """The share of the run's time that the tool says it took, when it says so. Not timed."""
        return None


class Unstuck(Tool):
    """`with unstuck.watch(model, optimizer) as run:` around the loop, `run.report()` at the end; without experiments.

    Experiments on copies have a budget of their own and come when the training is over.
    """

    def __init__(self, budget: float | None = None) -> None:
        from unstuck import watch

        self._options = {} if budget is None else {"budget": budget}
        self._watch = watch

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._run = self._watch(model, optimizer, runs=folder, probe_budget=0, **self._options)
        self._run.__enter__()

    def close(self) -> None:
        self._run.__exit__(None, None, None)
        self._run.report()

    def account(self) -> float | None:
        return self._run.record.meta.get("overhead")


class Gradsnitch(Tool):
    """`watch(model, optimizer, check_every=50)`, `log` each step, `report` at the end."""

    def __init__(self) -> None:
        import gradsnitch

        self._gradsnitch = gradsnitch

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._monitor = self._gradsnitch.watch(model, optimizer, check_every=50)

    def after_backward(self, step: int, loss: Tensor) -> None:
        self._monitor.log(step, loss.item())

    def close(self) -> None:
        self._monitor.report()


class Ormas(Tool):
    """`Monitor(model, optimizer)` (checks every 50 steps), `step` each step, `close` with its reports."""

    def __init__(self) -> None:
        from ormas_monitor import Monitor

        self._monitor_class = Monitor

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._monitor = self._monitor_class(model, optimizer, out=str(folder / "ormas_run"))

    def after_backward(self, step: int, loss: Tensor) -> None:
        self._monitor.step(loss)

    def close(self) -> None:
        self._monitor.close()


class Torchmortem(Tool):
    """`with Autopsy(model, optimizer=optimizer)`, `step(loss=loss.item())` each step, the HTML report at the end."""

    def __init__(self) -> None:
        from torchmortem import Autopsy

        self._autopsy_class = Autopsy

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._folder = folder
        self._autopsy = self._autopsy_class(model, optimizer=optimizer)
        self._autopsy.attach()

    def after_step(self, step: int, loss: Tensor) -> None:
        self._autopsy.step(loss=loss.item())

    def close(self) -> None:
        self._autopsy.detach()
        self._autopsy.report(self._folder / "autopsy_report.html")


class Wandb(Tool):
    """`wandb.init`, `watch(model)`, `log({"loss": ...})` each step, `finish`; offline."""

    def __init__(self, log_freq: int | None = None) -> None:
        import wandb

        self._wandb = wandb
        self._options: dict[str, Any] = {} if log_freq is None else {"log_freq": log_freq}

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._run = self._wandb.init(project="overhead", mode="offline", dir=str(folder))
        self._run.watch(model, **self._options)

    def after_step(self, step: int, loss: Tensor) -> None:
        self._run.log({"loss": loss.item()})

    def close(self) -> None:
        self._run.unwatch()
        self._run.finish()


class TensorBoard(Tool):
    """`SummaryWriter`: the loss each step, histograms of every parameter and its gradient each 10th."""

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer_class = SummaryWriter

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._model = model
        self._writer = self._writer_class(str(folder))

    def after_step(self, step: int, loss: Tensor) -> None:
        self._writer.add_scalar("loss", loss.item(), step)
        if step % 10 == 0:
            for name, parameter in self._model.named_parameters():
                self._writer.add_histogram(name, parameter, step)
                self._writer.add_histogram(f"{name}.grad", parameter.grad, step)

    def close(self) -> None:
        self._writer.close()


class LossItem(Tool):
    """Nothing but `loss.item()` each step, as most loops do to print it."""

    def after_step(self, step: int, loss: Tensor) -> None:
        loss.item()


TOOLS: dict[str, Callable[[], Tool]] = {
    "plain": Tool,
    "unstuck": Unstuck,
    "unstuck-1%": lambda: Unstuck(budget=0.01),
    "loss.item()": LossItem,
    "gradsnitch": Gradsnitch,
    "ormas-monitor": Ormas,
    "torchmortem": Torchmortem,
    "wandb.watch": Wandb,
    "wandb.watch-10": lambda: Wandb(log_freq=10),
    "tensorboard-10": TensorBoard,
}
