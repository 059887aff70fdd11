"""The language reports and the command line speak: English in the code, others by gettext catalogues in `locale/`.

A sentence is written once, in English, where it is known: `_("steps")` for a fixed text, `say("the gradient of {layer} is {value}", …)`
for one with something in it. `say` gives plain English text that remembers what it was made of, so a finding stays a finding with a
string in it (records, JSON and tests see nothing else), and a report that speaks another language can say it again with `translated`.
Texts from the user's program are values, never templates: nothing in them is looked up or filled in.

What is shown at once, and not kept, is said by `tell` (one template) and `many` (by a number). A sentence is one whole template where word
order may differ; clauses that are only put behind each other are said one by one and `joined`. What is written for machines (JSON, SARIF,
records) is made while English is spoken, `with speaking("en")`, since the words of `report/_words.py` are in the language that is spoken.

What the command line shows is translated where it is shown: help, examples and lines on stderr. So errors are English wherever they are
raised and caught, in a traceback as in a log: `str(error)`. Those that a command can meet (a wrong option, a file that can't be read,
a search that can't go on) are made by `say`, and the command line says them again by what they remember, `error.says`. Those that
only a call from Python can cause (arguments of optimizers, cells, data) aren't, nor is what Python or the system says, which is a value.

`python tools/catalogue.py` collects the texts and compiles; a translator edits `locale/zh_CN/LC_MESSAGES/unstuck.po`.
`tests/test_language.py` says what is missing there.
"""

from __future__ import annotations

import contextlib
import functools
import gettext
import os
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from unstuck.errors import MisuseError

LANGUAGES = {"en": "English", "zh": "简体中文"}
_CATALOGUES = {"zh": "zh_CN"}
_LOCALE = Path(__file__).parent / "locale"
_VARIABLE = "UNSTUCK_LANG"
_LONGEST = 1000  # letters of a stored sentence that is taken apart
_spoken: ContextVar[str | None] = ContextVar("_spoken", default=None)


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


def plural_of(noun: str) -> str:
    """An English noun for more than one: "batches", "epochs"."""
    return f"{noun}es" if noun.endswith(("s", "x", "tch")) else f"{noun}s"


def _made(templates: tuple[str, ...], values: Mapping[str, Any], number: int | None) -> Said:
    said = Said(templates[0 if number in (None, 1) else 1].format(**values))
    said.templates, said.values, said.number = templates, values, number
    return said


def joined(parts: Iterable[str], between: str = "") -> Said:
    """Texts in a row, each translated for itself.

    Args:
        parts: Sentences or clauses made by `say`; other text stays as it is.
        between: What stands between two of them, made by `say` too where another language writes it otherwise.

    Returns:
        The English text.

    Example:
        >>> joined(["a", "b"], ", ")
        'a, b'
    """
    values = {f"part{i}": part for i, part in enumerate(parts)}
    return _made(("{between}".join(f"{{{name}}}" for name in values),), {"between": between, **values}, None)


def capital(said: Said) -> Said:
    """The sentence with a capital in English; a language that isn't written with any says it as it is.

    Example:
        >>> capital(say("{name} is dead", name="net"))
        'Net is dead'
    """
    made = Said(said[:1].upper() + said[1:])
    made.templates, made.values, made.number = said.templates, said.values, said.number
    return made


def stored(text: str, *templates: str) -> Said:
    """A sentence of ours that a record kept in English, so that it can be said again.

    Only for what nobody but us writes into a record; the user's own texts are never looked up.

    Args:
        text: The sentence. As a whole it is looked up where it is `marked`.
        *templates: Those it may have been made of, marked, the more special first; what they were filled with is taken for the same.

    Returns:
        The same English text.

    Example:
        >>> stored("gradient 0.3", "gradient {value}").values
        {'value': '0.3'}
    """
    found = _filled(text, templates)
    return _made((text.replace("{", "{{").replace("}", "}}"),), {}, None) if found is None else found


def _filled(text: str, templates: tuple[str, ...]) -> Said | None:
    """The text as one of these templates, filled in; None where it is none of them."""
    if len(text) > _LONGEST:
        return None
    for template in templates:
        found = _pattern(template).fullmatch(text)
        if found:
            values = {name: _filled(value, templates) or value for name, value in found.groupdict().items()}
            return _made((template,), values, None)
    return None


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = string.Formatter().parse(template)
    return re.compile("".join(re.escape(text) + (f"(?P<{name}>.+?)" if name else "") for text, name, *_rest in parts))


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
    return translated(text) if isinstance(text, Said) else _catalogue(spoken()).gettext(text) if text else ""


def translated(text: str) -> str:
    """A sentence in the language that is spoken.

    Args:
        text: One made by `say` or `say_many`; any other text stays as it is.

    Returns:
        The sentence.
    """
    language = spoken()
    if not text or not isinstance(text, Said) or not text.templates or language == "en":
        return str(text)
    catalogue = _catalogue(language)
    first, last = text.templates[0], text.templates[-1]
    template = catalogue.gettext(first) if text.number is None else catalogue.ngettext(first, last, text.number)
    return template.format(**{name: _in_it(value) for name, value in text.values.items()})


def _in_it(value: Any) -> Any:
    return translated(value) if isinstance(value, Said) else value


def tell(template: str, /, **values: Any) -> str:
    """`say` in the language that is spoken, at once: for what is shown and not kept."""
    return translated(say(template, **values))


def many(one: str, more: str, number: int, /, **values: Any) -> str:
    """`say_many` in the language that is spoken, at once."""
    return translated(say_many(one, more, number, **values))


def spoken() -> str:
    """The language that is spoken now: that of the context (`speaking`), else that of `UNSTUCK_LANG`, else English."""
    found = _spoken.get()
    if found is None:
        found = _code(os.environ.get(_VARIABLE, ""))
    return found if found in LANGUAGES else "en"


@contextlib.contextmanager
def speaking(language: str | None) -> Iterator[str]:
    """Reports, help and errors shown in this context speak a language.

    Args:
        language: One of `LANGUAGES`; None for that of the environment variable `UNSTUCK_LANG`, or English.

    Yields:
        Its code.

    Raises:
        MisuseError: There is no such language.
    """  # noqa: DOC502
    token = _spoken.set(known(language))
    try:
        yield spoken()
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
    code = _code(asked)
    if code not in LANGUAGES:
        told = ", ".join(f"{code} ({name})" for code, name in LANGUAGES.items())
        where = f"{_VARIABLE}: " if language is None else ""
        raise MisuseError(
            say("{where}there is no language {asked!r}; there are {told}", where=where, asked=asked, told=told)
        )
    return code


def _code(asked: str) -> str:
    return asked.replace("-", "_").split("_")[0].split(".")[0].lower()


@functools.cache
def _catalogue(language: str) -> gettext.NullTranslations:
    if language == "en":
        return gettext.NullTranslations()
    return gettext.translation("unstuck", _LOCALE, [_CATALOGUES[language]])
