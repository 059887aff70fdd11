"""A finding of a rule that is named like its cause."""

from __future__ import annotations

from collections.abc import Iterable

from unstuck.verdict import Evidence, Finding, Severity


def finding(
    cause: str,
    severity: Severity,
    confidence: float,
    says: str,
    *,
    layers: Iterable[str] = (),
    evidence: Iterable[Evidence] = (),
    treated_by: Iterable[str] = (),
) -> list[Finding]:
    """The one finding of a rule, as the list it returns.

    Args:
        cause: Code of the cause, and name of the rule.
        severity: How severe it is in this run.
        confidence: Probability that the cause is right, from 0 to 1.
        says: The sentence.
        layers: Where it sits.
        evidence: The numbers it rests on.
        treated_by: Remedies, most apt first.

    Returns:
        A list of one.
    """
    where = tuple(name for name in layers if name)
    return [Finding(cause, cause, severity, confidence, says, where, tuple(evidence), tuple(treated_by))]
