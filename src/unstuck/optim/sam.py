"""SAM: the gradient is taken where the loss is worst near by, so that training ends where the loss is flat."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from unstuck.errors import MisuseError
from unstuck.optim._many import check_range, norms
from unstuck.optim.family import Kind, optimizer


class Sam(Optimizer):
    """Sharpness-aware minimization around any other optimizer, which updates the weights with the gradient at the worst point near by.

    A step takes two passes: one for the gradient, along which the weights are moved by a distance of `rho` up the loss, and one there,
    for the gradient that the optimizer is given after the weights were put back, to the last bit. Groups and state are those of the
    optimizer, so schedules may hold either; `rho`, `adaptive` and `eta` are settings of its groups.

        optimizer = Sam(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model=model)

        def closure():
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            return loss

        loss = optimizer.step(closure)

    Where two passes can't be in one function, call `first_step()` after the first backward, then backward again from cleared gradients
    (in `statistics_kept(model)`), then `second_step()`.

    Args:
        base: Makes the step.
        rho: How far up, in the length of all weights together.
        adaptive: ASAM: distances of each weight are in units of its size, |w| + eta, so that rescaling layers changes nothing.
        eta: Is added to |w|, for weights at zero.
        model: Running statistics of its norms are left alone in the second pass of `step(closure)`.

    Raises:
        MisuseError: `base` is no optimizer, or a setting is out of its range.

    Source:
        Foret et al. 2021, "Sharpness-aware minimization for efficiently improving generalization", algorithm 1 and equation 2 with p = 2;
        Kwon et al. 2021, "ASAM", algorithm 1, here for all parameters (the authors' code has it for weights and not for biases).
        `rho`: 0.05 in the first, 0.5 or more for ASAM in the second.
    """

    def __init__(
        self,
        base: Optimizer,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        eta: float = 0.01,
        model: nn.Module | None = None,
    ):
        if not isinstance(base, Optimizer):
            raise MisuseError(
                f"base is a {type(base).__name__}; it is an optimizer, such as torch.optim.SGD(model.parameters(), lr=0.1)"
            )
        check_range("rho", rho, 0, what="a distance")
        check_range("eta", eta, 0, what="what is added to the size of a weight")
        self.base: Optimizer | None = None  # groups that are there already go through `add_param_group`
        super().__init__(base.param_groups, {"rho": rho, "adaptive": adaptive, "eta": eta})
        self.base, self.model = base, model
        self.moved: list[tuple[Tensor, Tensor]] = []
        self._join()

    def _join(self) -> None:
        """Groups and state are those of the base."""
        assert self.base is not None
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters to the base.

        Args:
            param_group: As for any optimizer; may have a `rho` of its own.
        """
        if self.base is None:
            super().add_param_group(param_group)
            return
        self.base.add_param_group(param_group)
        for name, value in self.defaults.items():
            self.param_groups[-1].setdefault(name, value)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over settings and state, those of the base.

        Args:
            state_dict: What `state_dict` gave.
        """
        assert self.base is not None
        self.base.load_state_dict(state_dict)
        self._join()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "base": self.base, "model": self.model, "moved": self.moved}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._join()

    @torch.no_grad()
    def first_step(self) -> None:
        """Moves the weights up the loss, along the gradient that is there.

        Raises:
            MisuseError: They were moved already.
        """
        if self.moved:
            raise MisuseError("the weights were moved already: call second_step() after the second backward")
        scaled = [
            _scaled(param, param.grad, group)
            for group in self.param_groups
            for param in group["params"]
            if param.grad is not None
        ]
        if not scaled:
            return
        length = torch.stack([norms([grad]).to(scaled[0][1].device)[0] for _, grad, _ in scaled]).norm()
        share = torch.where(length > 0, 1 / length, 0.0)
        for param, grad, group in scaled:
            self.moved.append((param, param.clone()))
            way = grad * _size(param, group) if group["adaptive"] else grad
            rho = -group["rho"] if group.get("maximize", False) else group["rho"]
            param.addcmul_(way, (rho * share).to(param.device, param.dtype))

    @torch.no_grad()
    def second_step(self) -> None:
        """Puts the weights back, and has the base make its step with the gradient that is there."""
        self.put_back()
        assert self.base is not None
        self.base.step()

    @torch.no_grad()
    def put_back(self) -> None:
        """Puts the weights back where they were before `first_step`, to the last bit; nothing where they weren't moved."""
        for param, before in self.moved:
            param.copy_(before)
        self.moved = []

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Both passes and the step. The weights are put back whatever happens in a pass.

        Args:
            closure: Clears the gradients, computes loss and gradient and returns the loss; it is called twice.

        Returns:
            The loss of the first pass.

        Raises:
            MisuseError: There is no closure.
        """
        if closure is None:
            raise MisuseError(
                "Sam.step needs a closure that clears the gradients, computes the loss, goes backward and returns the loss; "
                "without one call first_step() and second_step()"
            )
        with torch.enable_grad():
            loss = closure()
        self.first_step()
        try:
            with torch.enable_grad(), statistics_kept(self.model):
                closure()
        except BaseException:
            self.put_back()
            raise
        self.second_step()
        return loss


def _size(param: Tensor, group: dict[str, Any]) -> Tensor:
    """ASAM's unit of length for each weight."""
    return param.abs() + group["eta"]


def _scaled(param: Tensor, grad: Tensor, group: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """A parameter, its gradient in the unit of its weights, and its group.

    Raises:
        MisuseError: The gradient is sparse.
    """
    if grad.layout is not torch.strided:
        raise MisuseError(
            f"Sam takes no sparse gradients, and got one of shape {tuple(grad.shape)}; make the layer dense"
        )
    return param, grad * _size(param, group) if group["adaptive"] else grad, group


@contextlib.contextmanager
def statistics_kept(model: nn.Module | None) -> Iterator[None]:
    """After it, running statistics of batch and instance norms are as they were before; nothing with None.

    Args:
        model: Whose norms.

    Yields:
        Nothing.
    """
    layers = [] if model is None else [layer for layer in model.modules() if isinstance(layer, _NormBase)]
    buffers = [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


def _sam(
    params: Any,
    *,
    learning_rate: float,
    base: str = "momentum",
    rho: float = 0.05,
    adaptive: bool = False,
    eta: float = 0.01,
    model: nn.Module | None = None,
    **settings: Any,
) -> Optimizer:
    """Any other with the gradient of the worst point near by (Foret et al. 2021); two passes a step, a copy of the weights between."""
    made = optimizer(base, params, learning_rate=learning_rate, **settings)
    return Sam(made, rho=rho, adaptive=adaptive, eta=eta, model=model)


KINDS = (Kind("sam", _sam, kept=1),)
