"""What optimizers do to many tensors at once.

On a CPU `torch._foreach_…` takes one operation after the other, each over all tensors: where these are larger than the cache, every
operation reads them from memory again. So tensors come in bundles that fit into the cache together with all that is computed from them.
On other devices a bundle holds all tensors of a type, as there each launch of a kernel costs.

Nothing here waits for a device. Where steps are counted in tensors (`capturable`), a step can be captured in a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from unstuck.errors import MisuseError

CACHE = (
    2**19
)  # bytes of parameters that are worked on at once: with gradients, averages and what comes between a core's cache (2 MB)
TORCH: Any = torch  # which tells type checkers nothing of what it does to many tensors at once
FUSED = ("cpu", "cuda")  # devices where torch's fused kernels take tensors of any layout that is dense
Factor = float | Tensor  # one number for all tensors, or a vector with one for each


@dataclass(frozen=True)
class Bundle:
    """Parameters that are updated together, of one device and type.

    Attributes:
        params: Those of the group that have a gradient.
        grads: Of the loss that falls: with `maximize` they are turned round.
        kept: For each name asked for, what is kept for these parameters.
        steps: Updates so far, this one among them: one number, or a vector where they are counted in tensors; 0 where none counts.
        told: What was asked of each parameter, and is the same for all of these.
    """

    params: list[Tensor]
    grads: list[Tensor]
    kept: tuple[list[Tensor], ...]
    steps: Factor
    told: Any

    def parts(self) -> Iterator[Bundle]:
        """The bundle itself, or pieces of a parameter that alone is too large for the cache."""
        columns = [self.params, self.grads, *self.kept]
        if not _too_large(columns):
            yield self
            return
        length = CACHE // self.params[0].element_size()
        for param, grad, *kept in zip(*(column[0].view(-1).split(length) for column in columns), strict=True):
            yield Bundle([param], [grad], tuple([piece] for piece in kept), self.steps, self.told)


def computed(closure: Callable[[], Any] | None) -> Any:
    """What a closure given to a step says, with gradients on as in the user's own code; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def bundles(
    optimizer: Optimizer,
    group: dict[str, Any],
    names: Sequence[str] = (),
    *,
    count: bool = False,
    apart: Callable[[Tensor], Any] | None = None,
) -> Iterator[Bundle]:
    """The parameters of a group that have a gradient, with what the optimizer keeps for them, which begins at zero.

    Args:
        optimizer: Whose state it is.
        group: One of its groups. `maximize` turns gradients round; `capturable` counts steps in tensors.
        names: What is kept, in the shape of each parameter.
        count: Whether updates are counted.
        apart: What tells parameters that must not share a bundle.

    Yields:
        Bundles, to be updated in place.

    Raises:
        MisuseError: A gradient is sparse.
    """
    capturable = group.get("capturable", False)
    alike: dict[Any, list[tuple[Tensor, Tensor, dict[str, Any]]]] = {}
    for param in group["params"]:
        grad = param.grad
        if grad is None:
            continue
        if grad.layout is not torch.strided:
            raise MisuseError(
                f"{type(optimizer).__name__} takes no sparse gradients, and got one of shape {tuple(grad.shape)}; "
                "make the layer dense (nn.Embedding(sparse=False)), or give its parameters to torch.optim.SparseAdam"
            )
        state = optimizer.state[param] if names or count else {}
        if not state:
            _begin(state, param, names, count=count, capturable=capturable)
        if count:
            state["step"] += 1
        steps = state["step"] if count and not capturable else 0
        key = (param.dtype, grad.dtype, param.device, steps, apart(param) if apart is not None else None)
        alike.setdefault(key, []).append((param, grad, state))
    for (_, _, device, steps, told), members in alike.items():
        _check_capture(device, capturable)
        for part in _parts(members) if device.type == "cpu" else [members]:
            params, grads, states = (list(column) for column in zip(*part, strict=True))
            kept = tuple(real([state[name] for state in states]) for name in names)
            if count and capturable:
                steps = torch.stack([state["step"] for state in states])
            grads = real(grads)
            if group.get("maximize", False):
                grads = list(TORCH._foreach_neg(grads))
            yield Bundle(real(params), grads, kept, steps, told)


def _begin(state: dict[str, Any], param: Tensor, names: Sequence[str], *, count: bool, capturable: bool) -> None:
    """What is kept for a parameter, at zero."""
    if count:
        state["step"] = torch.zeros((), dtype=torch.float32, device=param.device) if capturable else 0
    for name in names:
        state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)


def _check_capture(device: torch.device, capturable: bool) -> None:
    """A captured graph would take the number of this step for that of all.

    Raises:
        MisuseError: A graph is being captured, and steps are counted in numbers.
    """
    if device.type == "cuda" and not capturable and torch.cuda.is_current_stream_capturing():
        raise MisuseError("a CUDA graph is being captured: make the optimizer with capturable=True")


