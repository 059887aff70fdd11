"""The curvature of the loss where the training ended: what kind of point it is, how steep it is, and which rate it bears."""

from __future__ import annotations

import math
from typing import Any

import torch

from unstuck.curvature.critical import Point, critical_point
from unstuck.curvature.lanczos import Krylov
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Hessian
from unstuck.curvature.spectrum import extremes
from unstuck.curvature.steps import stable_rate
from unstuck.errors import MisuseError
from unstuck.probes.bench import Bench, Clock

MEMORY = 2 << 30  # bytes that the vectors of a run of Lanczos may take
FEWEST = 6  # products, with which the largest eigenvalue is known roughly
SLOPE = 20  # products that tell where the gradient would vanish


class Ground:
    """The loss around where a bench stands: one function, one Hessian, one run of Lanczos, to be asked many things.

    Args:
        bench: The training.
        batches: Of which the loss is the mean.
        seed: Of the random vectors.

    Attributes:
        each: Seconds a product takes, by the bench's clock.
        more: Seconds more for each product of a run made before, to which a new vector is made orthogonal.

    Raises:
        MisuseError: The network is too large for the vectors of a run.
    """

    def __init__(self, bench: Bench, batches: range, clock: Clock, *, seed: int = 0) -> None:
        self.bench, self.batches, self.seed = bench, batches, seed
        self.objective: Objective = bench.objective(batches)
        each = self.objective.size * torch.finfo(self.objective.dtype).bits // 8
        self.room = MEMORY // max(1, each)
        if self.room < 2 * FEWEST:
            raise MisuseError(
                f"the network has {self.objective.size:,} numbers to learn, and {2 * FEWEST} vectors of that size, without which there is "
                f"no spectrum, take {2 * FEWEST * each / 2**30:.1f} GiB, more than {MEMORY / 2**30:.0f}"
            )
        self.hessian = Hessian(self.objective)
        _ = self.hessian @ self.objective.at()
        before = clock.left
        _ = self.hessian @ self.objective.at()
        self.each = max(1e-6, before - clock.left)
        self.krylov = Krylov(self.hessian, seed=seed)
        self.krylov.grow()
        before = clock.left
        self.krylov.grow()
        self.more = max(0.0, before - clock.left - self.each)

    def affords(self, clock: Clock, share: float = 1.0) -> int:
        """Products of a run of Lanczos that there is time for."""
        seconds = share * clock.left
        return int(2 * seconds / (self.each + math.sqrt(self.each**2 + 2 * self.more * seconds)))

    def again(self) -> None:
        """Begins anew, after the tensors have been moved."""
        self.krylov = Krylov(self.hessian, seed=self.seed)

    def typical(self) -> float:
        """Mean size of an eigenvalue, as the random vector of the run sees it; of all of them where they are known."""
        if self.krylov.complete:
            return float(torch.linalg.eigvalsh(self.krylov.projected).abs().mean())
        values, vectors = torch.linalg.eigh(self.krylov.first_chain)
        return float((values.abs() * vectors[0] ** 2).sum())

    def told(self) -> dict[str, Any]:
        """How it was measured."""
        samples = sum(self.objective.sizes)
        stated = self.objective.stated.replace("the modes they had", "the modes they were trained in")
        return {
            "way": self.hessian.way, "way_error": self.hessian.error, "passed_over": self.hessian.passed_over,
            "batches": len(self.batches), "samples": samples, "size": self.objective.size, "stated": stated,
        }  # fmt: skip


