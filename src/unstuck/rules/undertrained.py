"""Training that was stopped while it was learning."""

from __future__ import annotations

import math

import numpy as np

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import FEW, WELL_LOSS, Learning, alternates, progress, skill
from unstuck.rules._probes import gain_of_going_on, loss_fall, reachable
from unstuck.rules._words import number, plural, share, then
from unstuck.verdict import Evidence, Finding


def undertrained(
    record: Record,
    *,
    progress_left: float = 0.12,
    sure: float = 3.0,
    few: int = 8,
    decayed: float = 0.05,
    gain: float = 0.1,
    settled: float = 0.02,
    fall: float = 0.05,
    behind: float = 0.1,
    rise: float = 0.05,
) -> list[Finding]:
    """It learns, but was stopped while the loss was still falling.

    Told apart:
        By what the last quarter of the run brought, as a share of all progress since the start: a straight
        line down gives a quarter, training that has settled next to nothing. The drop must stand out of the noise of
        the loss. A network that learns well has got where it should, and a rate that was scheduled down to
        nothing says that the end was meant. Where the training was continued as an experiment, that decides: what
        it brought on batches that were not trained on meanwhile. If evaluation gets worse meanwhile, more training is no help. A
        loss that may be negative has no floor to fall to.

    Wrong when:
        The noise floor of the task is high, and the last of it is learned very slowly.

    Args:
        record: The run.
        progress_left: Share of all progress that the last quarter must have brought. An exponential decay that
            went on for two of its time constants gives a tenth, a power law over a hundred steps and more 6%.
        sure: Standard errors that the drop must stand out by.
        few: Steps below which the drop need not stand out, as there are too few to tell noise by.
        decayed: Rate at the end, relative to its largest, below which the end was planned.
        gain: What continuing for as long again must bring, as a share of the way from chance to perfect, to be enough by
            itself; or a quarter of the way that was left.
        settled: What it must bring at least, where it was tried.
        fall: Share of the loss that continuing must take away besides, as scores of a few batches are noisy.
        behind: How far the score of the evaluation must be behind that of a small reference network, as a share of the way from
            chance to perfect, where it was still rising.
        rise: By how much it must have risen in the last quarter, as such a share.

    Returns:
        One finding at most.
    """
    learning = progress(record)
    if learning.status not in ("learns", "at chance") or alternates(record) or learning.steps < FEW:
        return []
    loss = record.series("loss").finite
    if loss.values.min() < 0 or _planned_end(record, decayed) or _evaluation_rises(record):
        return []
    before, after, more = gain_of_going_on(record)
    before, after = max(before, 0.0), max(after, 0.0)  # an R2 below 0 that gets nearer to it is no progress
    if before >= WELL_LOSS or (after - before < settled and more >= 0.25 * record.steps):
        return []
    third, last, error = _quarters(loss.values)
    drop, whole = third - last, learning.first - last
    brings = after - before > gain or after - before > max(2 * settled, 0.25 * (1 - before))
    if brings and loss_fall(record) > fall:
        says = say(
            "continued for {more} it goes from {before} to {after} of the way from chance to perfect, on "
            "batches that were not trained on meanwhile; it was stopped after {steps}; {words}",
            more=plural(more, "step"),
            before=share(before),
            after=share(after),
            steps=plural(record.steps, "step"),
            words=learning.words(),
        )
        return finding(
            "undertrained", "warning", 0.8, says, evidence=learning.evidence(record),
            treated_by=("train-longer", "learning-rate", "batch-size"),
        )  # fmt: skip
    rising = _evaluation_improves(record, learning, behind, rise)
    if rising:
        return finding(
            "undertrained",
            "warning",
            0.7,
            then(rising, learning.words()),
            evidence=[Evidence("eval_score", "", record.steps - 1, learning.eval_score)],
            treated_by=("train-longer", "learning-rate", "batch-size"),
        )
    if not drop > 0 or drop < progress_left * whole or not (drop > sure * error or learning.steps < few):
        return []
    part = min(1.0, drop / whole)
    says = say(
        "the loss was still falling when training stopped after {steps}: the last quarter brought "
        "{share} of all progress; {words}",
        steps=plural(record.steps, "step"),
        share=share(part),
        words=learning.words(),
    )
    return finding(
        "undertrained",
        "warning",
        min(0.85, 0.5 + part),
        says,
        evidence=[
            Evidence("loss", "", int(loss.steps[-1]), learning.last),
            Evidence("loss", "", int(loss.steps[0]), learning.first),
        ],
        treated_by=("train-longer", "learning-rate", "batch-size"),
    )


def _evaluation_improves(record: Record, learning: Learning, behind: float, rise: float) -> str:
    """What is to be said of an evaluation that gets better to the end, and not to where it could; "" otherwise."""
    known = record.series("eval_score").finite
    skills = [skill(record, float(v)) for v in known.values]
    if len(skills) < 6 or not all(b > a for a, b in zip(skills[-4:], skills[-3:], strict=False)):
        return ""
    gain = skills[-1] - skills[3 * len(skills) // 4 - 1]
    if not gain > rise or not skill(record, reachable(record)) - skills[-1] > behind:
        return ""
    return say(
        "the evaluation's {score} was still rising when training stopped after {steps}, from "
        "{before} to {last} in the last quarter, while a small reference network reaches "
        "{reference}",
        score=learning.score_name,
        steps=plural(record.steps, "step"),
        before=number(float(known.values[3 * len(skills) // 4 - 1])),
        last=number(float(known.values[-1])),
        reference=number(reachable(record)),
    )


def _quarters(values: np.ndarray) -> tuple[float, float, float]:
    """Mean loss of the third and the last quarter, and the standard error of their difference."""
    quarter = max(1, len(values) // 4)
    third, last = values[-2 * quarter : -quarter], values[-quarter:]
    if quarter < 2:
        return float(third.mean()), float(last.mean()), math.inf
    error = math.sqrt((_noise(third) ** 2 + _noise(last) ** 2) / quarter)
    return float(third.mean()), float(last.mean()), error


def _noise(values: np.ndarray) -> float:
    """Standard deviation from one step to the next, free of trend."""
    return float(np.std(np.diff(values)) / math.sqrt(2)) if len(values) > 2 else float(np.std(values))


def _planned_end(record: Record, decayed: float) -> bool:
    rates = record.series("lr").finite
    return len(rates) > 1 and rates.last < decayed * rates.values.max()


def _evaluation_rises(record: Record) -> bool:
    losses = record.series("eval_loss").finite.values
    return len(losses) >= 3 and losses[-1] > 1.05 * losses.min()
