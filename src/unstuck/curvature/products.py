"""Products of a vector with the Hessian of a loss, and with matrices that stand in for it.

An `Operator` has a size and multiplies a vector; that is all that Lanczos and its kin ask for. `Hessian` is one of a loss. It has
five ways to make a product, takes the best that works for this loss, and holds one product against finite differences:

    way                   cost, gradients   for
    reused                1-2               losses that can be differentiated twice, whose graph fits in memory
    fresh                 2-3               the same, batch by batch
    forward-over-reverse  3                 many batches with little memory: no graph of the gradient is kept
    compiled              1-2               very many products: the graph is traced, and compiled by torch.compile
    difference            2                 what can't be differentiated twice (fused recurrences, flash attention, sharded weights)

The first counts are of floating-point operations (Pearlmutter 1994: a product costs a few gradients).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from unstuck.curvature.objective import Objective, local
from unstuck.errors import MisuseError

Way = Literal["reused", "fresh", "forward-over-reverse", "compiled", "difference"]
MEMORY = 2**30  # bytes that the graph of a gradient may hold to be kept
SHORTER = (
    1.0,
    1 / 256,
    1 / 1024,
)  # steps of finite differences; a short one crosses few kinks of ReLU, and rounds more
GOOD = 0.01  # agreement with finite differences, at which no other step is tried
SLOW = 2.5  # gradients that a product may take, where finite differences are as good


class Operator(Protocol):
    """A symmetric matrix that is known by its products with vectors."""

    size: int
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
        self.products = 0

    def __matmul__(self, vector: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
        """The product with a vector."""
        self.products += 1
        return self.matrix @ vector

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner product."""
        return left @ right