def curvature(bench: Bench, clock: Clock, *, most: int = 4, products: int = 60) -> dict[str, Any] | None:
    """The largest and the smallest eigenvalue of the Hessian of the mean loss over a few batches, the kind of point, and the rate it bears.

    Args:
        bench: The training.
        clock: Ends it after at least 6 products with the Hessian.
        most: Batches.
        products: With the Hessian, for its eigenvalues.

    Returns:
        `top`, `bottom` (eigenvalues), `top_error`, `bottom_error` (residuals), `gradient` (its norm), `loss`, `iterations`
        (products for the eigenvalues); `typical`, the mean size of an eigenvalue; how it was measured, see `Ground.told`; where
        there is time what `pointed` and `rated` give. None where the network is too large, or not even a gradient can be had.
    """
    bench.restore()
    try:
        ground = Ground(bench, bench.batches[-most:], clock)
    except (RuntimeError, MisuseError):
        return None
    allowed = min(ground.affords(clock), ground.room)
    if allowed >= 2 * SLOPE:
        point = critical_point(
            ground.objective, hessian=ground.hessian, krylov=ground.krylov, most=min(products, allowed - SLOPE)
        )
        found = pointed(point)
    else:
        slope = ground.objective.gradient()
        ends = extremes(ground.krylov, most=max(FEWEST, min(products, allowed)), tolerance=0.05)
        found = {
            "top": ends.top.values[0], "bottom": ends.bottom.values[0], "top_error": ends.top.errors[0],
            "bottom_error": ends.bottom.errors[0], "gradient": float(slope.norm()), "loss": ground.objective.value(),
        }  # fmt: skip
    found["iterations"] = ground.krylov.products
    found["typical"] = ground.typical()
    if ground.affords(clock) >= FEWEST:
        found |= rated(ground, clock)
    return {**found, **ground.told(), "products": ground.hessian.products}


def pointed(point: Point) -> dict[str, Any]:
    """What `critical_point` found, in plain numbers: `kind` and `says`, both ends of the spectrum, the gradient and its `noise`.

    `gain` is by how much the loss would change on the way to where the gradient vanishes; `flatness` near 0 means that the gradient is in
    the kernel of the Hessian; `converged`, that both eigenvalues are known as well as was asked.
    """
    return {
        "kind": point.kind, "says": point.says, "top": point.top.values[0], "bottom": point.bottom.values[0],
        "top_error": point.top.errors[0], "bottom_error": point.bottom.errors[0], "gradient": point.gradient.norm,
        "noise": point.gradient.noise, "rounding": point.gradient.rounding, "loss": point.loss, "gain": point.gain,
        "flatness": point.flatness, "tolerance": point.tolerance,
        "converged": point.top.converged and point.bottom.converged,
    }  # fmt: skip


def rated(ground: Ground, clock: Clock, optimizer: Any = None, *, most: int = 30) -> dict[str, Any]:
    """Which rate the curvature bears: `stable_rate`, and the present `rate`; `edge`, the one over the other, 1 at the edge of stability.

    Args:
        ground: The loss.
        clock: Limits the products.
        optimizer: That makes the steps; by default the script's, as at the end.
        most: Products.

    Returns:
        Also `sharpness` (the largest eigenvalue as the optimizer feels it, preconditioned where it does that) with its error, `bound` (what
        rate times sharpness may be) and `method`; without a known optimizer gradient descent's. Nothing where no rate is known.
    """
    bench = ground.bench
    if not bench.steps_known:
        return {}
    optimizer = bench.optimizer() if optimizer is None else optimizer
    allowed = max(FEWEST, min(most, ground.affords(clock), ground.room))
    try:
        found = stable_rate(ground.objective, optimizer, hessian=ground.hessian, tolerance=0.03, most=allowed)
    except MisuseError as error:
        return {"no_rate": str(error)}
    edge = 1 / found.multiple if found.multiple > 0 and math.isfinite(found.multiple) else 0.0
    return {
        "stable_rate": found.rate, "rate": found.rate * edge if edge else float(optimizer.param_groups[0]["lr"]), "edge": edge,
        "sharpness": found.sharpness, "sharpness_error": found.error, "bound": found.bound, "method": found.method,
        "by_hand": bench.training.optimizer is None,
    }  # fmt: skip
