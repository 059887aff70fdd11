"""Pages of causes, rules and remedies, as Markdown, from their docstrings, signatures and the tables of the code."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from site_links import ROOT, source

from unstuck._discover import find
from unstuck.doctor import EXPLAINS
from unstuck.report._page import Page, pages
from unstuck.report._remedies import REMEDIES
from unstuck.verdict import CAUSES

SICK = ROOT / "tests" / "sick"

_SECTION = re.compile(r"^([A-Z][\w ]*):$(?=\n+[ \t])", re.MULTILINE)
_NAMED = re.compile(
    rf"(?<![\w`/-])({'|'.join(sorted((c for c in CAUSES if '-' in c), key=len, reverse=True))})(?![\w`-])"
)
_TITLES = {"Told apart": "How it is told apart", "Wrong when": "When it is wrong"}
_ROOM_OF = {"causes": CAUSES, "remedies": REMEDIES}


def all_pages() -> dict[str, str]:
    """Every page by its path in the site: of each cause, rule and remedy, and the three lists."""
    rules = pages()
    found = {
        "causes/index.md": _causes_index(),
        "rules/index.md": _rules_index(rules),
        "remedies/index.md": _remedies_index(rules),
    }
    found |= {f"causes/{cause}.md": _cause(cause, rules) for cause in CAUSES}
    found |= {f"rules/{name}.md": _rule(page) for name, page in rules.items()}
    found |= {f"remedies/{name}.md": _remedy(name, rules) for name in REMEDIES}
    return {path: text.rstrip() + "\n" for path, text in found.items()}


# ---------------------------------------------------------------------- causes


def _cause(cause: str, rules: dict[str, Page]) -> str:
    finders = [page for page in rules.values() if cause in page.causes]
    return _joined(
        _head(cause, CAUSES[cause], "Cause"),
        *(part for page in finders for part in _told(page, cause, among="causes")),
        "## What treats it",
        _links(dict.fromkeys(r for page in finders for r in page.treated_by), "remedies"),
        "Whether one helps your script, and by how much, `unstuck cure` [finds out](../cure.md).",
        "## Among other causes",
        _relations(cause),
        "## Programs that have it",
        _programs(cause),
        "## How it is found",
        *(f"By the rule [{page.rule}](../rules/{page.rule}.md){_by(page)}." for page in finders),
        f"```sh\nunstuck explain {cause}    # this page, in the terminal\n```",
    )


def _programs(cause: str) -> str:
    """Links to the trainings of the tests that have a cause, each with its first line."""
    files = sorted(SICK.glob(f"{cause.replace('-', '_')}*.py"))
    files = [file for file in files if file.stem.partition("__")[0] == cause.replace("-", "_")]
    told = [f"- [{file.name}](../tests/sick/{file.name}.md): {_first_line(file)}" for file in files]
    return _joined(
        "In these small trainings `sick` has it, and `healthy` is the same without. Tests hold that it is found.",
        "\n".join(told),
    )


def _first_line(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n\n")[0].replace("\n", " ")


def _by(page: Page) -> str:
    names = [f"`{threshold.name}`" for threshold in page.thresholds]
    return f", with the threshold{'s' * (len(names) > 1)} {', '.join(names)}" if names else ", which has no threshold"


def _told(page: Page, cause: str, *, among: str) -> Iterator[str]:
    """What a rule says: its first line unless that is the cause's, its text, and its sections under titles."""
    if page.summary.rstrip(".").lower() != CAUSES.get(cause, "").lower():
        yield _linked(page.summary, cause, among)
    yield _linked(page.text, cause, among)
    for title, text in page.sections.items():
        yield f"## {_TITLES.get(title, title)}"
        yield _linked(text, cause, among)


def _relations(cause: str) -> str:
    brings = {c for c in EXPLAINS.get(cause, ()) if c != cause}
    follows = {c for c, brought in EXPLAINS.items() if cause in brought and c != cause}
    rows = [f"**Explains** {_those(cause, brings)}", f"**Explained by** {_those(cause, follows)}"]
    if brings & follows:
        rows.append("Where two explain each other, the more decisive one is the cause.")
    return "\n\n".join(
        ["What is explained stands under what explains it, so that a report names one thing to change.", *rows]
    )


def _those(cause: str, among: Collection[str]) -> str:
    """Links to causes in the order of `CAUSES`; where they are nearly all, to those that are not among them."""
    others = [c for c in CAUSES if c != cause]
    inside, outside = [c for c in others if c in among], [c for c in others if c not in among]
    if not inside:
        return "no other cause."
    if not outside:
        return "all others."
    few = len(outside) < len(inside) / 2
    return ("all but " if few else "") + ", ".join(f"[{c}]({c}.md)" for c in (outside if few else inside)) + "."


def _causes_index() -> str:
    rows = [f"| [{cause}]({cause}.md) | {told} |" for cause, told in CAUSES.items()]
    return _joined(
        "# Causes",
        "What `unstuck` can say of a training that doesn't learn as it should. A finding names one cause, which is what to change; what "
        "it leads to stands under it. Each is found by a [rule](../rules/index.md) and treated by [remedies](../remedies/index.md).",
        "\n".join(["| cause | what is wrong |", "|---|---|", *rows]),
    )


# ---------------------------------------------------------------------- rules


