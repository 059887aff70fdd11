"""Which batch size gets a training where it got in the least time: updates by the noise scale, times the time of an update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unstuck.errors import MisuseError
from unstuck.optim.batch_timing import Timing
from unstuck.optim.noise_scale import NoiseScale, relative_rate, relative_updates

CLEAR = 0.1  # share of the time that another batch size must save to be recommended
BUSY = 0.2  # share of the time without a processor, above which times say nothing
_TIE = (
    0.03  # of the time, within which sizes are as good as each other, and the one nearest to the script's own is taken
)


@dataclass(frozen=True)
class Own:
    """A training as it was made.

    Attributes:
        size: Samples in an update: in a batch, or in all batches whose gradients are added up for it.
        adaptive: Its optimizer divides by the size of past gradients, as Adam does.
        total: Samples in the training set; infinite where that isn't known.
        besides: Seconds that an update took besides what `Timing` has in it: loading data, printing.
        stable: How many times its learning rate is still stable.
        grows: The loss is a sum over the batch, not a mean, so that the gradient grows with the batch by itself.
        num_batches: Batches to an update.
        adds: Their gradients are added up, not averaged: losses aren't divided by the number of batches.
    """

    size: int
    adaptive: bool = False
    total: float = math.inf
    besides: float = 0.0
    stable: float = math.inf
    grows: bool = False
    num_batches: int = 1
    adds: bool = False

    @property
    def micro_size(self) -> int:
        """Samples in a batch."""
        return self.size // self.num_batches

    def gradient(self, size: int, num_batches: int) -> float:
        """How long the gradient of an update of so many samples in so many batches is, relative to that of the mean loss."""
        return (size / num_batches if self.grows else 1) * (num_batches if self.adds else 1)


@dataclass(frozen=True)
class Option:
    """A batch size, and what it comes to; all but `seconds` is relative to the training as it was made.

    Attributes:
        size: Samples in an update.
        seconds: Of an update, with what is done besides.
        updates: To where the training got, with the rate that goes with the size.
        samples: To where it got.
        time: To where it got.
        low: Lower end of the interval of `time`, by those of noise scale and timing.
        high: Its upper end.
        rate: What the learning rate is multiplied by.
        is_capped: The rate would go higher than is stable; held there it takes more updates.
        fits: An update fits into memory.
        num_batches: Batches that the samples of an update come in.
    """

    size: int
    seconds: float
    updates: float
    samples: float
    time: float
    low: float
    high: float
    rate: float
    is_capped: bool = False
    fits: bool = True
    num_batches: int = 1

    @property
    def micro_size(self) -> int:
        """Samples in a batch."""
        return self.size // self.num_batches


@dataclass(frozen=True)
class Choice:
    """Batch sizes, and the one that is recommended.

    Attributes:
        options: By size, ascending; the training's own among them. Of one that adds up batches each size comes in the fastest way that
            fits into memory, and its own size twice where another way is faster.
        own: Its size.
        recommended: The size that is recommended: its own where no other is clearly better.
        fastest: The size with the least predicted time of those that fit.
        why: Why it is its own: "fastest", or "unclear" where others are faster, but by little, or with an interval that reaches 1;
            "busy" where updates waited for the processor, so that their times say nothing; "" where it is another.
        beyond: The size that would be faster still, but doesn't fit into memory; 0 where there is none.
        num_batches: Batches to an update of what is recommended.
    """

    options: tuple[Option, ...]
    own: int
    recommended: int
    fastest: int
    why: str = ""
    beyond: int = 0
    num_batches: int = 1

    def __getitem__(self, size: int) -> Option:
        return next(option for option in self.options if option.size == size)


def choose(
    own: Own,
    timing: Timing,
    scales: Sequence[NoiseScale],
    weights: Sequence[float],
    *,
    fits: float = math.inf,
    most: float = math.inf,
    clear: float = CLEAR,
    busy: float = BUSY,
    sizes: Sequence[int] = (),
) -> Choice:
    """The batch size of least predicted time to where a training got.

    Args:
        own: The training as it was made; its batch size, and where it adds up batches their number, must be among those timed.
        timing: Seconds of an update by batch size.
        scales: Noise scales along the training.
        weights: How much of its updates each of them stands for.
        fits: Largest batch size that fits into memory.
        most: Largest batch size that is recommended; others are still in the options.
        clear: Share of the time that must be saved.
        busy: Share of the time without a processor above which no size is recommended.
        sizes: Samples to an update that are options beside those that were timed in one batch, where batches are added up.

    Returns:
        All sizes that were timed, and the recommended one.

    Raises:
        MisuseError: The own size was not timed.

    Source:
        Time as updates times time of an update: McCandlish et al. 2018, section 2.4. Departures: updates are predicted point by point
        along the training; the rate is held where it is stable; and steps of an adaptive optimizer, which are as long as the rate
        where there is little noise, and as long as that times the signal's share where there is much (Malladi et al. 2022), are taken
        to be half way between: both are within the interval.
    """
    if own.micro_size not in timing.sizes:
        raise MisuseError(f"the own batch size, {own.micro_size}, must be among those that are timed: {timing.sizes}")
    options = tuple(
        _option(size, num_batches, own, timing, scales, weights, fits=size // num_batches <= max(fits, own.micro_size))
        for size, num_batches in _ways(own, timing, fits, sizes)
    )
    open_to_us = [o for o in options if o.fits and o.size <= max(most, own.size)]
    fastest = min(open_to_us, key=lambda o: o.time)
    beyond = min((o for o in options if o.size <= max(most, own.size)), key=lambda o: o.time)
    sure = [o for o in open_to_us if o.time <= 1 - clear and o.high < 1]
    least = min((o.time for o in sure), default=0.0)
    alike = [o for o in sure if o.time <= (1 + _TIE) * least]
    is_busy = timing.waited > busy
    best = None if is_busy else min(alike, key=lambda o: abs(math.log(o.size / own.size)), default=None)
    return Choice(
        options,
        own.size,
        own.size if best is None else best.size,
        fastest.size,
        "busy" if is_busy else "" if best is not None else "fastest" if fastest.time > 1 - _TIE else "unclear",
        0 if beyond.fits or beyond.time > (1 - _TIE) * fastest.time else beyond.size,
        own.num_batches if best is None else best.num_batches,
    )


def _ways(own: Own, timing: Timing, fits: float, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Samples to an update and the batches they come in, ascending: all in one, or the fastest way where batches are added up."""
    if own.num_batches == 1:
        return [(size, 1) for size in timing.sizes]
    found = {(own.size, own.num_batches)}
    for size in {own.size, *timing.sizes, *sizes}:
        ways = [n for n in timing.sizes if size % n == 0 and n <= max(fits, own.micro_size)]
        if ways:
            found.add((size, size // _fastest(size, ways, own, timing)))
    return sorted(found, key=lambda way: (way[0], -way[1]))


def _fastest(size: int, ways: Sequence[int], own: Own, timing: Timing) -> int:
    """The batch size by which so many samples make an update fastest; the own one, or else the largest, of those that are alike."""
    seconds = {n: timing.update(n, size // n) for n in ways}
    alike = [n for n in ways if seconds[n] <= (1 + _TIE) * min(seconds.values())]
    return own.micro_size if own.micro_size in alike else max(alike)


def _option(
    size: int,
    num_batches: int,
    own: Own,
    timing: Timing,
    scales: Sequence[NoiseScale],
    weights: Sequence[float],
    *,
    fits: bool,
) -> Option:
    wanted = [
        relative_updates(size, own.size, [of(s) for s in scales], weights, total=own.total)
        for of in (lambda s: s.scale, lambda s: s.low, lambda s: s.high)
    ]
    rate, is_capped = relative_rate(wanted[0], adaptive=own.adaptive), False
    if own.adaptive:
        wanted = [math.sqrt(wanted[0] / rate), *wanted, 1 / rate]
    stable = max(1.0, own.stable)
    if rate > stable:
        wanted = [w * rate / stable for w in wanted]
        rate, is_capped = stable, True
    # loading may take as long for each sample, or for each batch: the worse of both is taken
    seconds = timing.update(size // num_batches, num_batches) + own.besides * max(1.0, size / own.size)
    ratio = seconds / (timing.update(own.micro_size, own.num_batches) + own.besides)
    errors = [
        _relative_error(timing, n // count, count) for n, count in ((size, num_batches), (own.size, own.num_batches))
    ]
    apart = 0.0 if (size, num_batches) == (own.size, own.num_batches) else 2 * math.hypot(*errors)
    return Option(
        size,
        seconds,
        wanted[0],
        wanted[0] * size / own.size,
        wanted[0] * ratio,
        min(wanted) * ratio * max(0.0, 1 - apart),
        max(wanted) * ratio * (1 + apart),
        # an adaptive optimizer divides by the length of the gradient
        rate if own.adaptive else rate * own.gradient(own.size, own.num_batches) / own.gradient(size, num_batches),
        is_capped,
        fits,
        num_batches,
    )


def _relative_error(timing: Timing, size: int, num_batches: int) -> float:
    return timing.error(size, num_batches) / timing.update(size, num_batches)
