"""The catalogues of what reports say: collects the texts of the package, updates each .po with them, and compiles the .mo.

    python tools/catalogue.py           update src/unstuck/locale/*/LC_MESSAGES/unstuck.po and compile unstuck.mo
    python tools/catalogue.py --check   change nothing; exit code 1 where something is missing, left over, or not compiled

Texts are the literals given to `_`, `say`, `tell`, `marked`, `say_many`, `many` (of `unstuck._language`) and `plural` (of a `_words`),
in Python and in the templates of the pages, all found in the syntax trees; what the docstring of a rule says before its first section; and
help on the command line: the docstrings of commands, and `help` of their options.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import io
import re
import string
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from jinja2 import nodes

from unstuck._language import plural_of

SOURCE = Path(__file__).resolve().parent.parent / "src" / "unstuck"
LOCALES = ("zh_CN",)
ONE = frozenset({"_", "say", "tell", "marked"})
MANY = frozenset({"say_many", "many"})
COUNTED = "plural"
SECTION = re.compile(r"^[A-Z][\w ]*:$(?=\n+[ \t])", re.MULTILINE)
EPOCH = datetime.datetime(
    2000, 1, 1, tzinfo=datetime.UTC
)  # of every .mo: the date of a run would make each of them another
UNSTABLE = (
    b'"POT-Creation-Date',
    b'"PO-Revision-Date',
    b'"Generated-By',
    b'"Last-Translator',
    b'"Report-Msgid',
    b'"Language-Team',
)
Text = str | tuple[str, str]


@dataclass(frozen=True)
class Found:
    """A text and where it stands: a literal, or those for one and for many."""

    text: Text
    file: str
    line: int


def collected(source: Path = SOURCE) -> list[Found]:
    """All texts of the package, in the order of files and lines."""
    python = [found for path in sorted(source.rglob("*.py")) for found in _of_python(path, source)]
    rules = [found for path in sorted((source / "rules").glob("[!_]*.py")) for found in _of_rule(path, source)]
    pages = [found for path in sorted(source.rglob("*.jinja")) for found in _of_template(path, source)]
    commands = [found for path in sorted((source / "cli").glob("*.py")) for found in _of_commands(path, source)]
    return [*python, *rules, *pages, *commands]


def _of_python(path: Path, source: Path) -> Iterator[Found]:
    code = path.read_text("utf-8")
    home = path.name == "_language.py"  # where they are defined
    if not home and "_language import" not in code and f"{COUNTED}(" not in code:
        return
    tree = ast.parse(code)
    ours = {name: name for name in ONE | MANY} if home else _imported(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda c: (c.lineno, c.col_offset)):
        name = _named(call.func, ours)
        literals = [arg.value if isinstance(arg, ast.Constant) else None for arg in call.args]
        text = _text(name, literals)
        if text:
            yield Found(text, path.relative_to(source).as_posix(), call.lineno)


def _of_rule(path: Path, source: Path) -> Iterator[Found]:
    """What a rule's docstring says before its first section: what the cause means, paragraph by paragraph."""
    functions = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
    for function in (f for f in functions if f.name == path.stem):
        meaning = SECTION.split(ast.get_docstring(function) or "")[0]
        for paragraph in re.split(r"\n\s*\n|\n(?=- )", meaning.strip()):
            text = " ".join(paragraph.removeprefix("- ").split())
            if text and not text.startswith("|"):
                yield Found(text, path.relative_to(source).as_posix(), function.lineno)


def _of_commands(path: Path, source: Path) -> Iterator[Found]:
    """Help of commands and of their options and arguments."""
    tree, file = ast.parse(path.read_text("utf-8")), path.relative_to(source).as_posix()
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        if any(ast.unparse(decorator).startswith("app.") for decorator in function.decorator_list):
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(function) or ""):
                yield Found(" ".join(paragraph.split()), file, function.lineno)
    for keyword in (node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "help"):
        if isinstance(keyword.value, ast.Constant):
            yield Found(keyword.value.value, file, keyword.value.lineno)


def _imported(tree: ast.Module) -> dict[str, str]:
    """What the functions are called in this file, by the name they have there."""
    return {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unstuck.")
        for alias in node.names
        if alias.name in (ONE | MANY if node.module == "unstuck._language" else {COUNTED})
    }


def _named(function: ast.expr, ours: dict[str, str]) -> str:
    if isinstance(function, ast.Name):
        return ours.get(function.id, "")
    is_plural = isinstance(function, ast.Attribute) and function.attr == COUNTED
    return COUNTED if is_plural else ""


def _of_template(path: Path, source: Path) -> Iterator[Found]:
    tree = jinja2.Environment(extensions=["jinja2.ext.do"]).parse(path.read_text("utf-8"))
    for call in tree.find_all(nodes.Call):
        name = call.node.name if isinstance(call.node, nodes.Name) else getattr(call.node, "attr", "")
        literals = [arg.value if isinstance(arg, nodes.Const) else None for arg in call.args]
        text = _text(name, literals)
        if text:
            yield Found(text, path.relative_to(source).as_posix(), call.lineno)


