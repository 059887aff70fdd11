"""SGD with both forms of momentum, Nesterov's, and weight decay in the gradient or beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from unstuck.errors import MisuseError
from unstuck.optim._many import TORCH, Bundle, add, bundles, check_range, computed, correction, rate, spread
from unstuck.optim.family import Kind

Form = Literal["sum", "mean"]
FORMS = ("sum", "mean")


class Sgd(Optimizer):
    """Gradient descent with momentum as a sum or as a mean of gradients.

    | form | velocity | its length, where all gradients are g |
    |---|---|---|
    | `sum` | v <- momentum · v + g (Sutskever et al. 2013, `torch.optim.SGD`) | g / (1 - momentum) in the end |
    | `mean` | v <- momentum · v + (1 - momentum) · g (the first average of Adam) | g in the end, or at once with `bias_correction` |

    The step is w <- w - lr · v. Both forms go the same way if the rate of `mean` is 1 / (1 - momentum) times as large (`equal_rate`).
    `dampening` of torch's SGD isn't this: there the first velocity is the whole gradient, v = g, which outweighs all later ones.

    With `nesterov` the step is the one that would follow if the same gradient came once more: along momentum · v + g, or
    momentum · v + (1 - momentum) · g. Groups may differ in all settings. Gradients of several devices and types may be mixed; those
    that are None leave their parameter as it is.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate; a tensor with `capturable`.
        momentum: Share of the velocity that is kept, from 0 to less than 1.
        form: See above.
        nesterov: Take the gradient where the momentum leads to.
        weight_decay: Share of the weights that is added to the gradient; or by which, times the rate, they shrink.
        decoupled: Whether weights shrink beside the gradient: decay isn't in the velocity. Without momentum it is the same.
        bias_correction: For `mean`: divide the step by what the weights of all gradients in it add up to.
        maximize: Whether the loss is to grow.
        capturable: Whether steps are counted in tensors, so that CUDA graphs can be captured and `lr` may be a tensor.

    Raises:
        MisuseError: A setting is out of its range, or doesn't go with another.

    Source:
        Polyak 1964; Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", equations 1 to 4, in
        the variable that is moved to where the gradient is taken (Bengio et al. 2013, "Advances in optimizing recurrent networks",
        equation 7); Loshchilov & Hutter 2019, algorithm 1, for decoupled decay.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([8.0]))
        >>> optimizer = Sgd([weight], lr=0.5)
        >>> for _ in range(3):  # the loss w² / 2 halves the weight
        ...     weight.grad = weight.detach().clone()
        ...     optimizer.step()
        >>> weight.item()
        1.0
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        momentum: float = 0.0,
        form: Form = "sum",
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        maximize: bool = False,
        *,
        bias_correction: bool = False,
        capturable: bool = False,
    ):
        check_range("lr", lr, 0, what="a learning rate")
        check_range("momentum", momentum, 0, 1, what="the share of the velocity that is kept")
        check_range("weight_decay", weight_decay, 0, what="decay")
        _check_form(form)
        if nesterov and not momentum:
            raise MisuseError("nesterov=True needs momentum, and momentum is 0; 0.9 is usual")
        if bias_correction and form == "sum":
            raise MisuseError("bias_correction is for form='mean': a sum has no bias to correct")
        settings = {
            "lr": lr,
            "momentum": momentum,
            "form": form,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "decoupled": decoupled,
            "bias_correction": bias_correction,
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
            for bundle in bundles(self, group, names, count=bool(names) and group["bias_correction"]):
                for part in bundle.parts():
                    _update(part, group)
        return loss


def equal_rate(lr: float, momentum: float, *, form: Form) -> float:
    """The learning rate at which one form of momentum goes the same way as the other does with `lr`.

    With decoupled decay multiply `weight_decay` by lr / equal_rate(lr, …) too, as weights shrink by the product of both.

    Args:
        lr: Rate of the other form.
        momentum: Of both, from 0 to less than 1.
        form: For which the rate is wanted: "mean" gives lr / (1 - momentum), "sum" gives lr · (1 - momentum).

    Returns:
        The rate.

    Raises:
        MisuseError: Momentum isn't in its range, or there is no such form.

    Example:
        >>> round(equal_rate(0.1, 0.9, form="mean"), 12)
        1.0
        >>> round(equal_rate(1.0, 0.9, form="sum"), 12)
        0.1
    """  # noqa: DOC502
    check_range("momentum", momentum, 0, 1, what="the share of the velocity that is kept")
    _check_form(form)
    return lr / (1 - momentum) if form == "mean" else lr * (1 - momentum)


def _check_form(form: str) -> None:
    """Sees to it that there is such a form.

    Raises:
        MisuseError: There isn't.
    """
    if form not in FORMS:
        raise MisuseError(
            f"form is {form!r}; it is 'sum' (v <- momentum v + g) or 'mean' (with the factor 1 - momentum)"
        )


def _update(bundle: Bundle, group: dict[str, Any]) -> None:
    params, grads, lr, decay = bundle.params, bundle.grads, rate(group), group["weight_decay"]
    if decay and group["decoupled"]:
        TORCH._foreach_mul_(params, spread(1 - lr * decay, params))
    elif decay:
        grads = list(TORCH._foreach_add(grads, params, alpha=decay))
    if not bundle.kept:
        add(params, grads, -lr)
        return
    (velocity,), momentum = bundle.kept, group["momentum"]
    share = 1 - momentum if group["form"] == "mean" else 1.0
    TORCH._foreach_mul_(velocity, spread(momentum, velocity))
    add(velocity, grads, share)
    if group["bias_correction"]:
        lr = lr / correction(momentum, bundle.steps + 1 if group["nesterov"] else bundle.steps)
    if group["nesterov"]:
        add(params, grads, -share * lr)
        add(params, velocity, -momentum * lr)
    else:
        add(params, velocity, -lr)


def _momentum(
    params: Any,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    form: Form = "sum",
    weight_decay: float = 0.0,
    decoupled: bool = False,
    bias_correction: bool = False,
) -> Optimizer:
    """A running sum, or mean, of gradients (Polyak 1964)."""
    return Sgd(
        params, learning_rate, momentum, form,
        weight_decay=weight_decay, decoupled=decoupled, bias_correction=bias_correction,
    )  # fmt: skip


def _nesterov(
    params: Any,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    form: Form = "sum",
    weight_decay: float = 0.0,
    decoupled: bool = False,
    bias_correction: bool = False,
) -> Optimizer:
    """Momentum with the gradient taken where it leads to (Nesterov 1983)."""
    return Sgd(
        params, learning_rate, momentum, form, nesterov=True,
        weight_decay=weight_decay, decoupled=decoupled, bias_correction=bias_correction,
    )  # fmt: skip


KINDS = (Kind("momentum", _momentum, kept=1), Kind("nesterov", _nesterov, kept=1))
