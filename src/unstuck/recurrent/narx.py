"""NARX: a series told from its own past and that of others, trained on what was and run on what it says itself.

    y(t + h - 1) = f(y(t - d) for d in target_delays, u(t - d) for d in input_delays)

Without inputs u and hidden units this is an autoregression, AR(p). Its feedback is its output alone, so a gradient through time may
jump over delays; it reaches back further than in a network whose state changes at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.recurrent.delays import delayed, design_matrix, lags, least_squares


class NARX(nn.Module):
    """Nonlinear autoregressive network with exogenous inputs.

    Args:
        target_size: Channels of the series to tell.
        input_size: Channels of the other series.
        target_delays: Delays of the target, counted from the first step not yet known; a number p stands for 1 to p.
        input_delays: Delays of the inputs; those from `1 - horizon` to 0 are of inputs that are known ahead.
        horizon: How many steps ahead the answer lies.
        hidden_sizes: Units of each hidden layer; none makes the network linear.
        direct: Whether delays are connected to the output also directly, beside the hidden layers.
        activation: Of hidden units.
        bias: Whether layers have a bias.
        generator: Of the first weights; by default torch's own, as with all modules of torch.

    Attributes:
        target_lags, input_lags: Distances from the answer back to what it is told from, in time steps.
        span: Length of the past that an answer needs, in time steps.
        linear: From delays to the output, or None.
        hidden: The hidden layers and the one after them, or None.

    Raises:
        MisuseError: Delays, sizes and horizon don't fit each other.

    Source:
        Lin, Horne, Tino and Giles 1996, "Learning long-term dependencies in NARX recurrent neural networks", section II. They have
        one hidden layer of tanh and no direct connections.

    Example:
        >>> narx = NARX(1, 3, target_delays=2, input_delays=[1, 4], hidden_sizes=[8])
        >>> narx(torch.zeros(5, 20, 1), torch.zeros(5, 20, 3)).shape
        torch.Size([5, 16, 1])
        >>> narx.forecast(torch.zeros(5, 20, 1), torch.zeros(5, 27, 3), steps=7).shape
        torch.Size([5, 7, 1])
    """

    def __init__(
        self,
        target_size: int,
        input_size: int = 0,
        *,
        target_delays: int | Sequence[int],
        input_delays: int | Sequence[int] = (),
        horizon: int = 1,
        hidden_sizes: Sequence[int] = (),
        direct: bool = False,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.target_lags = lags(target_delays, horizon=horizon)
        self.input_lags = lags(input_delays, horizon=horizon, smallest=0)
        self.target_size, self.input_size = target_size, input_size
        self.activation = activation
        if bool(input_size) != bool(self.input_lags):
            raise MisuseError(
                f"{input_size} input channels and {len(self.input_lags)} input delays; give both or neither"
            )
        features = target_size * len(self.target_lags) + input_size * len(self.input_lags)
        if not features:
            raise MisuseError("no delays; give target_delays, input_delays or both")
        self.span = max(*self.target_lags, *self.input_lags, 0)
        with_linear = direct or not hidden_sizes
        self.linear = _dense(features, target_size, bias, generator) if with_linear else None
        sizes = [features, *hidden_sizes, target_size]
        layers = [_dense(*pair, bias, generator) for pair in pairwise(sizes)]
        self.hidden = nn.ModuleList(layers) if hidden_sizes else None

    def forward(
        self, target: Float[Tensor, "batch time target"], inputs: Float[Tensor, "batch time input"] | None = None
    ) -> Float[Tensor, "batch rows target"]:
        """Tells every step of a known series from what was before it (series-parallel, also called teacher forcing).

        Args:
            target: The series, as it was.
            inputs: The other series, over the same times.

        Returns:
            What is told for the times from `span` on, to be compared with `target[:, span:]`.
        """
        return self._answer(self._rows(target, inputs)[0])

    def forecast(
        self,
        target: Float[Tensor, "batch time target"],
        inputs: Float[Tensor, "batch all_time input"] | None = None,
        *,
        steps: int,
    ) -> Float[Tensor, "batch steps target"]:
        """Goes on after the end of a known series, fed with what it says itself (parallel, also called free-running).

        Gradients flow through all of the feedback.

        Args:
            target: The series as far as it is known, at least `span` steps.
            inputs: The other series from the same start on, as far as the forecast needs them: `time + steps` less the
                shortest of `input_lags`.
            steps: How many.

        Returns:
            What is told for the times after the end.

        Raises:
            MisuseError: The series are too short, or don't have the sizes that were agreed.
        """
        self._check(target, inputs)
        time = target.shape[1]
        if steps < 1 or time < self.span:
            raise MisuseError(
                f"{steps} steps after a series of {time}; give 1 step or more, and a series of at least {self.span} steps"
            )
        known = None if inputs is None else delayed(inputs, self.input_lags, first=time, stop=time + steps)
        values = list(target.unbind(1))
        for step in range(steps):
            parts = [values[time + step - lag] for lag in self.target_lags]
            values.append(self._answer(torch.cat(parts if known is None else [*parts, known[:, step]], dim=1)))
        return torch.stack(values[time:], dim=1)

    def fit_least_squares(
        self,
        target: Float[Tensor, "batch time target"],
        inputs: Float[Tensor, "batch time input"] | None = None,
        *,
        ridge: float = 0.0,
    ) -> None:
        """Sets the linear part to the least squares fit of one series or several.

        Where there are hidden layers their output is set to zero: training goes on from the least squares fit.

        Args:
            target: The series.
            inputs: The other series, over the same times.
            ridge: See `unstuck.recurrent.delays.least_squares`.

        Raises:
            MisuseError: There is no linear part, or the series don't fit.
        """
        if self.linear is None:
            raise MisuseError("a network with hidden layers alone has no least squares fit; make it with direct=True")
        features, answers = (part.flatten(0, 1) for part in self._rows(target, inputs))
        weight, bias = least_squares(features, answers, ridge=ridge, bias=self.linear.bias is not None)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            if self.linear.bias is not None:
                self.linear.bias.copy_(bias)
            if self.hidden is not None:
                for parameter in self.hidden[-1].parameters():
                    parameter.zero_()

    def _rows(self, target: Tensor, inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        self._check(target, inputs)
        return design_matrix(target, inputs, target_delays=self.target_lags, input_delays=self.input_lags)

    def _answer(self, features: Tensor) -> Tensor:
        direct = None if self.linear is None else self.linear(features)
        if self.hidden is None:
            return direct  # pyright: ignore[reportReturnType]
        for layer in self.hidden[:-1]:
            features = self.activation(layer(features))
        bent = self.hidden[-1](features)
        return bent if direct is None else direct + bent

    def _check(self, target: Tensor, inputs: Tensor | None) -> None:
        if target.shape[2] != self.target_size:
            raise MisuseError(f"a target of {target.shape[2]} channels; this network was made for {self.target_size}")
        given = 0 if inputs is None else inputs.shape[2]
        if given != self.input_size:
            raise MisuseError(f"inputs of {given} channels; this network was made for {self.input_size}")


def autoregression(
    order: int | Sequence[int],
    *,
    size: int = 1,
    horizon: int = 1,
    bias: bool = True,
    generator: torch.Generator | None = None,
) -> NARX:
    """AR(p): a series told from its own past by a linear map.

    Args:
        order: How many steps it looks back, or the delays themselves.
        size: Channels of the series; with more than one this is a vector autoregression.
        horizon: How many steps ahead the answer lies.
        bias: Whether there is a constant.
        generator: Of the first weights.

    Returns:
        The network; `fit_least_squares` fits it at once, a gradient method slowly and to the same weights.

    Source:
        Yule 1927, "On a method of investigating periodicities in disturbed series" (of sunspots).

    Example:
        >>> doubling = autoregression(1)
        >>> doubling.fit_least_squares(torch.tensor([1.0, 2, 4, 8, 16]).reshape(1, 5, 1))
        >>> [round(value, 2) for value in doubling.forecast(torch.full((1, 1, 1), 3.0), steps=3).flatten().tolist()]
        [6.0, 12.0, 24.0]
    """
    return NARX(size, target_delays=order, horizon=horizon, bias=bias, generator=generator)


def _dense(fan_in: int, fan_out: int, bias: bool, generator: torch.Generator | None) -> nn.Linear:
    layer = cast(nn.Linear, nn.utils.skip_init(nn.Linear, fan_in, fan_out, bias=bias))
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
