"""A push off the place where nothing pulls."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import numpy as np

from unstuck.program import Script
from unstuck.remedies._network import parameters_at
from unstuck.remedies._text import in_torch, literal, trained_loss
from unstuck.source import Edit, EditError, Loop, Source, called, number_in
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from unstuck.evidence import Record
    from unstuck.training import Training

_RESTS = 0.05  # gradient, relative to that at the start, from which on it rests
_PRODUCTS = 50  # with the Hessian, to find its most negative eigenvector
_LATEST = 0.5  # share of the run, so that there is time to go on


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """A third of the weights' own size, then three times that, when the gradient has first become small; then along the curvature."""
    norms = script.record.series("grad_norm").finite
    small = norms.steps[norms.values < _RESTS * norms.first] if len(norms) else []
    share = min(_LATEST, float(small[0]) / max(1, script.record.steps)) if len(small) else 0.0
    sizes = [script.record.series("weight_rms", place).finite.last for place in script.record.places("weight_rms")]
    known = [size for size in sizes if size > 0]
    size = float(np.median(known)) if known else 0.1
    when = round(share, 2)
    noise = [{"share": when, "size": float(literal(factor * size))} for factor in (0.3, 1.0)]
    return [*noise, {"share": when, "size": float(literal(0.1 * size)), "along": "curvature"}]


def escape(script: Script, *, share: float = 0.0, size: float = 0.1, along: str = "noise") -> list[Edit]:
    """The weights are pushed once, and training goes on from there: by noise, or along the most negative curvature.

    At a saddle the gradient is zero and some ways lead down. Noise has a part along these, and the gradient makes it grow (Jin et al.
    2017, algorithm 1, who add it whenever the gradient is small; here it is once, at a time that is known from a run without). The
    steepest way down is along the Hessian's most negative eigenvector, found here by fifty products with it on one batch (Pearlmutter
    1994; Dauphin et al. 2014). Off a local minimum either leads only where it is larger than that is wide.

    Args:
        script: The script.
        share: When, as a share of the run; 0 for before it, or at its first step.
        size: Root mean square of what is added to the weights.
        along: noise or curvature.

    Returns:
        The edits.

    Raises:
        EditError: The loop around backward doesn't count in a way that is understood, or the loss is in no variable.
    """  # noqa: DOC502
    source, loops = script.loops()
    loop = loops[-1]
    if along == "curvature":
        return _along_curvature(script, source, loops, share, size)
    no_grad, imports = in_torch(source, "torch.no_grad")
    noise, _ = in_torch(source, "torch.randn_like")
    added = [
        f"with {no_grad}():", f"    for parameter in {parameters_at(script, source, loop)}:",
        f"        parameter += {literal(size)} * {noise}(parameter)",
    ]  # fmt: skip
    if share == 0:
        return [*imports, source.before(loop, added, rank=3)]
    counter, at = _when(source, loop, share)
    lines = [f"if {counter} == {at}:", *(f"    {line}" for line in added)]
    return [*imports, source.before(loop.body[0], lines)]


def _along_curvature(script: Script, source: Source, loops: list[Loop], share: float, size: float) -> list[Edit]:
    """Fifty steps of a power iteration, shifted so that the most negative curvature wins, and a push along what it finds.

    Raises:
        EditError: Backward is called on an expression, or it isn't known what the loop counts.
    """
    statement = script.statement("backward")[1]
    loss = trained_loss(source, statement)
    if not isinstance(loss, (ast.Name, ast.Attribute)):
        raise EditError("backward is called on an expression, which has no name to take its curvature by")
    grad, imports = in_torch(source, "torch.autograd.grad")
    random, _ = in_torch(source, "torch.randn_like")
    counter, at = _when(source, loops[-1], share)
    once = len(loops) > 1
    function = [
        "def push_along_curvature(loss, weights, size):",
        f"    slope = {grad}(loss, weights, create_graph=True)",
        f"    way, steepest = [{random}(w) for w in weights], 0.0",
        f"    for _ in range({_PRODUCTS}):",
        "        length = sum((w * w).sum() for w in way).sqrt()",
        "        way = [w / length for w in way]",
        f"        bent = {grad}(slope, weights, way, retain_graph=True)",
        "        steepest = max(steepest, sum((b * b).sum() for b in bent).sqrt().item())",
        "        way = [steepest * w - b for w, b in zip(way, bent)]",
        "    length = (sum((w * w).sum() for w in way) / sum(w.numel() for w in way)).sqrt()",
        "    for weight, w in zip(weights, way):",
        "        weight.data += size * w / length",
        "",
        *(["pushed = False"] if once else []),
    ]
    weights = f"[p for p in {parameters_at(script, source, statement)} if p.requires_grad]"
    call = [
        f"if {counter} == {at}{' and not pushed' if once else ''}:",
        f"    push_along_curvature({source.of(loss)}, {weights}, {literal(size)})",
        *(["    pushed = True"] if once else []),
    ]
    return [*imports, source.before(loops[-1], function, rank=3), source.before(statement, call)]


