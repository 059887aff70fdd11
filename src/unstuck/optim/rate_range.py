"""Learning-rate range test: which rates lower the loss, from which on it rises, or that none helps.

found = rate_range(model, nn.functional.cross_entropy, optimizer, loader)
print(found.says)
if found.suggested is not None:
    for group in optimizer.param_groups: ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from unstuck._batches import Forward, generators_kept, numbers_kept, outputs_and_targets
from unstuck.errors import MisuseError
from unstuck.optim._rate_bench import Bench, gradients_kept

RATIO = 3.0  # from one trial's rate to the next
NEARLY = 0.05  # of the fall: by so much the trial between may be worse than the best, which was picked for being it
MOST_TRIALS = 8  # while they get better


@dataclass(frozen=True)
class Trial:
    """A short run from the start at one rate, judged on batches that it wasn't trained on.

    Attributes:
        rate: Its rate.
        loss: Mean loss on those batches after it; infinite where it diverged.
        fall: By how much that is lower than before, mean over the batches.
        p_fall: Chance of so large a fall if there were none (paired t-test over the batches); NaN with fewer than three.
        shuffled_fall: By how much the loss falls on the same batches when their targets are shuffled; NaN where they can't be.
        p_shuffled: Chance of a fall that much larger than those, if outputs told nothing of targets; NaN where they can't be.
    """

    rate: float
    loss: float
    fall: float
    p_fall: float
    shuffled_fall: float
    p_shuffled: float


@dataclass(frozen=True)
class RateRange:
    """What a range test found.

    Attributes:
        suggested: The rate at which short runs end lowest, None where none helps.
        steepest: The rate at which the loss fell most in the sweep, None where it didn't fall.
        diverges_from: The rate from which on it was above where it began, None where it never was.
        says: One sentence.
        start: Mean loss before any step, on the batches that judge.
        rates: Rates of the sweep, ascending, up to where it was stopped.
        losses: Of the batch at hand before its step, for each.
        held_out: Loss of a batch that judges behind each step, less what it was before any.
        smoothed: The same, an exponentially weighted mean with bias correction.
        trials: The short runs, by rate.
    """

    suggested: float | None
    steepest: float | None
    diverges_from: float | None
    says: str
    start: float
    rates: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    held_out: tuple[float, ...] = ()
    smoothed: tuple[float, ...] = ()
    trials: tuple[Trial, ...] = ()

    @property
    def helps(self) -> bool:
        """Whether there is a rate that helps."""
        return self.suggested is not None


def rate_range(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    optimizer: Optimizer,
    batches: Iterable[Any],
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    trial_steps: int = 100,
    forward: Forward | None = None,
    clip: float | None = None,
    held_out: int | None = None,
    level: float = 0.01,
    share: float = 0.1,
    shuffles: int = 100,
    smoothing: float = 0.8,
    seed: int = 0,
) -> RateRange:
    """Finds the rate that lowers the loss most in a short run, or that none does.

    First a sweep: the rate grows from `low` to `high` by the same factor at each step, until the loss has risen for good. A sweep carries
    along what earlier rates achieved and spoiled, so that it only says where to look. Then trials: short runs **from the start**, each at
    one rate, at the steepest of the sweep, a ninth, a third and three times of it, and on in that direction for as long as it gets
    better. What is suggested lies where a parabola through the best and its neighbours is lowest, and has a trial of its own. All of it
    is done on copies: model, optimizer, generators of the batches and random numbers are as before afterwards, also after an exception.
    With the defaults that is 600 to 1100 updates.

    **That no rate helps** is said when no trial passes both of these, at `level` over the number of trials, and trials were made over three
    decades below where the loss rises. Both are judged on batches that were never trained on, if there are six batches or more.

    1. The loss falls: on the same batches, with the same random numbers, the loss after the trial is lower than with the weights it began
       with. (A paired t-test: how batches differ from each other cancels out.)
    2. It falls by what outputs tell of targets: with the targets of a batch shuffled among its samples the loss doesn't fall as far, and
       at least `share` of the fall is lost by that. A network that learns nothing of its inputs, because no gradient gets there or
       because there is nothing to learn, can lower the loss all the same, by learning how frequent targets are: shuffling doesn't spoil
       that.

    What the loss's gradient is zero for, or has none at all, is told at once.

    **When it is wrong.** A rate that only pays off behind `trial_steps` updates is not seen: what is suggested is the best for so short a
    run, and a longer one may want another. A task whose targets can be told only after thousands of updates
    (a long plateau) gets "no rate helps". With fewer than six batches the trials are judged by what they were trained on, which learning
    by heart passes. Where batches aren't samples along the first axis of targets, or have no targets, the second condition is left out or
    weak.

    Args:
        model: The network, in the modes that it is to be trained in. It is copied.
        loss: Takes outputs and targets, and returns the loss as one number.
        optimizer: Over the model's parameters; copied with its state. Groups keep the proportions of their rates.
        batches: What is trained on: a DataLoader, a list, whatever can be gone through more than once.
        low: The first rate. Rates are those of the group with the highest.
        high: The last.
        steps: Of the sweep.
        trial_steps: Updates of a trial.
        forward: Takes the model and a batch, and returns outputs and targets. By default a batch is inputs and targets.
        clip: Limit of the gradient's L2 norm, None for none.
        held_out: Batches that judge; by default as many as hold 256 samples, from 8 to 64, and at most a quarter of all.
        level: Chance to find that a rate helps where none does.
        share: Of the fall, that must be lost when targets are shuffled.
        shuffles: How often they are.
        smoothing: From 0 to below 1, of the sweep's losses.
        seed: Of dropout and shuffles, the same in all runs.

    Returns:
        Rates, trials, and what they say.

    Raises:
        MisuseError: A number can't be used, there are no batches, or the model can't be copied or is used from outside the loss.

    Source: Smith 2017, section 3.3, for the sweep.
    """
    _check(low, high, steps, trial_steps, level, smoothing)
    if isinstance(optimizer, LBFGS):
        raise MisuseError("LBFGS searches the length of its steps itself: there is no rate to be found for it")
    if isinstance(batches, Iterator):
        raise MisuseError(
            "batches can be gone through once only: give a list or a DataLoader, which begin anew each time"
        )
    with numbers_kept(), generators_kept(batches), gradients_kept(model):
        drawn = list(islice(iter(batches), steps + 64))
        if not drawn:
            raise MisuseError("there are no batches")
        bench = Bench(model, loss, optimizer, forward or outputs_and_targets, clip, seed, drawn, held_out, shuffles)
        return _found(bench, np.geomspace(low, high, steps), trial_steps, level, share, smoothing)


def _found(
    bench: Bench, rates: np.ndarray, trial_steps: int, level: float, share: float, smoothing: float
) -> RateRange:
    start = float(np.mean(bench.start))
    none = f"no rate from {rates[0]:.2g} to {rates[-1]:.2g} helps"
    if not math.isfinite(start):
        return RateRange(None, None, None, f"{none}: the loss is {start} before any step", start)
    sweep = _sweep(bench, rates, smoothing)
    if bench.is_detached:
        says = f"{none}: the loss has no gradient, as it doesn't depend on the parameters"
        return RateRange(None, None, None, says, start)
    tried = tuple(rates[: len(sweep.losses)].tolist())
    seen = (tried, tuple(sweep.losses), tuple(sweep.held_out), tuple(sweep.smoothed))
    if not bench.has_gradient:
        says = f"{none}: the gradient is zero on all of {len(bench.train)} batches"
        return RateRange(None, None, None, says, start, *seen)
    steepest, diverges_from = _steepest(rates, sweep.smoothed), _diverges_from(rates, sweep)
    trials = _trials(bench, rates, steepest, diverges_from, trial_steps, level, share)
    chosen, trials = _chosen(bench, trials, trial_steps, level / len(trials), share)
    if chosen is None:
        says = f"{none}: {_why_not(bench, trials, trial_steps, share)}"
        return RateRange(None, steepest, diverges_from, says, start, *seen, trials)
    says = _says(bench, chosen, trials, trial_steps, diverges_from)
    return RateRange(chosen.rate, steepest, diverges_from, says, start, *seen, trials)


# ---------------------------------------------------------------------- the sweep


@dataclass
class _Sweep:
    losses: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    rose: bool = False


def _sweep(bench: Bench, rates: np.ndarray, smoothing: float) -> _Sweep:
    """One run at growing rates, until the loss has risen for good."""
    found, mean = _Sweep(), 0.0
    model, optimizer = bench.copied()
    room = max(float(np.std(bench.start)), 0.1 * abs(float(np.mean(bench.start))), 1e-12)
    for i, rate in enumerate(rates):
        bench.set_rate(optimizer, float(rate))
        found.losses.append(bench.step(model, optimizer, i))
        if bench.is_detached:
            break
        judge = i % len(bench.judges)
        change = bench.judged(model, judge)[0] - bench.start[judge]
        found.held_out.append(change)
        mean = smoothing * mean + (1 - smoothing) * change
        found.smoothed.append(mean / (1 - smoothing ** (i + 1)))
        lowest = min([0.0, *found.smoothed])
        if not math.isfinite(found.losses[-1] + change) or found.smoothed[-1] > room - lowest:
            found.rose = True
            break
    return found


def _steepest(rates: np.ndarray, smoothed: Sequence[float]) -> float | None:
    """Where the smoothed loss falls most from one rate to the next, before it is lowest."""
    known = np.array([v for v in smoothed if math.isfinite(v)])
    lowest = int(known.argmin()) if len(known) else 0
    if lowest == 0 or not known[lowest] < 0:
        return None
    return float(rates[1 + int(np.diff(known[: lowest + 1]).argmin())])


def _diverges_from(rates: np.ndarray, sweep: _Sweep) -> float | None:
    """The rate from which on the smoothed loss was above where it began, if it went on to rise."""
    if not sweep.rose:
        return None
    below = [i for i, value in enumerate(sweep.smoothed) if value <= 0]
    return float(rates[below[-1] + 1 if below else 0])


# ---------------------------------------------------------------------- the trials


def _trials(
    bench: Bench,
    rates: np.ndarray,
    steepest: float | None,
    diverges_from: float | None,
    steps: int,
    level: float,
    share: float,
) -> tuple[Trial, ...]:
    """Short runs around the steepest rate while they get better; where none helps, over three decades below divergence."""
    low, high = float(rates[0]), float(rates[-1])
    top = min(diverges_from or high, high)
    done: dict[float, Trial] = {}

    def tried(rate: float) -> float:
        done[rate] = _trial(bench, rate, steps)
        return done[rate].loss

    _climb(tried, steepest or top / 10, low, high)
    if not any(_passes(trial, level / len(done), share) for trial in done.values()):
        for rate in (top / RATIO * 10.0**-decade for decade in range(4)):
            if rate >= low and all(abs(math.log(rate / other)) > math.log(2) for other in done):
                tried(rate)
    return tuple(done[rate] for rate in sorted(done))


def _climb(tried: Callable[[float], float], rate: float, low: float, high: float) -> None:
    """Tries a rate, a ninth, a third and three times of it, and goes on while the best is at an end.

    The ninth is there since a third may be unstable by chance, and worse than both its neighbours.
    """
    losses = {power: tried(rate * RATIO**power) for power in (-2, -1, 0, 1)}
    while len(losses) < MOST_TRIALS:
        all_diverged = math.isinf(min(losses.values()))
        best = min(losses) if all_diverged else min(losses, key=lambda power: losses[power])
        if min(losses) < best < max(losses):
            return
        power = best - 1 if best == min(losses) else best + 1
        if not low <= rate * RATIO**power <= RATIO * high:
            return
        losses[power] = tried(rate * RATIO**power)


def _chosen(
    bench: Bench, trials: tuple[Trial, ...], steps: int, level: float, share: float
) -> tuple[Trial | None, tuple[Trial, ...]]:
    """The best trial that passes, or one between it and its neighbours, and all trials then."""
    best = min((t for t in trials if _passes(t, level, share)), key=lambda trial: trial.loss, default=None)
    if best is None:
        return None, trials
    between = _trial(bench, _between(trials, best, float(np.mean(bench.start))), steps)
    if not _passes(between, level, share) or between.loss - best.loss > NEARLY * best.fall:
        return best, trials
    return between, tuple(sorted((*trials, between), key=lambda trial: trial.rate))


def _between(trials: Sequence[Trial], best: Trial, start: float) -> float:
    """Where a parabola through the losses of the best and its neighbours is lowest, over the logarithm of the rate.

    Among rates that are nearly as good the best trial is a matter of luck, and more often one at the edge, beside rates that diverge.
    """
    beside = {round(math.log(trial.rate / best.rate, RATIO), 3): min(trial.loss, start) for trial in trials}
    if not {-1.0, 1.0} <= set(beside):
        return best.rate
    bend = beside[-1.0] + beside[1.0] - 2 * best.loss
    return best.rate * RATIO ** ((beside[-1.0] - beside[1.0]) / (2 * bend)) if bend > 0 else best.rate


def _trial(bench: Bench, rate: float, steps: int) -> Trial:
    """A short run from the start."""
    model, optimizer = bench.copied()
    bench.set_rate(optimizer, rate)
    lost = Trial(rate, math.inf, -math.inf, 1.0, math.nan, 1.0)
    for i in range(steps):
        if not math.isfinite(bench.step(model, optimizer, i)):
            return lost
    after = [bench.judged(model, judge) for judge in range(len(bench.judges))]
    losses = np.array([value for value, _ in after])
    if not np.isfinite(losses).all():
        return lost
    falls = bench.start - losses
    shuffled = bench.shuffled([outputs for _, outputs in after])
    if shuffled is None:
        return Trial(rate, float(losses.mean()), float(falls.mean()), _p_above(falls, 0.0), math.nan, math.nan)
    less = bench.start_shuffled - shuffled
    p_shuffled = _tail(float(falls.mean() - less.mean()), float(less.std(ddof=1)), len(less) - 1)
    return Trial(rate, float(losses.mean()), float(falls.mean()), _p_above(falls, 0.0), float(less.mean()), p_shuffled)


def _passes(trial: Trial, level: float, share: float) -> bool:
    """Whether the loss falls, and by what outputs tell of targets; a p that couldn't be had is no hindrance."""
    if not trial.fall > 0 or trial.p_fall > level:
        return False
    return math.isnan(trial.p_shuffled) or (
        trial.p_shuffled <= level and trial.fall - trial.shuffled_fall >= share * trial.fall
    )


