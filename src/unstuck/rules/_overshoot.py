"""Signs in the loss that steps overshoot."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._dead import whole_dead
from unstuck.rules._learning import FEW, THROWN, Learning, alternates, batch_size
from unstuck.rules._probes import Trial, edge_of, gain_of_going_on, number_of, probe, trial
from unstuck.rules._steps import first_update, largest_update, struck_at, update_size
from unstuck.rules._words import names, number, plural, share

_BETTER = 0.2  # of the way from chance to perfect, what a smaller rate must bring
_SAMPLES = 16  # that a loss must be the mean of
_HALF = 0.5  # of the loss at the end, below which smaller steps must come where the network learns well
_GOES_ON = 0.5  # of the way from chance to perfect, that merely going on must bring for the rate to be fine
_QUARTER = 20  # losses in a quarter of a run, of which fewer don't show a rise
_RISE = 0.1  # of the loss, from one quarter to the next
_MOVING = 1e-3  # updates below this share of the weights can't throw a loss about


@dataclass(frozen=True)
class Sign:
    """One sign: what is said of it, the loss it rests on, and how much it tells, from 0 to 1."""

    says: str
    step: int
    loss: float
    strength: float


def overshoot(
    record: Record,
    learning: Learning,
    *,
    rise: float = 3.0,
    jump: float = 5.0,
    worse: float = 1.1,
    ratio: float = 0.03,
    edge: float = 2.0,
) -> list[Sign]:
    """Signs that steps overshoot, the plainest first.

    Args:
        record: The run.
        learning: Its progress.
        rise: Times its start that the loss must reach before it is NaN.
        jump: Times start and chance that the loss must jump to; twice that, and in the first tenth of the run,
            where it learns.
        worse: Loss at the end relative to chance.
        ratio: Update relative to the weights.
        edge: The rate relative to what the curvature bears, where that was measured.

    Returns:
        The signs; none where the loss tells nothing: it may be negative, several losses alternate, no gradient is left from the
        first step on, or all went well until one batch threw it off.
    """
    loss = record.series("loss").until(learning.end).finite
    if learning.status == "learns well":
        outdone = _outdone(record, learning)
        return [outdone] if outdone is not None else []
    if learning.steps < 2 or alternates(record) or _no_gradient(record) or struck_at(record) is not None:
        return []
    if loss.values.min() < 0 or not learning.first > 0:
        return []
    values, steps = loss.values, loss.steps
    signs = [
        _rises(learning, values, steps, rise),
        _jumps(learning, values, steps, jump),
        _dies(record, learning),
        _ends_worse(record, learning, values, steps, worse),
        _moves_in_vain(record, learning, steps, ratio),
        _swings(record, learning, values, steps),
        _collapses(learning, values, steps),
        _beyond_the_edge(record, values, steps, edge),
    ]
    before, after, _ = gain_of_going_on(record)
    if max(after, 0.0) - max(before, 0.0) > _GOES_ON and learning.broke_at is None:
        return []  # as it is it gets there
    found = [sign for sign in (*signs, *_by_experiment(record, learning, float(values[0]))) if sign is not None]
    first = first_update(record)
    if found and first > 1:
        found.append(
            Sign(say("the first update is {first} times the weights", first=number(first)), 0, float(values[0]), 0.4)
        )
    return found


def certainty(signs: list[Sign]) -> float:
    """What all signs together tell, from 0 to 1."""
    return float(1 - np.prod([1 - sign.strength for sign in signs]))


def _by_experiment(record: Record, learning: Learning, first: float) -> list[Sign]:
    """What the same training with smaller steps does, and how far the first step is from one that helps."""
    found = []
    start, end = trial(record, "from-start"), trial(record, "step-sizes")
    if start is not None and start.lower[1] - max(start.own, 0.0) > _BETTER and _lower_loss(start):
        found.append(Sign(_compared(start, learning, say("from the same start")), 0, first, 0.75))
    if end is not None and end.lower[1] - max(end.own, end.before) > _BETTER and _lower_loss(end) and learning.stuck:
        found.append(Sign(_compared(end, learning, say("from where it ended")), record.steps - 1, learning.last, 0.6))
    critical = number_of(probe(record, "critical-rate"), "start_critical")
    if 0 < critical <= 1 and learning.stuck and not found:
        says = say(
            "the first update raises the loss of its own batch, as it does from {critical} times its length on",
            critical=number(critical),
        )
        found.append(Sign(says, 0, first, 0.5))
    return found


def _lower_loss(tried: Trial) -> bool:
    """Whether the best smaller rate ends at a lower loss than the script's, too: scores of a few samples are coarse."""
    return not tried.losses[tried.lower[0]] >= tried.losses[1.0]


