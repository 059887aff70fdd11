"""The verdict as JSON, by a contract that users' scripts depend on: keys are added, never changed or taken away.

Findings are one flat list, most decisive first. A symptom stands right behind what explains it and names it by index in
`explained_by`; a root lists its symptoms' indices in `explains`. The JSON is strict: NaN and Inf become null.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unstuck._json import plain
from unstuck.report.output import write_json
from unstuck.verdict import Finding, Verdict

SCHEMA = 1
_RUN = {"steps": 0, "seconds": None, "overhead": None, "score": None, "record": None}


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain dicts and lists that strict JSON can hold.

    Args:
        verdict: The judgement over one run.

    Returns:
        The keys `schema`, `verdict`, `why_unknown`, `findings` and `run`.

    Example:
        >>> to_json(Verdict("healthy"))["findings"]
        []
    """
    return {
        "schema": SCHEMA,
        "verdict": verdict.verdict,
        "why_unknown": verdict.why_unknown,
        "findings": _findings(verdict.findings),
        "run": plain({**_RUN, **verdict.run}),
    }


def write(verdict: Verdict, path: str | Path) -> None:
    """Write the verdict as a JSON file.

    Args:
        verdict: The judgement over one run.
        path: The file; what was there is replaced.

    Raises:
        MisuseError: `path` is a folder, or in a folder that doesn't exist.
        RecordError: The system refuses to write there.
    """  # noqa: DOC502
    write_json(path, to_json(verdict))


def _findings(roots: Iterable[Finding]) -> list[dict[str, Any]]:
    flat: list[dict[str, Any]] = []

    def add(finding: Finding, root: int | None) -> int:
        index = len(flat)
        entry = _finding(finding)
        flat.append(entry)
        if root is not None:
            entry["explained_by"] = root
        if finding.explains:
            entry["explains"] = [add(symptom, index) for symptom in finding.explains]
        return index

    for finding in roots:
        add(finding, None)
    return flat


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "cause": finding.cause,
        "rule": finding.rule,
        "severity": finding.severity,
        "confidence": plain(finding.confidence),
        "layers": list(finding.layers),
        "says": finding.says,
        "evidence": [
            {"signal": e.signal, "layer": e.layer, "step": int(e.step), "value": plain(e.value)}
            for e in finding.evidence
        ],
        "treated_by": list(finding.treated_by),
    }
