"""Two matrices that stand in for the Hessian and have no negative eigenvalue, by their products with vectors.

    Gauss-Newton    J^T H J    J: of the outputs by the tensors; H: Hessian of the loss by the outputs
    Fisher          mean of g g^T over samples, each with its gradient g: the empirical Fisher matrix

Gauss-Newton is what is left of the Hessian when the outputs' own curvature is left out: it is the Hessian where the model is linear
in its tensors, or where the loss no longer falls with any output. The empirical Fisher matrix is near to either only where
the model is right and nearly all fitted (Kunstner et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unstuck.curvature.objective import Objective
from unstuck.curvature.products import unfused
from unstuck.errors import MisuseError


class GaussNewton:
    """The Gauss-Newton matrix of a loss of outputs.

    Args:
        objective: The tensors, batches, sizes and modes; its own loss isn't called.
        outputs: The model's outputs for a batch, a tensor; called with the batch, or with None where there are no batches.
        loss: The mean loss of a batch, of outputs and batch.

    Attributes:
        products: Made so far.

    Raises:
        MisuseError: The tensors are spread over ranks, which this can't do.

    Source:
        Schraudolph 2002, "Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent".

    Example:
        >>> import torch
        >>> w = torch.tensor([3.0, 1.0])
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> objective = Objective(lambda x: ((x @ w) ** 2).mean(), [w], [x])
        >>> matrix = GaussNewton(objective, lambda x: x @ w, lambda outputs, x: (outputs**2).mean())
        >>> (matrix @ torch.tensor([1.0, 0.0])).tolist()  # 2 x x^T, the Hessian, since the model is linear
        [2.0, 4.0]
    """

    def __init__(
        self, objective: Objective, outputs: Callable[[Any], Tensor], loss: Callable[[Tensor, Any], Tensor]
    ) -> None:
        self._jacobian = _Jacobian(objective, outputs)
        self._loss = loss
        self.size, self.dtype, self.device = objective.size, objective.dtype, objective.device
        self.whole_size, self.rank = objective.whole_size, objective.rank
        self.products = 0

    def __matmul__(self, vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
        """The product with a vector."""
        self.products += 1
        return self._jacobian.between(vector.to(self.device, self.dtype), self._curved)

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner product of vectors, `(size,)` or `(count, size)` on the left."""
        return self._jacobian.objective.dot(left, right)

    def _curved(self, index: int, outputs: Tensor, change: Tensor) -> Tensor:
        """Product of the Hessian by the outputs with a change of them."""
        free = outputs.detach().requires_grad_(True)
        loss = self._jacobian.objective.drawn(index, lambda batch: self._loss(free, batch))
        (slope,) = torch.autograd.grad(loss, free, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(change)
        (curved,) = torch.autograd.grad(slope, free, change, allow_unused=True)
        return torch.zeros_like(change) if curved is None else curved


class Fisher:
    """The empirical Fisher matrix: the mean over samples of the outer product of each sample's gradient with itself.

    Where samples act on each other's losses, as through BatchNorm in training, a sample's gradient is that of its loss alone, by all paths.

    Args:
        objective: The tensors, batches, sizes and modes; its own loss isn't called.
        losses: The loss of each sample of a batch, shape `(batch,)`; called with the batch, or with None where there are none.

    Attributes:
        products: Made so far.

    Raises:
        MisuseError: The tensors are spread over ranks, which this can't do.

    Example:
        >>> import torch
        >>> w = torch.tensor([1.0, 1.0])
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # gradients of w·x: the samples themselves
        >>> matrix = Fisher(Objective(lambda x: (x @ w).mean(), [w], [x]), lambda x: x @ w)
        >>> (matrix @ torch.tensor([1.0, 1.0])).tolist()
        [0.5, 2.0]
    """

    def __init__(self, objective: Objective, losses: Callable[[Any], Tensor]) -> None:
        self._jacobian = _Jacobian(objective, lambda batch: losses(batch).reshape(-1))
        self.size, self.dtype, self.device = objective.size, objective.dtype, objective.device
        self.whole_size, self.rank = objective.whole_size, objective.rank
        self.products = 0

    def __matmul__(self, vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
        """The product with a vector."""
        self.products += 1
        return self._jacobian.between(
            vector.to(self.device, self.dtype), lambda _, losses, change: change / losses.numel()
        )

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner product of vectors, `(size,)` or `(count, size)` on the left."""
        return self._jacobian.objective.dot(left, right)


class _Jacobian:
    """The Jacobian of something that is computed from each batch."""

    def __init__(self, objective: Objective, function: Callable[[Any], Tensor]) -> None:
        if objective.sharded:
            raise MisuseError("the tensors are spread over ranks; gather them to multiply by this matrix")
        self.objective = objective
        self._function = function
        self._plain = True

    def between(self, vector: Tensor, middle: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """Weighted sum over batches of `J^T middle(J vector)`."""
        objective = self.objective
        product = torch.zeros_like(vector)
        with objective.fixed():
            for index, weight in enumerate(objective.weights):
                product.add_(self._between(index, vector, middle), alpha=weight)
        return objective.summed(product) if objective.distributed else product

    def _between(self, index: int, vector: Tensor, middle: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        if self._plain:
            try:
                return self._through(index, vector, middle)
            except (RuntimeError, NotImplementedError):
                self._plain = False  # fused attention, say; if it wasn't that, the error comes again
        with unfused():
            return self._through(index, vector, middle)

    def _through(self, index: int, vector: Tensor, middle: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """J^T middle(J vector) of one batch.

        Source:
            J v is the derivative by u of (J^T u)·v, which is linear in u: Townsend 2017, "A new trick for calculating Jacobian
            vector products".
        """
        objective = self.objective
        made = objective.drawn(index, self._function)
        along = torch.zeros_like(made, requires_grad=True)
        back = (
            torch.autograd.grad(made, objective.params, along, create_graph=True, allow_unused=True)
            if made.requires_grad
            else []
        )
        pairs = [
            (b, v) for b, v in zip(back, objective.split(vector), strict=False) if b is not None and b.requires_grad
        ]
        if not pairs:
            return torch.zeros_like(vector)
        (change,) = torch.autograd.grad([b for b, _ in pairs], along, [v for _, v in pairs], retain_graph=True)
        weighted = middle(index, made, change).detach()
        return objective.flatten(torch.autograd.grad(made, objective.params, weighted, allow_unused=True))