def _says(bench: Bench, chosen: Trial, trials: Sequence[Trial], steps: int, diverges_from: float | None) -> str:
    lower = max((t for t in trials if t.rate < chosen.rate / 1.5), key=lambda t: t.rate, default=None)
    higher = min((t for t in trials if t.rate > chosen.rate * 1.5), key=lambda t: t.rate, default=None)
    others = [f"{t.rate:.2g} to {t.loss:.3g}" for t in (lower, higher) if t is not None]
    rises = f"; from {diverges_from:.2g} on the loss rises" if diverges_from is not None else ""
    aside = f" ({', '.join(others)})" if others else ""
    return (
        f"a rate of {chosen.rate:.2g} brings the loss from {float(np.mean(bench.start)):.3g} to {chosen.loss:.3g} in {steps} updates "
        f"{bench.where}{aside}{rises}"
    )


def _why_not(bench: Bench, trials: Sequence[Trial], steps: int, share: float) -> str:
    best = min(trials, key=lambda trial: trial.loss)
    start = float(np.mean(bench.start))
    if not math.isfinite(best.loss):
        return "the loss diverged in all trials"
    course = f"at {best.rate:.2g} the loss goes from {start:.4g} to {best.loss:.4g} in {steps} updates {bench.where}"
    if not best.fall > 0 or best.p_fall > 0.5:
        return f"{course}, which is no lower"
    if best.fall - best.shuffled_fall < share * best.fall:
        return f"{course}, and as far with shuffled targets: nothing is learned of the inputs"
    p = max(p for p in (best.p_fall, best.p_shuffled) if not math.isnan(p))
    return f"{course}, which is within chance (p = {p:.2g} in one of {len(trials)} trials)"


