"""Exponentially weighted averages of a series: one number at a time, or of a whole series at once.

A sample that lies k steps back has the weight beta**k, so that the average is over about the last 1 / (1 - beta) of them. It is corrected
for its start: it is a weighted mean of the samples there were, however few, where v = beta v + (1 - beta) x from v = 0 is near 0 at first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unstuck.errors import MisuseError

Sample = float | NDArray[np.floating[Any]] | Tensor


def window_of(beta: float) -> float:
    """Samples that an average is over, 1 / (1 - beta): the older ones have together 1/e of the weight.

    Args:
        beta: Share of the average that is kept at each sample.

    Returns:
        Samples, 1 or more.

    Raises:
        MisuseError: The share isn't from 0 to less than 1.
    """  # noqa: DOC502
    return 1 / (1 - _checked(beta))


def beta_of_window(window: float) -> float:
    """The share that makes an average one over so many samples.

    Args:
        window: Samples.

    Returns:
        The share, from 0 to less than 1.

    Raises:
        MisuseError: There is less than one sample, or no end of them.

    Example:
        >>> beta_of_window(10)
        0.9
    """
    if not 1 <= window < math.inf:
        raise MisuseError(f"a window of {window!r} samples; give a number from 1 on")
    return 1 - 1 / window


def half_life(beta: float) -> float:
    """Samples after which a sample has half of its weight.

    Args:
        beta: Share of the average that is kept at each sample.

    Returns:
        Samples, 0 where nothing is kept.

    Raises:
        MisuseError: The share isn't from 0 to less than 1.

    Example:
        >>> round(half_life(0.9), 2)
        6.58
    """  # noqa: DOC502
    return math.log(0.5) / math.log(beta) if _checked(beta) > 0 else 0.0


class MovingAverage:
    """An exponentially weighted average that samples are added to.

    Samples are numbers, or arrays or tensors of one shape; tensors stay on their device, and nothing waits for it. A sample that is NaN is
    skipped, element by element: the average stays, and weighs the less beside what comes, as time has passed. Infinite ones are not.

    Args:
        beta: Share of the average that is kept at each sample, from 0 to less than 1.
        half_life: In place of it, the time after which a sample has half of its weight, for samples that are not evenly spaced.
        corrected: The average is one of the samples there were. If not, it starts from 0, as textbooks have it: after t samples
            it is too small by the factor 1 - beta**t.
        variance: Keep what `variance` needs as well.
        skip_nan: If not, one NaN is one for good, and tensors need half of the memory.

    Attributes:
        count: Samples that were added.

    Raises:
        MisuseError: Shares or times can't be used so.

    Source:
        Kingma and Ba 2015, section 3, for the correction. The mean and the variance are brought up to date as in West 1979, which
        loses no digits where the mean is large beside the deviations.

    Example:
        >>> average = MovingAverage(0.9)
        >>> for x in (4.0, 4.0, 4.0):
        ...     average.add(x)
        >>> average.value
        4.0
    """

    def __init__(
        self,
        beta: float | None = None,
        *,
        half_life: float | None = None,
        corrected: bool = True,
        variance: bool = False,
        skip_nan: bool = True,
    ) -> None:
        _check_spacing(beta, half_life, corrected)
        if variance and not corrected:
            raise MisuseError("of an average that starts from 0 no variance is known: leave corrected=True")
        self.beta, self.half_life, self.corrected = beta, half_life, corrected
        self.keeps_variance, self.skip_nan = variance, skip_nan
        self.reset()

    def reset(self) -> None:
        """Forgets all samples."""
        self.count = 0
        self._time = math.nan
        self._mean: Any = None
        self._weight: Any = 0.0 if self.corrected else self.window  # of all samples, where a new one has 1
        self._weight2: Any = 0.0  # of their squares
        self._squares: Any = 0.0

    @property
    def window(self) -> float:
        """Samples that it is over, 1 / (1 - beta); with a half-life, the time."""
        return window_of(self.beta) if self.beta is not None else (self.half_life or math.nan) / math.log(2)

    @property
    def value(self) -> Any:
        """The average; NaN where there was no sample yet, or 0 if it isn't corrected."""
        return self._mean if self._mean is not None else math.nan if self.corrected else 0.0

    @property
    def variance(self) -> Any:
        """Weighted variance of the samples around the average, without bias if they are independent; NaN where there are less than two.

        Raises:
            MisuseError: It wasn't asked for.
        """
        if not self.keeps_variance:
            raise MisuseError("the variance isn't kept: make it by MovingAverage(..., variance=True)")
        if self._mean is None:
            return math.nan
        free = self._weight - self._weight2 / _choose(self._weight > 0, self._weight, 1.0)
        several = free > 1e-12 * self._weight  # else what is left of one sample by rounding
        return _choose(several, self._squares / _choose(several, free, 1.0), math.nan)

    def add(self, x: Sample, *, time: float | None = None) -> None:
        """Takes in a sample.

        Args:
            x: A number, an array or a tensor.
            time: Of the sample, where there is a half-life.

        Raises:
            MisuseError: It has another shape than those before, or times are missing, not wanted, or go back.
        """
        x = _as_float(x)
        if self._mean is not None and np.shape(x) != np.shape(self._mean):
            raise MisuseError(f"a sample of shape {np.shape(x)}, but those before had {np.shape(self._mean)}")
        decay = self._decay(time)
        there: Any = _is_number(x) if self.skip_nan else 1.0
        self.count += 1
        if self._mean is None:
            self._mean = x if self.corrected else 0.0 * _choose(there, x, 0.0)
        before = _choose(self._mean == self._mean, self._mean, x) if self.skip_nan else self._mean
        self._weight = decay * self._weight + there
        change = (x - before) / (self._weight + (1 - there))  # above 0 where there is no sample either
        self._mean = before + (_choose(there, change, 0.0) if self.skip_nan else change)
        if self.keeps_variance:
            added = (x - before) * (x - self._mean)
            self._squares = decay * self._squares + (_choose(there, added, 0.0) if self.skip_nan else added)
            self._weight2 = decay * decay * self._weight2 + there

    def _decay(self, time: float | None) -> float:
        if self.half_life is None:
            if time is not None:
                raise MisuseError("a time was given to an average of evenly spaced samples: make it by half_life=...")
            return self.beta or 0.0
        if time is None:
            raise MisuseError("an average with a half-life needs the time of each sample: add(x, time=...)")
        past = 0.0 if math.isnan(self._time) else time - self._time
        if not past >= 0:
            raise MisuseError(f"a sample at time {time:g} behind one at {self._time:g}; add them in their order")
        self._time = time
        return 0.5 ** (past / self.half_life)

    def state_dict(self) -> dict[str, Any]:
        """What it needs to go on; settings aren't part of it."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where another stood.

        Args:
            state: What `state_dict` gave.

        Raises:
            MisuseError: It is none.
        """
        if set(state) != set(_STATE):
            raise MisuseError(f"a state with {sorted(state)}, but an average has {sorted(_STATE)}")
        for name, value in state.items():
            setattr(self, name, value)

    def of(self, series: Any) -> Self:
        """Adds all samples of a series.

        Args:
            series: Of evenly spaced samples.

        Returns:
            Itself.
        """
        for x in series:
            self.add(x)
        return self


