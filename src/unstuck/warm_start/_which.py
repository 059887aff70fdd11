"""What is meant by a path, a pattern, a module or a parameter of a model."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import nn

from unstuck.errors import MisuseError

Which = str | nn.Module | nn.Parameter


@dataclass(frozen=True)
class Chosen:
    """Names of parameters and paths of modules: names, so that they hold in a copy of the model as well."""

    parameters: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()

    def __or__(self, other: Chosen) -> Chosen:
        return Chosen(self.parameters | other.parameters, self.modules | other.modules)

    def __sub__(self, other: Chosen) -> Chosen:
        return Chosen(self.parameters - other.parameters, self.modules - other.modules)


def several(which: Which | Iterable[Which]) -> tuple[Which, ...]:
    """One or several, as several.

    Args:
        which: As they were given.

    Returns:
        A tuple of them.
    """
    return (which,) if isinstance(which, (str, nn.Module, nn.Parameter)) else tuple(which)


def parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters under all names that they have.

    Args:
        model: Whose.

    Returns:
        A tied one comes several times.
    """
    return dict(model.named_parameters(remove_duplicate=False))


def _modules_of(model: nn.Module) -> dict[str, nn.Module]:
    return dict(model.named_modules(remove_duplicate=False))


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in chain(module.parameters(), module.buffers()))


def chosen(model: nn.Module, which: Iterable[Which]) -> Chosen:
    """Names of what is meant, modules with all in them that has tensors; dropout goes with what it is in.

    Args:
        model: Of which.
        which: Paths, patterns, modules or parameters.

    Returns:
        A tied parameter under all its names.

    Raises:
        MisuseError: The model hasn't got one of them.
    """  # noqa: DOC502
    modules, parameters = _modules_of(model), parameters_of(model)
    found = [one for each in which for one in _found(modules, parameters, each)]
    inner = {id(m) for one in found if isinstance(one, nn.Module) for m in one.modules()}
    ids = {id(p) for one in found for p in (one.parameters() if isinstance(one, nn.Module) else [one])}
    return Chosen(
        frozenset(name for name, p in parameters.items() if id(p) in ids),
        frozenset(path for path, m in modules.items() if id(m) in inner and _has_tensors(m)),
    )


def _found(modules: dict[str, nn.Module], parameters: dict[str, nn.Parameter], which: Which) -> list[Any]:
    """Modules and parameters that are meant by a name, a pattern, or an object.

    Raises:
        MisuseError: There are none.
    """
    named: list[tuple[str, Any]] = [*modules.items(), *parameters.items()]
    if isinstance(which, str):
        found = [one for name, one in named if name == which]
        found = found or [one for name, one in named if name and fnmatch.fnmatchcase(name, which)]
    else:
        found = [one for _, one in named if one is which][:1]
    if not found:
        raise MisuseError(
            f"the model has no {_described(which)}{_suggested(which, [name for name, _ in named if name])}"
        )
    return found


def _described(which: Which) -> str:
    if isinstance(which, str):
        return f"module or parameter '{which}'"
    return (
        f"such {'module' if isinstance(which, nn.Module) else 'parameter'}; is it one of another model, or of a copy?"
    )


def _suggested(which: Which, names: Sequence[str]) -> str:
    if not isinstance(which, str):
        return ""
    inside = [name for name in names if name.endswith(f".{which}")]
    close = inside or difflib.get_close_matches(which, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there is {', '.join(names[:4])}, …"


def rest(model: nn.Module, chosen: Chosen) -> Chosen:
    """All but these.

    Args:
        model: Of which.
        chosen: These.

    Returns:
        The others.
    """
    modules = (path for path, m in _modules_of(model).items() if _has_tensors(m))
    return Chosen(frozenset(parameters_of(model)), frozenset(modules)) - chosen
