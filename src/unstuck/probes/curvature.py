"""The curvature of the loss where the training ended: its largest and its most negative eigenvalue, beside the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unstuck.probes.bench import Bench, Clock


def curvature(bench: Bench, clock: Clock, *, most: int = 4, iterations: int = 20) -> dict[str, Any] | None:
    """Extreme eigenvalues of the Hessian of the mean loss over a few batches, by Lanczos with full reorthogonalisation.

    Args:
        bench: The training.
        clock: Ends it after at least 6 products with the Hessian.
        most: Batches.
        iterations: Products.

    Returns:
        `top`, `bottom` (eigenvalues), `top_error`, `bottom_error` (residuals), `gradient` (its norm), `loss`, `iterations`; None
        where the loss can't be differentiated twice.
    """
    bench.restore()
    batches = bench.batches[-most:]
    learned = bench.learned
    size = sum(p.numel() for p in learned)

    def product(vector: Tensor) -> Tensor:
        parts = _like(vector, learned)
        total = torch.zeros_like(vector)
        for batch in batches:
            loss, _ = bench.forward(batch)
            grads = torch.autograd.grad(loss, learned, create_graph=True, allow_unused=True)
            dot = sum((g * v).sum() for g, v in zip(grads, parts, strict=True) if g is not None and g.requires_grad)
            if not isinstance(dot, Tensor) or not dot.requires_grad:
                continue
            second = torch.autograd.grad(dot, learned, allow_unused=True)
            total += torch.cat([
                (torch.zeros_like(p) if h is None else h).reshape(-1) for p, h in zip(learned, second, strict=True)
            ])  # fmt: skip
        return total / len(batches)

    try:
        values, errors, done = _lanczos(product, size, iterations, clock, learned[0])
    except RuntimeError:
        return None
    losses_grads = [bench.gradients(b) for b in batches]
    mean = [sum(g[i] for _, g in losses_grads) / len(batches) for i in range(len(learned))]
    norm = float(sum(float(g.double().square().sum()) for g in mean)) ** 0.5  # pyright: ignore[reportAttributeAccessIssue]
    return {
        "top": values[-1], "bottom": values[0], "top_error": errors[-1], "bottom_error": errors[0], "gradient": norm,
        "loss": sum(loss for loss, _ in losses_grads) / len(batches), "iterations": done,
    }  # fmt: skip


def _like(vector: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    parts, at = [], 0
    for tensor in tensors:
        parts.append(vector[at : at + tensor.numel()].view_as(tensor))
        at += tensor.numel()
    return parts


def _lanczos(
    product: Callable[[Tensor], Tensor], size: int, iterations: int, clock: Clock, like: Tensor
) -> tuple[list[float], list[float], int]:
    """Ritz values in ascending order with the norms of their residuals."""
    generator = torch.Generator("cpu").manual_seed(0)
    vector = torch.randn(size, generator=generator, device="cpu").to(like)
    basis = [vector / vector.norm()]
    alphas: list[float] = []
    betas: list[float] = []
    for step in range(min(iterations, size)):
        following = product(basis[-1])
        alphas.append(float(following @ basis[-1]))
        for _ in range(2):
            for known in basis:
                following = following - (following @ known) * known
        beta = float(following.norm())
        betas.append(beta)
        if beta < 1e-10 * max(1.0, abs(alphas[0])) or (step >= 5 and not clock.left):
            break
        basis.append(following / beta)
    count = len(alphas)
    tridiagonal = torch.diag(torch.tensor(alphas, dtype=torch.float64))
    if count > 1:
        off = torch.tensor(betas[: count - 1], dtype=torch.float64)
        tridiagonal += torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    return values.tolist(), (vectors[-1].abs() * betas[count - 1]).tolist(), count
