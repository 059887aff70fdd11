"""The memory horizon of any recurrent network: how many steps back the gradient still reaches.

Gradients through time shrink or grow by a factor at every step: a torch LSTM as initialised loses ten decades in fifty steps. They are
followed one step at a time, brought to length 1 after each, and their sizes kept as logarithms: nothing underflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unstuck.errors import MisuseError, NotFiniteError

State = Tensor | tuple[Tensor, ...]
_Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Horizon:
    """How far back a gradient reaches.

    Attributes:
        steps: The largest lag up to which the gradient has stayed at `ratio` or above.
        at_least: The gradient was still there at the largest lag that was looked at: the true horizon may be further back.
        ratio: What counts as still there, relative to the gradient at the end.
        log10: Decimal logarithm of the gradient by the states `d` steps before the end over that by what is read at the end, by
            lag d, float64; -inf where there is none.
    """

    steps: int
    at_least: bool
    ratio: float
    log10: Float[Tensor, " lag"] = field(repr=False, compare=False)


def horizon(
    step: Callable[[Tensor, State], State],
    inputs: Float[Tensor, "batch time input"],
    state: State,
    *,
    ratio: float = 1e-3,
    max_lag: int | None = None,
    reads: Callable[[State], Tensor] | None = None,
    seed: int = 0,
) -> Horizon:
    """The memory horizon of a step function.

    With s_t all states after step t, and v a random vector of length 1 over the whole batch, it is `|d(v . s_T) / d s_(T-d)|` by lag d.
    No parameter gets a gradient.

    Args:
        step: From the inputs of one step, shape `(batch, input)`, and the state to the next state. It must not change them in place.
        inputs: What the network is run on.
        state: The first state, a tensor or a tuple of tensors.
        ratio: A gradient below this share of that at the end counts as gone.
        max_lag: The largest lag; by default all steps. Memory grows with it.
        reads: From the last state to what a loss would see of it, such as `lambda state: state[0]` of an LSTM; by default all.
        seed: Of the random vectors.

    Returns:
        The horizon, and the gradient by lag from 0 to the number of steps.

    Raises:
        MisuseError: The ratio isn't above 0, or there is no step to look back.
        NotFiniteError: A gradient isn't finite.

    Source:
        Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and Bengio 2013, section 2.2, for the product of Jacobians that it is the
        size of.

    Example:
        >>> halves = lambda x, h: 0.5 * h + x
        >>> found = horizon(halves, torch.zeros(1, 20, 4), torch.zeros(1, 4), ratio=0.1)
        >>> found.steps, round(10 ** float(found.log10[3]), 6)
        (3, 0.125)
    """
    if not ratio > 0:
        raise MisuseError(f"a ratio of {ratio:g}; give a share above 0, such as 1e-3")
    if not inputs.numel():
        raise MisuseError(f"inputs of shape {tuple(inputs.shape)}; give at least one sequence of at least one step")
    if max_lag is not None and max_lag < 1:
        raise MisuseError(f"max_lag {max_lag}; give 1 or more")
    steps = inputs.detach().unbind(1)
    lags = min(max_lag or len(steps), len(steps))
    with torch.no_grad():
        for x in steps[: len(steps) - lags]:
            state = step(x, state)
    end, links = _links(step, steps[len(steps) - lags :], state)
    with torch.enable_grad():
        read = end if reads is None else reads(end)
    log10 = torch.tensor(_sizes(_tensors(read), links, seed), dtype=torch.float64)
    if log10.isnan().any():
        raise NotFiniteError(f"the gradient is not finite {int(log10.isnan().nonzero()[0])} steps before the end")
    below = (log10 < math.log10(ratio)).nonzero()
    return Horizon(int(below[0]) - 1 if len(below) else lags, not len(below), ratio, log10)


def module_horizon(
    module: nn.Module,
    inputs: Float[Tensor, "batch time input"],
    state: State | None = None,
    *,
    ratio: float = 1e-3,
    max_lag: int | None = None,
    seed: int = 0,
) -> Horizon:
    """The memory horizon of a module that is called as torch's recurrent layers are: `output, state = module(x, state)`.

    It is called one step at a time, in the mode it is in. What is read at the end is its output; the states of all its layers count.

    Args:
        module: The module; batch first unless its attribute `batch_first` is False.
        inputs: What it is run on, batch first always.
        state: Its first state, as it takes it; by default its own, and the state after the first step is the furthest back that is
            looked at.
        ratio: A gradient below this share of that at the end counts as gone.
        max_lag: The largest lag; by default all steps. Memory grows with it.
        seed: Of the random vector at the end.

    Returns:
        The horizon, and the gradient by lag.

    Raises:
        MisuseError: The module is bidirectional or returns something else, or there is no step to look back; also as for `horizon`.

    Example:
        >>> rnn = nn.RNN(1, 1, nonlinearity="relu", bias=False, batch_first=True)
        >>> _ = nn.init.constant_(rnn.weight_ih_l0, 1.0), nn.init.constant_(rnn.weight_hh_l0, 0.5)
        >>> module_horizon(rnn, torch.ones(1, 12, 1)).steps
        9
    """
    if getattr(module, "bidirectional", False):
        raise MisuseError("a bidirectional module has no last step; look at each direction by itself")
    if inputs.shape[1] < 2:
        raise MisuseError(f"inputs of {inputs.shape[1]} steps; give at least 2")
    axis = 1 if getattr(module, "batch_first", True) else 0
    output = inputs

    def step(x: Tensor, before: State | None) -> State:
        nonlocal output
        returned = module(x.unsqueeze(axis), before)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise MisuseError(f"{type(module).__name__} returned no (output, state); give a step function to `horizon`")
        output, after = returned
        return after

    with torch.backends.cudnn.flags(enabled=False):  # cuDNN has no backward pass in evaluation mode
        if state is None:
            with torch.no_grad():
                state, inputs = step(inputs[:, 0], None), inputs[:, 1:]
        return horizon(step, inputs, state, ratio=ratio, max_lag=max_lag, reads=lambda _: output, seed=seed)


def _tensors(state: State) -> _Tensors:
    return (state,) if isinstance(state, Tensor) else tuple(state)


_Links = list[tuple[_Tensors, _Tensors]]  # the states before and after each step, each with a graph of its own


def _links(step: Callable[[Tensor, State], State], inputs: tuple[Tensor, ...], state: State) -> tuple[State, _Links]:
    links = []
    with torch.enable_grad():
        for x in inputs:
            before = tuple(part.detach().requires_grad_() for part in _tensors(state))
            state = step(x, before[0] if isinstance(state, Tensor) else before)
            links.append((before, _tensors(state)))
    return state, links


def _sizes(read: _Tensors, links: _Links, seed: int) -> list[float]:
    """Decimal logarithms of the gradient by lag."""
    generator = torch.Generator().manual_seed(seed)
    gradients = tuple(torch.randn(part.shape, generator=generator).to(part) for part in read)
    size, found = _norm(gradients), [0.0]
    for before, after in reversed(links):
        outputs = read if len(found) == 1 else after
        gradients = _pull(outputs, before, tuple(gradient / size for gradient in gradients))
        size = _norm(gradients)
        if size == 0 or not math.isfinite(size):
            break
        found.append(found[-1] + math.log10(size))
    return found + [-math.inf if size == 0 else math.nan] * (len(links) + 1 - len(found))


def _pull(outputs: _Tensors, before: _Tensors, cotangents: _Tensors) -> _Tensors:
    """From the gradient by outputs to that by the states before them."""
    pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(part) for part in before)
    ends, by_ends = zip(*pairs, strict=True)
    return torch.autograd.grad(ends, before, by_ends, materialize_grads=True)


def _norm(parts: _Tensors) -> float:
    """Length of all together; float32 numbers whose squares are too small or too large for it count in full."""
    flat = torch.cat([part.flatten() for part in parts])
    largest = float(flat.abs().max())
    return largest * float((flat / largest).norm()) if 0 < largest < math.inf else largest
