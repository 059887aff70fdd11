"""The verdict as SARIF 2.1.0, the format in which code scanners, editors and GitHub exchange what they find. In English.

One run: its rules are the causes, its results the findings, each at the lines of the script where its layers are called. A finding
of the whole program stands where the loss is computed, or at the script's first line. What a cause means comes from the docstring
of the rule that finds it, as `unstuck explain` has it.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0, errata 01.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from unstuck import __version__
from unstuck._json import plain
from unstuck._language import speaking
from unstuck.evidence import Layer, Record
from unstuck.report import _words as words
from unstuck.report._page import Page, pages
from unstuck.report._remedies import REMEDIES
from unstuck.report.json import to_json
from unstuck.report.output import strict_json
from unstuck.source import own_files
from unstuck.verdict import CAUSES, Verdict

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_ROOT = "%SRCROOT%"
_MOST_LOCATIONS = 20
_LONGEST = 1000  # characters of a description that GitHub shows


def render(verdict: Verdict, record: Record) -> str:
    """The whole log, as text.

    Args:
        verdict: The judgement over one run.
        record: The record it was made of.

    Returns:
        Strict JSON.
    """
    return strict_json(to_sarif(verdict, record))


def to_sarif(verdict: Verdict, record: Record) -> dict[str, Any]:
    """The whole log, as plain dicts and lists.

    Args:
        verdict: The judgement over one run.
        record: The record it was made of; the script's files are looked for where it ran.

    Returns:
        A SARIF log with one run.
    """
    with speaking("en"):
        return {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(verdict, record)]}


def _run(verdict: Verdict, record: Record) -> dict[str, Any]:
    told, files = to_json(verdict), _Files(record)
    driver = {"name": "unstuck", "version": __version__, "rules": _rules()}
    ids = [rule["id"] for rule in driver["rules"]]
    return {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(told, record, files)],
        "originalUriBaseIds": {_ROOT: {"uri": f"{files.root.as_uri()}/"}},
        "results": [_result(finding, ids.index(finding["cause"]), record, files) for finding in told["findings"]],
        "properties": {name: told[name] for name in ("verdict", "why_unknown", "run")},
    }


# ---------------------------------------------------------------------- rules


def _rules() -> list[dict[str, Any]]:
    known = pages()
    return [_rule(cause, means, _page(cause, known)) for cause, means in CAUSES.items()]


def _page(cause: str, known: Mapping[str, Page]) -> Page | None:
    return known.get(cause) or next((page for page in known.values() if cause in page.causes), None)


def _rule(cause: str, means: str, page: Page | None) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": cause,
        "name": "".join(part.capitalize() for part in cause.split("-")),
        "shortDescription": {"text": words.sentence(means)},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["training"]},
    }
    if page is not None and page.summary:
        told = "\n\n".join(" ".join(part.split()) for part in (page.summary, *page.text.split("\n\n")) if part)
        rule["fullDescription"] = {"text": told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"}
        rule["help"] = {"text": told, "markdown": _help(page)}
    return rule


def _help(page: Page) -> str:
    told = "\n\n".join(filter(None, (page.summary, page.text)))
    sections = [f"**{title}**\n\n{text}" for title, text in page.sections.items()]
    treated = [f"- `{name}`: {REMEDIES[name]}" for name in page.treated_by if name in REMEDIES]
    return "\n\n".join([told, *sections, *(["**What treats it**\n\n" + "\n".join(treated)] if treated else [])])


# ---------------------------------------------------------------------- results


def _result(finding: Mapping[str, Any], rule: int, record: Record, files: _Files) -> dict[str, Any]:
    """A finding, as `to_json` tells it."""
    identity = "\0".join([finding["cause"], *finding["layers"]])
    result: dict[str, Any] = {
        "ruleId": finding["cause"],
        "ruleIndex": rule,
        "level": finding["severity"],  # they have the same names
        "kind": "fail",
        "message": {"text": _message(finding["says"])},
        "locations": list(_locations(finding["layers"], record, files)),
        "partialFingerprints": {
            "causeAndLayers/v1": hashlib.sha256(identity.encode(errors="replace")).hexdigest()[:32]
        },
        "properties": {name: value for name, value in finding.items() if name not in ("cause", "severity", "says")},
    }
    if finding["confidence"] is not None:
        result["rank"] = round(100 * min(1.0, max(0.0, finding["confidence"])), 1)
    return result


def _message(says: str) -> str:
    """A sentence in which nothing from the user's program becomes a link."""
    text = words.sentence(says)
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]") if "](" in text else text


def _locations(names: list[str], record: Record, files: _Files) -> Iterator[dict[str, Any]]:
    """One location for each line, with the layers that are called there."""
    layers = [layer for name in names for layer in _layers(name, record)]
    main = record.program.main_loss
    sites = {layer.site: None for layer in layers} or {main.site if main else "": None}
    for site in list(sites)[:_MOST_LOCATIONS]:
        uri, line = files.place(site)
        location: dict[str, Any] = {
            "physicalLocation": {
                "artifactLocation": {"uri": uri, **({} if ":" in uri else {"uriBaseId": _ROOT})},
                "region": {"startLine": line},
            }
        }
        here = [layer for layer in layers if layer.site == site]
        if here:
            location["logicalLocations"] = [_logical(layer) for layer in here]
        yield location


def _layers(name: str, record: Record) -> list[Layer]:
    """The layer of this name, or those that use the parameter of this name."""
    found = [name] if name in record.layers else record.parameters[name].layers if name in record.parameters else []
    return [record.layers[layer] for layer in found if layer in record.layers]


def _logical(layer: Layer) -> dict[str, Any]:
    return {"name": words.clean(layer.name), "fullyQualifiedName": words.clean(layer.name), "kind": "member"}


class _Files:
    """Where the files of a script are, by their names: a record knows the names alone.

    Attributes:
        cwd: The folder that the script ran in.
        root: The repository that this lies in; itself where it lies in none.
    """

    def __init__(self, record: Record) -> None:
        self.cwd = Path(str(record.meta.get("cwd") or Path.cwd())).absolute()
        self.root = next((p for p in (self.cwd, *self.cwd.parents) if (p / ".git").exists()), self.cwd)
        self.script = self._script(record.meta)
        self.known = {path.name: path for path in reversed(own_files(self.script))}

    def _script(self, meta: Mapping[str, Any]) -> Path:
        command = [*map(str, meta.get("argv") or ())]
        if command[:1] == ["-m"] and len(command) > 1:
            stem = self.cwd.joinpath(*command[1].split("."))
            return stem / "__main__.py" if stem.is_dir() else stem.with_name(f"{stem.name}.py")
        name = str(meta.get("script") or "").replace("\0", "")
        return self.cwd / (name or "script.py")

    def place(self, site: str) -> tuple[str, int]:
        """Address and line of a site, "model.py:31"; relative to the root where it lies in it. Without a site the script's first line."""
        name, _, line = site.rpartition(":")
        path = self.known.get(name, self.script if name in ("", self.script.name) else self.cwd / PurePath(name).name)
        where = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        uri = where.as_uri() if where.is_absolute() else _relative(where)
        return uri, max(1, int(line)) if line.isascii() and line.isdigit() else 1


def _relative(path: Path) -> str:
    return Path("/", path).as_uri().removeprefix("file:///")


# ---------------------------------------------------------------------- the run


def _invocation(told: Mapping[str, Any], record: Record, files: _Files) -> dict[str, Any]:
    """How the script ended; what kept the verdict from being made, or rules from being asked, as notifications."""
    status, code = str(record.meta.get("status") or ""), record.meta.get("exit_code")
    notes = [("warning", f"the rule {rule} failed: {error}") for rule, error in _errors(told["run"])]
    if told["verdict"] == "unknown":
        notes.append(("note", told["why_unknown"] or "too little was seen to judge"))
    invocation: dict[str, Any] = {
        "executionSuccessful": status == "finished" and not code,
        "workingDirectory": {"uri": f"{files.cwd.as_uri()}/"},
        "arguments": [words.clean(part) for part in record.meta.get("argv") or ()],
    }
    if isinstance(code, int):
        invocation["exitCode"] = code
    if started := _utc(record.meta.get("started")):
        invocation["startTimeUtc"] = started
    if notes:
        said = [{"level": level, "message": {"text": _message(text)}} for level, text in notes]
        invocation["toolExecutionNotifications"] = said
    return invocation


def _errors(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    errors = plain(run.get("rule_errors"))
    return [(rule, str(error)) for rule, error in errors.items()] if isinstance(errors, Mapping) else []


def _utc(started: object) -> str:
    """An ISO time with a zone as SARIF wants it; "" for any other."""
    try:
        when = datetime.fromisoformat(str(started))
    except ValueError:
        return ""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if when.tzinfo else ""
