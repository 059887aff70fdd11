"""Replaces functions of torch while the watcher is attached, and puts back exactly what was there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


class Patches:
    """Replaced attributes, in order, so that they can be put back."""

    def __init__(self) -> None:
        self._saved: list[tuple[Any, str, Any, Any]] = []
        self._handles: list[Any] = []

    def replace(self, owner: Any, name: str, new: Any) -> None:
        """Sets `owner.name` to `new`."""
        self._saved.append((owner, name, owner.__dict__.get(name, _ABSENT), new))
        setattr(owner, name, new)

    def original(self, owner: Any, name: str) -> Any:
        """What was there before we replaced it."""
        return next(old for o, n, old, _ in self._saved if o is owner and n == name)

    def hook(self, handle: Any) -> None:
        """Keeps the handle of a hook that was registered."""
        self._handles.append(handle)

    def undo(self) -> None:
        """Puts everything back; what somebody else replaced after us is left alone."""
        for owner, name, old, new in reversed(self._saved):
            if owner.__dict__.get(name, _ABSENT) is not new:
                continue
            if old is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, old)
        for handle in self._handles:
            handle.remove()
        self._saved.clear()
        self._handles.clear()


def like(new: _F, old: Callable[..., Any]) -> _F:
    """Gives a wrapper the name and doc of what it wraps."""
    new.__name__, new.__qualname__, new.__doc__, new.__module__ = (
        old.__name__,
        old.__qualname__,
        old.__doc__,
        old.__module__,
    )
    return new


_ABSENT = object()