def _rule(page: Page) -> str:
    finds = (
        " and ".join(f"[{cause}](../causes/{cause}.md)" for cause in page.causes) or "nothing that is told in its code"
    )
    parts = [
        _head(page.rule, page.summary, "Rule", boost=0.5),
        f"Finds {finds}.",
        "## Thresholds",
        _thresholds(page),
    ]
    for title, text in page.sections.items():
        parts += [f"## {_TITLES.get(title, title)}", _linked(text, page.rule, "rules")]
    parts += [
        "## What it prescribes",
        "In one case or another, most apt first; a finding names those that fit the run.",
    ]
    parts += [
        _links(page.treated_by, "remedies"),
        "## Source",
        f"[`{_file(page.rule)}`]({_source('rules', page.rule)})",
    ]
    return _joined(*parts)


def _thresholds(page: Page) -> str:
    if not page.thresholds:
        return "It has none."
    rows = [f"| `{t.name}` | `{t.default!r}` | {_cell(t.means)} |" for t in page.thresholds]
    first = page.thresholds[0]
    setting = f"--set {page.rule}.{first.name}={first.default}"
    return _joined(
        "\n".join(["| name | default | meaning |", "|---|---|---|", *rows]),
        "To set one, here to what it is by default, in a run, or to judge a run again:",
        f"```sh\nunstuck run {setting} train.py\nunstuck diagnose {setting} RECORD\n```",
    )


def _rules_index(rules: dict[str, Page]) -> str:
    rows = [f"| [{page.rule}]({page.rule}.md) | {_cell(page.summary)} |" for page in rules.values()]
    return _joined(
        "# Rules",
        "A rule is a function from a [record](../record.md) to findings. It draws its line by thresholds, which "
        "`--set RULE.NAME=VALUE` changes. [Other packages](../library.md#your-own-rules) can bring rules of their own.",
        "\n".join(["| rule | what it finds |", "|---|---|", *rows]),
    )


# ---------------------------------------------------------------------- remedies


def _remedy(name: str, rules: dict[str, Page]) -> str:
    write = find("remedies").get(name)
    parts = [_head(name, REMEDIES[name], "Remedy")]
    if write is not None:
        module = sys.modules[write.__module__]
        parts += ["## What is written", _body(write), *_settings(write)]
        parts += ["## What is tried", _body(getattr(module, "propose", None)) or "The one way."]
        treat = _body(getattr(module, "treat", None))
        parts += ["## In your own process", *([treat, _IN_PROCESS] if treat else ["It changes data before they come in batches, which a "
                  "`Training` is given as they are: only `unstuck cure` can write it."])]  # fmt: skip
    treated = [page.rule for page in rules.values() if name in page.treated_by]
    parts += ["## What it treats", _links(treated, "causes") or "No rule prescribes it."]
    if write is not None:
        parts += ["## Source", f"[`{_file(name, 'remedies')}`]({_source('remedies', name)})"]
    return _joined(*parts)


_IN_PROCESS = "So [`unstuck.cure(training)`](../library.md#cure-a-training) does it to a `Training`."


def _settings(write: Any) -> list[str]:
    """Table of what the remedy can be set to: its keyword-only arguments."""
    told = dict(re.findall(r"^[ ]{4}(\w+):\s*(.*(?:\n[ ]{8}.*)*)", inspect.getdoc(write) or "", re.MULTILINE))
    found = [p for p in inspect.signature(write).parameters.values() if p.kind is p.KEYWORD_ONLY]
    rows = [
        f"| `{p.name}` | {'' if p.default is p.empty else f'`{p.default!r}`'} | {_cell(told.get(p.name, ''))} |"
        for p in found
    ]
    return ["\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])] if rows else []


def _remedies_index(rules: dict[str, Page]) -> str:
    count = {name: sum(name in page.treated_by for page in rules.values()) for name in REMEDIES}
    rows = [f"| [{name}]({name}.md) | {_cell(told)} | {count[name]} |" for name, told in REMEDIES.items()]
    return _joined(
        "# Remedies",
        "What rules prescribe. [`unstuck cure`](../cure.md) writes them into a script, tries them, and proves with fresh seeds what helps.",
        "\n".join(["| remedy | what to do | causes |", "|---|---|---|", *rows]),
    )


# ---------------------------------------------------------------------- text


def _head(name: str, told: str, kind: str, boost: float = 2) -> str:
    """Title and first sentence. In the search causes and remedies stand before what merely mentions them."""
    told = told if told.endswith(".") else f"{told}."
    return f"---\ntitle: {name}\nsearch:\n  boost: {boost}\n---\n\n# {name}\n\n{kind}\n{{ .kind }}\n\n**{told[:1].upper()}{told[1:]}**"


def _body(function: Any) -> str:
    """Docstring up to its first section."""
    text = inspect.getdoc(function) or ""
    return _SECTION.split(text)[0].strip()


def _linked(text: str, name: str, room: str) -> str:
    """Text in which the names of other causes lead to their pages."""
    at = "" if room == "causes" else "../causes/"
    return _NAMED.sub(lambda match: match[0] if match[1] == name else f"[{match[1]}]({at}{match[1]}.md)", text)


def _links(names: Iterable[str], room: str) -> str:
    return "\n".join(f"- [{name}](../{room}/{name}.md): {_ROOM_OF[room][name]}" for name in names)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _file(name: str, room: str = "rules") -> str:
    return f"src/unstuck/{room}/{name.replace('-', '_')}.py"


def _source(room: str, name: str) -> str:
    return f"../{source(_file(name, room))}"


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
