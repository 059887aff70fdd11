"""The visit, read from top to bottom: ask every rule, put symptoms under their cause, rank, and judge.

A rule knows nothing of the others, so several speak of one illness: a rate too high kills ReLU units, dead
units let gradients vanish. `EXPLAINS` says which cause brings about which. A finding that another one explains
stands under it, as a note, since it goes when its cause goes; the cause takes over its severity. What remains
is ranked by severity, then by how decisive the kind of cause is (a fault in the construction can't be argued
away, a slow curve can), weighed by its confidence.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from unstuck._discover import find, get
from unstuck._language import say, say_many, stored
from unstuck.errors import MisuseError, NotFoundError
from unstuck.evidence import Record
from unstuck.rules._learning import FEW, Learning, progress
from unstuck.rules._probes import reachable, shortfall
from unstuck.rules._words import number
from unstuck.verdict import CAUSES, SEVERITIES, Finding, Verdict

CONSTRUCTION = frozenset({
    "loss-broadcast", "degenerate-targets", "zero-gradient", "gradients-accumulate", "output-loss-mismatch",
    "parameters-not-trained", "output-range",
})  # fmt: skip
"""Faults in how the program is built: where one is certain, nothing can be said of how it trains."""

_FLOW = frozenset({"vanishing-gradient", "exploding-gradient", "dead-units", "saturated-activation", "non-finite"})
_SLOW = frozenset({
    "undertrained", "learning-rate-too-low", "too-little-capacity", "critical-point", "ill-conditioned", "batch-too-small",
    "batch-too-large", "class-imbalance", "short-memory",
})  # fmt: skip

EXPLAINS: dict[str, frozenset[str]] = {
    **{cause: frozenset(CAUSES) - CONSTRUCTION for cause in CONSTRUCTION},
    "zero-gradient": frozenset(CAUSES) - CONSTRUCTION | {"parameters-not-trained", "output-loss-mismatch"},
    "gradients-accumulate": frozenset(CAUSES) - CONSTRUCTION | {"parameters-not-trained", "zero-gradient"},
    "output-loss-mismatch": frozenset(CAUSES) - CONSTRUCTION | {"zero-gradient", "output-range"},
    "output-range": frozenset(CAUSES) - CONSTRUCTION | {"zero-gradient", "output-loss-mismatch"},
    "degenerate-targets": frozenset(CAUSES) - CONSTRUCTION | {"zero-gradient"},
    "unnormalized-input": _FLOW
    | _SLOW
    | {"learning-rate-too-high", "bad-initialization", "unnormalized-target", "ill-conditioned", "zero-gradient"},
    "unnormalized-target": _FLOW | _SLOW | {"learning-rate-too-high", "zero-gradient", "unnormalized-input"},
    "bad-initialization": _FLOW | _SLOW | {"learning-rate-too-high", "zero-gradient", "loss-scale"},
    "loss-scale": _FLOW | _SLOW | {"learning-rate-too-high"},
    "learning-rate-too-high": _FLOW | (_SLOW - {"learning-rate-too-low"}) | {"zero-gradient", "unnormalized-target"},
    "over-regularized": _SLOW | {"vanishing-gradient", "dead-units", "learning-rate-too-high"},
    "exploding-gradient": (_FLOW | {"learning-rate-too-high", "undertrained"}) - {"exploding-gradient"},
    "vanishing-gradient": _SLOW | {"zero-gradient"},
    "saturated-activation": _SLOW | {"vanishing-gradient", "zero-gradient"},
    "dead-units": _SLOW | {"vanishing-gradient", "zero-gradient"},
    "missing-nonlinearity": _SLOW,
    "learning-rate-too-low": frozenset({"undertrained", "ill-conditioned", "vanishing-gradient", "short-memory"}),
    "ill-conditioned": frozenset({"undertrained", "critical-point", "learning-rate-too-low"}),
    "labels-unrelated": (_SLOW | {"overfitting"}) - {"class-imbalance"},
    "too-little-capacity": frozenset({"undertrained", "critical-point"}),
    "short-memory": frozenset({"undertrained", "critical-point", "too-little-capacity", "vanishing-gradient"}),
    "class-imbalance": frozenset({"labels-unrelated", "undertrained", "critical-point", "too-little-capacity"}),
    "train-test-mismatch": frozenset({"overfitting"}),
    "mode-mismatch": _SLOW | {"overfitting", "vanishing-gradient"},
    "growing-graph": _SLOW | {"learning-rate-too-high"},
    "batch-too-large": frozenset({"undertrained"}),
    "batch-too-small": frozenset({"undertrained"}),
    "unshuffled-data": frozenset(
        {
            "overfitting",
            "learning-rate-too-high",
            "undertrained",
            "train-test-mismatch",
            "class-imbalance",
        }
    ),
}
"""Which causes bring about which others. Where two explain each other, the more decisive one is the cause."""

_DECISIVE: dict[str, float] = {
    **dict.fromkeys(CONSTRUCTION, 1.0), "output-loss-mismatch": 0.98, "parameters-not-trained": 0.95,
    "unshuffled-data": 0.9, "unnormalized-input": 0.85, "loss-scale": 0.85,
    "bad-initialization": 0.8, "learning-rate-too-high": 0.8, "over-regularized": 0.8, "exploding-gradient": 0.8,
    "unnormalized-target": 0.78, "learning-rate-too-low": 0.75, "vanishing-gradient": 0.75,
    "saturated-activation": 0.65, "dead-units": 0.65, "non-finite": 0.6, "missing-nonlinearity": 0.6,
    "undertrained": 0.6, "labels-unrelated": 0.75, "mode-mismatch": 0.75, "train-test-mismatch": 0.75, "growing-graph": 0.75,
    "short-memory": 0.65, "class-imbalance": 0.6, "ill-conditioned": 0.55, "batch-too-large": 0.7, "batch-too-small": 0.55,
    "too-little-capacity": 0.55, "overfitting": 0.5, "critical-point": 0.5,
}  # fmt: skip
_OTHERWISE = 0.5  # of causes that only rules of other packages name
BRIEF = 20  # steps below which what isn't good yet has had no chance to be
FAR = 0.3  # of the way from chance to perfect, behind a small reference network: not healthy, whatever the rules say
_SURE = 0.8  # confidence from which on a fault of construction explains all that is not one


def diagnose(record: Record, *, settings: Mapping[str, Mapping[str, Any]] | None = None) -> Verdict:
    """Judge a run by every rule there is.

    Args:
        record: The run, finished or not.
        settings: Thresholds by rule and name, `{"dead-units": {"fraction": 0.8}}`; `parse_settings` makes them
            of words.

    Returns:
        The verdict, its most decisive finding first. A rule that fails is noted in `run["rule_errors"]` and
        otherwise left out.
    """
    with (
        np.errstate(all="ignore"),
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),
    ):  # records hold NaN
        found, errors = ask(record, find("rules"), settings or {})
        learning = progress(record)
    sick = Verdict("sick", tuple(arrange(found)), run=_facts(record, learning, errors))
    if sick.loud:
        return sick
    why = _why_unknown(record, learning)
    return dataclasses.replace(sick, verdict="unknown" if why else "healthy", why_unknown=why)


# ---------------------------------------------------------------------- ask


def ask(
    record: Record, rules: Mapping[str, Callable[..., Sequence[Finding]]], settings: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Finding], dict[str, str]]:
    """What all rules find, and the errors of those that failed.

    Args:
        record: The run.
        rules: Rules by name.
        settings: Thresholds by rule and name.

    Returns:
        All findings, in no order, and by rule what it failed with.
    """
    found: list[Finding] = []
    errors: dict[str, str] = {}
    for name, rule in rules.items():
        try:
            found.extend(rule(record, **settings.get(name, {})))
        except Exception as error:  # noqa: BLE001 - one rule, maybe of another package, must not cost the verdict
            errors[name] = f"{type(error).__name__}: {error}"
    return found, errors


# ---------------------------------------------------------------------- arrange


def arrange(found: Iterable[Finding]) -> list[Finding]:
    """Findings with their symptoms under them, the most decisive first.

    Args:
        found: What the rules found.

    Returns:
        The causes. What one explains is among its `explains`, as a note; the cause is as severe as the worst it
        explains.
    """
    left = sorted(found, key=_rank)
    roots = []
    while left:
        root = next((f for f in left if not any(_is_cause(other, f) for other in left)), left[0])
        family = _explained(root, left)
        left = [f for f in left if f is not root and not any(f is member for member in family)]
        roots.append(_with(root, family))
    return sorted(roots, key=_rank)


def _rank(finding: Finding) -> tuple[int, float]:
    return SEVERITIES.index(finding.severity), -_weight(finding)


def _weight(finding: Finding) -> float:
    return finding.confidence * _DECISIVE.get(finding.cause, _OTHERWISE)


def _is_cause(one: Finding, other: Finding) -> bool:
    """Whether the first finding explains the second; where each could, the weightier one does."""
    if one is other or one.severity == "note" or not _brings_about(one, other):
        return False
    mutual = other.severity != "note" and _brings_about(other, one)
    return not mutual or (_weight(one), one.rule) > (_weight(other), other.rule)


def _brings_about(one: Finding, other: Finding) -> bool:
    if one.cause == other.cause or other.cause not in EXPLAINS.get(one.cause, ()):
        return False
    if one.cause not in CONSTRUCTION or one.confidence >= _SURE:
        return True
    return other.cause in _SLOW and one.severity == "error"


def _explained(root: Finding, findings: list[Finding]) -> list[Finding]:
    """What a finding explains, directly or through what it explains, in rank order."""
    family = [root]
    for member in family:
        family.extend(f for f in findings if _is_cause(member, f) and not any(f is known for known in family))
    return [f for f in findings if f is not root and any(f is member for member in family)]


def _with(root: Finding, symptoms: list[Finding]) -> Finding:
    if not symptoms:
        return root
    worst = min((root, *symptoms), key=lambda f: SEVERITIES.index(f.severity)).severity
    notes = tuple(dataclasses.replace(s, severity="note") for s in symptoms)
    return dataclasses.replace(root, severity=worst, explains=(*root.explains, *notes))


# ---------------------------------------------------------------------- judge


def _why_unknown(record: Record, learning: Learning) -> str | None:
    """Why nothing can be said though nothing was found; None when it can."""
    reasons = [stored(reason) for reason in record.program.not_found]
    if record.steps == 0:
        if reasons:
            return reasons[0]
        if record.meta.get("status") == "killed":
            return say("it was killed before any step was written down, which takes half a second from the first on")
        return say("no training was seen: no step was taken")
    inside = max((o.backwards_per_step for o in record.program.optimizers if o.closure), default=0.0)
    if record.steps < FEW:
        return _too_few(record.steps, inside)
    if not len(record.series("loss").finite) and not record.places("back_rms") and not record.places("grad_rms"):
        return (
            say("nothing could be measured: {reason}", reason=reasons[0])
            if reasons
            else say("nothing could be measured")
        )
    behind = not learning.well and shortfall(record) > FAR
    if (learning.stuck or behind) and record.steps < BRIEF and inside <= FEW:
        return _too_few(record.steps, inside)
    if learning.stuck:
        return say("it does not learn ({words}), but no rule knows why", words=learning.words())
    if behind:
        return say(
            "it learns ({words}), but a small network with standardised inputs reaches {reference} on samples that it "
            "never saw, and no rule knows why",
            words=learning.words(),
            reference=number(reachable(record)),
        )
    return None


def _too_few(steps: int, inside: float) -> str:
    if inside > FEW:
        return say_many(
            "only {number} step was taken, of {inside} evaluations of the loss, which is too few to judge: call step() more "
            "often, with a smaller max_iter",
            "only {number} steps were taken, of {inside} evaluations of the loss each, which is too few to judge: call step() "
            "more often, with a smaller max_iter",
            steps,
            inside=round(inside),
        )
    return say_many(
        "only {number} step was taken, which is too few to judge",
        "only {number} steps were taken, which is too few to judge",
        steps,
    )


def _facts(record: Record, learning: Learning, errors: dict[str, str]) -> dict[str, Any]:
    score = record.series("score").finite
    facts: dict[str, Any] = {
        "steps": record.steps,
        "seconds": record.meta.get("seconds"),
        "overhead": record.meta.get("overhead"),
        "score": {"name": learning.score, "first": score.first, "last": learning.score_last}
        if learning.score and len(score)
        else None,
        "record": str(record.path) if record.path else None,
        "status": record.meta.get("status"),
        "learning": learning.status,
        "chance": None if math.isnan(learning.score_chance) else learning.score_chance,
    }
    made = record.happened("probe")
    if made:
        experiments = {"seconds": record.meta.get("probe_seconds"), "made": [e.data.get("name") for e in made]}
        best = reachable(record)
        facts["experiments"] = {**experiments, "reference": None if math.isnan(best) else best}
    if errors:
        facts["rule_errors"] = errors
    return facts


# ---------------------------------------------------------------------- thresholds


def parse_settings(given: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Thresholds of rules from words such as `dead-units.fraction=0.8`.

    Args:
        given: One setting each: rule, dot, threshold, equals sign, value.

    Returns:
        Values by rule and threshold, as `diagnose` takes them.

    Raises:
        MisuseError: A setting is not of this form, or its value is not of the threshold's kind.
        NotFoundError: There is no such rule, or it has no such threshold.

    Example:
        >>> parse_settings(["dead-units.fraction=0.8"])
        {'dead-units': {'fraction': 0.8}}
    """  # noqa: DOC502
    settings: dict[str, dict[str, Any]] = {}
    for text in given:
        left, equals, value = text.partition("=")
        rule, dot, name = left.strip().rpartition(".")
        if not (equals and dot and rule and name):
            raise MisuseError(
                say("{text!r} is no setting: write RULE.THRESHOLD=VALUE, such as dead-units.fraction=0.8", text=text)
            )
        default = _default(rule, name.replace("-", "_"))
        settings.setdefault(rule, {})[name.replace("-", "_")] = _value(text, value.strip(), default)
    return settings