def _outdone(record: Record, learning: Learning) -> Sign | None:
    """Where it learns well: its first steps go up, and smaller ones from the same start are soon better than its end."""
    start = trial(record, "from-start")
    if start is None or alternates(record) or not learning.last > 0 or not start.losses[1.0] > start.loss_before:
        return None
    factor, _ = start.lower
    if not start.losses.get(factor, math.inf) < _HALF * learning.last:
        return None
    says = say(
        "from the same start {factor:g} times the rate takes the loss to {best} in {updates}, where "
        "the script's raises it from {before} to {own} and ends at {last}",
        factor=factor,
        best=number(start.losses[factor]),
        updates=plural(start.steps, "update"),
        before=number(start.loss_before),
        own=number(start.losses[1.0]),
        last=number(learning.last),
    )
    return Sign(says, record.steps - 1, learning.last, 0.8)


def _compared(rates: Trial, learning: Learning, where: str) -> str:
    factor, _ = rates.lower
    name, less, own = say("the loss"), rates.losses[factor], rates.losses[1.0]
    if math.isfinite(rates.scores[factor]):
        name, less, own = learning.score_name, rates.scores[factor], rates.scores[1.0]
    tried = {
        "where": where, "factor": factor, "name": name, "less": number(less), "updates": plural(rates.steps, "update")
    }  # fmt: skip
    if not math.isfinite(rates.losses[1.0]):
        return say(
            "{where} {factor:g} times the rate takes {name} to {less} in {updates}, the script's diverges", **tried
        )
    return say(
        "{where} {factor:g} times the rate takes {name} to {less} in {updates}, the script's to {own}",
        own=number(own),
        **tried,
    )


def _rises(learning: Learning, values: np.ndarray, steps: np.ndarray, rise: float) -> Sign | None:
    if learning.status != "diverges" or (learning.broke_at is None and len(values) < FEW):
        return None
    peak, start = int(np.argmax(values)), float(values[0])
    if learning.broke_at is None:
        says = say("the loss rises from {first} to {last}", first=number(learning.first), last=number(learning.last))
        return Sign(says, int(steps[-1]), learning.last, 0.75)
    if not values[peak] > rise * start or peak < len(values) - 5:
        return None
    steady = peak >= 3 and bool(np.all(np.diff(values[peak - 3 : peak + 1]) > 0))
    says = say(
        "the loss rises from {start} to {peak} before it is no longer finite",
        start=number(start),
        peak=number(float(values[peak])),
    )
    return Sign(says, int(steps[peak]), float(values[peak]), 0.8 if steady or values[peak] > THROWN * start else 0.6)


