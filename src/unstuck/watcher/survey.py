"""Where in the user's files things are made: modules, optimizers, loaders, schedules; and where backward and step are called.

A run that is to be cured is surveyed once, so that a change can be written where a person would write it. An ordinary run is not:
nothing here is imported then.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader

from unstuck.evidence import Event
from unstuck.probes.rows import Rows
from unstuck.watcher.patches import Patches, like
from unstuck.watcher.registry import local_variables
from unstuck.watcher.transparent import transparent

_LIBRARIES = tuple(
    f"{folder}{os.sep}"
    for folder in {
        str(Path(__file__).parents[1]),
        str(Path(torch.__path__[0]).parent),
        *(sysconfig.get_paths()[k] for k in ("stdlib", "platstdlib")),
    }
)
MOST = 2000  # places, and loaders and schedules
_MOST_ROWS = 20_000  # of the inputs, that are looked at
_MOST_BYTES = 64 << 20  # of these, where they must be copied


class Survey:
    """Notes places while a script runs; `write` tells them as events of kind `site`."""

    def __init__(self) -> None:
        self._made: weakref.WeakKeyDictionary[Any, tuple[str, int]] = weakref.WeakKeyDictionary()
        self._others: list[tuple[Any, str, str, tuple[str, int]]] = []  # loaders and schedules
        self._found: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._users: dict[str, bool] = {}
        self._modules_told = False
        self._optimizers: dict[int, int] = {}

    def attach(self, patches: Patches) -> None:
        """Watches what is made, and backward, step and zero_grad."""
        from torch.optim import lr_scheduler

        for owner in (nn.Module, torch.optim.Optimizer, DataLoader, lr_scheduler.LRScheduler):
            patches.replace(owner, "__init__", self._noting(owner.__init__))
        for owner in (torch.Tensor, torch.autograd):
            patches.replace(owner, "backward", self._calling(owner.backward, "backward"))
        patches.replace(torch.optim.Optimizer, "zero_grad", self._calling(torch.optim.Optimizer.zero_grad, "zero_grad"))
        patches.replace(nn.Module, "zero_grad", self._calling(nn.Module.zero_grad, "zero_grad"))
        patches.replace(nn.Module, "train", self._setting_mode(nn.Module.train))
        patches.hook(register_optimizer_step_pre_hook(self._stepping))

    def _noting(self, init: Callable[..., None]) -> Callable[..., None]:
        survey = self

        def made(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            with suppress(TypeError):  # it can't be hashed
                survey._note_made(self, sys._getframe(1))

        return transparent(like(made, init))

    def _note_made(self, made: Any, frame: FrameType) -> None:
        if made in self._made:
            return
        site = self._caller(frame, of=made)
        if site is None:
            return
        self._made[made] = site
        if not isinstance(made, (nn.Module, torch.optim.Optimizer)) and len(self._others) < MOST:
            kind = "loader" if isinstance(made, DataLoader) else "schedule"
            self._others.append((weakref.ref(made), kind, type(made).__name__, site))

    def _calling(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        survey = self

        def calls(self: Any, *args: Any, **kwargs: Any) -> Any:
            if kind == "backward" and not survey._modules_told:
                survey._tell_modules()
            survey._note(kind, sys._getframe(1))
            return function(self, *args, **kwargs)

        return transparent(like(calls, function))

    def _setting_mode(self, function: Callable[..., Any]) -> Callable[..., Any]:
        survey = self

        def train(self: Any, mode: bool = True) -> Any:  # `eval` calls it as well
            survey._note("train" if mode else "eval", sys._getframe(1))
            return function(self, mode)

        return transparent(like(train, function))

    def _stepping(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._note("step", sys._getframe(1))
        if id(optimizer) not in self._optimizers and optimizer in self._made:
            self._optimizers[id(optimizer)] = len(self._optimizers)
            file, line = self._made[optimizer]
            self._add("optimizer", file, line, name=type(optimizer).__name__, index=self._optimizers[id(optimizer)])

    def _note(self, kind: str, frame: FrameType | None) -> None:
        site = self._caller(frame)
        if site is not None:
            self._add(kind, *site)

    def _add(self, kind: str, file: str, line: int, **more: Any) -> None:
        key = (kind, file, line, more.get("path", more.get("index")))
        if key not in self._found and len(self._found) < MOST:
            self._found[key] = {"what": kind, "file": file, "line": line, **more}

    def _caller(self, frame: FrameType | None, *, of: Any = None) -> tuple[str, int] | None:
        """File and line of the user's that a call came from; of what is made, outside of its own `__init__`."""
        while frame is not None:
            code = frame.f_code
            own = (
                of is not None
                and code.co_name == "__init__"
                and code.co_argcount
                and local_variables(frame).get(code.co_varnames[0]) is of
            )
            if not own and self._is_users(code.co_filename):
                return code.co_filename, frame.f_lineno
            frame = frame.f_back
        return None

    def _is_users(self, file: str) -> bool:
        known = self._users.get(file)
        if known is None:
            path = str(Path(file).absolute())
            inside = "site-packages" in path or "dist-packages" in path or path.startswith(_LIBRARIES)
            known = self._users[file] = not inside and not file.startswith("<") and Path(path).is_file()
        return known

    def _tell_modules(self) -> None:
        """The modules there are, each network's by path: when the first backward begins, and at the end."""
        self._modules_told = True
        there = list(self._made.items())
        modules = {id(m): m for m, _ in there if isinstance(m, nn.Module)}
        inner = {id(child) for m in modules.values() for child in m.children()}
        for root in (m for i, m in modules.items() if i not in inner):
            for path, module in root.named_modules():
                site = self._made.get(module)
                if site is not None:
                    self._add("module", *site, path=path, name=type(module).__name__, root=type(root).__name__)

    def write(self, session: Any) -> None:
        """Tells all that was found."""
        self._tell_modules()
        used = [
            s.ref for s in session.data.loaders if s.trained
        ]  # a loader may be gone by now, but its reference is the same
        others = [
            (kind, name, site, kind != "loader" or any(r is ref for r in used))
            for ref, kind, name, site in self._others
        ]
        for kind, name, site, trained in sorted(
            others, key=lambda other: not other[-1]
        ):  # one line may make both kinds
            self._add(kind, *site, name=name, trained=trained)
        for found in self._found.values():
            session.event(Event(0, "site", "", found))
        inputs = _inputs(session)
        if inputs is not None:
            session.event(Event(session.step, "inputs", "", inputs))


