"""What mkdocs is told besides `mkdocs.yml`: pages that are made from code, files taken in, links, and the navigation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import site_causes
import site_reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from site_links import ROOT, TAKEN_IN, relinked, source, targets, where

from unstuck.verdict import CAUSES

_CODE = re.compile(rf"(?<![\[`])`({'|'.join(CAUSES)})`(?!`)(?![^\[]*\]\()")
_LINKS_CAUSES = frozenset({"run.md", "index.md", "compatibility.md", "experiments.md", "curvature.md", "cure.md"})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what isn't in `docs/`, and completes the navigation by it."""
    for path in TAKEN_IN:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    for path, text in (site_causes.all_pages() | site_reference.all_pages()).items():
        files.append(File.generated(config, path, content=text))
    for at, path in sorted(_linked(files).items()):
        shown = {"content": _program(path)} if path.endswith(".py") else {"abs_src_path": str(ROOT / path)}
        files.append(File.generated(config, at, inclusion=InclusionLevel.NOT_IN_NAV, **shown))
    config.nav = _expanded(config.nav, files, set(_named(config.nav)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository become links to their pages; names of causes lead to theirs."""
    if page.file.generated_by and page.file.src_uri not in TAKEN_IN:
        return markdown
    markdown = relinked(markdown, page.file.src_uri)
    return _with_causes(markdown) if page.file.src_uri in _LINKS_CAUSES else markdown


def _with_causes(markdown: str) -> str:
    """Names of causes as links, in the first cells of tables."""
    rows = re.compile(r"^\| (`[^|]*`) \|", re.MULTILINE)
    return rows.sub(lambda row: f"| {_CODE.sub(lambda m: f'[{m[0]}](causes/{m[1]}.md)', row[1])} |", markdown)


def _linked(files: Files) -> dict[str, str]:
    """Files from outside of `docs/`, and programs, that pages link to: their paths in the repository by those in the site."""
    found = {path for file in files.documentation_pages() for path in targets(file.content_string, file.src_uri)}
    by_place = {where(path): path for path in found if (ROOT / path).is_file()}
    for room in ("rules", "remedies"):
        paths = [str(file.relative_to(ROOT)) for file in (ROOT / "src" / "unstuck" / room).glob("[!_]*.py")]
        by_place |= {source(path): path for path in paths}
    by_place |= {
        where(path): path for path in (f"tests/sick/{file.name}" for file in site_causes.SICK.glob("[!_]*.py"))
    }
    known = {file.src_uri for file in files}
    return {at: path for at, path in by_place.items() if at not in known}


def _program(path: str) -> str:
    """A page that shows a program."""
    return f"---\nsearch:\n  exclude: true\n---\n\n# {Path(path).name}\n\n`{path}`\n\n````python\n{(ROOT / path).read_text()}````\n"


def _expanded(nav: Any, files: Files, named: set[str]) -> Any:
    """The navigation with `folder/*` as the pages of a folder, its index first, and `*` as those of `docs/` that aren't named."""
    if isinstance(nav, dict):
        return {title: _expanded(entry, files, named) for title, entry in nav.items()}
    if isinstance(nav, list):
        expanded = [_expanded(entry, files, named) for entry in nav]
        return [page for entry in expanded for page in (entry.rest if isinstance(entry, _Rest) else [entry])]
    paths = [file.src_uri for file in files.documentation_pages()]
    if nav == "*":
        return _Rest(sorted(path for path in paths if "/" not in path and path not in named))
    if not nav.endswith("/*"):
        return nav
    inside = [path for path in paths if path.rpartition("/")[0] == nav.removesuffix("/*")]
    return sorted(inside, key=lambda path: (not path.endswith("index.md"), path))


@dataclass(frozen=True)
class _Rest:
    """Pages that stand among others in the navigation, not in a section of their own."""

    rest: list[str]


def _named(nav: Any) -> Iterator[str]:
    """Every page that a navigation names."""
    entries = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []
    if isinstance(nav, str):
        yield nav
    for entry in entries:
        yield from _named(entry)