def thresholds(rule: Callable[..., Any]) -> dict[str, Any]:
    """The thresholds of a rule and their defaults, from its signature."""
    parameters = inspect.signature(rule).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _default(rule: str, name: str) -> Any:
    """The default of a threshold.

    Raises:
        NotFoundError: There is no such rule, or it has no such threshold.
    """
    known = thresholds(get("rules", rule))
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        there_are = say("it has {names}", names=", ".join(known)) if known else say("it has none")
        hint = say("did you mean {name!r}?", name=close[0]) if close else there_are
        raise NotFoundError(say("no threshold {name!r} in {rule!r}; {hint}", name=name, rule=rule, hint=hint))
    return known[name]


def _value(text: str, value: str, default: Any) -> Any:
    """The value as the threshold's kind.

    Raises:
        MisuseError: It is none.
    """
    if isinstance(default, str):
        return value
    try:
        number = float(value)
    except ValueError:
        raise MisuseError(say("{text!r}: {value!r} is no number", text=text, value=value)) from None
    if not math.isfinite(number):
        raise MisuseError(say("{text!r}: {value!r} is no threshold: give a finite number", text=text, value=value))
    if isinstance(default, int) and number != int(number):
        raise MisuseError(
            say("{text!r}: {value!r} must be a whole number, as {default} is", text=text, value=value, default=default)
        )
    return int(number) if isinstance(default, int) else number
