"""What becomes of the rate, momentum, betas, eps and weight decay when the batch is k times as large.

    rescale(optimizer, 8)                                             # before a schedule is made of it
    rates = scheduler(optimizer, warm_up(8, steps_per_epoch=500))

A training with the batch kB passes the same samples in a k-th of the updates. To stay the same training, sample by sample, as far as can
be:

| | SGD: linear rule | Adam and its kin: square-root rule |
|---|---|---|
| rate | k | √k |
| betas, RMSprop's alpha | | βᵏ; of LAMB the second alone |
| momentum | kept (or βᵏ: see below) | kept (or βᵏ) |
| eps | | eps / √k |
| weight decay in the gradient | kept | kept |
| decoupled weight decay | kept | √k |

**Why linear.** k small steps along k gradients that hardly differ are one long step along their mean (Goyal et al. 2017, section 2.1).
Its noise grows with it: to first order in the rate, both make the same random walk.

**Why the root.** Adam divides by the size of the gradient. Where that is mostly noise it falls as 1/√B, so that steps grow by √k by
themselves; √k is left for the rate (Malladi et al. 2022, the square-root scaling rule; they have 1 - k(1 - β) for the betas, of which βᵏ
is what doesn't turn negative). Decoupled decay multiplies by 1 - rate × decay at each update: for that to become its k-th power the decay
needs the other √k.

**Half-lives.** β to the k-th power forgets the same number of samples. Betas are so rescaled, as by Malladi et al.; momentum is kept, as
by Goyal et al., and so is LAMB's first beta, unless asked for. Where momentum is a sum (v = βv + g, as torch has it), what a gradient
moves in all is the rate / (1 - β): the rate is then multiplied by k (1 - βᵏ) / (1 - β), and what is in the sum is divided by the second
part of that. LAMB makes the mean of gradients as long as a share of the weights, however little noise is left in it, which is
√((1 - β) / (1 + β)) of that in one gradient: the rate is then multiplied by how much more is left with βᵏ.

**Where it ends.** More samples make the gradient better only while it is noise that spoils it. With B the batch and N the noise scale (of
the gradient's variance to its square, in samples) the best rate is proportional to 1 / (1 + N/B): linear while B is far below N, and
constant far above it (McCandlish et al. 2018, eq. 2.6; for Adam its square root). Given `batch_size` and `noise_scale`, rules end there.
And a rate that is more than the curvature bears diverges, whatever the batch: with large k begin with a warm-up.

**What it rests on.** Small steps; batches drawn at random; for the root, gradients that are mostly noise. LARS and LAMB divide by the
length of the whole update, so that the root is theirs by the same argument (for LAMB so in You et al. 2020). Nothing here makes up
for updates that are too few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from unstuck.errors import MisuseError
from unstuck.optim.schedules import Constant, Schedule, WarmUp

Rule = Literal["linear", "sqrt"]
RULES: dict[str, Rule] = {
    "SGD": "linear",
    "Sgd": "linear",
    "Adam": "sqrt",
    "AdamW": "sqrt",
    "NAdam": "sqrt",
    "RAdam": "sqrt",
    "Adamax": "sqrt",
    "RMSprop": "sqrt",
    "Lars": "sqrt",
    "Lamb": "sqrt",
}
"""The rule of an optimizer by the name of its class, or of one that it is derived from; Sam has that of the optimizer it wraps."""
_DECOUPLED = ("AdamW", "Lamb")
_LENGTH_GIVEN = ("Lamb",)  # whatever the length of the mean of gradients
_AS_IT_IS = Constant()


@dataclass(frozen=True)
class Rescaled:
    """What a rescaling did.

    Attributes:
        times: How many times as large the batch is.
        rule: Of the rate.
        rate: What the rates were multiplied by.
        says: One sentence.
    """

    times: float
    rule: Rule
    rate: float
    says: str


def rate_factor(
    times: float, rule: Rule = "linear", *, batch_size: float | None = None, noise_scale: float | None = None
) -> float:
    """What the rate is multiplied by for a batch that many times as large.

    Args:
        times: k, above 0; below 1 for a smaller batch.
        rule: "linear" or "sqrt".
        batch_size: Samples in the batch as it is, if a noise scale is given.
        noise_scale: N in samples (`unstuck.optim.noise_scale`): the rule then ends where noise no longer is what matters. Infinite
            where no end was seen.

    Returns:
        k, or with a noise scale (1 + N/B) / (1 + N/(kB)); the square root of it by the other rule.

    Raises:
        MisuseError: A number isn't above 0, a noise scale comes without a batch size, or there is no such rule.

    Example:
        >>> rate_factor(4), rate_factor(4, "sqrt"), round(rate_factor(64, batch_size=32, noise_scale=96), 2)
        (4.0, 2.0, 3.82)
    """
    if not times > 0:
        raise MisuseError(f"a batch {times} times as large; it must be above 0")
    if rule not in ("linear", "sqrt"):
        raise MisuseError(f'the rule is {rule!r}, but must be "linear" or "sqrt"')
    factor = float(times)
    if noise_scale is not None:
        if batch_size is None or not batch_size > 0 or not noise_scale >= 0:
            raise MisuseError(
                f"a noise scale of {noise_scale} samples with a batch of {batch_size}: both are needed, the batch above 0"
            )
        if math.isfinite(noise_scale):
            factor = limited_rate(times * batch_size, noise_scale) / limited_rate(batch_size, noise_scale)
    return factor if rule == "linear" else math.sqrt(factor)


def limited_rate(batch_size: float, noise_scale: float, highest: float = 1.0) -> float:
    """The best rate of SGD by batch size: in proportion to it while that is small, and no more than so high.

    Args:
        batch_size: In samples, above 0.
        noise_scale: Half the highest is reached at this batch size.
        highest: The best rate without noise, that of the full batch.

    Returns:
        highest / (1 + noise_scale / batch_size).

    Source: McCandlish et al. 2018, eq. 2.6.

    Example:
        >>> limited_rate(100, 100, 0.8), round(limited_rate(1, 100, 0.8), 4)
        (0.4, 0.0079)
    """
    return highest / (1 + noise_scale / batch_size)


def same_half_life(beta: float, times: float) -> float:
    """The momentum that forgets the same number of samples with updates of so many times as many.

    Args:
        beta: From 0 to 1.
        times: How many times as many samples there are to an update.

    Returns:
        beta to that power.

    Example:
        >>> round(same_half_life(0.9, 2), 6)
        0.81
    """
    return beta**times


def warm_up(
    times: float, *, steps_per_epoch: int, epochs: float = 5, then: Schedule = _AS_IT_IS, rule: Rule = "linear"
) -> WarmUp:
    """The warm-up that goes with a batch that many times as large: from the rate as it was to that of the rule.

    Args:
        times: k, at least 1.
        steps_per_epoch: Updates to an epoch, with the larger batch.
        epochs: How long it takes.
        then: What follows.
        rule: "linear" or "sqrt".

    Returns:
        A schedule.

    Raises:
        MisuseError: The batch is not larger, or there is no such rule.

    Source: Goyal et al. 2017, section 2.2.

    Example:
        >>> schedule = warm_up(8, steps_per_epoch=100)
        >>> schedule(0), schedule(500)
        (0.125, 1.0)
    """
    if not times >= 1:
        raise MisuseError(f"a batch {times} times as large needs no warm-up: only a larger one does")
    return WarmUp(round(epochs * steps_per_epoch), then=then, start=1 / rate_factor(times, rule))


def rescale(
    optimizer: Optimizer,
    times: float,
    *,
    rule: Rule | None = None,
    half_lives: bool | None = None,
    batch_size: float | None = None,
    noise_scale: float | None = None,
) -> Rescaled:
    """Sets an optimizer's rates, betas, eps and decay for a batch that many times as large, in place, in all of its groups.

    To be done before a schedule is made of the optimizer: schedules keep the rates that they found. Best on an optimizer that hasn't made a
    step: Adam's averages are those of the old batch until they are forgotten, and until then its steps are too short, not too long.

    Args:
        optimizer: One whose rule is known, or any with a rule given.
        times: How many times as large the batch becomes, above 0.
        rule: "linear" or "sqrt"; by default that of the optimizer's kind, see `RULES`.
        half_lives: Whether momentum and betas are to forget the same number of samples; by default betas are, with the root.
        batch_size: Samples in the batch as it was, if a noise scale is given.
        noise_scale: In samples: the rule then ends where noise no longer is what matters.

    Returns:
        What was done.

    Raises:
        MisuseError: The optimizer's rule isn't known, or a number can't be used.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.001)
        >>> print(rescale(optimizer, 4).says)
        Adam, for a batch 4 times as large: rate times 2 by the square-root rule, betas to the power 4, eps divided by 2
    """
    name = _known_as(optimizer)
    if rule is None and name is None:
        raise MisuseError(
            f'no rule is known for {type(optimizer).__name__}: give rule="sqrt" if its steps don\'t depend on how long the gradient is, '
            'as with Adam, and rule="linear" if they are proportional to it'
        )
    used: Rule = rule or RULES[name or ""]
    factor = rate_factor(times, used, batch_size=batch_size, noise_scale=noise_scale)
    by_default = used == "sqrt" and half_lives is None
    for group in optimizer.param_groups:
        coasts = _coast_alike(optimizer, group, times, name) if half_lives else 1.0
        if by_default or half_lives:
            _forget_alike(group, times, first=bool(half_lives) or name not in _LENGTH_GIVEN)
        rate = factor * coasts
        _multiply(group, "lr", rate)
        _multiply(group, "initial_lr", rate)
        if used == "sqrt":
            _multiply(group, "eps", times**-0.5)
        if group.get("decoupled_weight_decay", group.get("decoupled", name in _DECOUPLED)):
            _multiply(group, "weight_decay", times / (factor if name in _LENGTH_GIVEN else rate))
    forgotten = _forgotten(optimizer, by_default, half_lives, name)
    return Rescaled(times, used, factor, _says(optimizer, times, used, factor, forgotten))


def _known_as(optimizer: Optimizer) -> str | None:
    kind = type(getattr(optimizer, "base", optimizer))  # what Sam is wrapped around
    return next((c.__name__ for c in kind.__mro__ if c.__name__ in RULES), None)


def _forgotten(optimizer: Optimizer, by_default: bool, half_lives: bool | None, name: str | None) -> list[str]:
    """What is given another half-life in updates."""
    wanted = ("betas", "alpha") if by_default else ("betas", "alpha", "momentum") if half_lives else ()
    found = [key for key in wanted if any(group.get(key) for group in optimizer.param_groups)]
    return ["the second beta"] if by_default and name in _LENGTH_GIVEN else found


def _forget_alike(group: dict[str, Any], times: float, *, first: bool) -> None:
    """Gives a group the betas that forget the same number of samples, the first of them if wanted."""
    if "betas" in group:
        beta, *others = group["betas"]
        kept = same_half_life(beta, times) if first else beta
        group["betas"] = (kept, *(same_half_life(other, times) for other in others))
    if "alpha" in group:  # RMSprop's
        group["alpha"] = same_half_life(group["alpha"], times)
    _multiply(group, "momentum_decay", times)  # NAdam's, by step


def _coast_alike(optimizer: Optimizer, group: dict[str, Any], times: float, name: str | None) -> float:
    """Gives a group the momentum that forgets the same number of samples.

    Returns:
        What the rate is to be multiplied by for a gradient to move as much in all as it would have by the rule of the rate alone.
    """
    if name in _LENGTH_GIVEN:
        before = group["betas"][0]
        return _noise_left(same_half_life(before, times)) / _noise_left(before)
    before = group.get("momentum", 0.0)
    if not before:
        return 1.0
    group["momentum"] = after = same_half_life(before, times)
    if group.get("form") == "mean":
        return 1.0
    if group.get("dampening") == before:  # a mean as torch writes it
        group["dampening"] = after
        return 1.0
    grown = (1 - after) / (1 - before)
    for parameter in group["params"]:
        state = optimizer.state.get(parameter, {})
        buffer = state.get("velocity" if name == "Sgd" else "momentum_buffer")  # that of Lars has its rate in it
        if buffer is not None:
            buffer.div_(grown)
    return grown


def _noise_left(beta: float) -> float:
    """Size of the noise in an exponential mean of gradients, in units of that in one of them."""
    return math.sqrt((1 - beta) / (1 + beta))


def _multiply(group: dict[str, Any], key: str, factor: float) -> None:
    value = group.get(key)
    if isinstance(value, Tensor):
        value.mul_(factor)
    elif value is not None:
        group[key] = value * factor


def _says(optimizer: Optimizer, times: float, rule: Rule, factor: float, forgotten: list[str]) -> str:
    parts = [f"rate times {factor:.4g} by the {'square-root' if rule == 'sqrt' else 'linear'} rule"]
    if forgotten:
        parts.append(f"{' and '.join(forgotten)} to the power {times:.4g}")
    if rule == "sqrt" and any("eps" in group for group in optimizer.param_groups):
        parts.append(f"eps divided by {math.sqrt(times):.4g}")
    return f"{type(optimizer).__name__}, for a batch {times:.4g} times as large: {', '.join(parts)}"
