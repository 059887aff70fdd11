"""Runs the source of a network, so that what is trained is what is exported."""

from __future__ import annotations

import functools
import hashlib
import linecache
from typing import Any


@functools.lru_cache(maxsize=64)
def compiled(source: str, name: str) -> Any:
    """What a source defines under a name; its lines stand in tracebacks.

    Objects of a class can be pickled and copied: they bring the source along.
    """
    file = f"<{name} {hashlib.sha256(source.encode()).hexdigest()[:8]}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    scope: dict[str, Any] = {"__name__": __name__}
    exec(compile(source, file, "exec"), scope)
    found = scope[name]
    if isinstance(found, type):
        found.__reduce__ = lambda self: (_blank, (source, name), self.__dict__.copy())  # pyright: ignore
    return found


def _blank(source: str, name: str) -> Any:
    made = compiled(source, name)
    return made.__new__(made)
