"""Names of tensors in checkpoints, and which of a model's they stand for."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.warm_start._state import Names, listed

Prefix = tuple[str, str]
Rename = Mapping[str, str | None] | Callable[[str], str | None]
Given = dict[str, tuple[str, Tensor]]
WRAPPERS = {"module", "model", "net", "network", "backbone"}  # of which both sides may have others
INVISIBLE = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # names that torch puts between others
DEEPEST = 4  # segments that a prefix may have


def renamed(given: Names, rename: Rename | None) -> tuple[Given, set[str]]:
    """Gives the tensors of a checkpoint other names.

    Args:
        given: By the names in the checkpoint.
        rename: Other beginnings of names, or a function of a name; None leaves one out.

    Returns:
        Their names in the checkpoint and they themselves, by the names that are looked for; and names that are left out.

    Raises:
        MisuseError: A name to be changed isn't there, or two become one.
    """
    change = rename if callable(rename) else _as_function(rename or {}, given)
    found: Given = {}
    left_out: set[str] = set()
    for name, value in given.items():
        new = change(name)
        if new is None:
            left_out.add(name)
            continue
        new = visible(new)
        if new in found:
            raise MisuseError(f"'{found[new][0]}' and '{name}' of the checkpoint both become '{new}'")
        found[new] = name, value
    return found, left_out


def _as_function(rename: Mapping[str, str | None], given: Names) -> Callable[[str], str | None]:
    beginnings = {old.rstrip("."): new if new is None else new.rstrip(".") for old, new in rename.items()}
    for old in beginnings:
        if not any(_begins(name, old) for name in given):
            raise MisuseError(
                f"no name in the checkpoint begins with '{old}', which is to be renamed{_suggested(old, given)}"
            )

    def change(name: str) -> str | None:
        fitting = [old for old in beginnings if _begins(name, old)]
        if not fitting:
            return name
        old = max(fitting, key=len)
        new = beginnings[old]
        return None if new is None else (new + name[len(old) :]).lstrip(".")

    return change


def _begins(name: str, beginning: str) -> bool:
    return name == beginning or name.startswith(f"{beginning}.")


def _suggested(wanted: str, given: Names) -> str:
    known = {name.rsplit(".", depth)[0] for name in given for depth in range(name.count(".") + 1)}
    close = difflib.get_close_matches(wanted, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there is {listed(given)}"


def visible(name: str) -> str:
    """A name without what torch.compile, FSDP and activation checkpointing put between its segments.

    Args:
        name: Of a module or a tensor.

    Returns:
        It, shorter or as it is.
    """
    return ".".join(segment for segment in name.split(".") if segment not in INVISIBLE)


def given_prefix(prefix: str | Prefix | None) -> Prefix | None:
    """What names in the checkpoint begin with, and what those in the model do instead, as someone said it.

    Args:
        prefix: The first of these alone, both, or None for neither.

    Returns:
        Both, with a dot at the end of what isn't empty.

    Raises:
        MisuseError: It is something else.
    """
    if prefix is None:
        return None
    both = (prefix, "") if isinstance(prefix, str) else tuple(prefix)
    if len(both) != 2 or not all(isinstance(each, str) for each in both):
        raise MisuseError(f'prefix is {prefix!r}, but must be such as "module." or ("encoder.", "backbone.")')
    first, second = (f"{each.rstrip('.')}." if each else "" for each in both)
    return first, second


def found_prefix(own: Names, given: Given, least: float) -> Prefix:
    """The prefixes with which most tensors have the same name and shape; of those with as many, the shortest.

    Args:
        own: The model's.
        given: The checkpoint's.
        least: The share of either that has to fit: with less, names are compared as they are.

    Returns:
        Of the names in the checkpoint, and in the model.

    Raises:
        MisuseError: There are several.
    """
    by_rest: defaultdict[tuple[str, Any], list[str]] = defaultdict(list)
    for name, (_, value) in given.items():
        for beginning, rest in _cuts(name):
            by_rest[rest, value.shape].append(beginning)
    votes: Counter[Prefix] = Counter()
    for name, value in own.items():
        for beginning, rest in _cuts(name):
            votes.update((other, beginning) for other in by_rest[rest, value.shape] if _may_be(other, beginning))
    most = max(votes.values(), default=0)
    if not most or max(most / len(own), most / len(given)) < least:
        return "", ""

    def length(pair: Prefix) -> int:
        return sum(each.count(".") for each in pair)

    best = [pair for pair, count in votes.items() if count == most]
    shortest = [pair for pair in best if length(pair) == min(map(length, best))]
    if len(shortest) > 1:
        shown = listed(str(pair) for pair in sorted(shortest))
        raise MisuseError(
            f"several prefixes in checkpoint and model fit equally well, {shown}: say by prefix=... which one"
        )
    return shortest[0]


def _cuts(name: str) -> Iterator[Prefix]:
    """Beginnings and rests of a name."""
    segments = name.split(".")
    for depth in range(min(DEEPEST, len(segments) - 1) + 1):
        yield "".join(f"{segment}." for segment in segments[:depth]), ".".join(segments[depth:])


def _may_be(first: str, second: str) -> bool:
    """Whether two beginnings may stand for one another: layers of the same shape in other places don't, what wraps others does."""
    sides = [side.split(".")[:-1] for side in (first, second)]
    if all(sides) and sides[0][-1] == sides[1][-1]:
        return False  # shorter ones say the same of more names
    return any(WRAPPERS.issuperset(side) for side in sides)


def moved(given: Given, prefix: Prefix, places: dict[str, str]) -> dict[str, tuple[str | None, Tensor]]:
    """Brings the tensors of a checkpoint to their places in a model.

    Args:
        given: The checkpoint's.
        prefix: Of its names, and of the model's.
        places: The model's names by what they are without what torch inserts.

    Returns:
        The model's name, None where there is none, and the tensor, by the name in the checkpoint.
    """
    found: dict[str, tuple[str | None, Tensor]] = {}
    for name, (written, value) in given.items():
        rest = name.removeprefix(prefix[0]) if name.startswith(prefix[0]) else None
        found[written] = (None if rest is None else places.get(prefix[1] + rest), value)
    return found
