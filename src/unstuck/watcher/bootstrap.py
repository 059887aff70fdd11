"""Life of the watcher inside a script that `unstuck run` started: when it attaches, when it ends, what must not show.

`prepare` runs at interpreter start and must be cheap: it only hooks the import of torch. When torch has been imported, a
`Session` attaches. The process that the command line started directly (the main one) writes `record.sqlite`; any other
Python process under it (ranks of torchrun, spawned trainers) attaches as well, but makes its `record-<pid>.sqlite` only once it
trains, so data-loading workers stay silent. Forked processes forget the watcher.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ENVIRONMENT = "UNSTUCK_RUN"
session: Any = None  # that watches this process


def prepare() -> None:
    """Arranges that the watcher attaches once torch is imported, by the settings in the environment."""
    settings = json.loads(os.environ[ENVIRONMENT])
    settings["main"] = os.getppid() == settings["parent"]
    if "torch" in sys.modules:
        _attach(settings)
    else:
        sys.meta_path.insert(0, _AfterImport("torch", lambda: _attach(settings)))


def _attach(settings: dict[str, Any]) -> None:
    global session
    name = "record.sqlite" if settings["main"] else f"record-{os.getpid()}.sqlite"
    path, meta = Path(settings["folder"]) / name, settings.get("meta", {})
    try:
        from unstuck.watcher.session import Session

        session = Session(
            path,
            budget=settings["budget"],
            probe_budget=settings.get("probe_budget", 0.0),
            curvature=settings.get("curvature"),
            batch=settings.get("batch"),
            lazy=not settings["main"],
            meta=meta,
        )
        if "seed" in settings:
            from unstuck.watcher.seeds import shift

            shift(int(settings["seed"]))
            session.cadence.all_evaluations = True
        session.attach()
        if settings.get("survey") and settings["main"]:
            from unstuck.watcher.survey import Survey

            session.survey = Survey()
            session.survey.attach(session.patches)
    except Exception as error:  # noqa: BLE001 - the script goes on, whatever is wrong with us
        _complain(f"the watcher could not start: {error}")
        return
    ours = _Excepthook(session)
    if sys.excepthook is sys.__excepthook__:  # and stays so, for scripts and libraries that ask
        sys.__excepthook__ = ours
    sys.excepthook, ours.theirs = ours, sys.excepthook
    atexit.register(session.close)
    os.register_at_fork(after_in_child=session.abandon)


class _Excepthook:
    """Notes how the script ended and shows its traceback as it would be without us."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.theirs: Callable[..., Any] = sys.excepthook

    def __call__(self, kind: type[BaseException], error: BaseException, traceback: Any) -> None:
        from unstuck.watcher.transparent import strip

        try:
            self.session.ended_by(kind, error)
            strip(error)
        except Exception:  # noqa: BLE001, S110 - the user's traceback comes first
            pass
        self.theirs(kind, error, error.__traceback__)


def _complain(words: str) -> None:
    sys.stderr.write(f"unstuck: {words}\n")


class _AfterImport(MetaPathFinder, Loader):
    """Calls back once the module of this name has been executed, then is gone."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name, self.then = name, then
        self.real: Any = None

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        import importlib.util

        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)  # many only ask whether torch is there, and import it later
        if spec is None or spec.loader is None:
            return spec
        self.real, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.real
        if module.__spec__ is not None:
            module.__spec__.loader = self.real
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self.real.exec_module(module)
        ours = sys.modules.get("sitecustomize")
        if ours is not None and str(getattr(ours, "__file__", "")).startswith(str(Path(__file__).parent)):
            del sys.modules["sitecustomize"]  # without us there would be none
        self.then()
