"""Makes our wrappers invisible where a user looks: in warnings' locations and in tracebacks.

A wrapper that stands between the user's line and torch's function adds a frame. Two things would show it: a warning with
`stacklevel=2` would name our file, and a traceback would list our line. Python's `warnings` skips frames whose file name
holds both "importlib" and "_bootstrap" when it counts levels (they are its own import machinery), so wrappers carry such a
name; and the same name tells the excepthook which entries to take out of a traceback.

That is not enough for warnings made in C++, which name the innermost Python line, and for torch functions written in Python,
which call themselves again through `handle_torch_function` when a mode is on. `Relocation` moves those to where they belong.
"""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

FILENAME = "<unstuck importlib._bootstrap>"

_F = TypeVar("_F", bound=Callable[..., Any])


def transparent(function: _F) -> _F:
    """The same function with its frame marked as one of ours; for wrappers that call on into torch."""
    function.__code__ = function.__code__.replace(co_filename=FILENAME)
    return function


def without_ours(traceback: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback as it would be without us, the entries of other files untouched.

    A torch function written in Python that sees a mode calls itself again through `handle_torch_function`; those two
    entries go as well.
    """
    kept: list[types.TracebackType] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_filename != FILENAME:
            kept.append(traceback)
        elif kept and kept[-1].tb_frame.f_code.co_name == "handle_torch_function":
            del kept[-2:]
        traceback = traceback.tb_next
    chain = None
    for entry in reversed(kept):
        chain = types.TracebackType(chain, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return chain


def strip(error: BaseException, seen: set[int] | None = None) -> None:
    """Takes our entries out of an exception's traceback, and out of those that led to it."""
    seen = set() if seen is None else seen
    if id(error) in seen:
        return
    seen.add(id(error))
    error.__traceback__ = without_ours(error.__traceback__)
    for other in (error.__cause__, error.__context__):
        if other is not None:
            strip(other, seen)


class Relocation:
    """Shows warnings, while it is on, with the location they would have without us, and once where they would be shown once."""

    def __init__(self) -> None:
        self._theirs: Any = None
        self._is_on = False

    def switch_on(self) -> None:
        """Stands between Python's warnings and their display."""
        self._is_on = True
        if self._theirs is None:
            self._theirs = warnings._showwarnmsg  # pyright: ignore[reportAttributeAccessIssue]
            warnings._showwarnmsg = self._show  # pyright: ignore[reportAttributeAccessIssue]

    def switch_off(self) -> None:
        """Puts the display back; where somebody else replaced it meanwhile and still asks us, hands on what comes."""
        self._is_on = False
        if self._theirs is not None and warnings._showwarnmsg == self._show:  # pyright: ignore[reportAttributeAccessIssue]
            warnings._showwarnmsg = self._theirs  # pyright: ignore[reportAttributeAccessIssue]
            self._theirs = None

    def _show(self, message: warnings.WarningMessage) -> None:
        ours = message.filename == FILENAME or message.filename.endswith("/torch/overrides.py")
        frame = _caller() if self._is_on and ours else None
        if frame is None:
            self._theirs(message)
            return
        scope = frame.f_globals
        registry = scope.setdefault("__warningregistry__", {})
        where = (frame.f_code.co_filename, frame.f_lineno, scope.get("__name__", "<unknown>"))
        warnings.warn_explicit(message.message, message.category, *where, registry=registry, source=message.source)


def _caller() -> types.FrameType | None:
    """The frame that called what our innermost wrapper stands for."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != FILENAME:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_filename == FILENAME:
        frame = frame.f_back
    if frame is not None and frame.f_code.co_name == "handle_torch_function":
        frame = frame.f_back  # the function's first call of itself
        frame = frame.f_back if frame is not None else None
    return frame
