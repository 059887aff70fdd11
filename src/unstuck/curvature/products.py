"""Products of a vector with the Hessian of a loss, and with matrices that stand in for it.

An `Operator` has a size and multiplies a vector; that is all that Lanczos and its kin ask for. `Hessian` is one of a loss. It has
four ways to make a product, takes the best that works for this loss, and holds one product against finite differences:

    way                   cost, gradients   for
    reused                1-2               losses that can be differentiated twice, whose graph fits in memory
    fresh                 2-3               the same, batch by batch
    forward-over-reverse  3                 many batches with little memory: no graph of the gradient is kept
    difference            2                 what can't be differentiated twice (fused recurrences, flash attention, sharded weights)

The counts are of floating-point operations (Pearlmutter 1994: a product costs a few gradients). There is no compiled way: traced
and compiled by inductor, a product takes 1.6 to 2.4 gradients on a CPU, where one with the kept graph takes 1.1 to 1.4, and the
compiler takes as long as thousands of products.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from unstuck.curvature.objective import Objective, differentiable, local
from unstuck.errors import MisuseError

Way = Literal["reused", "fresh", "forward-over-reverse", "difference"]
MEMORY = 2**30  # bytes that the graph of a gradient may hold to be kept
SHORTER = (
    1.0,
    1 / 256,
    1 / 1024,
)  # steps of finite differences; a short one crosses few kinks of ReLU, and rounds more
GOOD = 0.01  # agreement with finite differences, at which no other step is tried
SLOW = 2.5  # gradients that a product may take, where finite differences are as good


@runtime_checkable  # for the tests' checks of annotations
class Operator(Protocol):
    """A symmetric matrix that is known by its products with vectors.

    Attributes:
        size: Numbers in a vector; where vectors are spread over ranks, on this one.
        whole_size: The same on all ranks: eigenvalues in all.
        rank: Of this process where vectors are spread over ranks, else 0.
        dtype: Of vectors.
        device: Of vectors.
    """

    size: int
    whole_size: int
    rank: int
    dtype: torch.dtype
    device: torch.device

    def __matmul__(self, vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
        """The product with a vector."""
        ...

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner product of vectors, `(size,)` or `(count, size)` on the left."""
        ...


