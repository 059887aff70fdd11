"""The language reports speak: English in the code, others by gettext catalogues in `locale/`.

A sentence is written once, in English, where it is known: `_("steps")` for a fixed text, `say("the gradient of {layer} is {value}", …)`
for one with something in it. `say` gives plain English text that remembers what it was made of, so a finding stays a finding with a
string in it (records, JSON and tests see nothing else), and a report that speaks another language can say it again with `translated`.
Texts from the user's program are values, never templates: nothing in them is looked up or filled in.

A translator edits `locale/zh_CN/LC_MESSAGES/unstuck.po`; `tests/test_language.py` says what is missing there.
"""

from __future__ import annotations

import contextlib
import functools
import gettext
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from unstuck.errors import MisuseError

LANGUAGES = {"en": "English", "zh": "简体中文"}
_CATALOGUES = {"zh": "zh_CN"}
_LOCALE = Path(__file__).parent / "locale"
_VARIABLE = "UNSTUCK_LANG"
_spoken: ContextVar[str] = ContextVar("_spoken", default="en")


class Said(str):
    """English text that remembers what it was made of. Made by `say` and `say_many`.

    Attributes:
        templates: The template; or those for one and for many.
        values: What is filled in, by name.
        number: What decides between one and many; None where nothing does.
    """

    templates: tuple[str, ...] = ()
    values: Mapping[str, Any] = {}
    number: int | None = None


def say(template: str, /, **values: Any) -> Said:
    """A sentence with something in it, in English, which `translated` can say in another language.

    Args:
        template: English text with `{name}` where a value goes, as for `str.format`; a literal, so that it can be collected.
        **values: What goes there; sentences made by `say` are translated with it, all other text stays as it is.

    Returns:
        The English sentence.

    Example:
        >>> say("{layer} is dead", layer="net.0")
        'net.0 is dead'
    """
    return _made((template,), values, None)


def say_many(one: str, many: str, number: int, /, **values: Any) -> Said:
    """As `say`, where the text depends on a number.

    Args:
        one: What is said of one, such as "{number} layer".
        many: What is said of more, or of none: "{number} layers".
        number: Which of them; it is there as the value `number` too.
        **values: What else is filled in.

    Returns:
        The English text.

    Example:
        >>> say_many("{number} layer", "{number} layers", 3)
        '3 layers'
    """
    return _made((one, many), {"number": number, **values}, number)


def _made(templates: tuple[str, ...], values: Mapping[str, Any], number: int | None) -> Said:
    said = Said(templates[0 if number in (None, 1) else 1].format(**values))
    said.templates, said.values, said.number = templates, values, number
    return said


def marked(text: str) -> str:
    """The text as it is, so that it is collected; it is translated where it is used: `_(NAMES[code])`."""
    return text


def _(text: str) -> str:
    """A fixed text of ours in the language that is spoken; a sentence made by `say` too.

    Only for texts of ours: what the user's program is called could happen to be a word in the catalogue.

    Args:
        text: English, a literal, or one that was marked with `marked`, or a `Said`.

    Returns:
        The same in the language that is spoken; in English where the catalogue has nothing.
    """
    return translated(text) if isinstance(text, Said) else _catalogue(_spoken.get()).gettext(text) if text else ""


def translated(text: str) -> str:
    """A sentence in the language that is spoken.

    Args:
        text: One made by `say` or `say_many`; any other text stays as it is.

    Returns:
        The sentence.
    """
    if not isinstance(text, Said) or not text.templates or _spoken.get() == "en":
        return str(text)
    catalogue = _catalogue(_spoken.get())
    first, last = text.templates[0], text.templates[-1]
    template = catalogue.gettext(first) if text.number is None else catalogue.ngettext(first, last, text.number)
    return template.format(**{name: _in_it(value) for name, value in text.values.items()})


def _in_it(value: Any) -> Any:
    return translated(value) if isinstance(value, Said) else value


def many(one: str, more: str, number: int, /, **values: Any) -> str:
    """`say_many` in the language that is spoken, at once."""
    return translated(say_many(one, more, number, **values))


def spoken() -> str:
    """The language that is spoken now: "en" or another of `LANGUAGES`."""
    return _spoken.get()


@contextlib.contextmanager
def speaking(language: str | None) -> Iterator[None]:
    """Reports made in this context speak a language.

    Args:
        language: One of `LANGUAGES`; None for that of the environment variable `UNSTUCK_LANG`, or English.

    Yields:
        Nothing.

    Raises:
        MisuseError: There is no such language.
    """  # noqa: DOC502
    token = _spoken.set(known(language))
    try:
        yield
    finally:
        _spoken.reset(token)


def known(language: str | None) -> str:
    """A language's code, checked.

    Args:
        language: What was asked for: "zh", also "zh_CN" or "zh-Hans"; None for the environment's.

    Returns:
        One of `LANGUAGES`.

    Raises:
        MisuseError: There is no such language.
    """
    asked = os.environ.get(_VARIABLE) or "en" if language is None else language
    code = asked.replace("-", "_").split("_")[0].split(".")[0].lower()
    if code not in LANGUAGES:
        told = ", ".join(f"{code} ({name})" for code, name in LANGUAGES.items())
        raise MisuseError(f"there is no language {asked!r}; there are {told}")
    return code


@functools.cache
def _catalogue(language: str) -> gettext.NullTranslations:
    if language == "en":
        return gettext.NullTranslations()
    return gettext.translation("unstuck", _LOCALE, [_CATALOGUES[language]])
