"""Dropout in evaluation: mean and spread of what a network says when it drops.

mean, spread = monte_carlo(model, lambda: model(x).softmax(1), samples=50)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from unstuck._modes import evaluating
from unstuck.errors import MisuseError
from unstuck.regularization.dropout import TORCHS, Kept

_DROP_BY_THEMSELVES = (nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer)


@contextlib.contextmanager
def sampled(model: nn.Module, *, also: tuple[type[nn.Module], ...] = ()) -> Iterator[None]:
    """While which a model is as in evaluation, but drops: norms use what they have gathered, dropouts are random.

    Args:
        model: The model.
        also: Kinds of modules that drop by themselves, put in training as well: layers of `unstuck.recurrent`, or of one's own. Those of
            torch are known.

    Yields:
        Nothing; afterwards all modes are as before.

    Raises:
        MisuseError: Nothing in the model drops.
    """
    random = (Kept, TORCHS, *_DROP_BY_THEMSELVES, *also)
    dropping = [module for module in model.modules() if isinstance(module, random)]
    if not any(_is_random(module) for module in dropping):
        raise MisuseError(
            "nothing in the model drops: it has no dropout, or keeps all; name kinds that drop by themselves in also="
        )
    with evaluating(model):
        for module in dropping:
            module.training = True
        yield


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, Kept):
        return isinstance(module.keep, Tensor) or module.keep < 1
    if isinstance(module, TORCHS):
        return module.p > 0
    return not isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) or module.dropout > 0


@torch.no_grad()
def monte_carlo(
    model: nn.Module,
    predict: Callable[[], Tensor],
    *,
    samples: int = 50,
    also: tuple[type[nn.Module], ...] = (),
) -> tuple[Tensor, Tensor]:
    """Mean and spread of what a model says when it drops (Monte-Carlo dropout).

    The spread says how much the model disagrees with itself: little where it has seen much. It is a lower bound of the uncertainty, as
    noise in the data isn't in it, and it depends on the probability of keeping, which was chosen for another purpose.

    Source: Gal & Ghahramani 2016, "Dropout as a Bayesian approximation", section 4 (mean) and equation 7 without the data's noise (spread).

    Args:
        model: The model.
        predict: Computes what is to be averaged, such as `lambda: model(x).softmax(1)`: probabilities, not logits.
        samples: How many times, 2 at least. The mean is right up to the spread over the root of that.
        also: Kinds of modules that drop by themselves.

    Returns:
        Mean and standard deviation, each of the shape of a prediction.

    Raises:
        MisuseError: Fewer than 2 samples, or nothing in the model drops.
    """
    if samples < 2:
        raise MisuseError(f"of {samples} samples no spread can be told; 2 at least")
    with sampled(model, also=also):
        mean = predict().clone()
        squares = torch.zeros_like(mean)
        for count in range(2, samples + 1):
            one = predict()
            before = one - mean
            mean += before / count
            squares += before * (one - mean)  # Welford 1962
    return mean, (squares / (samples - 1)).sqrt()
