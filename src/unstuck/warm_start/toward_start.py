"""L2-SP: a penalty that draws weights to where they started, rather than to zero.

from unstuck.warm_start.toward_start import toward_start

training = unstuck.Training(model, loss, optimizer, batches, penalty=toward_start(model, new="head"))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.warm_start._which import Which, chosen, several


def toward_start(
    model: nn.Module, *, alpha: float = 0.1, beta: float = 0.01, new: Which | Iterable[Which] = ()
) -> Callable[[nn.Module], Tensor]:
    """Half the squared distance of the weights from where they are now, and of new ones from zero.

    Weight decay draws all weights to zero, and with them what they brought along; this draws back to it. It takes the place of weight
    decay, so the optimizer's should be 0. What is frozen costs nothing.

    Args:
        model: As it starts, loaded. What it holds now is kept.
        alpha: Strength toward the start.
        beta: Strength toward zero, for what is new. Biases and gains, which have fewer than two dimensions, are spared.
        new: What wasn't loaded, such as the head: paths, patterns, modules or parameters, as for `freeze`.

    Returns:
        A function of the model, or of a copy of it, to be added to the loss.

    Raises:
        MisuseError: A strength is below 0, or the model has nothing of that name. When called: the model is another one.

    Source:
        Li, Grandvalet and Davoine 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", section 3, L2-SP.
        Sparing the biases of what is new is ours. The strengths are to be searched, alpha over decades.

    Example:
        >>> import torch
        >>> model = nn.Linear(1, 1, bias=False)
        >>> penalty = toward_start(model, alpha=0.1)
        >>> with torch.no_grad():
        ...     _ = model.weight.add_(2.0)
        >>> round(penalty(model).item(), 6)  # 0.1 / 2 times 2 squared
        0.2
    """
    for name, strength in (("alpha", alpha), ("beta", beta)):
        if not strength >= 0:
            raise MisuseError(f"{name} is {strength!r}, but must be 0 or more")
    fresh = chosen(model, several(new)).parameters
    start = {name: p.detach().clone() for name, p in model.named_parameters() if name not in fresh}

    def penalty(model: nn.Module) -> Tensor:
        total = next(model.parameters()).new_zeros(())
        for name, p in model.named_parameters():
            if name in start:
                if p.requires_grad:
                    total = total + alpha / 2 * _squares(p - _beside(start, name, p))
            elif name not in fresh:
                raise MisuseError(f"{name} wasn't in the model when its start was kept: make the penalty of this model")
            elif p.dim() > 1:
                total = total + beta / 2 * _squares(p)
        return total

    return penalty


def _squares(values: Tensor) -> Tensor:
    return values.square().sum()


def _beside(start: dict[str, Tensor], name: str, parameter: Tensor) -> Tensor:
    """Where a parameter started, on its device."""
    if start[name].device != parameter.device:
        start[name] = start[name].to(parameter.device)
    return start[name]
