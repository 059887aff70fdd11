"""A loss as a function of some tensors: the mean over batches weighted by their sizes, and the same at every call.

What else a loss depends on is held still while it is looked at, and put back: the modes of modules and their buffers (`Mode`), the
random numbers that dropout draws (each batch has its own seed), `requires_grad`, gradients. On several ranks each has its own
batches, and means are taken over all of them.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unstuck.errors import MisuseError

Mode = Literal["as-is", "train", "eval", "no-dropout"]


class Objective:
    """A loss, the tensors it is a function of, and the batches it is a mean over.

    Args:
        loss: Gives the mean loss of a batch, a scalar: called with the batch, or with nothing where there are no batches.
        params: A module, which stands for those of its parameters that are trained, or the tensors themselves.
        batches: What `loss` is called with; it is kept. None where the loss takes nothing.
        sizes: Samples in each batch; by default the length of the first tensor in it, 1 where it has none.
        modules: Whose modes are set and whose buffers are put back; by default the module that `params` is.
        mode: "as-is" leaves the modes of modules; "train" and "eval" set them; "no-dropout" is training with dropout off,
            so that BatchNorm uses its batch.
        seed: Of the random numbers that the loss draws from torch; those of batch i come from `seed + i`.
        distributed: Take means over all ranks, each with its own batches; by default where a module is wrapped for that.

    Raises:
        MisuseError: There is nothing to differentiate, the tensors aren't real floating-point numbers, a size isn't above
            zero, there are not as many sizes as batches, or the mode is none of these.

    Example:
        >>> import torch
        >>> x = torch.tensor([3.0, 4.0])
        >>> objective = Objective(lambda: (x**2).sum() / 2, [x])
        >>> objective.value(), objective.gradient().tolist()
        (12.5, [3.0, 4.0])
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        params: nn.Module | Iterable[Tensor],
        batches: Iterable[Any] | None = None,
        *,
        sizes: Sequence[float] | None = None,
        modules: Sequence[nn.Module] | None = None,
        mode: Mode = "as-is",
        seed: int = 0,
        distributed: bool | None = None,
    ) -> None:
        self.modules: tuple[nn.Module, ...] = tuple(modules) if modules is not None else _modules(params)
        given = params.parameters() if isinstance(params, nn.Module) else params
        self.params: list[Tensor] = list(
            dict.fromkeys(p for p in given if p.requires_grad or not isinstance(params, nn.Module))
        )
        self.mode: Mode = mode
        self.seed = seed
        self.batches: list[Any] = list(batches) if batches is not None else []
        self._loss = loss if batches is not None else lambda _: loss()
        if batches is None:
            self.batches = [None]
        self.sizes = [float(s) for s in sizes] if sizes is not None else [float(size_of(b)) for b in self.batches]
        _check(self)
        self.sharded = any(_is_sharded(p) for p in self.params)
        wrapped = self.sharded or any(isinstance(m, DistributedDataParallel) for m in self.modules)
        self.distributed = wrapped if distributed is None else distributed
        self._depth = 0
        self._renewals: list[Callable[[], None]] = []  # bring back the buffers that a call has written into
        self._draws = False

    @property
    def size(self) -> int:
        """Numbers that the loss is a function of; on this rank, where they are spread over several."""
        return sum(local(p).numel() for p in self.params)

    @property
    def device(self) -> torch.device:
        """Where vectors live: with the first tensor."""
        return local(self.params[0]).device

    @property
    def dtype(self) -> torch.dtype:
        """Of vectors: float64 where a tensor is, else float32."""
        return torch.float64 if any(p.dtype == torch.float64 for p in self.params) else torch.float32

    @functools.cached_property
    def weights(self) -> list[float]:
        """Share of each batch in the mean over all batches of all ranks."""
        total = math.fsum(self.sizes)
        if self.distributed:
            total = float(self.summed(torch.tensor(total, dtype=torch.float64, device=self.device)))
        return [s / total for s in self.sizes]

    @functools.cached_property
    def gradient_weights(self) -> list[float]:
        """Share of each of `gradients` in the mean; where tensors are spread, of the batches that all ranks have at once.

        Raises:
            MisuseError: Tensors are spread over ranks that have different numbers of batches: one would wait for ever.
        """
        if not self.sharded:
            return self.weights
        mine = torch.tensor([len(self.batches), -len(self.batches)], device=self.device)
        dist.all_reduce(mine, dist.ReduceOp.MAX)
        if int(mine.sum()):
            raise MisuseError(
                f"sharded ranks take their steps together, and have from {-int(mine[1])} to {int(mine[0])} batches; give each as many"
            )
        return self.summed(torch.tensor(self.weights, dtype=torch.float64, device=self.device)).tolist()

    @functools.cached_property
    def whole_size(self) -> int:
        """Numbers that the loss is a function of, on all ranks."""
        return int(self.summed(torch.tensor(self.size, device=self.device))) if self.sharded else self.size

    @property
    def rank(self) -> int:
        """Of this process where tensors are spread, to draw other random numbers on each; 0 where they aren't."""
        return dist.get_rank() if self.sharded else 0

    @contextlib.contextmanager
    def fixed(self) -> Iterator[None]:
        """Within it the loss is the same at every call; what evaluating it changes is put back at its end. May be nested."""
        if self._depth:
            yield
            return
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self, "_depth", 0)
            stack.callback(self._renewals.clear)
            self._depth = 1
            stack.enter_context(torch.enable_grad())
            for module in self.modules:
                stack.enter_context(_modes(module, self.mode))
                self._renewals.append(stack.enter_context(_spared(module)))
                if isinstance(module, DistributedDataParallel):
                    stack.enter_context(_unsynchronized(module))
            stack.enter_context(differentiable(self.params))
            yield

    def loss(self, index: int) -> Float[Tensor, ""]:
        """The loss of one batch, with its graph; to be called within `fixed`.

        Raises:
            MisuseError: It isn't a single number.
        """
        loss = self.drawn(index, self._loss)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{type(loss).__name__}"
            raise MisuseError(f"a loss is a tensor with one number in it, and this is {what}; give its mean")
        return loss.reshape(())

    def drawn(self, index: int, function: Callable[[Any], Any]) -> Any:
        """What a function makes of a batch, with the random numbers of that batch."""
        for renew in self._renewals:
            renew()
        generators = _generators(self.device)
        kept = [g.get_state() for g in generators]
        try:
            for generator in generators:
                generator.manual_seed(self.seed + index)
            before = [g.get_state() for g in generators]
            made = function(self.batches[index])
            self._draws |= not all(torch.equal(b, g.get_state()) for b, g in zip(before, generators, strict=True))
            return made
        finally:
            for generator, state in zip(generators, kept, strict=True):
                generator.set_state(state)

    def state(self) -> tuple[object, ...]:
        """What tells that the loss may have become another: it differs once tensors, buffers or modes were changed."""
        modules = [part for module in self.modules for part in module.modules()]
        held = [*self.params, *(b for part in modules for b in part._buffers.values() if b is not None)]
        return (*((id(t), t._version, local(t).data_ptr()) for t in held), *(part.training for part in modules))

    def first(self) -> Objective:
        """The same with its first batch alone; of this rank, where there are several."""
        return Objective(
            self._loss, self.params, self.batches[:1], modules=self.modules, mode=self.mode, seed=self.seed,
            distributed=self.sharded,
        )  # fmt: skip

    def value(self) -> float:
        """The loss: the mean over all batches."""
        with self.fixed(), torch.no_grad():
            total = torch.zeros((), dtype=torch.float64, device=self.device)
            for index, weight in enumerate(self.weights):
                total += weight * self.loss(index).to(total)
            return float(self.summed(total) if self.distributed else total)

    def gradient(self) -> Float[Tensor, " size"]:
        """Gradient of the loss, in the order of `params`."""
        total = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for weight, gradient in zip(self.gradient_weights, self.gradients(), strict=True):
            total.add_(gradient, alpha=weight)
        return self.summed(total) if self.distributed and not self.sharded else total

    def gradients(self) -> Iterator[Float[Tensor, " size"]]:
        """Gradient of the mean loss of each batch; where tensors are spread over ranks, of those that all ranks have at once."""
        with self.fixed():
            for index in range(len(self.batches)):
                yield self._backward(index) if self.sharded else self.flatten(self.differentiate(self.loss(index)))

    def differentiate(self, loss: Tensor, *, create_graph: bool = False) -> list[Tensor | None]:
        """Gradients of something with respect to `params`, None for those it doesn't depend on."""
        if not loss.requires_grad:
            return [None] * len(self.params)
        return list(torch.autograd.grad(loss, self.params, create_graph=create_graph, allow_unused=True))

    def _backward(self, index: int) -> Float[Tensor, " size"]:
        """The same by `backward`, which sharding listens to: it gathers weights and takes the mean of gradients over ranks."""
        share = dist.get_world_size() * self.weights[index] / self.gradient_weights[index]
        kept = [p.grad for p in self.params]
        for param in self.params:
            param.grad = None
        try:
            (share * self.loss(index)).backward()
            return self.flatten([p.grad for p in self.params])
        finally:
            for param, grad in zip(self.params, kept, strict=True):
                param.grad = grad

    def flatten(self, parts: Sequence[Tensor | None]) -> Float[Tensor, " size"]:
        """One vector of what has the shapes of `params`; None stands for zeros."""
        return torch.cat([
            torch.zeros(local(p).numel(), dtype=self.dtype, device=self.device)
            if part is None
            else local(part).reshape(-1).to(self.device, self.dtype)
            for p, part in zip(self.params, parts, strict=True)
        ])  # fmt: skip

    def split(self, vector: Float[Tensor, " size"]) -> list[Tensor]:
        """Parts of a vector in the shapes, types and places of `params`."""
        parts, at = [], 0
        for param in self.params:
            here = local(param)
            parts.append(vector[at : at + here.numel()].view(here.shape).to(here.device, here.dtype))
            at += here.numel()
        return parts

    def at(self) -> Float[Tensor, " size"]:
        """Where the tensors stand."""
        return self.flatten([p.detach() for p in self.params])

    @contextlib.contextmanager
    def moved(self) -> Iterator[Callable[[Tensor], None]]:
        """Gives what moves the tensors to a vector away from where they are now; at its end they have the very values they had."""
        here = [local(p.detach()) for p in self.params]
        kept = [h.clone() for h in here]

        def move(by: Tensor) -> None:
            for tensor, value, part in zip(here, kept, self.split(by), strict=True):
                torch.add(value, part, out=tensor)

        try:
            yield move
        finally:
            for tensor, value in zip(here, kept, strict=True):
                tensor.copy_(value)

    def move(self, by: Float[Tensor, " size"]) -> None:
        """Moves the tensors by a vector, to stay."""
        for param, part in zip(self.params, self.split(by), strict=True):
            local(param.detach()).add_(part)

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over ranks of a tensor."""
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        return tensor

    def agreed(self, flag: bool) -> bool:
        """Whether something holds on all ranks, so that none goes another way than the rest."""
        return (
            flag if not self.distributed else not float(self.summed(torch.tensor(float(not flag), device=self.device)))
        )

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner product of vectors, `(size,)` or `(count, size)` on the left; over all ranks where they are spread."""
        product = left @ right
        return self.summed(product) if self.sharded else product

    @property
    def stated(self) -> str:
        """In words, how modules were run."""
        words = {
            "as-is": "modules in the modes they had",
            "train": "modules in training mode",
            "eval": "modules in evaluation mode",
            "no-dropout": "modules in training mode with dropout off",
        }[self.mode]
        return words + (f", the same random numbers for each batch (seed {self.seed})" if self._draws else "")


