"""What a rule says of itself: its docstring taken apart, its thresholds from its signature, its causes and remedies from its code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from unstuck._discover import find
from unstuck.report._remedies import REMEDIES
from unstuck.verdict import CAUSES

_SECTION = re.compile(r"^([A-Z][\w ]*):$(?=\n+[ \t])", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+)(?: \([^)]*\))?:[ \t]*", re.MULTILINE)
_ABOUT_CODE = {"Args", "Arguments", "Returns", "Raises", "Yields", "Example", "Examples"}


@dataclass(frozen=True)
class Threshold:
    """One number that a rule draws its line by.

    Attributes:
        name: As `--set` takes it.
        default: Its value when nothing is set.
        means: What it is, and where the default comes from; "" when the rule doesn't say.
    """

    name: str
    default: Any
    means: str


@dataclass(frozen=True)
class Page:
    """What a rule says of itself.

    Attributes:
        rule: Its name.
        causes: Causes that it finds, none when that can't be told.
        summary: The first line of its docstring.
        text: What follows the first line, up to the first section.
        sections: Text by title, but for those about the code as such.
        thresholds: In the order of the signature.
        treated_by: Remedies that it prescribes, in one case or another.
    """

    rule: str
    causes: tuple[str, ...]
    summary: str
    text: str
    sections: Mapping[str, str]
    thresholds: tuple[Threshold, ...]
    treated_by: tuple[str, ...]


def pages() -> dict[str, Page]:
    """The page of every rule, by its name, in alphabetical order."""
    return {name: page(name, rule) for name, rule in sorted(find("rules").items())}


def page(name: str, rule: Callable[..., Any]) -> Page:
    """The page of one rule.

    Args:
        name: Its name, as on the command line.
        rule: Its function.

    Returns:
        What its docstring, signature and code tell; of a rule without a docstring the latter two.
    """
    text, sections = _taken_apart(inspect.getdoc(rule) or "")
    summary, _, rest = text.partition("\n")
    told = sections.get("Args") or sections.get("Arguments") or ""
    return Page(
        name,
        (name,) if name in CAUSES else tuple(_causes(rule)),
        summary,
        rest.strip(),
        {title: words for title, words in sections.items() if title not in _ABOUT_CODE},
        _thresholds(rule, _arguments(told)),
        tuple(_remedies(rule)),
    )


def _taken_apart(docstring: str) -> tuple[str, dict[str, str]]:
    """What stands before the first section, and the sections by title."""
    text, *parts = _SECTION.split(docstring)
    return text.strip(), {title: inspect.cleandoc(body) for title, body in zip(parts[::2], parts[1::2], strict=True)}


def _arguments(text: str) -> dict[str, str]:
    _, *parts = _ARGUMENT.split(text)
    return {name: " ".join(words.split()) for name, words in zip(parts[::2], parts[1::2], strict=True)}


def _thresholds(rule: Callable[..., Any], told: Mapping[str, str]) -> tuple[Threshold, ...]:
    parameters = inspect.signature(rule).parameters.values()
    return tuple(Threshold(p.name, p.default, told.get(p.name, "")) for p in parameters if p.kind is p.KEYWORD_ONLY)


# ---------------------------------------------------------------------- from the code


def _causes(rule: Callable[..., Any]) -> dict[str, None]:
    return {value: None for value in _constants(rule) if isinstance(value, str) and value in CAUSES}


def _remedies(rule: Callable[..., Any]) -> dict[str, None]:
    tuples = (value for value in _constants(rule) if isinstance(value, tuple) and value)
    return {name: None for names in tuples if all(name in REMEDIES for name in names) for name in names}


def _constants(rule: Callable[..., Any]) -> Iterator[Any]:
    """Constants in the code of a rule and of the functions of its module that it calls, in reading order.

    A rule puts cause and remedies into its findings as literals. Read from there they need not be said a second time.
    """
    functions = [rule] if isinstance(rule, FunctionType) else []
    for function in functions:
        codes = [function.__code__]
        for code in codes:
            codes.extend(value for value in code.co_consts if isinstance(value, CodeType))
            yield from code.co_consts
            for called in map(function.__globals__.get, code.co_names):
                if (
                    isinstance(called, FunctionType)
                    and called.__module__ == rule.__module__
                    and called not in functions
                ):
                    functions.append(called)
