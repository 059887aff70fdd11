"""Links between pages of the site, from links that are right in the repository.

A link in a page is written so that it works where the repository is read: `../examples/README.md` from `docs/cure.md`. The site has
the pages of `docs/` at its root, takes in some files from outside of it, shows programs as pages, and has the reference in place of
modules. `where` says which page of the site shows a file of the repository, `relinked` writes the links of a page accordingly.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TAKEN_IN = ("examples/README.md", "examples/recurrent/README.md", "examples/data/README.md", "benchmarks/README.md",
            "benchmarks/RESULTS.md", "CONTRIBUTING.md", "CHANGELOG.md", "README.zh.md")  # fmt: skip
"""Pages from outside of `docs/`, at the same path in the site."""

ROOMS = {
    "": "The package", "optim": "Optimizers, rates, averages", "regularization": "Regularization", "data": "Data and errors",
    "warm_start": "Warm start", "recurrent": "Recurrent networks", "recurrent/cells": "Cells", "curvature": "Curvature",
    "signals": "Signals", "report": "Reports", "integrations": "Callbacks and trackers",
}  # fmt: skip
"""Rooms of the library that have a reference, with their titles."""

_MADE_OF = {"README.md": "index.md", "src/unstuck/verdict.py": "causes/index.md", "src/unstuck/rules": "rules/index.md",
            "src/unstuck/remedies": "remedies/index.md", "src/unstuck/__init__.py": "reference/index.md"}  # fmt: skip
_SAID_BY = {"rules": "causes", "remedies": "remedies"}  # a rule's file explains its cause

_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[\w-]*)?(\))")
_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)


def origin(src_uri: str) -> str:
    """Path in the repository of what a page of the site shows, "docs/run.md" of "run.md"."""
    return src_uri if src_uri in TAKEN_IN else f"docs/{src_uri}"


def targets(markdown: str, src_uri: str) -> Iterator[str]:
    """Paths in the repository that the links of a page lead to."""
    folder = posixpath.dirname(origin(src_uri))
    for _, target, _, _ in _LINK.findall(_FENCE.sub("", markdown)):
        yield posixpath.normpath(posixpath.join(folder, target))


def where(path: str) -> str:
    """Page of the site that shows a file of the repository; for what isn't text to read, such as a picture, its place in the site."""
    if path in _MADE_OF:
        return _MADE_OF[path]
    if not path.startswith("src/unstuck/"):
        in_site = path.removeprefix("docs/")
        return f"{in_site}.md" if path.endswith(".py") else in_site
    room, _, module = path.removeprefix("src/unstuck/").removesuffix(".py").rpartition("/")
    if room in _SAID_BY and path.endswith(".py"):
        return f"{_SAID_BY[room]}/{module.replace('_', '-')}.md"
    if (ROOT / path).is_dir():
        return "/".join(filter(None, ["reference", room, module, "index.md"]))
    return (
        "/".join(filter(None, ["reference", room, f"{module}.md"]))
        if room in ROOMS and path.endswith(".py")
        else source(path)
    )


def source(path: str) -> str:
    """Page of the site that shows a file of the package as it is."""
    within = path.removeprefix("src/unstuck/")
    return f"source/{within}.md" if path.endswith(".py") else f"source/{within}"


def relinked(markdown: str, src_uri: str) -> str:
    """The page with links to pages of the site, in place of files of the repository; code stays as it is."""
    repository, site = posixpath.dirname(origin(src_uri)), posixpath.dirname(src_uri)

    def link(match: re.Match[str]) -> str:
        opening, target, anchor, closing = match.groups()
        path = posixpath.normpath(posixpath.join(repository, target))
        if not (ROOT / path).exists():
            return match[0]
        return f"{opening}{posixpath.relpath(where(path), site or '.')}{anchor or ''}{closing}"

    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in _FENCE.split(markdown))