def size_of(batch: Any) -> int:
    """Samples in a batch: the length of the first tensor in it, 1 where there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 1
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        for part in batch:
            if isinstance(part, Tensor | list | tuple | dict):
                return size_of(part)
    return 1


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that is on this rank: all of it, unless it is spread over several."""
    return tensor.to_local() if _is_sharded(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "to_local")


def _modules(params: Any) -> tuple[nn.Module, ...]:
    return (params,) if isinstance(params, nn.Module) else ()


def _check(objective: Objective) -> None:
    if objective.mode not in get_args(Mode):
        raise MisuseError(f"no mode '{objective.mode}'; there are {', '.join(get_args(Mode))}")
    if not objective.params or not sum(p.numel() for p in objective.params):
        raise MisuseError(
            "there is nothing to differentiate: no tensor was given, or no parameter of the module is trained"
        )
    odd = next((p for p in objective.params if not p.is_floating_point()), None)
    if odd is not None:
        raise MisuseError(
            f"curvature is of real floating-point tensors, and one is {str(odd.dtype).removeprefix('torch.')}"
        )
    inner = next((p for p in objective.params if not p.is_leaf), None)
    if inner is not None:
        raise MisuseError("a tensor to differentiate is computed from others; give those that it is computed from")
    if not objective.batches:
        raise MisuseError("there are no batches")
    if len(objective.sizes) != len(objective.batches):
        raise MisuseError(f"{len(objective.sizes)} sizes were given for {len(objective.batches)} batches")
    if not all(s > 0 and math.isfinite(s) for s in objective.sizes):
        raise MisuseError("the size of a batch is a number above zero")