# ---------------------------------------------------------------------- chance


def _p_above(values: np.ndarray, null: float) -> float:
    """Chance of so high a mean if it were that, by a t-test; NaN with fewer than three values."""
    if len(values) < 3:
        return math.nan
    return _tail(float(values.mean()) - null, float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1)


def _tail(distance: float, deviation: float, freedom: int) -> float:
    """Chance that Student's t is above distance / deviation, for whole degrees of freedom (Abramowitz & Stegun, 26.7.3 and 26.7.4)."""
    if deviation == 0:
        return 0.0 if distance > 0 else 1.0
    angle = math.atan(distance / deviation / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(3 if odd else 2, freedom + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (k - 1) / k
    within = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return (1 - within) / 2


def _check(low: float, high: float, steps: int, trial_steps: int, level: float, smoothing: float) -> None:
    if not 0 < low < high:
        raise MisuseError(f"rates from {low} to {high}; they must be above 0 and ascend")
    for name, count in (("steps", steps), ("trial_steps", trial_steps)):
        if not isinstance(count, Integral) or count < 2:
            raise MisuseError(f"{name} is {count!r}, but must be a whole number from 2 on")
    if not 0 < level < 1 or not 0 <= smoothing < 1:
        raise MisuseError(f"level is {level} and smoothing {smoothing}, but must be between 0 and 1")
