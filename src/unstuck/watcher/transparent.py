"""Makes our wrappers invisible where a user looks: in warnings' locations and in tracebacks.

A wrapper that stands between the user's line and torch's function adds a frame. Two things would show it: a warning with
`stacklevel=2` would name our file, and a traceback would list our line. Python's `warnings` skips frames whose file name
holds both "importlib" and "_bootstrap" when it counts levels (they are its own import machinery), so wrappers carry such a
name; and the same name tells the excepthook which entries to take out of a traceback.
"""

from __future__ import annotations

import types
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