_STATE = ("count", "_time", "_mean", "_weight", "_weight2", "_squares")


def moving_average(
    series: ArrayLike | Tensor,
    beta: float | None = None,
    *,
    times: ArrayLike | Tensor | None = None,
    half_life: float | None = None,
    corrected: bool = True,
) -> Any:
    """The average after each sample of a series, as `MovingAverage` has it after each.

    All are computed at once by doubling, as sums over 1, 2, 4, 8 ... samples: in log2(time) passes, without a loop over samples. NaN are
    skipped.

    Args:
        series: Samples, shape `(time, ...)`; further axes are series of their own.
        beta: Share of the average that is kept at each sample, from 0 to less than 1.
        times: Of the samples, ascending, where they are not evenly spaced.
        half_life: In place of `beta`, for which `times` are needed, and in their unit.
        corrected: The average is one of the samples there were, see `MovingAverage`.

    Returns:
        Averages, shape and kind of the series: a tensor of a tensor, else an array. NaN up to the first sample that isn't.

    Raises:
        MisuseError: Shares or times can't be used so.

    Example:
        >>> moving_average([1.0, 1.0, 4.0], 0.5)  # weights of 1/4, 1/2 and 1
        array([1.        , 1.        , 2.71428571])
    """
    _check_spacing(beta, half_life, corrected)
    x = series.detach() if isinstance(series, Tensor) else torch.from_numpy(np.array(series, dtype=np.float64))
    if x.dim() == 0:
        raise MisuseError("a series must have an axis of time, but a single number was given")
    kind = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    with torch.no_grad():
        x = x.to(torch.promote_types(kind, torch.float32))
        found = _averages(x, _decays(x, beta, times, half_life), window_of(beta or 0.0) if not corrected else 0.0)
    return found.to(kind) if isinstance(series, Tensor) else found.numpy()


