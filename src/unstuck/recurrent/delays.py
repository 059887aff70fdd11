"""Delays: what a series was some steps ago, side by side with what it is now, and the least squares fit from one to the other.

Delays are counted from the first step that is not yet known: delay 1 is the newest known value, delay 2 the one before. With a
`horizon` of h the answer lies h - 1 steps after that first unknown step. So the answer at time t is told from the values at
t - (h - 1) - d, and h = 1 is the usual forecast of the next step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unstuck.errors import MisuseError, NotFiniteError


def lags(delays: int | Sequence[int], *, horizon: int = 1, smallest: int = 1) -> tuple[int, ...]:
    """Delays as distances from the answer, in time steps.

    Args:
        delays: The delays, or a number p that stands for the delays 1 to p.
        horizon: How many steps ahead the answer lies.
        smallest: Least distance that is allowed: 1 where the answer itself is delayed, 0 where what is known at the same time may
            count.

    Returns:
        The distances, in the order of the delays.

    Raises:
        MisuseError: The horizon is less than 1, a delay comes twice, or a distance is below the smallest.

    Example:
        >>> lags(3), lags([1, 24], horizon=6)
        ((1, 2, 3), (6, 29))
    """
    if horizon < 1:
        raise MisuseError(
            f"a horizon of {horizon}; it is the number of steps ahead, 1 for the next step: give 1 or more"
        )
    chosen = tuple(range(1, delays + 1)) if isinstance(delays, int) else tuple(delays)
    if isinstance(delays, int) and delays < 0:
        raise MisuseError(f"{delays} delays; give a number of delays that is not negative, or the delays themselves")
    if len(set(chosen)) < len(chosen):
        raise MisuseError(f"the delays {list(chosen)} hold one twice; give each once")
    found = tuple(delay + horizon - 1 for delay in chosen)
    if found and min(found) < smallest:
        raise MisuseError(
            f"delay {min(chosen)} at horizon {horizon} is not known yet; the least is {smallest + 1 - horizon}"
        )
    return found


def delayed(
    series: Float[Tensor, "batch time input"],
    distances: Sequence[int],
    *,
    first: int | None = None,
    stop: int | None = None,
) -> Float[Tensor, "batch rows features"]:
    """Values of a series at several distances back in time, side by side.

    Args:
        series: The series.
        distances: How far back each value lies, in time steps.
        first: Time of the first row; by default the first at which all values are there.
        stop: Time after the last row; by default the end of the series.

    Returns:
        A row for each time t from `first` to `stop - 1`: all channels at `t - distances[0]`, then all at `t - distances[1]`, ...

    Raises:
        MisuseError: There is no distance, or a row would need values from before the start or after the end.

    Example:
        >>> series = torch.arange(5.0).reshape(1, 5, 1)
        >>> delayed(series, [1, 2])[0].tolist()
        [[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]]
    """
    if not distances:
        raise MisuseError("no delays; give at least one")
    time = series.shape[1]
    first = max(*distances, 0) if first is None else first
    stop = time if stop is None else stop
    if first < max(distances) or stop - min(distances) > time or stop < first:
        raise MisuseError(
            f"a series of {time} steps has no values for rows {first} to {stop - 1} at distances from {min(distances)} to "
            f"{max(distances)}; give a longer series, or shorter delays"
        )
    return torch.cat([series[:, first - distance : stop - distance] for distance in distances], dim=2)


def design_matrix(
    target: Float[Tensor, "batch time target"],
    inputs: Float[Tensor, "batch time input"] | None = None,
    *,
    target_delays: int | Sequence[int],
    input_delays: int | Sequence[int] = (),
    horizon: int = 1,
) -> tuple[Float[Tensor, "batch rows features"], Float[Tensor, "batch rows target"]]:
    """What an answer is told from, and the answer, at every time at which all of it is known.

    Args:
        target: The series to tell.
        inputs: Other series, over the same times.
        target_delays: Delays of the target; a number p stands for 1 to p.
        input_delays: Delays of the inputs; those from `1 - horizon` to 0 are of inputs that are known ahead.
        horizon: How many steps ahead the answer lies.

    Returns:
        Features, with the delays of the target first, and answers; both begin at the longest distance back.

    Raises:
        MisuseError: The delays don't fit each other, the horizon or the series.

    Example:
        >>> features, answers = design_matrix(torch.arange(5.0).reshape(1, 5, 1), target_delays=2)
        >>> features[0].tolist(), answers[0].flatten().tolist()
        ([[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]], [2.0, 3.0, 4.0])
    """
    target_lags = lags(target_delays, horizon=horizon)
    input_lags = lags(input_delays, horizon=horizon, smallest=0)
    if (inputs is None) != (not input_lags):
        raise MisuseError("inputs and their delays go together; give both or neither")
    first, parts = max((*target_lags, *input_lags), default=0), []
    if target_lags:
        parts.append(delayed(target, target_lags, first=first))
    if inputs is not None:
        parts.append(delayed(inputs, input_lags, first=first, stop=target.shape[1]))
    if not parts:
        raise MisuseError("no delays; give target_delays, input_delays or both")
    return torch.cat(parts, dim=2), target[:, first:]


def least_squares(
    features: Float[Tensor, "rows features"],
    answers: Float[Tensor, "rows target"],
    *,
    ridge: float = 0.0,
    bias: bool = True,
) -> tuple[Float[Tensor, "target features"], Float[Tensor, " target"]]:
    """The linear map with the smallest sum of squared errors, computed in float64 on the CPU.

    Args:
        features: What is known.
        answers: What is to be told.
        ridge: Factor of the sum of squared weights that is added to the sum of squared errors; the bias is left out of it. Features
            should then be of like size.
        bias: Whether there is a constant.

    Returns:
        Weight and bias, float64, as `nn.Linear` holds them. Where features depend on each other, the smallest weight that fits.

    Raises:
        MisuseError: The ridge is negative, or there are no rows.
        NotFiniteError: A value is NaN or infinite.

    Source:
        Hoerl and Kennard 1970 for the ridge, here as rows that are added to the features.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> [round(float(part), 6) for part in least_squares(x, 3 * x + 1)]
        [3.0, 1.0]
    """
    if ridge < 0:
        raise MisuseError(f"a ridge of {ridge:g}; give 0 for plain least squares, or more")
    if not len(features):
        raise MisuseError("no rows to fit; the series must be longer than its longest delay and horizon")
    x, y = (part.detach().to("cpu", torch.float64) for part in (features, answers))
    if not (x.isfinite().all() and y.isfinite().all()):
        raise NotFiniteError("the series holds NaN or infinity; fill the gaps or cut them out before the fit")
    middle_x, middle_y = (part.mean(dim=0) if bias else part.new_zeros(part.shape[1]) for part in (x, y))
    x, y = x - middle_x, y - middle_y
    if ridge:
        x = torch.cat([x, ridge**0.5 * torch.eye(x.shape[1], dtype=x.dtype)])
        y = torch.cat([y, y.new_zeros(x.shape[1], y.shape[1])])
    weight = torch.linalg.lstsq(x, y, driver="gelsd").solution.T
    return weight, middle_y - weight @ middle_x