def _when(source: Source, loop: Loop, share: float) -> tuple[str, str]:
    """What counts the passes of a loop, and what it is after a share of them.

    Raises:
        EditError: It isn't known.
    """
    counts = loop.iter if isinstance(loop, ast.For) else None
    if isinstance(counts, ast.Call) and called(counts) == "tqdm" and counts.args:
        counts = counts.args[0]
    plain = (
        isinstance(counts, ast.Call)
        and called(counts).rpartition(".")[2] in ("range", "trange")
        and len(counts.args) in (1, 2)
    )
    if (
        not plain
        or not isinstance(loop, ast.For)
        or not isinstance(loop.target, ast.Name)
        or not isinstance(counts, ast.Call)
    ):
        raise EditError("training is in no loop that counts its passes")
    first = number_in(counts.args[0]) if len(counts.args) == 2 else 0.0
    last = source.constant(counts.args[-1])
    if first is None or last is None:
        raise EditError("it isn't known how far the loop around training counts")
    end = number_in(last) or 0.0
    at = int(first + round(share * (end - first)))
    if isinstance(counts.args[-1], ast.Name) and at > first:  # so that it is at the same time of a longer run
        return loop.target.id, f"{counts.args[-1].id} // {max(1, round(end / at))}"
    return loop.target.id, str(at)


def treat(training: Training, record: Record, *, share: float = 0.0, size: float = 0.1, along: str = "noise") -> None:
    """The weights are pushed once."""
    if along == "curvature":
        training.on_loss.append(_Bend(share, size, record.steps))
        return
    push = _Push(share, size, record.steps)
    if share == 0:
        push.give(training)
    else:
        training.on_step.append(push)


class _Push:
    """Adds noise behind a step.

    Args:
        share: Behind which, as a share of the run.
        size: Deviation of the noise.
        usual: Steps of a run, where batches can't be counted.
    """

    def __init__(self, share: float, size: float, usual: int) -> None:
        self.share, self.size, self.usual, self.steps = share, size, usual, 0

    def __call__(self, training: Training) -> None:
        self.steps += 1
        if self.steps == max(1, round(self.share * (training.steps or self.usual))):
            self.give(training)

    def give(self, training: Training) -> None:
        """Adds it."""
        import torch

        for parameter in training.model.parameters():
            parameter.data += self.size * torch.randn_like(parameter)


class _Bend:
    """Pushes along the most negative curvature of the loss, before its backward pass.

    Args:
        share: At which step, as a share of the run.
        size: Root mean square of what is added.
        usual: Steps of a run, where batches can't be counted.
    """

    def __init__(self, share: float, size: float, usual: int) -> None:
        self.share, self.size, self.usual, self.steps = share, size, usual, 0

    def __call__(self, training: Training, loss: Tensor) -> Tensor:
        if self.steps == round(self.share * (training.steps or self.usual)):
            self.give([p for p in training.model.parameters() if p.requires_grad], loss)
        self.steps += 1
        return loss

    def give(self, weights: list[Tensor], loss: Tensor) -> None:
        """Adds it."""
        import torch

        slope = torch.autograd.grad(loss, weights, create_graph=True)
        sizes = [w.numel() for w in weights]
        way, steepest = torch.cat([torch.randn_like(w).flatten() for w in weights]), 0.0
        for _ in range(_PRODUCTS):
            way = way / way.norm()
            parts = [part.view_as(w) for part, w in zip(way.split(sizes), weights, strict=True)]
            bent = torch.cat([b.flatten() for b in torch.autograd.grad(slope, weights, parts, retain_graph=True)])
            steepest = max(steepest, float(bent.norm()))
            way = steepest * way - bent
        way = self.size * way * len(way) ** 0.5 / way.norm()
        for weight, part in zip(weights, way.split(sizes), strict=True):
            weight.data += part.view_as(weight)
