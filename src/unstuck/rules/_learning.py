"""Is it learning at all, and how far from chance: what every rule weighs its evidence with.

A signal that looks ill means little in a network that learns well, and much in one that is stuck at chance.
`progress` puts a run into one of five states, by the score where there is one, else by the loss, each against
the best constant prediction:

| status | when |
|---|---|
| `diverges` | the loss is NaN or Inf at the end, or well above both its start and chance (a thousandfold after a few steps) |
| `at chance` | no better than a constant prediction, within the noise of the measurement |
| `learns` | better than chance |
| `learns well` | 85% of the way from chance to perfect, or a score of the evaluation there |
| `unknown` | too few steps, or no chance is known and the loss tells nothing (GANs, policy gradients) |

The noise floor of a task is not known, so `learns` says nothing against a network: a linear regression with an
R2 of 0.5 may be as good as it gets.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unstuck._language import say
from unstuck.evidence import LossCall, Optimizer, Record, Series, remembered
from unstuck.rules._words import number
from unstuck.verdict import Evidence, Severity

Status = Literal["learns well", "learns", "at chance", "diverges", "unknown"]

FEW = 5  # losses below which nothing is said
WELL = 0.85  # of the way from chance to perfect
SOME = 0.1  # of that way, beyond the noise: more than chance
SOME_LOSS = 0.05  # of the chance loss: more than chance
WELL_LOSS = 0.9
_HAD_LEARNED = 0.8  # of the chance loss, below which a network had learned
BLOWN_UP = 3.0  # times start and chance
THROWN = 1e3  # times start and chance: a rise that nothing but divergence gives
OWN_TARGETS = (
    "targets of its own"  # feature of a program that compares the network with what it, or a copy, gives (Q-learning)
)
_SCORE_WORDS = {
    "r2": say("R2"), "accuracy": say("accuracy"), "bit_accuracy": say("bit accuracy"), "perplexity": say("perplexity"),
}  # fmt: skip


@dataclass(frozen=True)
class Learning:
    """How a run went.

    Attributes:
        status: The state, see the module.
        before: The state up to where it broke; the same as `status` when it did not.
        steps: Losses that were measured and finite.
        first: Loss at the start, mean of the first three.
        last: Loss at the end, mean over the last tenth.
        lowest: Lowest mean over a twentieth of the run.
        chance: Loss of the best constant prediction, NaN when unknown.
        broke_at: Step from which on the loss is not finite, None while it is.
        end: Step at which the run ended, or broke.
        score: Name of the score, "" when there is none.
        score_first, score_last: Training score of the first samples, and of those in the last third of the run.
        score_chance: Score of the best constant prediction, NaN when unknown.
        eval_score: Score of the last evaluation, NaN when there was none.
        skill: Share of the way from chance to perfect, by training or evaluation, whichever is better; NaN when
            unknown.
        loss_skill: Share of the chance loss that is gone, NaN when chance is unknown.
        eval_skill: Share of the way from chance to perfect of the last evaluation alone; NaN when there was none.
    """

    status: Status = "unknown"
    before: Status = "unknown"
    steps: int = 0
    first: float = math.nan
    last: float = math.nan
    lowest: float = math.nan
    chance: float = math.nan
    broke_at: int | None = None
    end: int = 0
    score: str = ""
    score_first: float = math.nan
    score_last: float = math.nan
    score_chance: float = math.nan
    eval_score: float = math.nan
    skill: float = math.nan
    loss_skill: float = math.nan
    eval_skill: float = math.nan

    @property
    def collapsed(self) -> bool:
        """It had learned, and gives no more than a constant prediction at the end, whatever the score was before."""
        return self.lowest < _HAD_LEARNED * self.chance and 0.95 * self.chance < self.last < 1.1 * self.chance

    @property
    def score_name(self) -> str:
        """The score's name in a sentence."""
        return _SCORE_WORDS.get(self.score, self.score)

    @property
    def well(self) -> bool:
        """It learns well, or did until it broke."""
        return self.before == "learns well"

    @property
    def stuck(self) -> bool:
        """It is at chance or diverges, or did not get further before it broke."""
        return self.before in ("at chance", "diverges") or (self.status == "diverges" and self.before == "unknown")

    def weigh(
        self,
        *,
        stuck: Severity = "error",
        learns: Severity = "warning",
        well: Severity = "note",
        unknown: Severity = "note",
        breaks: bool = False,
    ) -> Severity:
        """The severity that evidence has in this state.

        Args:
            stuck: At chance, or diverging.
            learns: Where it learns.
            well: Where it learns well.
            unknown: Where that is not known.
            breaks: The evidence could have broken the run: then it counts as stuck if it broke, else as it was before.

        Returns:
            One of them.
        """
        if self.stuck or (breaks and self.status == "diverges"):
            return stuck
        return well if self.well else learns if self.before == "learns" else unknown

    def words(self) -> str:
        """Where it stands, for the end of a sentence: "accuracy is 0.11, chance 0.11"."""
        if self.status == "diverges" and self.broke_at is not None:
            return say("the loss is not finite from step {step} on", step=self.broke_at)
        reached = self.eval_score if math.isnan(self.score_last) else self.score_last
        if self.score and math.isfinite(reached):
            said = say("{score} is {reached}", score=self.score_name, reached=number(reached))
            chance = number(self.score_chance)
            return (
                say("{said}, chance {chance}", said=said, chance=chance) if math.isfinite(self.score_chance) else said
            )
        if math.isfinite(self.chance):
            return say("the loss is {last}, chance {chance}", last=number(self.last), chance=number(self.chance))
        return say("the loss went from {first} to {last}", first=number(self.first), last=number(self.last))

    def evidence(self, record: Record) -> tuple[Evidence, ...]:
        """The number `words` rests on."""
        series = record.series("score").finite
        if self.score and len(series) and self.broke_at is None:
            return (Evidence("score", "", int(series.steps[-1]), self.score_last),)
        loss = record.series("loss")
        return (Evidence("loss", "", int(loss.steps[-1]), loss.last),) if len(loss) else ()


