"""Runs a script as Python would, with changes to its source: `python treated.py SCRIPT [ARGS]`, or `-m MODULE [ARGS]`.

The changes come from a file named in the watcher's settings. Files of the user's that are imported are changed as well. Lines keep
their numbers, and tracebacks begin where they would begin without us.
"""

from __future__ import annotations

import builtins
import json
import os
import pkgutil
import runpy
import sys
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

_kept: list[Any] = []


def _main() -> None:
    settings = json.loads(os.environ["UNSTUCK_RUN"])
    code_of = _Changed(json.loads(Path(settings["edits"]).read_text(encoding="utf-8")))
    code_of.change_imports()
    if "seed" in settings:
        from unstuck.watcher import seeds

        if not seeds.begun:
            seeds.shift_without_torch(int(settings["seed"]))
    _hide_ours()
    arguments = sys.argv[1:]
    if arguments[0] == "-m":
        _begin_at(Path.cwd())
        sys.argv = ["-m", *arguments[2:]]
        return _run_module(arguments[1], new_name=True)
    sys.argv = arguments
    script = Path(arguments[0]).absolute()
    if pkgutil.get_importer(str(script)) is not None:  # a folder or an archive
        _begin_at(script)
        return _run_module("__main__", new_name=False)
    _begin_at(script.resolve().parent)
    name = os.path.normpath(script)
    code = code_of.file(name) or compile(script.read_bytes(), name, "exec", dont_inherit=True)
    exec(code, _new_main(__file__=name, __cached__=None, __loader__=SourceFileLoader("__main__", name)))
    return None


def _begin_at(folder: Path) -> None:
    """Puts the folder where modules are looked for first in the place of ours."""
    if not sys.flags.safe_path:
        sys.path[0] = str(folder)


def _new_main(**names: Any) -> dict[str, Any]:
    """The names of a new module `__main__`."""
    main = types.ModuleType("__main__")
    vars(main).update(__builtins__=builtins, __annotations__={}, **names)
    _kept.append(sys.modules["__main__"])  # else our names are gone
    sys.modules["__main__"] = main
    return vars(main)


def _run_module(name: str, *, new_name: bool) -> None:
    """Runs a module as `python -m` does, or the `__main__.py` of a folder."""
    _new_main()
    runpy._run_module_as_main(name, new_name)  # pyright: ignore[reportAttributeAccessIssue]


def _hide_ours() -> None:
    """Takes our frames out of a traceback that is shown."""
    theirs, ours = sys.excepthook, {__file__, str(Path(__file__).with_name("nursery.py"))}

    def show(kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None) -> None:
        while traceback is not None and traceback.tb_frame.f_code.co_filename in ours:
            traceback = traceback.tb_next
        theirs(kind, error.with_traceback(traceback), traceback)

    if sys.excepthook is sys.__excepthook__:
        sys.__excepthook__ = show
    sys.excepthook = show


class _Changed:
    """The code of files that are changed.

    Args:
        edits: Rows of file, start, end, text and rank.
    """

    def __init__(self, edits: list[Any]) -> None:
        self.edits: dict[str, list[Any]] = {}
        for file, *rest in edits:
            self.edits.setdefault(os.path.realpath(file), []).append(rest)
        self.codes: dict[str, types.CodeType] = {}

    def file(self, name: str) -> types.CodeType | None:
        """The changed code of a file, None when it isn't changed."""
        path = os.path.realpath(name)
        if path in self.edits and path not in self.codes:
            from unstuck.source import Edit, Source, compiled

            edits = [Edit(name, *rest) for rest in self.edits[path]]
            self.codes[path] = compiled(Source.read(name), edits, filename=name)
        return self.codes.get(path)

    def change_imports(self) -> None:
        """Changes files that are imported from now on."""
        before, code_of = SourceFileLoader.get_code, self

        def get_code(self: Any, fullname: str) -> Any:
            return code_of.file(self.get_filename(fullname)) or before(self, fullname)

        if self.edits:
            SourceFileLoader.get_code = get_code


if __name__ == "__main__":
    _main()
