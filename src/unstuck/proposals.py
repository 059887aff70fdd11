"""What may help a program, in the order in which it is worth a run: what its findings call for, alone, by twos, with rates around."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unstuck._discover import find
from unstuck.doctor import diagnose
from unstuck.evidence import Record
from unstuck.patients import Patient
from unstuck.rules._learning import progress
from unstuck.source import EditError
from unstuck.trials.job import Outcome
from unstuck.trials.visit import Dose, Treatment, Trial
from unstuck.verdict import Finding, Verdict

MOST = 6  # treatments of a kind
MORE = 3  # times as many steps
BRIEF = 500  # updates: so few that more of them may be all it lacks
FALLBACK = ("gating", "optimizer", "learning-rate", "initialization", "train-longer", "standardize-input")
PAIRED = (
    "standardize-input",
    "standardize-target",
    "output-loss",
    "initialization",
    "activation",
    "zero-grad",
    "shape",
)
PARTNERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("initialization", {"scheme": "default"}), ("optimizer", {"to": "Adam", "rate": 0.01}), ("train-longer", {"times": 10}),
)  # fmt: skip
BRINGS = {"optimizer": ("learning-rate", "momentum")}  # what a remedy sets as well, and takes the place of


class Proposals:
    """Treatments that haven't been tried and can be given.

    Args:
        patient: The program.

    Attributes:
        tried: What is not proposed again, in whatever order it is given.
        refused: What can't be given, with the reason.
    """

    def __init__(self, patient: Patient) -> None:
        self.patient = patient
        self.tried: set[frozenset[Dose]] = set()
        self.refused: list[Trial] = []

    def open(self, treatment: Treatment) -> bool:
        """Whether a treatment hasn't been tried and can be given; why not is noted."""
        if frozenset(treatment) in self.tried:
            return False
        try:
            self.patient.check(treatment)
        except EditError as error:
            self.tried.add(frozenset(treatment))
            self.refused.append(Trial(treatment, why_not=str(error)))
            return False
        return True

    def alone(
        self, verdict: Verdict, record: Record, base: Treatment, names: Sequence[str] = (), *, most: int = MOST
    ) -> list[Treatment]:
        """Treatments of one dose more than there is, the most promising first.

        Args:
            verdict: What is wrong.
            record: With what.
            base: What there is.
            names: Remedies; by default those that the findings call for.
            most: Treatments.
        """
        ranked: dict[Treatment, float] = {}
        wanted = dict([(n, float(i)) for i, n in enumerate(names)] if names else _wanted(verdict.findings))
        broke = progress(record).broke_at is not None
        if broke and "learning-rate" in wanted:  # whatever else it lacks, it must come to its end
            wanted["learning-rate"] = min(1.0, wanted["learning-rate"])
        for name, rank in wanted.items():
            apart = 0.5 if broke and name == "learning-rate" else 1.5
            kept = tuple(d for d in base if d.remedy != name and d.remedy not in BRINGS.get(name, ()))
            for i, settings in enumerate(self._proposed(name, verdict, record)):
                treatment = (*kept, Dose(name, settings))
                if self.open(treatment):
                    ranked.setdefault(treatment, rank + apart * i)
        return sorted(ranked, key=lambda t: ranked[t])[:most]

    def by_twos(
        self, verdict: Verdict, record: Record, base: Treatment, outcomes: Mapping[Treatment, Outcome]
    ) -> list[Treatment]:
        """Two doses at once, where none alone helps, as faults may hide each other.

        The first is what the findings call for; the second what is found in the run that had the first, else what lets many learn.
        """
        firsts: dict[Dose, None] = {}
        for name, _ in _wanted(verdict.findings):
            if name in PAIRED:
                firsts.update(
                    dict.fromkeys(Dose(name, settings) for settings in self._proposed(name, verdict, record)[:1])
                )
        usual = [Dose(name, settings) for name, settings in PARTNERS]
        more = self._proposed("train-longer", verdict, record)[-1:]
        faster = [(usual[1], Dose("train-longer", settings)) for settings in more]
        pairs = faster if record.steps < BRIEF else []
        pairs += [(a, b) for a in list(firsts)[:2] for b in self._beside(outcomes.get((*base, a)))]
        pairs += [(a, b) for a in list(firsts)[:2] for b in [*list(firsts)[1:3], *usual]] + faster
        given = {d.remedy for d in base}
        fitting = [(*base, a, b) for a, b in pairs if a.remedy != b.remedy and not {a.remedy, b.remedy} & given]
        return [t for t in dict.fromkeys(fitting) if self.open(t)][:MOST]

    def _beside(self, outcome: Outcome | None, *, most: int = 2) -> list[Dose]:
        """What the run that had a treatment calls for beside it."""
        if outcome is None or not outcome.record:
            return []
        record = Record.read(outcome.record)
        verdict = diagnose(record)
        doses = [
            Dose(name, settings)
            for name, _ in _wanted(verdict.loud)[:most]
            for settings in self._proposed(name, verdict, record)[:most]
        ]
        return doses[:most]

    def _proposed(self, name: str, verdict: Verdict, record: Record) -> list[dict[str, Any]]:
        """Settings that a remedy proposes; none where there is no such remedy."""
        remedy = find("remedies").get(name)
        propose = getattr(sys.modules[remedy.__module__], "propose", None) if remedy is not None else None
        try:
            return list(propose(self.patient.proposing(record), verdict)) if propose is not None else []
        except EditError:
            return []

    def around(self, base: Treatment, record: Record) -> list[Treatment]:
        """Rates around the one that helped, or around the program's own where something else did; and more of more steps."""
        rates = [(i, d.settings["rate"]) for i, d in enumerate(base) if "rate" in d.settings]
        own = record.series("lr").median()
        around: list[Treatment] = []
        for factor in (1 / 3, 3.0):
            if rates:
                i, rate = rates[0]
                other = Dose(base[i].remedy, {**base[i].settings, "rate": float(f"{rate * factor:.3g}")})
                around.append((*base[:i], other, *base[i + 1 :]))
            elif own > 0:
                around.append((*base, Dose("learning-rate", {"rate": float(f"{own * factor:.3g}")})))
        for i, dose in enumerate(base):
            if dose.remedy == "train-longer":
                more = Dose(dose.remedy, {"times": MORE * dose.settings.get("times", MORE)})
                around.append((*base[:i], more, *base[i + 1 :]))
        return [t for t in around if self.open(t)]


def _wanted(findings: Iterable[Finding]) -> list[tuple[str, float]]:
    """Remedies by name, and their rank: those of the first finding first, then of what it explains, then of the others."""
    ranked: dict[str, float] = {}
    level = 0.0
    for finding in findings:
        for i, name in enumerate(finding.treated_by):
            ranked.setdefault(name, level + i)
        for explained in finding.explains:
            for i, name in enumerate(explained.treated_by[:2]):
                ranked.setdefault(name, level + 1.5 + i)
        level += 1.0 if finding.severity != "note" else 3.0
    return sorted(ranked.items(), key=lambda item: item[1])