def _text(function: str, literals: Sequence[object]) -> Text | None:
    """What a call says, None where it is none of ours or says no literal."""
    first, second = (*literals, None, None)[:2]
    if function in ONE and isinstance(first, str) and first:
        return first
    if function in MANY and isinstance(first, str) and isinstance(second, str):
        return first, second
    if function == COUNTED and isinstance(second, str):
        return f"{{number}} {second}", f"{{number}} {plural_of(second)}"
    return None


def template(found: list[Found]) -> Catalog:
    """The texts as a catalogue without translations."""
    catalogue = Catalog(project="unstuck", charset="utf-8")
    for one in found:
        catalogue.add(one.text, locations=[(one.file, one.line)])
    return catalogue


def read(locale: str) -> Catalog:
    """A catalogue as it is; an empty one where there is none."""
    path = po(locale)
    if not path.exists():
        return Catalog(locale, project="unstuck", charset="utf-8")
    with path.open("rb") as file:
        return read_po(file, locale)


def po(locale: str) -> Path:
    """The file a translator edits."""
    return SOURCE / "locale" / locale / "LC_MESSAGES" / "unstuck.po"


def compiled(catalogue: Catalog) -> bytes:
    """The .mo of a catalogue; the same bytes for the same translations."""
    bare = Catalog(catalogue.locale, charset="utf-8")
    for message in catalogue:
        if message.id and _translated(message):
            bare.add(message.id, message.string)
    bare.creation_date = bare.revision_date = EPOCH
    file = io.BytesIO()
    write_mo(file, bare)
    return file.getvalue()


def problems(catalogue: Catalog, found: list[Found], mo: bytes | None) -> list[str]:
    """What is wrong with a catalogue, a line each."""
    wanted = {_key(one.text): one for one in found}
    known = {_key(message.id): message for message in catalogue if message.id}
    said = [
        f"{one.file}:{one.line}: not in the catalogue: {text!r}" for text, one in wanted.items() if text not in known
    ]
    said += [f"left over: {text!r}" for text in known if text not in wanted]
    said += [f"not translated: {text!r}" for text, message in known.items() if not _translated(message)]
    said += [line for message in known.values() if _translated(message) for line in _misfits(message)]
    if mo is not None and mo != compiled(catalogue):
        said.append("unstuck.mo is not compiled from unstuck.po")
    return said


def _key(text: Any) -> str:
    """What gettext looks a text up by: that for one."""
    return text if isinstance(text, str) else text[0]


def _translated(message: Any) -> bool:
    strings = message.string if isinstance(message.string, tuple) else (message.string,)
    return all(strings) and not message.fuzzy


def _misfits(message: Any) -> Iterator[str]:
    """Where a translation's placeholders are others than those of the text."""
    originals = message.id if isinstance(message.id, tuple) else (message.id,)
    strings = message.string if isinstance(message.string, tuple) else (message.string,)
    wanted = {field for text in originals for field in placeholders(text)}
    for text in strings:
        if placeholders(text) != wanted:
            yield f"other placeholders in {text!r} than in {originals[0]!r}"


def placeholders(text: str) -> set[tuple[str, str]]:
    """Names that are filled in, each with its format."""
    return {(name, spec or "") for _, name, spec, _ in string.Formatter().parse(text) if name is not None}


def update(locale: str, found: list[Found]) -> list[str]:
    """Write a catalogue with all texts, translations kept, and its .mo; what is still to be done, a line each."""
    catalogue = read(locale)
    header = catalogue.header_comment
    catalogue.update(template(found), no_fuzzy_matching=True)
    catalogue.header_comment, catalogue.fuzzy = header, False  # dates would make every run a change
    for message in catalogue:
        message.flags.discard("python-format")  # a percent sign is one: templates are filled in by str.format
    file, path = io.BytesIO(), po(locale)
    write_po(file, catalogue, width=120, sort_by_file=True, include_lineno=False, ignore_obsolete=True)
    lines = file.getvalue().splitlines(keepends=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line for line in lines if not line.startswith(UNSTABLE)))
    path.with_suffix(".mo").write_bytes(compiled(read(locale)))
    return problems(catalogue, found, None)


def main() -> int:
    """What the module's docstring says."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--check", action="store_true", help="change nothing")
    found, said = collected(), []
    if options.parse_args().check:
        for locale in LOCALES:
            said += problems(read(locale), found, po(locale).with_suffix(".mo").read_bytes())
    else:
        for locale in LOCALES:
            said += update(locale, found)
    for line in said:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{len({one.text for one in found})} texts, {len(said)} things to do\n")
    return bool(said)


if __name__ == "__main__":
    sys.exit(main())