def _parts(
    members: list[tuple[Tensor, Tensor, dict[str, Any]]],
) -> Iterator[list[tuple[Tensor, Tensor, dict[str, Any]]]]:
    """Runs of members that fit into the cache, or one that doesn't."""
    part, size = [], 0
    for member in members:
        here = member[0].numel() * member[0].element_size()
        if part and size + here > CACHE:
            yield part
            part, size = [], 0
        part.append(member)
        size += here
    yield part


def _too_large(columns: Sequence[list[Tensor]]) -> bool:
    """Whether there is one parameter, on a CPU, that is to be taken in pieces, and can be."""
    first = columns[0][0]
    if len(columns[0]) > 1 or first.device.type != "cpu" or first.numel() * first.element_size() <= CACHE:
        return False
    return all(column[0].is_contiguous() for column in columns)


def in_step(columns: Sequence[list[Tensor]]) -> bool:
    """Whether torch's fused kernels may take these: they go through memory in a row, so numbers that belong together must lie alike.

    Layouts differ where a gradient was set by hand, or state was saved before the network was laid out anew.
    """
    first = columns[0][0]
    if first.device.type not in FUSED or not first.is_floating_point():
        return False
    return all(
        a.stride() == b.stride() and a.dtype == b.dtype
        for column in columns[1:]
        for a, b in zip(columns[0], column, strict=True)
    )


def real(tensors: list[Tensor]) -> list[Tensor]:
    """Complex tensors as pairs of real numbers, of which each is updated as if it stood alone."""
    return [torch.view_as_real(t) for t in tensors] if tensors[0].is_complex() else tensors


def norms(tensors: list[Tensor]) -> Tensor:
    """Euclidean lengths, one for each tensor; of half precision in float32, where squares have room."""
    wide = torch.float32 if tensors[0].dtype in (torch.float16, torch.bfloat16) else None
    return torch.stack(TORCH._foreach_norm(tensors, 2, wide))


def joined(lengths: list[Tensor]) -> Tensor:
    """Lengths of whole tensors from those of their pieces, which are given one tensor a piece."""
    return lengths[0] if len(lengths) == 1 else torch.stack(lengths).norm(dim=0)


def spread(factor: Factor, tensors: list[Tensor]) -> Any:
    """A factor as `torch._foreach_mul_` and `_foreach_add_` take it best.

    Args:
        factor: One number for all, in a float or a tensor without axes, or a vector with one for each.
        tensors: With what it is combined.

    Returns:
        A list with one tensor for each. A float stays one, but on a CPU, where it would be made into a tensor for every tensor anew.
    """
    if isinstance(factor, Tensor):
        return list(factor.unbind()) if factor.dim() else [factor] * len(tensors)
    if tensors[0].device.type != "cpu":
        return factor
    return [torch.tensor(factor, dtype=torch.float64)] * len(tensors)


def each(number: Factor, tensors: list[Tensor]) -> list[Tensor]:
    """One number for all, or a vector with one for each, as a tensor for each on their device."""
    if isinstance(number, Tensor):
        return list(number.unbind())
    return [torch.full((), number, dtype=torch.float32, device=tensors[0].device)] * len(tensors)


def add(into: list[Tensor], tensors: list[Tensor], factor: Factor) -> None:
    """Adds so many times these tensors, in place.

    Args:
        into: Is changed.
        tensors: Of the same shapes.
        factor: One number for all, in a float or a tensor without axes, or a vector with one for each.
    """
    if isinstance(factor, Tensor):
        TORCH._foreach_addcmul_(into, tensors, spread(factor, into))
    else:
        TORCH._foreach_add_(into, tensors, alpha=factor)


def adapts(group: dict[str, Any]) -> Callable[[Tensor], bool]:
    """Which parameters of a group take part in the ratio: those of two axes or more, unless `adapt` says it for all."""
    chosen = group["adapt"]
    return (lambda param: param.dim() > 1) if chosen is None else (lambda param: chosen)


def rate(group: dict[str, Any]) -> Factor:
    """The learning rate: as it is where a graph may be captured, else a number."""
    return group["lr"] if group.get("capturable", False) else float(group["lr"])


def correction(beta: float, steps: Factor) -> Factor:
    """What weights of an average that began at zero add up to, 1 - beta^steps; in float32 without cancellation."""
    if isinstance(steps, Tensor):
        return -torch.expm1(steps * math.log(beta)) if beta else torch.ones_like(steps)
    return 1 - beta**steps


def check_range(name: str, value: Any, low: float, high: float = math.inf, *, what: str) -> None:
    """Sees to it that a setting is a number in its range, the upper bound excluded.

    Raises:
        MisuseError: It isn't; a tensor isn't looked into.
    """
    if isinstance(value, Tensor) or (isinstance(value, Real) and low <= float(value) < high):
        return
    limits = f"from {low:g}" if math.isinf(high) else f"from {low:g} to less than {high:g}"
    raise MisuseError(f"{name} is {value!r}; {what} is {limits}")
