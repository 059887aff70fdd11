"""What is found: causes, severities, findings, and the verdict over a run. No torch, no numpy.

`Cause` is the hub of the design: rules name one, remedies treat some. Codes are stable; users' scripts depend on them.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from unstuck._language import _, say, translated

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

CAUSES: dict[str, str] = {
    "non-finite": say("NaN or Inf appears"),
    "vanishing-gradient": say("gradients shrink along depth or time until early layers don't learn"),
    "exploding-gradient": say("gradients grow along depth or time, or spike"),
    "zero-gradient": say("the gradient is zero by construction"),
    "parameters-not-trained": say("trainable parameters are never updated"),
    "gradients-accumulate": say("zero_grad is missing or misplaced"),
    "saturated-activation": say("bounded units sit on their flat parts"),
    "dead-units": say("ReLU-like units are zero on every sample"),
    "missing-nonlinearity": say("linear layers follow each other with nothing between"),
    "bad-initialization": say("weights start too large, too small, constant or symmetric"),
    "output-loss-mismatch": say("the last activation, the loss and the task don't fit"),
    "output-range": say("targets lie where the output layer can't reach"),
    "loss-broadcast": say("prediction and target shapes broadcast against each other"),
    "loss-scale": say("a summed loss, unscaled accumulation, or a term that dwarfs the rest"),
    "degenerate-targets": say("labels are constant, scaled away, of the wrong type or out of range"),
    "learning-rate-too-high": say("steps overshoot"),
    "learning-rate-too-low": say("steps are too small"),
    "ill-conditioned": say("curvature differs so much by direction that one rate cannot serve"),
    "critical-point": say("the gradient vanishes though the loss is high"),
    "undertrained": say("it learns, but was stopped too early"),
    "batch-too-small": say("gradient noise dominates"),
    "batch-too-large": say("too few updates for the data, or a needlessly sharp minimum"),
    "over-regularized": say("dropout, weight decay or a penalty stops it fitting"),
    "unnormalized-input": say("input features are not centred or scaled"),
    "unnormalized-target": say("regression targets are of a scale the net cannot reach in time"),
    "class-imbalance": say("rare classes are ignored"),
    "unshuffled-data": say("batches are sorted by class or time"),
    "labels-unrelated": say("labels don't follow from inputs"),
    "train-test-mismatch": say("evaluation data are processed or distributed differently"),
    "overfitting": say("training improves, evaluation worsens"),
    "too-little-capacity": say("it cannot fit the training data and nothing else explains it"),
    "mode-mismatch": say("evaluated in train mode, or trained in eval mode"),
    "sharp-minimum": say("the minimum found is sharp"),
    "short-memory": say("the gradient reaches back fewer steps than the task needs"),
    "growing-graph": say("hidden state is carried without detaching"),
}


@dataclass(frozen=True)
class Evidence:
    """One number a finding rests on: `signal` of `layer` at `step` was `value`."""

    signal: str
    layer: str
    step: int
    value: float


@dataclass(frozen=True)
class Finding:
    """One diagnosed cause, with where it sits, how it is known, and what it explains.

    Attributes:
        cause: A code of `CAUSES`.
        rule: Name of the rule that found it.
        severity: `error` (training can't work), `warning` (works worse than it should), `note` (worth knowing).
        confidence: Probability that the cause is right, from 0 to 1.
        layers: Names of the layers it sits in, in forward order; empty when it is the whole program's.
        says: One plain sentence with the number in it.
        evidence: The numbers it rests on.
        treated_by: Names of the remedies that fit, most apt first.
        explains: Findings that are symptoms of this one; shown under it, not beside it.
    """

    cause: str
    rule: str
    severity: Severity
    confidence: float
    says: str
    layers: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    treated_by: tuple[str, ...] = ()
    explains: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        assert self.cause in CAUSES, f"unknown cause {self.cause!r}"


@dataclass(frozen=True)
class Verdict:
    """The judgement over one run: `healthy`, `sick`, or `unknown` with the reason, and the findings behind it."""

    verdict: Literal["healthy", "sick", "unknown"]
    findings: tuple[Finding, ...] = ()
    why_unknown: str | None = None
    run: dict[str, Any] = field(default_factory=dict)

    @property
    def loud(self) -> tuple[Finding, ...]:
        """The findings that are more than a note."""
        return tuple(f for f in self.findings if f.severity != "note")

    def reaches(self, severity: Severity) -> bool:
        """Whether any finding, or a symptom under it, is at least this severe."""
        limit = SEVERITIES.index(severity)
        return any(SEVERITIES.index(f.severity) <= limit for f in flatten(self.findings))

    def _repr_html_(self) -> str:
        """The findings as a list, for a notebook's cell; what was watched shows them with its charts."""
        rows = (
            f"<li><code>{f.cause}</code> ({_(f.severity)}, {f.confidence:.2f}): {html.escape(translated(f.says))}</li>"
            for f in flatten(self.findings)
        )
        why = f": {html.escape(translated(self.why_unknown))}" if self.why_unknown else ""
        return f"<div><b>{_(self.verdict).upper()}</b>{why}<ul>{''.join(rows)}</ul></div>"


def flatten(findings: Iterable[Finding]) -> list[Finding]:
    """Findings with their symptoms right behind them, depth first."""
    flat: list[Finding] = []
    for finding in findings:
        flat.append(finding)
        flat.extend(flatten(finding.explains))
    return flat


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Findings, most severe first and most confident first among equals."""
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), -f.confidence))
