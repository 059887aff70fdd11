"""Pages of the reference, one a module, for mkdocstrings to fill from docstrings; and a list of the modules of each room."""

from __future__ import annotations

import ast
from pathlib import Path

from site_links import ROOMS, ROOT

_PACKAGE = ROOT / "src" / "unstuck"
_OF_THE_PACKAGE = ("curing", "doctor", "errors", "evidence", "training", "verdict", "watching")
_OF_REPORTS = ("errors", "pictures")
_BEGIN = {"optim": "optim.md", "regularization": "regularization.md", "data": "data.md", "warm_start": "warm_start.md",
          "recurrent": "recurrent.md", "recurrent/cells": "recurrent.md", "curvature": "curvature.md", "signals": "record.md",
          "report": "generalization.md",
    "integrations": "callbacks.md", "": "library.md"}  # fmt: skip


def all_pages() -> dict[str, str]:
    """Every page of the reference by its path in the site."""
    found = {}
    for room, title in ROOMS.items():
        modules = _modules(room)
        found[_path(room, "index")] = _index(room, title, modules)
        found |= {_path(room, file.stem): _page(room, file.stem) for file in modules}
    return found


def _modules(room: str) -> list[Path]:
    """Files of a room that people import."""
    chosen = {"": _OF_THE_PACKAGE, "report": _OF_REPORTS}.get(room)
    files = sorted(file for file in (_PACKAGE / room).glob("*.py") if file.stem[0] != "_")
    return [file for file in files if chosen is None or file.stem in chosen]


def _page(room: str, module: str) -> str:
    name = ".".join(["unstuck", *room.split("/"), module]).replace("..", ".")
    return f"---\ntitle: {module}\n---\n\n# {name}\n\n::: {name}\n    options:\n      heading_level: 2\n"


def _index(room: str, title: str, modules: list[Path]) -> str:
    rows = [f"| [`{file.stem}`]({file.stem}.md) | {_first_line(file)} |" for file in modules]
    depth = "../" * _path(room, "index").count("/")
    begin = f"How these are used, with examples: [{title}]({depth}{_BEGIN[room]})."
    return "\n\n".join([f"# {title}", begin, "\n".join(["| module | what is in it |", "|---|---|", *rows])]) + "\n"


def _first_line(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    return docstring.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def _path(room: str, module: str) -> str:
    return "/".join(filter(None, ["reference", room, f"{module}.md"]))