def _jumps(learning: Learning, values: np.ndarray, steps: np.ndarray, jump: float) -> Sign | None:
    floor = float(np.fmax(values[0], learning.chance))
    few = len(values) < 4 and not values[-1] > THROWN * floor
    if learning.broke_at is not None or few or learning.skill > 0.6:
        return None
    reach, needed = (len(values), jump) if learning.stuck else (max(10, len(values) // 10), 2 * jump)
    top = 1 + int(np.argmax(values[1:reach]))
    if not values[top] > needed * floor:
        return None
    says = say(
        "the loss jumps from {first} to {top} at step {step}",
        first=number(float(values[0])),
        top=number(float(values[top])),
        step=int(steps[top]),
    )
    return Sign(says, int(steps[top]), float(values[top]), 0.8 if values[top] > THROWN * floor else 0.6)


def _dies(record: Record, learning: Learning) -> Sign | None:
    """ReLU layers that are alive at the start and dead at the end, after updates large enough to have done it."""
    born_dead = {layer.name for layer in whole_dead(record, learning, from_start=True)}
    died = [layer.name for layer in whole_dead(record, learning) if layer.name not in born_dead]
    largest = largest_update(record)
    if learning.broke_at is not None or not died or not largest > 0.1:
        return None
    says = say(
        "updates of up to {largest} times the weights leave all units of {died} dead",
        largest=number(largest),
        died=names(died),
    )
    return Sign(says, 0, learning.first, 0.6 if largest > 0.5 else 0.4)


def _ends_worse(record: Record, learning: Learning, values: np.ndarray, steps: np.ndarray, worse: float) -> Sign | None:
    falls = learning.last < 0.9 * learning.first and learning.last < 1.5 * learning.lowest
    if learning.status != "at chance" or falls or not learning.last > worse * learning.chance:
        return None
    if update_size(record, learning) < _MOVING:
        return None
    says = say(
        "the loss ends at {last}, above the {chance} of a constant prediction",
        last=number(learning.last),
        chance=number(learning.chance),
    )
    return Sign(says, int(steps[-1]), learning.last, 0.6 if learning.last > 2 * learning.chance else 0.5)


def _moves_in_vain(record: Record, learning: Learning, steps: np.ndarray, ratio: float) -> Sign | None:
    size = update_size(record, learning)
    if learning.status != "at chance" or not size > ratio or learning.last < 0.9 * learning.first:
        return None
    says = say(
        "an update changes the weights by {size} of their size while the loss doesn't fall", size=share(min(size, 1.0))
    )
    return Sign(says, int(steps[-1]), learning.last, 0.5)


def _beyond_the_edge(record: Record, values: np.ndarray, steps: np.ndarray, edge: float) -> Sign | None:
    """A rate above what the curvature bears, with a loss that rises or swings; where it falls that is as it should be."""
    beyond, quarter = edge_of(record), len(values) // 4
    if not beyond > edge or quarter < _QUARTER:
        return None
    before, last = values[-2 * quarter : -quarter], values[-quarter:]
    middle, end = (float(np.median((part[1:] + part[:-1]) / 2)) for part in (before, last))  # of pairs, as it may swing
    rise = end - middle
    error = math.hypot(float(np.std(before)), float(np.std(last))) / math.sqrt(quarter)
    around = last - np.convolve(np.pad(last, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    swings = float(around[1:] @ around[:-1]) < -0.75 * float(around @ around) and float(np.std(around)) > _RISE * abs(
        middle
    )
    falls = rise < -_RISE * abs(middle)
    if falls or not (swings or (rise > _RISE * abs(middle) and rise > 4 * error)):
        return None
    if swings:
        says = say(
            "the rate is {times} times what the curvature bears and the loss swings from step to step",
            times=number(beyond),
        )
    else:
        says = say(
            "the rate is {times} times what the curvature bears and the loss rises from {middle} to {end} late in the run",
            times=number(beyond),
            middle=number(middle),
            end=number(end),
        )
    return Sign(says, int(steps[-1]), end, 0.6)


def _collapses(learning: Learning, values: np.ndarray, steps: np.ndarray) -> Sign | None:
    """It had learned, and fell back to a constant prediction."""
    if not learning.collapsed or learning.status != "at chance":
        return None
    says = say(
        "the loss had fallen to {lowest} and is back at {last}, that of a constant prediction",
        lowest=number(learning.lowest),
        last=number(learning.last),
    )
    return Sign(says, int(steps[int(np.argmin(values))]), float(values.min()), 0.75)


def _swings(record: Record, learning: Learning, values: np.ndarray, steps: np.ndarray) -> Sign | None:
    """Where it learns: in the second half the loss is still thrown above chance again and again."""
    window = math.ceil(_SAMPLES / batch_size(record))  # of the losses of few samples, most is chance
    if window > 1:
        values = np.convolve(values, np.ones(window) / window, mode="same")
    half = values[len(values) // 2 : len(values) - window // 2]
    if learning.status != "learns" or not learning.chance > 0 or len(half) < 20:
        return None
    thrown = float(np.mean(half > 1.2 * learning.chance))
    if thrown < 0.05 or np.median(half) > 0.9 * learning.chance or update_size(record, learning) < 3 * _MOVING:
        return None
    top = len(values) // 2 + int(np.argmax(half))
    says = say(
        "at {thrown} of the steps of the second half the loss is above that of a constant prediction",
        thrown=share(thrown),
    )
    return Sign(
        say("{says}, up to {top}", says=says, top=number(float(values[top]))),
        int(steps[top]),
        float(values[top]),
        0.6,
    )


def _no_gradient(record: Record) -> bool:
    norm = record.series("grad_norm").finite
    return len(norm) > 0 and not norm.values.any()