@remembered
def progress(record: Record) -> Learning:
    """How far the run came, in numbers and as a status.

    Args:
        record: The run.

    Returns:
        The progress; `unknown` with NaNs where nothing was measured.
    """
    loss = record.series("loss")
    broke_at = _broke_at(record, loss)
    end = broke_at if broke_at is not None else max(record.steps, int(loss.steps[-1]) + 1 if len(loss) else 0)
    good, task = loss.until(end).finite, record.program.task
    last, chance = _mean(good.values[-max(FEW, len(good) // 10) :]), _chance(record)
    score_first, score_last, spread = _scores(record, end)
    eval_score = record.series("eval_score").finite.last
    loss_skill = 1 - last / chance if last >= 0 else math.nan  # what may be negative has no floor to measure from
    trained, evaluated = (_skill(task.score, score, task.chance_score) for score in (score_last, eval_score))
    if makes_its_targets(record):
        loss_skill = chance = math.nan
    if _is_squared_error(record) and math.isfinite(loss_skill):
        trained, spread = loss_skill, 0.0  # the same number, from every step
        score_last = loss_skill if math.isfinite(score_last) else score_last
    elif not _is_of_the_loss(record) or makes_its_targets(record):
        trained = evaluated = score_last = eval_score = math.nan
    found = Learning(
        steps=len(good), first=_mean(good.values[:3]), last=last, lowest=_lowest(good.values), chance=chance,
        broke_at=broke_at, end=end, score=task.score, score_first=score_first, score_last=score_last,
        score_chance=task.chance_score, eval_score=eval_score,
        skill=float(np.fmax(trained, evaluated)), loss_skill=loss_skill, eval_skill=evaluated,
    )  # fmt: skip
    before = _status(found, good, spread)
    return dataclasses.replace(found, before=before, status="diverges" if broke_at is not None else before)


def skill(record: Record, score: float) -> float:
    """A score as the share of the way from chance to perfect; NaN when chance is not known."""
    task = record.program.task
    return _skill(task.score, score, task.chance_score)


def late(series: Series, learning: Learning, share: float = 0.5, least: int = 3) -> Series:
    """The finite samples in the last part of a run, up to where it broke.

    Sampled steps lie close together at the start and far apart at the end, so a share of the samples would be
    mostly the start.

    Args:
        series: Samples by step.
        learning: The progress of the run they are from.
        share: The last part of the run's steps, from 0 to 1.
        least: Samples to go back to, when fewer than these lie in it.

    Returns:
        The part.
    """
    known = series.until(learning.end).finite
    part = known.after(round((1 - share) * learning.end))
    return part if len(part) >= least else Series(known.steps[-least:], known.values[-least:])


def main_loss(record: Record) -> LossCall | None:
    """The loss the run is about, None when none was seen."""
    return record.program.main_loss


def _is_squared_error(record: Record) -> bool:
    call = main_loss(record)
    return record.program.task.score == "r2" and call is not None and call.name == "mse_loss"


def _is_of_the_loss(record: Record, *, varies: float = 10.0) -> bool:
    """Whether an R2 tells how a loss written by hand goes; some difference in the loss may have been taken for its error.

    Where it does, the loss is about proportional to 1 - R2 (its root, for absolute errors).
    """
    call = main_loss(record)
    if record.program.task.score != "r2" or call is None or call.name != "hand-written":
        return True
    score, loss = record.series("score").finite, record.series("loss").finite
    at, of = np.intersect1d(score.steps, loss.steps, return_indices=True)[1:]
    left, losses = 1 - score.values[at], loss.values[of]
    if len(at) < 4 or not (left > 0).all() or not (losses > 0).all():
        return len(at) < 4
    return any(np.ptp(np.log(losses) - power * np.log(left)) < math.log(varies) for power in (1.0, 0.5))


def batch_size(record: Record) -> float:
    """Samples in a batch, 1 when unknown."""
    size = record.series("batch_size").median()
    return max(1.0, size if math.isfinite(size) else float(record.program.data.batch_size))


def alternates(record: Record) -> bool:
    """Several losses or optimizers pull at the network, as in a GAN, or it makes its own targets: one loss alone says little."""
    program = record.program
    if makes_its_targets(record):
        return True
    losses = {call.site for call in program.losses if call.trains}
    turns = len(_updating(record)) > 1 and not step_together(record)
    return turns or len(record.places("loss")) > 1 or (len(losses) > 1 and len(program.models) > 1)


def makes_its_targets(record: Record) -> bool:
    """The network is compared with what it, or a copy, gives, as in Q-learning: an R2 of that says nothing."""
    return OWN_TARGETS in record.program.features and record.program.task.kind in ("regression", "unknown")


def step_together(record: Record, *, share: float = 0.9) -> bool:
    """Several optimizers step after one and the same backward: an update of the record is one of each of them."""
    found = _updating(record)
    once = sum(o.backwards_per_step for o in found) <= 1.5
    return len(found) > 1 and once and min(o.steps for o in found) >= share * record.steps


def _updating(record: Record) -> list[Optimizer]:
    return [o for o in record.program.optimizers if o.steps]


def _status(found: Learning, good: Series, spread: float) -> Status:
    if found.steps < FEW:
        return "diverges" if _thrown(found, good.values) else "unknown"
    if _blown_up(found, good.values):
        return "diverges"
    if found.collapsed and not found.eval_skill > SOME:
        return "at chance"
    if math.isfinite(found.skill):
        if found.skill >= WELL:
            return "learns well"
        fell = math.isnan(found.chance) and _fell(found, good.values, to=0.2)  # the score may have been read wrongly
        return "learns" if found.skill - 2 * spread > SOME or found.loss_skill > SOME_LOSS or fell else "at chance"
    if math.isfinite(found.loss_skill):
        if found.loss_skill >= WELL_LOSS:
            return "learns well"
        return "learns" if found.loss_skill > SOME_LOSS else "at chance"
    return "learns" if _fell(found, good.values, to=0.5) else "unknown"


def _fell(found: Learning, values: np.ndarray, to: float) -> bool:
    return found.first > 0 and bool(values.min() >= 0) and found.last < to * found.first


def _thrown(found: Learning, values: np.ndarray) -> bool:
    """Whether few steps were enough: nothing but divergence multiplies a loss so."""
    return len(values) > 1 and values.min() > 0 and values[-1] > THROWN * np.fmax(values[0], found.chance)


def _blown_up(found: Learning, values: np.ndarray) -> bool:
    if values.min() < 0 or found.first <= 0:
        return False
    last = float(np.median(values[-max(FEW, len(values) // 10) :]))
    if math.isfinite(found.chance):
        return last > BLOWN_UP * max(found.first, found.chance)
    return last > 10 * found.first


def _broke_at(record: Record, loss: Series) -> int | None:
    """The step from which on the loss is never finite again; NaN before that may only mean that it was not measured."""
    bad = ~np.isfinite(loss.values)
    if not len(bad) or not bad[-1]:
        return None
    tail = len(bad) - int(np.argmin(bad[::-1])) if not bad.all() else 0
    told = bool(record.happened("non-finite")) or bool(np.isinf(loss.values[tail:]).any())
    measured = tail > 0 and float(np.mean(~bad[:tail])) > 0.9 and len(bad) - tail >= 2
    return int(loss.steps[tail]) if told or measured else None


def _chance(record: Record) -> float:
    """The loss of the best constant prediction, also for cross-entropies written by hand; NaN when unknown."""
    task, call = record.program.task, main_loss(record)
    if call is None or call.name != "hand-written":
        return task.chance_loss if task.chance_loss > 0 else math.nan
    share = np.asarray(task.label_share)
    likelihood = call.target_kind in ("one-hot", "class index") and (
        call.chain[-1:] in (("softmax",), ("log_softmax",)) or "log" in call.loss_ops
    )
    if not likelihood or not len(share) or set(call.loss_ops) & {"relu", "clamp", "pow"}:
        return math.nan
    entropy = -float(np.sum(share[share > 0] * np.log(share[share > 0])))
    return entropy * (batch_size(record) / call.divisor if call.reduction == "sum" else 1.0) or math.nan


def _scores(record: Record, end: int) -> tuple[float, float, float]:
    """Training score at the start and in the last third of the run, and the latter's standard error as a skill."""
    known = record.series("score").until(end).finite
    if not len(known):
        return math.nan, math.nan, 0.0
    tail = known.after(round(2 * end / 3)).values
    tail = tail if len(tail) >= 3 else known.values[-3:]
    name, chance = record.program.task.score, record.program.task.chance_score
    typical = np.median if name in ("r2", "perplexity") else np.mean
    first, last = float(typical(known.values[:3])), float(typical(tail))
    if name == "r2":
        return first, last, float(np.std(tail) / math.sqrt(len(tail)))
    if name not in ("accuracy", "bit_accuracy") or not chance < 1:
        return first, last, 0.0
    error = math.sqrt(max(0.0, last * (1 - last)) / (len(tail) * batch_size(record)))
    return first, last, error / (1 - chance)


def _skill(name: str, score: float, chance: float) -> float:
    if not (math.isfinite(score) and math.isfinite(chance)):
        return math.nan
    if name == "perplexity":
        return 1 - math.log(max(score, 1e-12)) / math.log(chance) if chance > 1 else math.nan
    return (score - chance) / (1 - chance) if chance < 1 else math.nan


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _lowest(values: np.ndarray) -> float:
    window = max(1, len(values) // 20)
    if len(values) < window or not len(values):
        return math.nan
    sums = np.cumsum(np.insert(values.astype(np.float64), 0, 0.0))
    return float(np.min(sums[window:] - sums[:-window]) / window)
