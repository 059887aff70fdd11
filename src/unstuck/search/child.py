"""A child of a search: `python -m unstuck.search.child FILE ORDER`, where FILE is the user's, and ORDER says in JSON what is wanted.

It makes the training that a point stands for, and trains it to the end of a stage. After each epoch it is saved, so that one that was
broken off goes on there, with the same random numbers; and so does the next stage. The watcher is around it as around any script: it
records, and it is from its record that the search learns how good the child is.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import math
import os
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from unstuck._language import say
from unstuck.errors import MisuseError, ScriptError
from unstuck.search.halving import stages
from unstuck.search.space import Space
from unstuck.trials.job import SAVES

NEEDED = ("space", "training")
_PARTS = ("average", "stopping")  # of a training, where it has them


@dataclass(frozen=True)
class Order:
    """What is wanted.

    Attributes:
        values: Of the point.
        stage: To the end of which it is trained; -1 for all epochs.
        split: Which of the splits, where the user's file makes some.
        saved: Where it is saved, in the folder that the environment says, but for the end of the name; "" for nowhere.
    """

    values: dict[str, Any]
    stage: int = -1
    split: int = 0
    saved: str = ""

    def text(self) -> str:
        """As the child is given it."""
        return json.dumps(asdict(self))

    def after(self, stage: int) -> Path:
        """Where it is saved at the end of a stage."""
        return self._folder / f"{self.saved}-{'end' if stage < 0 else stage}.pt"

    @property
    def between(self) -> Path:
        """Where it is saved after other epochs."""
        return self._folder / f"{self.saved}.pt"

    @property
    def _folder(self) -> Path:
        return Path(os.environ.get(SAVES, ""))


def loaded(file: str) -> ModuleType:
    """The user's module.

    Raises:
        ScriptError: It can't be found, or lacks a function.
    """
    path = Path(file)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ScriptError(say("{file!r} is no Python file", file=file))
    sys.path.insert(0, str(path.resolve().parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # what is defined there can be pickled, as it can be found
    spec.loader.exec_module(module)
    lacking = [name for name in NEEDED if not callable(getattr(module, name, None))]
    if lacking:
        raise ScriptError(
            say(
                "{file!r} has no function {name!r}: a search needs `space(draw)`, which returns what describes a "
                "program, and `training(chosen)`, which makes the Training of it",
                file=file,
                name=lacking[0],
            )
        )
    return module


def splits_of(module: ModuleType) -> list[Any]:
    """The splits that a user's module makes; [None] where it makes none.

    Raises:
        MisuseError: It makes an empty list of them.
    """
    make: Any = getattr(module, "splits", None)
    found = [None] if make is None else list(make())
    if not found:
        raise MisuseError(say("splits() of {module}.py gives none", module=module.__name__))
    return found


def made(module: ModuleType, order: Order) -> Any:
    """The training of a point, not yet trained.

    Raises:
        MisuseError: The point isn't of the space, or the function gives no Training.
    """
    from unstuck.training import Training

    chosen = Space(module.space).at(order.values).chosen
    splits = splits_of(module)
    given = [chosen] if splits == [None] else [chosen, splits[order.split]]
    try:
        inspect.signature(module.training).bind(*given)
    except TypeError as error:
        wanted = say("what the space chose") if len(given) == 1 else say("what the space chose, and a split")
        raise MisuseError(
            say(
                "training() of {module}.py must take {wanted}: {error}",
                module=module.__name__,
                wanted=wanted,
                error=str(error),
            )
        ) from None
    training = module.training(*given)
    if not isinstance(training, Training):
        raise MisuseError(
            say("training() gives a {kind}, but must give an unstuck.Training", kind=type(training).__name__)
        )
    return training


class _Broken(Exception):  # noqa: N818 - no error of the child's
    """The loss isn't finite: to go on is of no use."""


class Child:
    """A training that is made step by step, and saved.

    Args:
        training: It.
        order: What is wanted.
    """

    def __init__(self, training: Any, order: Order) -> None:
        self.training, self.order = training, order
        self.stages = stages(training.epochs)
        self.stage = order.stage if 0 <= order.stage < len(self.stages) else len(self.stages) - 1
        self.target, self.epoch = self.stages[self.stage], 0

    def run(self) -> None:
        """Trains to the end of the stage, from where it was saved."""
        self._resume()
        self.training.on_epoch.append(self._saved)
        self.training.epochs = self.target - self.epoch
        with contextlib.suppress(_Broken):
            self.training.run()
        self._tell()

    def _resume(self) -> None:
        if not self.order.saved:
            return
        before = [
            self.order.between,
            *(self.order.after(s) for s in reversed(range(self.stage)) if self.order.stage >= 0),
        ]
        for path in before:
            if path.exists() and (state := _read(path)) is not None and state["epoch"] < self.target:
                put_back(self.training, state)
                self.epoch = state["epoch"]
                if state.get("ended"):  # by itself; of a record in which nothing is trained no score could be told
                    self.target = self.epoch + 1
                return

    def _saved(self, training: Any, epoch: Any) -> None:
        self.epoch += 1
        if not math.isfinite(epoch.loss):
            raise _Broken
        if self.order.saved:
            last = training.ended or self.epoch == self.target
            _write(
                self.order.after(self.order.stage) if last else self.order.between,
                {"epoch": self.epoch, "ended": training.ended, **state_of(training)},
            )
            if last:
                self.order.between.unlink(missing_ok=True)

    def _tell(self) -> None:
        """Notes in the record what the watcher can't know."""
        from unstuck.evidence import Event
        from unstuck.watcher import bootstrap

        if bootstrap.session is not None:
            parameters = sum(p.numel() for p in self.training.model.parameters())
            about = {"epoch": self.epoch, "stages": list(self.stages), "stage": self.stage, "parameters": parameters}
            bootstrap.session.event(Event(bootstrap.session.step, "child", "", about))


# ---------------------------------------------------------------------- saving


def state_of(training: Any) -> dict[str, Any]:
    """All that a training needs to go on as if it hadn't been broken off, between two epochs."""
    import numpy as np
    import torch

    from unstuck._batches import state_of as standing

    state = {
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "schedules": [s.scheduler.state_dict() for s in training.schedules],
        "random": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
        "generators": [standing(g) for g in training.generators()],
    }
    state |= {name: part.state_dict() for name in _PARTS if (part := getattr(training, name)) is not None}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def put_back(training: Any, state: dict[str, Any]) -> None:
    """Puts a training where it was when its state was taken."""
    import numpy as np
    import torch

    from unstuck._batches import put

    training.model.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    for schedule, was in zip(training.schedules, state["schedules"], strict=True):
        schedule.scheduler.load_state_dict(was)
    for name in _PARTS:
        if name in state:
            getattr(training, name).load_state_dict(state[name])
    for generator, was in zip(training.generators(), state["generators"], strict=True):
        put(generator, was)
    own, numpys, torchs = state["random"]
    random.setstate(own)
    np.random.set_state(numpys)
    torch.set_rng_state(torchs)
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])


def _write(path: Path, state: dict[str, Any]) -> None:
    """Writes so that the file is there whole, or as it was."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    torch.save(state, part)
    part.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    """What was saved; None where the disk has spoilt it."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=False)  # our own file, with the states of generators
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the child begins anew
        return None


def main(file: str, order: str) -> None:
    """Makes a child."""
    told = Order(**json.loads(order))
    Child(made(loaded(file), told), told).run()


if __name__ == "__main__":
    main(*sys.argv[1:3])