def _generators(device: torch.device) -> list[torch.Generator]:
    """Of the CPU, and of the accelerator that the tensors are on; no other is touched, as `torch.manual_seed` would."""
    if device.type != "cuda":
        return [torch.default_generator]
    torch.cuda.init()
    return [torch.default_generator, torch.cuda.default_generators[device.index or 0]]


@contextlib.contextmanager
def _modes(module: nn.Module, mode: Mode) -> Iterator[None]:
    """Sets the modes of a module."""
    parts = list(module.modules())
    modes = [part.training for part in parts]
    dropouts = [(part, part.dropout) for part in parts if mode == "no-dropout" and isinstance(part, nn.RNNBase)]
    try:
        if mode != "as-is":
            for part in parts:
                part.training = mode != "eval" and not (mode == "no-dropout" and _drops(part))
        for part, _ in dropouts:
            part.dropout = 0.0
        yield
    finally:
        for part, was in zip(parts, modes, strict=True):
            part.training = was
        for part, dropout in dropouts:
            part.dropout = dropout


@contextlib.contextmanager
def _spared(module: nn.Module) -> Iterator[Callable[[], None]]:
    """Lets a module write into copies of its buffers; what it gives makes new copies of those that were written into.

    Other tensors, and not the values put back: the graph of an earlier call may still need what the call has written.
    """
    buffers = [(part._buffers, dict(part._buffers)) for part in module.modules() if part._buffers]
    copies: dict[int, tuple[Tensor, int]] = {}

    def renew() -> None:
        for held, kept in buffers:
            for name, buffer in kept.items():
                if buffer is None:
                    continue
                copy, version = copies.get(id(buffer), (None, 0))
                if copy is None or copy._version != version:
                    copy = buffer.clone()
                    copies[id(buffer)] = (copy, copy._version)
                held[name] = copy

    try:
        renew()
        yield renew
    finally:
        for held, kept in buffers:
            held.update(kept)


def _drops(part: nn.Module) -> bool:
    from unstuck.recurrent.layers import Recurrent

    return isinstance(part, nn.modules.dropout._DropoutNd | nn.MultiheadAttention | Recurrent)


@contextlib.contextmanager
def _unsynchronized(module: DistributedDataParallel) -> Iterator[None]:
    """Keeps ranks from sharing gradients and buffers as they go: we take means ourselves, and each has its own batches."""
    was, module.require_forward_param_sync = module.require_forward_param_sync, False
    try:
        with module.no_sync():
            yield
    finally:
        module.require_forward_param_sync = was


@contextlib.contextmanager
def differentiable(params: Sequence[Tensor]) -> Iterator[None]:
    """Within it all of some tensors are trained."""
    frozen = [p for p in params if not p.requires_grad]
    for param in frozen:
        param.requires_grad_(True)
    try:
        yield
    finally:
        for param in frozen:
            param.requires_grad_(False)