class Dense:
    """A symmetric matrix as an operator.

    Args:
        matrix: The matrix.
    """

    def __init__(self, matrix: Float[Tensor, "size size"]) -> None:
        self.matrix = matrix
        self.size, self.dtype, self.device = len(matrix), matrix.dtype, matrix.device
        self.whole_size, self.rank = self.size, 0
        self.products = 0

    def __matmul__(self, vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
        """The product with a vector."""
        self.products += 1
        return self.matrix @ vector

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner product."""
        return left @ right


@dataclass(frozen=True)
class _Graph:
    """Gradients with their graph, and what they were made of: the state of the objective, and a print of the tensors."""

    gradients: list[Tensor | None]
    state: tuple[object, ...]
    print: list[float]


class Hessian:
    """The Hessian of a loss where its tensors stand; it follows them when they move.

    Args:
        objective: The loss.
        way: How products are made. "auto" takes the first that works of reused (while its graph fits), fresh and difference; and
            difference, too, where a product takes more than two and a half gradients and the two agree to 1%, as with
            fused recurrences.
        memory: Bytes that the graph of the gradient may hold for "reused" to be chosen.
        check: Compare a product for the first batch with finite differences, and the time of both, at the cost of three of its gradients
            or more.

    Attributes:
        way: The way taken.
        passed_over: The ways before it that weren't, with the reason.
        error: Relative difference between a product and finite differences, for the step that comes nearest; between those of
            two steps where there is nothing else; NaN where it wasn't looked at. It holds the error of both: expect 1e-4
            in float32. Where ReLU or pooling makes kinks, finite differences see them and the Hessian doesn't: then it may
            be large, and a step of that length feels more curvature than the Hessian has.
        products: Made so far.

    Raises:
        MisuseError: No such way, or the way asked for doesn't work for this loss.

    Source:
        Pearlmutter 1994, "Fast exact multiplication by the Hessian".

    Example:
        >>> import torch
        >>> x = torch.tensor([3.0, 4.0], dtype=torch.float64)
        >>> hessian = Hessian(Objective(lambda: x[0] ** 2 * x[1], [x]))
        >>> (hessian @ torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
        [8.0, 6.0]
    """

    def __init__(
        self, objective: Objective, *, way: Way | Literal["auto"] = "auto", memory: int = MEMORY, check: bool = True
    ) -> None:
        if way != "auto" and way not in get_args(Way):
            raise MisuseError(f"no way '{way}' to multiply by a Hessian; there are auto, {', '.join(get_args(Way))}")
        self.objective = objective
        self.size, self.dtype, self.device = objective.size, objective.dtype, objective.device
        self.whole_size, self.rank = objective.whole_size, objective.rank
        self.products = 0
        self.passed_over: dict[str, str] = {}
        self.error = math.nan
        self._graph: _Graph | None = None
        self._plain = True
        self._shorter = SHORTER[0]
        self.way: Way = self._chosen(way, memory)
        if self.way == "difference":
            self._tune()
        elif check:
            self._check(may_change=way == "auto")

    def __matmul__(self, vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
        """The product with a vector, in the type and place of the objective's vectors."""
        self.products += 1
        return self._product(self.way, vector.to(self.device, self.dtype))

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner product of vectors, `(size,)` or `(count, size)` on the left."""
        return self.objective.dot(left, right)

    def gradient(self) -> Float[Tensor, " size"]:
        """The gradient, at no cost where its graph is kept."""
        if self.way == "reused":
            total = self.objective.flatten([g if g is None else g.detach() for g in self._kept_graph()])
            return self.objective.summed(total) if self.objective.distributed else total
        return self.objective.gradient()

    def _chosen(self, way: str, memory: int) -> Way:
        if self.objective.sharded and way == "auto":
            self.passed_over["reused"] = "the tensors are spread over ranks"
            return "difference"
        ways: Sequence[Way] = ("reused", "fresh", "difference") if way == "auto" else (way,)  # pyright: ignore[reportAssignmentType]
        for one in ways:
            if one == "reused" and way == "auto" and not self._fits(memory):
                continue
            for plain in (True, False):
                self._plain, self._graph = plain, None
                if self._works(one):
                    self.passed_over.pop(one, None)
                    return one
        raise MisuseError(f"the Hessian can't be multiplied by way of '{way}': {self.passed_over[way]}")

    def _fits(self, memory: int) -> bool:
        held = self._held()
        if self.objective.agreed(held <= memory):
            return True
        self.passed_over["reused"] = (
            f"the graph of the gradient holds {held / 2**20:.0f} MiB, more than {memory / 2**20:.0f}"
        )
        return False

    def _works(self, way: Way) -> bool:
        """Whether a product can be made on every rank.

        Raises:
            RuntimeError: Not even a gradient can.
        """
        works = True
        try:
            if way != "difference":
                self._refuse_once()
            self._share(way, self._random(0))
        except (RuntimeError, NotImplementedError) as error:  # what can't be differentiated twice says so
            if way == "difference":
                raise  # not even a gradient
            self.passed_over[way] = str(error).strip().split("\n", 1)[0]
            works = False
        return self.objective.agreed(works)

    def _refuse_once(self) -> None:
        """Looks for functions whose backward is marked as not differentiable: their second derivative silently is 0.

        Raises:
            NotImplementedError: There is one.
        """
        with self.objective.fixed():
            todo, seen = [self.objective.loss(0).grad_fn], set()
        while todo:
            node = todo.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
            code = getattr(getattr(getattr(node, "_forward_cls", None), "backward", None), "__code__", None)
            if code is not None and code.co_filename == once_differentiable.__code__.co_filename and code.co_freevars:
                raise NotImplementedError(f"the backward of {node.name()} can't be differentiated")

    def _held(self) -> int:
        """Bytes that the graph of the gradient of all batches would hold, from that of the first."""
        bytes_held: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            bytes_held[storage.data_ptr()] = storage.nbytes()
            return tensor

        objective = self.objective
        own = {local(p.detach()).untyped_storage().data_ptr() for p in objective.params}
        with (
            objective.fixed(),
            self._differentiable_twice(),
            torch.autograd.graph.saved_tensors_hooks(count, lambda t: t),
        ):
            try:
                objective.differentiate(objective.loss(0), create_graph=True)
            except (RuntimeError, NotImplementedError):
                return 0  # the product itself will say so
        return sum(n for p, n in bytes_held.items() if p not in own) * len(objective.batches)

    @contextlib.contextmanager
    def _differentiable_twice(self) -> Iterator[None]:
        """Without fused attention and recurrences, whose second derivatives nobody wrote, where the plain attempt failed."""
        with contextlib.nullcontext() if self._plain else unfused():
            yield

    def _product(self, way: Way, vector: Tensor) -> Tensor:
        share = self._share(way, vector)
        return self.objective.summed(share) if self.objective.distributed and way != "difference" else share

    def _share(self, way: Way, vector: Tensor) -> Tensor:
        """What this rank's batches add to a product; finite differences see those of all ranks."""
        if way == "reused":
            return self._by_reuse(vector)
        if way == "difference":
            return self._by_difference(vector)
        make = self._twice if way == "fresh" else self._forward
        product = torch.zeros_like(vector)
        with self.objective.fixed(), self._differentiable_twice():
            for index, weight in enumerate(self.objective.weights):
                product.add_(make(index, vector), alpha=weight)
        return product

    def _kept_graph(self) -> list[Tensor | None]:
        """Gradients with their graph, made anew when a tensor has moved, or the modules are in another state."""
        objective = self.objective
        now, print_now = objective.state(), _print(objective.params)
        if self._graph is None or self._graph.state != now or self._graph.print != print_now:
            self._graph = None
            with objective.fixed(), self._differentiable_twice():
                total = sum(w * objective.loss(i) for i, w in enumerate(objective.weights))
                assert isinstance(total, Tensor)
                gradients = objective.differentiate(total, create_graph=True)
            self._graph = _Graph(gradients, now, print_now)
        return self._graph.gradients

    def _by_reuse(self, vector: Tensor) -> Tensor:
        objective = self.objective
        pairs = [
            (g, v)
            for g, v in zip(self._kept_graph(), objective.split(vector), strict=True)
            if g is not None and g.requires_grad
        ]
        with differentiable(objective.params):
            return self._second(pairs, retain=True)

    def _second(self, pairs: list[tuple[Tensor, Tensor]], *, retain: bool) -> Tensor:
        """Derivative of the inner products of gradients and vectors."""
        objective = self.objective
        if not pairs:
            return torch.zeros(self.size, dtype=self.dtype, device=self.device)
        with torch.enable_grad():
            second = torch.autograd.grad(
                [g for g, _ in pairs], objective.params, [v for _, v in pairs], retain_graph=retain, allow_unused=True
            )
        return objective.flatten(second)

    def _twice(self, index: int, vector: Tensor) -> Tensor:
        objective = self.objective
        grads = objective.differentiate(objective.loss(index), create_graph=True)
        pairs = [
            (g, v) for g, v in zip(grads, objective.split(vector), strict=True) if g is not None and g.requires_grad
        ]
        return self._second(pairs, retain=False)

    def _forward(self, index: int, vector: Tensor) -> Tensor:
        objective = self.objective
        with forward_ad.dual_level(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, the first time
            duals = [
                forward_ad.make_dual(p.detach().requires_grad_(True), v)
                for p, v in zip(objective.params, objective.split(vector), strict=True)
            ]
            with exchanged(objective.modules, objective.params, duals):
                loss = objective.loss(index)
            if not loss.requires_grad:
                return torch.zeros_like(vector)
            grads = torch.autograd.grad(loss, [*duals, *objective.params], allow_unused=True)
            if any(g is not None for g in grads[len(duals) :]):
                raise NotImplementedError("the loss reaches a parameter by another way than through its module")
            tangents = [None if g is None else forward_ad.unpack_dual(g).tangent for g in grads[: len(duals)]]
            return objective.flatten(tangents)

    def _by_difference(self, vector: Tensor, *, shorter: float | None = None) -> Tensor:
        objective, shorter = self.objective, shorter or self._shorter
        norm = float(objective.dot(vector, vector)) ** 0.5
        if norm == 0 or not math.isfinite(norm):
            return torch.zeros_like(vector) if norm == 0 else vector * math.nan
        step = shorter * _step(objective) / norm
        with objective.fixed(), objective.moved() as move:
            move(step * vector)
            ahead = objective.gradient()
            move(-step * vector)
            behind = objective.gradient()
        return (ahead - behind).div_(2 * step)

    def _check(self, *, may_change: bool) -> None:
        """Compares a product for the first batch with finite differences of its gradient."""
        objective, vector = self.objective.first(), self._random(1)
        lone = len(self.objective.batches) == 1 and not self.objective.distributed
        one = self if lone else Hessian(objective, way=self.way, check=False)
        one._plain = self._plain
        began = time.perf_counter()
        exact = one._product(self.way, vector)
        scale, self.error, cost = float(exact.norm()), math.inf, math.nan
        middle = time.perf_counter()
        for shorter in SHORTER:
            near = one._by_difference(vector, shorter=shorter)
            off = float((exact - near).norm()) / (scale or 1.0)
            if shorter == SHORTER[0]:
                cost = 2 * (middle - began) / (time.perf_counter() - middle)
            if off < self.error:
                self.error, self._shorter = off, shorter
            if self.error < GOOD:
                break
        if not may_change or not self.objective.agreed(self.error < GOOD) or self.objective.agreed(cost <= SLOW):
            return
        # Something else may have held up the first, or the graph was made in it.
        cost = 2 * _ratio(lambda: one._product(self.way, vector), lambda: one._by_difference(vector))
        if not self.objective.agreed(cost <= SLOW):  # all wait for the slowest
            self.passed_over[self.way] = f"a product took {cost:.1f} gradients"
            self.way, self._graph = "difference", None

    def _tune(self) -> None:
        """Takes the step of which a shorter one makes the least difference, and that difference for its error."""
        vector = self._random(1)
        made = [self._by_difference(vector, shorter=shorter) for shorter in SHORTER]
        for longer, near, shorter in zip(made, made[1:], SHORTER, strict=False):
            scale = math.sqrt(float(self.dot(near, near)))
            off = math.sqrt(float(self.dot(longer - near, longer - near))) / (scale or 1.0)
            if not off >= self.error:
                self.error, self._shorter = off, shorter

    def _random(self, seed: int) -> Tensor:
        generator = generator_for(self, seed)
        return torch.randn(self.size, generator=generator, dtype=torch.float32).to(self.device, self.dtype)


def generator_for(operator: Operator, seed: int) -> torch.Generator:
    """Random numbers for vectors: others on each rank, where vectors are spread over ranks."""
    return torch.Generator("cpu").manual_seed(seed + 1_000_003 * operator.rank)


def _ratio(make: Callable[[], Tensor], other: Callable[[], Tensor], rounds: int = 3) -> float:
    """Time that one thing takes over that of another, in turns, of each the fastest: others may use the machine too."""
    best = [math.inf, math.inf]
    for _ in range(rounds):
        for i, one in enumerate((make, other)):
            began = time.perf_counter()
            float(one().sum())  # waits for an accelerator
            best[i] = min(best[i], time.perf_counter() - began)
    return best[0] / best[1]


def _print(params: Sequence[Tensor]) -> list[float]:
    """Numbers that are others when the tensors are: what is written through `.data` leaves no other trace."""
    here = [local(p.detach()) for p in params if p.numel()]
    prints = [number for h in here for number in (h.norm(), h.sum())]
    return torch.stack([p.to(here[0].device, torch.float64) for p in prints]).tolist()


def _step(objective: Objective) -> float:
    """Length of the step of a central difference: where the error of rounding is that of the third derivative."""
    at = objective.at()
    scale = max(1.0, float(objective.dot(at, at)) ** 0.5)
    return scale * torch.finfo(objective.dtype).eps ** (1 / 3)


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Without the fused kernels whose second derivatives nobody wrote."""
    with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
        yield


@contextlib.contextmanager
def exchanged(modules: Sequence[nn.Module], params: Sequence[Tensor], others: Sequence[Tensor]) -> Iterator[None]:
    """Within it modules hold other tensors in the place of their parameters.

    Raises:
        NotImplementedError: One of them isn't a parameter of these modules.
    """
    other = {id(p): o for p, o in zip(params, others, strict=True)}
    parts = [part for module in modules for part in module.modules()]
    places = [
        (held, name, p)
        for part in parts
        for held, names in _holders(part)
        for name, p in names
        if p is not None and id(p) in other
    ]
    if len({id(p) for _, _, p in places}) < len(other):
        raise NotImplementedError("not all tensors are parameters of a module that was given")
    try:
        for held, name, param in places:
            held[name] = other[id(param)]  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for held, name, param in places:
            held[name] = param


def _holders(part: nn.Module) -> list[tuple[Any, list[tuple[Any, Tensor | None]]]]:
    """Where a module holds its parameters, each with its key there; recurrent ones have a second place."""
    flat = part._flat_weights if isinstance(part, nn.RNNBase) else []
    return [(part._parameters, list(part._parameters.items())), (flat, list(enumerate(flat)))]
