"""What came of a visit: what was tried, and what is prescribed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

from unstuck._json import plain
from unstuck._language import Said, joined, say, stored
from unstuck.source import Edit
from unstuck.trials.estimate import Effect
from unstuck.trials.job import Outcome
from unstuck.verdict import Verdict


@dataclass(frozen=True)
class Dose:
    """A remedy with its settings."""

    remedy: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.remedy, json.dumps(self.settings, sort_keys=True)))

    def __str__(self) -> str:
        told = ", ".join(f"{k.replace('_', ' ')} {_short(v)}" for k, v in self.settings.items())
        return f"{self.remedy} ({told})" if told else self.remedy


Treatment = tuple[Dose, ...]


def words(treatment: Treatment) -> str:
    """A treatment in a line."""
    return " + ".join(str(dose) for dose in treatment)


@dataclass(frozen=True)
class Trial:
    """A treatment that was tried.

    Attributes:
        treatment: The doses.
        values: Scores, one of each run.
        gain: Over what it was tried on top of, as a share of the way from chance to perfect.
        seconds: Wall time.
        kept: It was the best so far.
        why_not: Why it could not be tried, or how it failed.
    """

    treatment: Treatment
    values: tuple[float, ...] = ()
    gain: float = math.nan
    seconds: float = 0.0
    kept: bool = False
    why_not: str = ""


@dataclass(frozen=True)
class Prescription:
    """What is measured to help.

    Attributes:
        treatment: The doses, in the order in which they are given.
        effect: On the score, or on the share of the way from chance to perfect, from fresh seeds; above zero where it is better, also
            of scores of which less is better.
        effect_of: Which of the two.
        score: Name of the score.
        without, treated: Scores of the fresh seeds.
        findings_after: Causes that are still found.
        edits: What changes in the script.
        digests: Of the files they are of.
        texts: The changed files, by path.
        diff: What changes, as a unified diff.
        training: The treated training, where it is no script.
        gain: The effect as a share of the way from chance to perfect, or of the loss where chance is not known, as that of a trial.
        records: Records of the runs with fresh seeds, without and with it; "" where there is none.
    """

    treatment: Treatment
    effect: Effect
    effect_of: str
    score: str
    without: tuple[float, ...]
    treated: tuple[float, ...]
    findings_after: tuple[str, ...]
    edits: tuple[Edit, ...]
    digests: dict[str, str]
    texts: dict[str, str]
    diff: str
    training: Any = None
    gain: Effect | None = None
    records: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> Said:
        """In a sentence."""
        effect = self.effect
        of = "" if self.effect_of == self.score else say(" of the {what}", what=stored(self.effect_of))
        told = say(
            "{treatment}: {score} {without} becomes {treated} over {pairs} fresh seeds ({mean:+.3g}{of}, 95% interval {low:+.3g} to "
            "{high:+.3g})",
            treatment=words(self.treatment),
            score=stored(self.score),
            without=_mean(self.without),
            treated=_mean(self.treated),
            pairs=effect.pairs,
            mean=effect.mean,
            of=of,
            low=effect.low,
            high=effect.high,
        )
        if self.training is None:
            return told
        return joined((told, say("; prescription.training has it, and is not trained yet")))


@dataclass(frozen=True)
class Cure:
    """What came of a visit.

    Attributes:
        verdict: Over the script as it stands.
        baseline: Its outcome.
        trials: All that was tried.
        prescription: What helps, None when nothing does beyond noise, or nothing is wrong.
        why: Why there is none.
        seconds: Wall time.
    """

    verdict: Verdict
    baseline: Outcome
    trials: tuple[Trial, ...] = ()
    prescription: Prescription | None = None
    why: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As the command writes it; numbers that aren't finite are None."""
        found = self.prescription
        return plain({
            "schema": 1, "seconds": round(self.seconds, 2), "why": self.why or None,
            "baseline": {
                "score": self.baseline.score, "values": [self.baseline.value], "status": self.baseline.status,
                "seconds": self.baseline.seconds, "verdict": self.verdict.verdict,
                "findings": [f.cause for f in self.verdict.loud],
            },
            "trials": [
                {
                    "treatment": [asdict(d) for d in t.treatment], "values": list(t.values), "effect": t.gain, "low": None, "high": None,
                    "seconds": t.seconds, "kept": t.kept, "why_not": t.why_not or None,
                }
                for t in self.trials
            ],
            "prescription": None if found is None else {
                "treatment": [asdict(d) for d in found.treatment], "effect": found.effect.mean, "low": found.effect.low,
                "high": found.effect.high, "effect_of": found.effect_of, "score": list(found.treated), "without": list(found.without),
                "findings_after": list(found.findings_after), "text": found.text, "diff": found.diff,
                "edits": [astuple(e) for e in found.edits], "digests": found.digests,
            },
        })  # fmt: skip


def _mean(values: tuple[float, ...]) -> str:
    known = [v for v in values if math.isfinite(v)]
    return f"{sum(known) / len(known):.3g}" if len(known) == len(values) and known else say("diverged")


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_short(v) for v in value[:3])}{', ...' if len(value) > 3 else ''}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
