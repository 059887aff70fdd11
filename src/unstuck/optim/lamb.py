"""LAMB: Adam whose step is made as long as a share of the layer's weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from unstuck.errors import MisuseError
from unstuck.optim._many import (
    TORCH,
    Bundle,
    Factor,
    adapts,
    add,
    bundles,
    check_range,
    computed,
    correction,
    each,
    in_step,
    joined,
    norms,
    rate,
    spread,
)
from unstuck.optim.family import Kind


class Lamb(Optimizer):
    """Adam with a trust ratio for each parameter: its step has the length of the weights times the rate.

    For batches of many thousands, where a rate that some layers bear is too small for others. With r = m / (sqrt(v) + eps) + decay · w,
    of averages m and v with bias correction, the step is lr · phi(|w|) / |r| · r. Where |w| or |r| is 0 the ratio is 1.

    What may be set by group: all settings, and `adapt`: False exempts its parameters from the ratio (they take steps of AdamW), True
    exempts none; None, the default, exempts those of at most one axis, which are biases and the weights of norms. Exempt them from
    decay by a group with `weight_decay=0`. Several devices and types may be mixed; what has no gradient stays as it is.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate, the length of a step in units of the weights' length: 0.001 to 0.02; a tensor with `capturable`.
        betas: Of the averages of the gradient and of its square, from 0 to less than 1.
        eps: Is added to the root of the average square.
        weight_decay: Share of the weights that is added to the direction, before the ratio: decoupled, as in AdamW.
        clamp: Bounds of phi(|w|); None for phi(z) = z. Some write (0, 10).
        bias_correction: Whether averages are corrected for having begun at zero, as in the paper; some leave it out, and rely on warm-up.
        adapt: See above.
        maximize: Whether the loss is to grow.
        capturable: Whether steps are counted in tensors, so that CUDA graphs can be captured and `lr` may be a tensor.

    Raises:
        MisuseError: A setting is out of its range.

    Source:
        You et al. 2020, "Large batch optimization for deep learning: training BERT in 76 minutes", algorithm 2. That of the first versions
        of the paper has no bias correction. The paper exempts nothing; the authors' code exempts biases and layer norms.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
        >>> weight.grad = torch.tensor([[1.0, 1.0]])
        >>> Lamb([weight], lr=0.1, eps=0).step()  # r is (1, 1), of length sqrt(2); the weights are 5 long
        >>> bool(torch.isclose(weight, torch.tensor([[3.0, 4.0]]) - 0.5 / 2**0.5).all())
        True
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        clamp: tuple[float, float] | None = None,
        bias_correction: bool = True,
        adapt: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
    ):
        check_range("lr", lr, 0, what="a learning rate")
        check_range("betas[0]", betas[0], 0, 1, what="the share of an average that is kept")
        check_range("betas[1]", betas[1], 0, 1, what="the share of an average that is kept")
        check_range("eps", eps, 0, what="what is added to a root")
        check_range("weight_decay", weight_decay, 0, what="decay")
        if clamp is not None and not 0 <= clamp[0] <= clamp[1]:
            raise MisuseError(
                f"clamp is {clamp!r}; it takes the least and the greatest length of weights, such as (0, 10)"
            )
        settings = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "clamp": clamp,
            "bias_correction": bias_correction,
            "adapt": adapt,
            "maximize": maximize,
            "capturable": capturable,
        }
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters.

        Args:
            closure: Computes the loss and its gradient anew.

        Returns:
            What `closure` gave, None without one.

        Raises:
            MisuseError: A gradient is sparse.
        """  # noqa: DOC502
        loss = computed(closure)
        for group in self.param_groups:
            for bundle in bundles(self, group, ("exp_avg", "exp_avg_sq"), count=True, apart=adapts(group)):
                _update(bundle, group)
        return loss


def _update(bundle: Bundle, group: dict[str, Any]) -> None:
    parts, directions, lengths = list(bundle.parts()), [], []
    for part in parts:
        directions.append(_directions(part, group))
        if bundle.told:  # while they are in the cache
            lengths.append(torch.stack([norms(part.params), norms(directions[-1])]))
    lr = rate(group)
    if bundle.told:
        weights, steps = joined(lengths)
        lr = lr * _ratios(weights, steps, group["clamp"])
    for part, direction in zip(parts, directions, strict=True):
        add(part.params, direction, -lr)


def _directions(bundle: Bundle, group: dict[str, Any]) -> list[Tensor]:
    """The paper's r: a step of Adam of rate -1 from the decay, where torch has that in one kernel."""
    directions = list(TORCH._foreach_mul(bundle.params, spread(group["weight_decay"], bundle.params)))
    (means, squares), (beta1, beta2), eps = bundle.kept, group["betas"], group["eps"]
    columns = (directions, bundle.grads, means, squares)
    if not in_step(columns):
        _add_adam(*columns, group, bundle.steps)
        return directions
    steps = each(
        bundle.steps if group["bias_correction"] else math.inf, directions
    )  # nothing is left to correct at infinity
    TORCH._fused_adam_(
        *columns, [], steps, lr=-1.0, beta1=beta1, beta2=beta2, weight_decay=0.0, eps=eps, amsgrad=False, maximize=False
    )
    return directions


def _add_adam(
    directions: list[Tensor],
    grads: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    group: dict[str, Any],
    steps: Factor,
) -> None:
    """Adds what Adam would take off at a rate of 1. The corrections of both averages are one factor, and eps is made to suit it."""
    (beta1, beta2), eps, scale = group["betas"], group["eps"], 1.0
    TORCH._foreach_lerp_(means, grads, 1 - beta1)
    TORCH._foreach_mul_(squares, spread(beta2, squares))
    TORCH._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
    below = list(TORCH._foreach_sqrt(squares))
    if group["bias_correction"]:
        root = correction(beta2, steps) ** 0.5
        scale, eps = root / correction(beta1, steps), eps * root
    TORCH._foreach_add_(below, spread(eps, below))
    if isinstance(scale, Tensor):
        TORCH._foreach_div_(below, spread(scale, below))
        scale = 1.0
    TORCH._foreach_addcdiv_(directions, means, below, value=scale)


def _ratios(weights: Tensor, steps: Tensor, clamp: tuple[float, float] | None) -> Tensor:
    """phi(|w|) / |r| of each parameter, 1 where either is zero."""
    lengths = weights if clamp is None else weights.clamp(*clamp)
    return torch.where((weights > 0) & (steps > 0), lengths / steps, 1.0)


def _lamb(
    params: Any,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    clamp: tuple[float, float] | None = None,
    bias_correction: bool = True,
    adapt: bool | None = None,
) -> Optimizer:
    """AdamW whose step in each layer is a share of the layer's weights (You et al. 2020): for batches of thousands."""
    settings = {"clamp": clamp, "bias_correction": bias_correction, "adapt": adapt}
    return Lamb(params, learning_rate, (momentum, beta2), eps, weight_decay, **settings)


KINDS = (Kind("lamb", _lamb, kept=2),)
