"""What a cause means, for the page: the docstring of its rule as HTML, with thresholds and remedies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from unstuck._language import _, marked, spoken
from unstuck.report import _words as words
from unstuck.report._page import Page, pages
from unstuck.report._remedies import REMEDIES
from unstuck.verdict import Finding

_TITLES = {"Told apart": marked("How it is told apart"), "Wrong when": marked("When that is wrong")}
_INLINE = re.compile(r"(`[^`]+`)|\*{1,2}([^\s*](?:[^*]*[^\s*])?)\*{1,2}")


@dataclass(frozen=True)
class Explanation:
    """What a page says of a cause.

    Attributes:
        sections: Title, HTML, and the language it is in; the first has no title.
        language: Of the thresholds' meanings.
        thresholds: Name as `--set` takes it, default, meaning.
        remedies: Name, and what to do.
    """

    sections: tuple[tuple[str, Markup, str], ...]
    language: str
    thresholds: tuple[tuple[str, str, str], ...]
    remedies: tuple[tuple[str, str], ...]


def explained(finding: Finding) -> Explanation | None:
    """What the rule behind a finding says of itself; None of a rule from elsewhere that isn't installed here."""
    page = pages().get(finding.rule) or pages().get(finding.cause)
    if page is None:
        return None
    sections = [("", "\n\n".join(filter(None, (page.summary, page.text)))), *page.sections.items()]
    made = [(_(_TITLES.get(title, title)), *_html(text)) for title, text in sections if text]
    treated_by = dict.fromkeys((*finding.treated_by, *page.treated_by))
    return Explanation(
        tuple((title, html, spoken() if is_translated else "en") for title, html, is_translated in made),
        "en",
        tuple(_thresholds(page)),
        tuple((name, _(REMEDIES[name]) if name in REMEDIES else "") for name in treated_by),
    )


def _thresholds(page: Page) -> Iterator[tuple[str, str, str]]:
    for one in page.thresholds:
        default = float(f"{one.default:.3g}") if isinstance(one.default, float) else one.default
        yield f"{page.rule}.{one.name}", words.exact(default), _(one.means)


def _html(text: str) -> tuple[Markup, bool]:
    """The little Markdown that docstrings are written in, as HTML; and whether all of it is in the language that is spoken."""
    made, is_translated = [], True
    for block in filter(None, map(str.strip, re.split(r"\n\s*\n", text))):
        lines = block.splitlines()
        if all(line.startswith("|") for line in lines):
            made.append(_table(lines))
            continue
        items = [" ".join(item.removeprefix("- ").split()) for item in re.split(r"\n(?=- )", block)]
        is_translated &= all(spoken() == "en" or _(item) != item for item in items)
        is_list = block.startswith("- ")
        parts = [Markup("<li>{}</li>" if is_list else "<p>{}</p>").format(_inline(_(item))) for item in items]
        made.append(Markup("<ul>{}</ul>").format(Markup("").join(parts)) if is_list else Markup("").join(parts))
    return Markup("").join(made), is_translated


def _inline(text: str) -> Markup:
    parts, end = [], 0
    for found in _INLINE.finditer(text):
        parts.append(Markup("{}").format(text[end : found.start()]))
        code, strong = found.groups()
        parts.append(
            Markup("<code>{}</code>").format(code.strip("`")) if code else Markup("<em>{}</em>").format(strong)
        )
        end = found.end()
    return Markup("").join([*parts, Markup("{}").format(text[end:])])


def _table(lines: list[str]) -> Markup:
    head, *rows = ([_inline(_(cell.strip())) for cell in line.strip("|").split("|")] for line in lines)
    made = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
        for row in rows
        if not all(set(cell) <= {"-", ":"} for cell in row)
    )
    titles = Markup("").join(Markup('<th scope="col">{}</th>').format(cell) for cell in head)
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(titles, made)