def _inputs(session: Any) -> dict[str, Any] | None:
    """Mean and deviation of each feature of what the network is given, over all that it can be given, and the variable that holds that."""
    tapes = [t for t in session.capture.tapes if t.inputs and t.fresh]
    if not tapes:
        return None
    last = tapes[-1]
    rows = last.pool(last.inputs[0])
    kept = [t.data[t.inputs[0]] for t in tapes]
    shape = last.data[last.inputs[0]].shape[1:]
    data = _first(rows) if rows is not None else torch.cat([d for d in kept if d.shape[1:] == shape])
    if not data.is_floating_point() or data.dim() < 2:
        return None
    whole = rows.whole if rows is not None else None
    names = [name for name, value in vars(sys.modules["__main__"]).items() if _is(value, whole)]
    few = data[:_MOST_ROWS].detach().float().cpu()
    axes = (0, *range(2, few.dim())) if few.dim() > 2 else (0,)
    size = len(data) if rows is None else len(rows)
    return {
        "shape": [size, *data.shape[1:]], "variable": names[0] if names else "", "mean": few.mean(axes).tolist()[:4096],
        "std": few.std(axes, correction=0).tolist()[:4096], "all_mean": float(few.mean()), "all_std": float(few.std(correction=0)),
    }  # fmt: skip


def _first(rows: Rows) -> Tensor:
    """The first of the rows: as many as are looked at, or as few as may be copied where they lie apart."""
    if rows.whole is not None:
        return rows.first(_MOST_ROWS)
    one = rows.first(1)
    return rows.first(max(1, min(_MOST_ROWS, _MOST_BYTES // max(1, one.numel() * one.element_size()))))


def _is(value: Any, whole: Tensor | None) -> bool:
    return (
        isinstance(value, Tensor)
        and whole is not None
        and value.data_ptr() == whole.data_ptr()
        and value.shape == whole.shape
    )
