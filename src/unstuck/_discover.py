"""What a room offers: the plug-ins in its own files and those that other packages bring by entry point.

A room's package `unstuck.<room>` holds one plug-in a file: a function named like the file. `rules/dead_units.py` holds
`dead_units`, which the command line calls `dead-units`. A file whose name starts with an underscore is none. Other
packages bring theirs as entry points of the group `unstuck.<room>`:

    [project.entry-points."unstuck.rules"]
    my-rule = "my_package.my_rule:my_rule"
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from unstuck._language import say
from unstuck.errors import NotFoundError

Plugin = Callable[..., Any]


def find(room: str) -> dict[str, Plugin]:
    """Every plug-in of a room that could be loaded.

    Args:
        room: Name of the package under `unstuck`, "rules".

    Returns:
        Functions by name ("dead-units"): the room's own, then those of other packages, both in alphabetical order.
    """
    return dict(_load(room).plugins)


def get(room: str, name: str) -> Plugin:
    """The plug-in of this name.

    Args:
        room: Name of the package under `unstuck`, "rules".
        name: As on the command line, "dead-units".

    Returns:
        Its function.

    Raises:
        NotFoundError: There is none of this name; the message says which is close, or which there are.
    """
    plugins = _load(room).plugins
    if name not in plugins:
        raise NotFoundError(_not_found(room, name, list(plugins)))
    return plugins[name]


def names(room: str) -> list[str]:
    """Names of a room's plug-ins, those of other packages among them, without importing any.

    Args:
        room: Name of the package under `unstuck`, "rules".

    Returns:
        As on the command line, in alphabetical order.
    """
    others = (_kebab(entry.name) for entry in entry_points(group=f"unstuck.{room}"))
    return sorted({*map(_kebab, _modules(room)), *others})


def problems(room: str) -> list[str]:
    """Why plug-ins of other packages are left out of a room, one sentence each, to be shown as warnings."""
    return list(_load(room).problems)


@dataclass
class _Room:
    plugins: dict[str, Plugin] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@functools.cache
def _load(room: str) -> _Room:
    found = _Room(_own(room))
    for entry in sorted(entry_points(group=f"unstuck.{room}"), key=lambda entry: entry.name):
        _add(found, entry, room)
    return found


def _own(room: str) -> dict[str, Plugin]:
    return {_kebab(name): _function(importlib.import_module(f"unstuck.{room}.{name}"), name) for name in _modules(room)}


def _modules(room: str) -> list[str]:
    package = importlib.import_module(f"unstuck.{room}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")


def _function(module: Any, name: str) -> Plugin:
    plugin = getattr(module, name, None)
    assert callable(plugin), f"{module.__name__} must hold a function named {name}"
    return plugin


def _add(found: _Room, entry: EntryPoint, room: str) -> None:
    name = _kebab(entry.name)
    package = entry.dist.name if entry.dist else entry.value
    whose = say("the {kind} {name!r} of {package}", kind=_kind(room), name=name, package=package)
    if name in found.plugins:
        found.problems.append(say("{whose} is left out: there is one of that name already", whose=whose))
        return
    try:
        plugin = entry.load()
    except Exception as error:  # noqa: BLE001 - another package's code may fail in any way, and must not stop ours
        why = f"{type(error).__name__}: {error}"
        found.problems.append(say("{whose} is left out: it could not be loaded ({why})", whose=whose, why=why))
        return
    if callable(plugin):
        found.plugins[name] = plugin
    else:
        found.problems.append(say("{whose} is left out: {what} is not a function", whose=whose, what=entry.value))


def _not_found(room: str, name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name.lower(), names, n=1)
    there_are = say("there are {names}", names=", ".join(sorted(names))) if names else say("there are none")
    hint = say("did you mean {name!r}?", name=close[0]) if close else there_are
    return say("no {kind} {name!r}; {hint}", kind=_kind(room), name=name, hint=hint)


def _kind(room: str) -> str:
    """What one of a room is called; of the rooms that the command line asks for names of, in words that can be translated."""
    known = {"rules": say("rule"), "remedies": say("remedy"), "search.samplers": say("sampler")}
    return known.get(room) or _singular(room)


def _singular(room: str) -> str:
    room = room.rpartition(".")[2]
    return f"{room[:-3]}y" if room.endswith("ies") else room.removesuffix("s")


def _kebab(name: str) -> str:
    return name.replace("_", "-")
