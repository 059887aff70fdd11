"""LARS: SGD with momentum whose rate in each layer is a share of how long its weights are beside its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from unstuck.optim._many import TORCH, Bundle, adapts, add, bundles, check_range, computed, joined, norms, rate, spread
from unstuck.optim.family import Kind


class Lars(Optimizer):
    """SGD with momentum and a trust ratio for each parameter: a layer's rate is lr · trust · |w| / (|g| + decay · |w|).

    For batches of many thousands, where a rate that some layers bear is too small for others. As in the paper the rate is in the
    velocity, v <- momentum · v + rate · (g + decay · w), w <- w - v; where rates change, implementations that multiply at the end
    (w <- w - lr · v) differ from it, as they let a new rate work on old gradients. Where |w| or |g| is 0 the ratio is 1.

    What may be set by group: all settings, and `adapt`: False exempts its parameters from the ratio (they take steps of SGD with rate
    `lr`), True exempts none; None, the default, exempts those of at most one axis, which are biases and the weights of norms. Exempt them
    from decay by a group with `weight_decay=0`. Gradients of several devices and types may be mixed; those that are None leave their
    parameter as it is.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate; a tensor with `capturable`.
        momentum: Share of the velocity that is kept, from 0 to less than 1.
        weight_decay: Share of the weights that is added to the gradient; it is in the ratio too.
        trust: The paper's coefficient: how long a layer's step is, in units of its weights, at lr 1.
        eps: Is added to the denominator of the ratio.
        adapt: See above.
        maximize: Whether the loss is to grow.
        capturable: Whether `lr` may be a tensor, so that it can change where a CUDA graph is replayed.

    Raises:
        MisuseError: A setting is out of its range.

    Source:
        You et al. 2017, "Large batch training of convolutional networks", equation 6 and algorithm 1; the paper exempts nothing.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
        >>> weight.grad = torch.tensor([[0.0, 10.0]])
        >>> Lars([weight], lr=1.0, trust=0.1, eps=0).step()  # a tenth of the weights' length along the gradient: 0.5
        >>> bool(torch.isclose(weight, torch.tensor([[3.0, 3.5]])).all())
        True
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        trust: float = 1e-3,
        eps: float = 1e-8,
        adapt: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
    ):
        check_range("lr", lr, 0, what="a learning rate")
        check_range("momentum", momentum, 0, 1, what="the share of the velocity that is kept")
        check_range("weight_decay", weight_decay, 0, what="decay")
        check_range("trust", trust, 0, what="the trust coefficient")
        check_range("eps", eps, 0, what="what is added to a denominator")
        settings = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "eps": eps,
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
            names = ("velocity",) if group["momentum"] else ()
            for bundle in bundles(self, group, names, apart=adapts(group)):
                _update(bundle, group)
        return loss


def _update(bundle: Bundle, group: dict[str, Any]) -> None:
    lr, decay = rate(group), group["weight_decay"]
    if bundle.told:
        lengths = [torch.stack([norms(part.params), norms(part.grads)]) for part in bundle.parts()]
        weights, grads = joined(lengths)
        lr = lr * _ratios(weights, grads, group)
    for part in bundle.parts():
        grads = list(TORCH._foreach_add(part.grads, part.params, alpha=decay)) if decay else part.grads
        if not part.kept:
            add(part.params, grads, -lr)
            continue
        (velocity,) = part.kept
        TORCH._foreach_mul_(velocity, spread(group["momentum"], velocity))
        add(velocity, grads, lr)
        TORCH._foreach_sub_(part.params, velocity)


def _ratios(weights: Tensor, grads: Tensor, group: dict[str, Any]) -> Tensor:
    """The paper's local rate of each parameter, 1 where weights or gradient are zero."""
    local = group["trust"] * weights / (grads + group["weight_decay"] * weights + group["eps"])
    return torch.where((weights > 0) & (grads > 0), local, 1.0)


def _lars(
    params: Any,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    trust: float = 1e-3,
    eps: float = 1e-8,
    adapt: bool | None = None,
) -> Optimizer:
    """Momentum whose rate in each layer is a share of weights by gradient (You et al. 2017): for batches of thousands."""
    return Lars(params, learning_rate, momentum, weight_decay, trust=trust, eps=eps, adapt=adapt)


KINDS = (Kind("lars", _lars, kept=1),)
