"""What causes and rules mean, for the terminal: a page about one, and a table of all.

Nothing is written here that a rule says itself: its page is its docstring, its thresholds are those of its signature.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from unstuck._language import _, joined, many, marked, say, spoken, tell
from unstuck.errors import NotFoundError
from unstuck.report import _words as words
from unstuck.report._page import Page, pages
from unstuck.report._remedies import REMEDIES
from unstuck.report.text import WIDEST, Short, shown_on
from unstuck.verdict import CAUSES

SCHEMA = 1
_MANY = 99  # lines: all of them
_WIDEST_TABLE = 140  # a rule a line, where there is room
_TITLES = {"Told apart": marked("How it is told apart"), "Wrong when": marked("When it is wrong")}
_INLINE = re.compile(r"(`[^`]+`)|\*{1,2}([^\s*](?:[^*]*[^\s*])?)\*{1,2}")
_MUTUAL = marked(
    "Found together, what is explained stands under what explains it. Where two explain each other, the more decisive is "
    "the cause."
)
_NAME, _CODE, _VALUE = "bold cyan", "cyan", "green"


def explain(name: str, explains: Mapping[str, Collection[str]]) -> RenderableType:
    """All that is known about a cause or a rule.

    Args:
        name: A code of `CAUSES`, or the name of a rule.
        explains: By cause those that it brings about.

    Returns:
        A renderable: what it means, how it is told apart, when it is wrong, thresholds, remedies, and its place among the
        other causes.

    Raises:
        NotFoundError: There is neither a cause nor a rule of this name; the message says which is close.
    """
    known = pages()
    if name not in CAUSES and name not in known:
        raise NotFoundError(_not_found(name, known))
    finders = [page for page in known.values() if name in page.causes and page.rule != name]
    return _Fitting(functools.partial(_parts, name, known.get(name), finders, explains))


def table() -> RenderableType:
    """Every rule in a line or two: its name, the cause where that is another, and what it finds."""
    known = pages()
    others = [page for page in known.values() if page.causes != (page.rule,)]
    return _Fitting(functools.partial(_all_rules, known.values(), others), widest=_WIDEST_TABLE)


def listing() -> dict[str, Any]:
    """Every rule with its causes, summary, thresholds and remedies, as plain dicts and lists for JSON."""
    return {
        "schema": SCHEMA,
        "rules": [
            {
                "rule": page.rule,
                "causes": list(page.causes),
                "summary": page.summary,
                "thresholds": [vars(threshold) for threshold in page.thresholds],
                "treated_by": list(page.treated_by),
            }
            for page in pages().values()
        ],
    }


def _not_found(name: str, known: Mapping[str, Page]) -> str:
    """The closest match: a name that holds what was given, a cause of which it is said, or one that is spelt alike."""
    if not name:
        return say("explain what? name a cause or a rule; `unstuck rules` lists them")
    names, given = sorted({*CAUSES, *known}), name.lower()
    said = {n: f"{CAUSES.get(n, '')} {known[n].summary if n in known else ''}".lower() for n in names}
    close = (
        [n for n in names if given in n]
        or [n for n in names if re.search(rf"\b{re.escape(given)}\b", said[n])]
        or difflib.get_close_matches(given.replace("_", "-"), names, n=1)
    )
    hint = say("did you mean {name!r}?", name=close[0]) if close else say("`unstuck rules` lists them")
    return say("no cause or rule {name!r}; {hint}", name=words.clean(name), hint=hint)


# ---------------------------------------------------------------------- a page


def _parts(
    name: str, page: Page | None, finders: Collection[Page], explains: Mapping[str, Collection[str]]
) -> Iterator[RenderableType]:
    yield _title(name, page)
    if page:
        yield from _meaning(name, page)
        yield from _section(_("Thresholds"), _thresholds(page), _example(page))
    remedies = dict.fromkeys(r for p in filter(None, (page, *finders)) for r in p.treated_by)
    yield from _section(_("What treats it"), _rows((r, _(REMEDIES.get(r, ""))) for r in remedies))
    if name in CAUSES:
        yield from _section(_("Among other causes"), _relations(name, page, finders, explains))


def _title(name: str, page: Page | None) -> RenderableType:
    causes = page.causes if page else ()
    finds = say("a rule that finds {causes}", causes=joined(causes, say(" and "))) if causes else say("a rule")
    return _beside(Text(name, _NAME), _filled(Text(_(CAUSES.get(name, finds)), "bold")))


def _meaning(name: str, page: Page) -> Iterator[RenderableType]:
    is_said = page.summary.rstrip(".").lower().removeprefix("the ") == CAUSES.get(name, "").lower().removeprefix("the ")
    yield from _section("", _prose("\n\n".join(filter(None, ("" if is_said else page.summary, page.text)))))
    if spoken() != "en":
        yield from _section("", [_filled(Text(_("The rest of what the rule says of itself is in English:"), "dim"))])
    for title, text in page.sections.items():
        yield from _section(_(_TITLES[title]) if title in _TITLES else title, _prose(text))


def _section(title: str, content: Iterable[RenderableType], aside: str = "") -> Iterator[RenderableType]:
    inside = list(content)
    if inside:
        yield Text()
        if title:
            yield Text.assemble((title, "bold"), (f"  {aside}" if aside else "", "dim"))
        yield Padding(Group(*inside), (0, 0, 0, 2 if title else 0))


def _thresholds(page: Page) -> Iterator[RenderableType]:
    found = _grid(_VALUE)
    for threshold in page.thresholds:
        found.add_row(threshold.name, Text(_default(threshold.default)), _inline(threshold.means))
    if page.thresholds:
        yield found


def _example(page: Page) -> str:
    """How to set the first threshold, to what it is by default."""
    return "".join(
        tell("--set {threshold}={default} changes one", threshold=f"{page.rule}.{t.name}", default=_default(t.default))
        for t in page.thresholds[:1]
    )


def _relations(
    name: str, page: Page | None, finders: Collection[Page], explains: Mapping[str, Collection[str]]
) -> Iterator[RenderableType]:
    rules = [p.rule for p in filter(None, (page, *finders))]
    brings = {cause for cause in explains.get(name, ()) if cause != name}
    follows = {cause for cause, brought in explains.items() if name in brought and cause != name}
    yield from _rows({
        _("found by"): many("the rule {names}", "the rules {names}", len(rules), names=", ".join(rules)) if rules else _("no rule"),
        _("explains"): _causes(name, brings) or _("no other cause"),
        _("explained by"): _causes(name, follows) or _("no other cause"),
    }.items())  # fmt: skip
    if brings & follows:
        yield Text()
        yield _filled(Text(_(_MUTUAL)))


def _causes(name: str, among: Collection[str]) -> str:
    """Causes in the order of `CAUSES`; where they are nearly all, those that are not among them."""
    others = [cause for cause in CAUSES if cause != name]
    inside, outside = ([c for c in others if (c in among) is wanted] for wanted in (True, False))
    if not outside:
        return _("all others")
    if len(outside) < len(inside) / 2:
        return tell("all but {causes}", causes=", ".join(outside))
    return ", ".join(inside)


def _rows(rows: Iterable[tuple[str, str]]) -> Iterator[RenderableType]:
    found = _grid()
    for label, content in rows:
        found.add_row(Text(label), _filled(Text(content)))
    if found.row_count:
        yield found


def _grid(*between: str) -> Table:
    """A table of names and, in the last column, text that fills the line; between them columns of these styles."""
    found = Table.grid(padding=(0, 2, 0, 0))
    for style in (_CODE, *between):
        found.add_column(no_wrap=True, style=style)
    found.add_column(ratio=1)
    return found


def _default(value: Any) -> str:
    return words.exact(float(f"{value:.3g}") if isinstance(value, float) else value)


# ---------------------------------------------------------------------- all rules


def _all_rules(known: Collection[Page], others: Collection[Page]) -> Iterator[RenderableType]:
    yield _listed(known, with_causes=bool(others))
    yield from _notes(others)


def _listed(known: Iterable[Page], *, with_causes: bool) -> RenderableType:
    found = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    found.add_column(_("rule"), no_wrap=True, style=_CODE)
    if with_causes:
        found.add_column(_("cause"))
    found.add_column(_("what it finds"), ratio=1)
    for page in known:
        causes = [Text(", ".join(page.causes) or "-")] if with_causes else []
        found.add_row(Text(page.rule), *causes, _summary(page))
    return found


def _summary(page: Page) -> RenderableType:
    """What a rule finds: in another language as its cause is told there, since docstrings are in English."""
    if spoken() == "en" or page.rule not in CAUSES:
        return _inline(page.summary)
    return _filled(Text(_(CAUSES[page.rule])))


def _notes(others: Collection[Page]) -> Iterator[RenderableType]:
    yield Text()
    if not others:
        yield Text(_("A rule is named after the cause that it finds."))
    yield Text.assemble(("unstuck explain NAME", _CODE), _(" tells of one how it is told apart and when it is wrong."))


# ---------------------------------------------------------------------- text


def _prose(text: str) -> Iterator[RenderableType]:
    """Paragraphs, tables and lists of a docstring, in the little Markdown that docstrings are written in."""
    for i, block in enumerate(re.split(r"\n\s*\n", text.strip())):
        lines = block.splitlines()
        if not lines:
            continue
        if i:
            yield Text()
        if all(line.startswith("|") for line in lines):
            yield _drawn(lines)
        else:
            for item in re.split(r"\n(?=- )", block):
                line = _filled(_inline(_(" ".join(item.removeprefix("- ").split()))))
                yield _beside(Text("-"), line, 1) if item.startswith("- ") else line


def _drawn(lines: list[str]) -> RenderableType:
    head, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    found = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in head:
        found.add_column(_inline(title))
    for row in rows:
        if set("".join(row)) - set("-: "):
            found.add_row(*map(_inline, row))
    return found


def _inline(text: str) -> Text:
    """A line with `code` in colour, its marks kept for where there is none, and *emphasis* as a style."""
    found, at = Text(), 0
    for match in _INLINE.finditer(text):
        code, emphasis = match.groups()
        found.append(text[at : match.start()])
        found.append(code or emphasis, _CODE if code else "italic")
        at = match.end()
    return found.append(text[at:])


def _filled(text: Text) -> RenderableType:
    """Text on as many lines as it needs, broken as its language is."""
    return text if spoken() == "en" else Short(text, lines=_MANY)


def _beside(mark: Text, text: RenderableType, gap: int = 2) -> RenderableType:
    """Text behind a mark, its lines below each other."""
    found = Table.grid(padding=(0, gap, 0, 0))
    found.add_column(no_wrap=True)
    found.add_column(ratio=1)
    found.add_row(mark, text)
    return found


class _Fitting:
    """Parts on as many columns as there are, up to a limit; plain ASCII on a console that can't show more."""

    def __init__(self, parts: Callable[[], Iterator[RenderableType]], widest: int = WIDEST) -> None:
        self.parts, self.widest = parts, widest

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        options = options.update(width=min(options.max_width, self.widest), height=None)
        with shown_on(options):
            segments = list(console.render(Group(*self.parts()), options))
        for segment in segments:
            text = segment.text.encode("ascii", "replace").decode() if options.ascii_only else segment.text
            yield Segment(text, segment.style, segment.control)