def _averages(x: Tensor, decay: Callable[[int], Any], start: float) -> Tensor:
    """Averages by time, where 0 had that weight before the first sample."""
    if not len(x):
        return x
    there = ~x.isnan()
    last = torch.where(there, _over_time(torch.arange(len(x), device=x.device), x), -1).cummax(0).values
    first = x.gather(0, there.to(torch.uint8).argmax(0, keepdim=True)).nan_to_num(0.0, 0.0, 0.0)
    first = torch.zeros_like(first) if start else first  # of a series that doesn't change it is then exact
    weights = _discounted(there.to(x.dtype), decay)
    if start:
        weights = weights + start * _over_time(
            decay(1) ** torch.arange(1, len(x) + 1, dtype=x.dtype, device=x.device), x
        )
    means = first + _discounted(torch.where(there, x - first, 0.0), decay) / weights
    missing = 0.0 if start else math.nan
    return torch.where(last >= 0, means.gather(0, last.clamp(min=0)), missing)  # in a gap the average stays


def _discounted(x: Tensor, decay: Callable[[int], Any]) -> Tensor:
    """Sums over time, in which what lies `k` samples back counts `decay(k)` times."""
    sums, shift = x.clone(), 1
    while shift < len(x):
        sums[shift:] = sums[shift:] + decay(shift) * sums[:-shift]
        shift *= 2
    return sums


def _decays(x: Tensor, beta: float | None, times: Any, half_life: float | None) -> Callable[[int], Any]:
    """What is left of a weight after `k` samples: a number, or one for each sample behind the first `k`.

    Raises:
        MisuseError: Times can't be used so.
    """
    if (times is None) != (half_life is None):
        raise MisuseError("times and half_life belong together: give both, or beta")
    if half_life is None:
        kept = beta or 0.0
        return lambda k: kept**k
    at = torch.as_tensor(times).to(x.device, torch.float64)
    if at.shape != x.shape[:1] or not bool((at.diff() >= 0).all()):
        raise MisuseError(f"times must be {len(x)} numbers that ascend, one for each sample")
    return lambda k: _over_time((0.5 ** ((at[k:] - at[:-k]) / half_life)).to(x.dtype), x)


def _over_time(values: Tensor, like: Tensor) -> Tensor:
    """Numbers by time, with as many axes as a series."""
    return values.reshape(-1, *[1] * (like.dim() - 1)).expand(-1, *like.shape[1:])


# ---------------------------------------------------------------------- numbers, arrays and tensors


def _as_float(x: Any) -> Any:
    if isinstance(x, Tensor):
        kind = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return x.detach().to(torch.promote_types(kind, torch.float32), copy=True)
    if isinstance(x, np.ndarray):
        return np.array(x, dtype=np.promote_types(x.dtype, np.float32))
    return float(x)


def _is_number(x: Any) -> Any:
    """1 where it is, 0 where it is NaN."""
    if isinstance(x, Tensor):
        return (~x.isnan()).to(x.dtype)
    return (~np.isnan(x)).astype(x.dtype) if isinstance(x, np.ndarray) else float(not math.isnan(x))


def _choose(there: Any, x: Any, other: Any) -> Any:
    if isinstance(there, Tensor):
        return torch.where(there.bool(), x, other)
    return np.where(there, x, other) if isinstance(there, np.ndarray) else x if there else other


# ---------------------------------------------------------------------- what is given


def _checked(beta: float) -> float:
    if not 0 <= beta < 1:
        raise MisuseError(f"beta is {beta!r}, but must be from 0 to less than 1")
    return beta


def _check_spacing(beta: float | None, half_life: float | None, corrected: bool) -> None:
    if (beta is None) == (half_life is None):
        raise MisuseError("give beta, or half_life where samples are not evenly spaced, and not both")
    if beta is not None:
        _checked(beta)
    if half_life is not None and not 0 < half_life < math.inf:
        raise MisuseError(f"half_life is {half_life!r}, but must be above 0")
    if half_life is not None and not corrected:
        raise MisuseError(
            "an average that starts from 0 is one of evenly spaced samples: give beta, or leave corrected=True"
        )