class Hessian:
    """The Hessian of a loss where its tensors stand; it follows them when they move.

    Args:
        objective: The loss.
        way: How products are made. "auto" takes the first that works of reused (while its graph fits), fresh and difference; and
            difference, too, where a product takes more than two and a half gradients and the two agree to 1%, as with
            fused recurrences.
        memory: Bytes that the graph of the gradient may hold for "reused" to be chosen.
        check: Compare a product for the first batch with finite differences, at the cost of two to six of its gradients.

    Attributes:
        way: The way taken.
        passed_over: The ways before it that weren't, with the reason.
        error: Relative difference between a product and finite differences, for the step that comes nearest; NaN where it
            wasn't looked at. It holds the error of both: expect 1e-4 in float32. Where ReLU or pooling makes kinks, finite
            differences see them and the Hessian doesn't: then it may be large, and a step of that length feels more
            curvature than the Hessian has.
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
        self.products = 0
        self.passed_over: dict[str, str] = {}
        self.error = math.nan
        self._graph: tuple[list[Tensor | None], list[int]] | None = None
        self._compiled: Callable[..., Any] | None = None
        self._plain = True
        self.way: Way = self._chosen(way, memory)
        if check and self.way != "difference":
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
            if one == "reused" and way == "auto" and (held := self._held()) > memory:
                self.passed_over[one] = (
                    f"the graph of the gradient holds {held / 2**20:.0f} MiB, more than {memory / 2**20:.0f}"
                )
                continue
            vector = self._random(0)
            for plain in (True, False):
                self._plain, self._graph = plain, None
                try:
                    self._product(one, vector)
                    return one
                except (RuntimeError, NotImplementedError) as error:  # what can't be differentiated twice says so
                    self.passed_over[one] = str(error).strip().split("\n", 1)[0]
                    if one == "difference":
                        raise  # not even a gradient
        raise MisuseError(f"the Hessian can't be multiplied by way of '{way}': {self.passed_over[way]}")

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
        if self._plain:
            yield
            return
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
            yield

    def _product(self, way: Way, vector: Tensor) -> Tensor:
        if way == "reused":
            product = self._by_reuse(vector)
        elif way == "difference":
            return self._by_difference(vector)
        else:
            make = {"fresh": self._twice, "forward-over-reverse": self._forward, "compiled": self._by_compiled}[way]
            product = torch.zeros_like(vector)
            with self.objective.fixed(), self._differentiable_twice():
                for index, weight in enumerate(self.objective.weights):
                    product.add_(make(index, vector), alpha=weight)
        return self.objective.summed(product) if self.objective.distributed else product

    def _kept_graph(self) -> list[Tensor | None]:
        """Gradients with their graph, made anew when a tensor has moved."""
        objective = self.objective
        versions = [p._version for p in objective.params]
        if self._graph is None or self._graph[1] != versions:
            self._graph = None
            with objective.fixed(), self._differentiable_twice():
                total = sum(w * objective.loss(i) for i, w in enumerate(objective.weights))
                assert isinstance(total, Tensor)
                self._graph = (objective.differentiate(total, create_graph=True), versions)
        return self._graph[0]

    def _by_reuse(self, vector: Tensor) -> Tensor:
        objective = self.objective
        pairs = [
            (g, v)
            for g, v in zip(self._kept_graph(), objective.split(vector), strict=True)
            if g is not None and g.requires_grad
        ]
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
        with forward_ad.dual_level():
            duals = [
                forward_ad.make_dual(p.detach().requires_grad_(True), v)
                for p, v in zip(objective.params, objective.split(vector), strict=True)
            ]
            with exchanged(objective.modules, objective.params, duals):
                loss = objective.loss(index)
            if not loss.requires_grad:
                return torch.zeros_like(vector)
            grads = torch.autograd.grad(loss, duals, allow_unused=True)
            return objective.flatten([None if g is None else forward_ad.unpack_dual(g).tangent for g in grads])

    def _by_compiled(self, index: int, vector: Tensor) -> Tensor:
        raise NotImplementedError

    def _by_difference(self, vector: Tensor, *, shorter: float = 1.0) -> Tensor:
        objective = self.objective
        norm = float(objective.dot(vector, vector)) ** 0.5
        if norm == 0 or not math.isfinite(norm):
            return torch.zeros_like(vector) if norm == 0 else vector * math.nan
        step = shorter * _step(objective) / norm
        with objective.moved() as move:
            move(step * vector)
            ahead = objective.gradient()
            move(-step * vector)
            behind = objective.gradient()
        return (ahead - behind).div_(2 * step)

    def _check(self, *, may_change: bool) -> None:
        """Compares a product for the first batch with finite differences of its gradient."""
        objective, vector = self.objective.first(), self._random(1)
        one = self if len(self.objective.batches) == 1 else Hessian(objective, way=self.way, check=False)
        one._plain = self._plain
        exact, seconds = _timed(lambda: one._product(self.way, vector))
        scale, self.error = float(exact.norm()), math.inf
        for shorter in SHORTER:
            near, twice = _timed(lambda shorter=shorter: one._by_difference(vector, shorter=shorter))
            self.error = min(self.error, float((exact - near).norm()) / (scale or 1.0))
            if self.error < GOOD:
                break
        if may_change and self.error < GOOD and seconds > SLOW / 2 * twice:
            self.passed_over[self.way] = f"a product took {2 * seconds / twice:.1f} gradients"
            self.way, self._graph = "difference", None

    def _random(self, seed: int) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(self.size, generator=generator, dtype=torch.float32).to(self.device, self.dtype)


def _timed(make: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What comes of something done twice, and the seconds that the second time took."""
    make()
    began = time.perf_counter()
    made = make()
    float(made.sum())  # waits for an accelerator
    return made, time.perf_counter() - began


def _step(objective: Objective) -> float:
    """Length of the step of a central difference: where the error of rounding is that of the third derivative."""
    at = objective.at()
    scale = max(1.0, float(objective.dot(at, at)) ** 0.5)
    return scale * torch.finfo(objective.dtype).eps ** (1 / 3)


@contextlib.contextmanager
def exchanged(modules: Sequence[nn.Module], params: Sequence[Tensor], others: Sequence[Tensor]) -> Iterator[None]:
    """Within it modules hold other tensors in the place of their parameters.

    Raises:
        NotImplementedError: One of them isn't a parameter of these modules.
    """
    other = {id(p): o for p, o in zip(params, others, strict=True)}
    places = [
        (part._parameters, name, p)
        for module in modules
        for part in module.modules()
        for name, p in part._parameters.items()
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
