"""Which samples of the kept batches does the network get most wrong? Wrong labels often are among them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from unstuck.data.error_analysis import analyze
from unstuck.data.judging import Collector, Kind
from unstuck.data.sketch import sketch
from unstuck.probes.bench import Bench, Clock

MOST_LETTERS = 45_000  # of all pictures in the record, as JSON
_KINDS: dict[str, Kind] = {
    "class index": "classes", "one-hot": "classes", "binary": "multi-label", "multi-label": "multi-label", "real": "regression",
}  # fmt: skip


def worst(bench: Bench, clock: Clock, *, most: int = 64, samples: int = 12) -> dict[str, Any] | None:
    """The samples of the kept batches with the most confident errors, in evaluation mode, with small pictures of their inputs.

    These are samples that were trained on: no evaluation batch is kept.

    Args:
        bench: The training.
        clock: Limits how many batches are looked at.
        most: Batches.
        samples: That are told at most; fewer where their pictures are large.

    Returns:
        `samples`, each with `target`, `prediction`, `confidence`, `loss`, `error` and `input`; `looked`, of how many; `wrong`, how many
        of those were; `kind`. None where outputs and targets can't be told, or aren't finite.
    """
    kind = _KINDS.get(bench.training.kind)
    if kind is None:
        return None
    collector = Collector(kind=kind, ignore_index=bench.training.ignored, keep=2 * samples)
    for i, batch in enumerate(bench.some(bench.batches, clock, 2, most=most)):
        if i and not clock.left:
            break
        tape = bench.tapes[batch]
        if len(tape.targets) != 1:
            return None
        with torch.no_grad():
            _, output = bench.forward(batch, train=False)
        fitted = _fitted(output, tape.data[tape.targets[0]], bench.training.kind)
        if fitted is None:
            return None
        collector.update(*fitted, inputs=_inputs(bench, batch, len(fitted[0])))
    found = analyze(collector.judged(), worst=2 * samples)
    if not math.isfinite(found.loss):
        return None
    told, room = [], MOST_LETTERS
    for sample in found.worst:
        about = {n: v for n, v in vars(sample).items() if n not in ("number", "input")}
        about["input"] = None if sample.input is None else sketch(sample.input)
        room -= len(str(about))
        if room < 0 or len(told) == samples:
            break
        if about not in told:  # full batches, and epochs, have the same samples again
            told.append(about)
    return {"kind": found.kind, "looked": found.num_samples, "wrong": found.num_wrong, "samples": told}


def _fitted(output: Tensor | None, target: Tensor, kind: str) -> tuple[Tensor, Tensor] | None:
    """Outputs and targets as a collector takes them; None where they don't go together."""
    if output is None or not output.dim() or not target.dim() or len(output) != len(target):
        return None
    if kind == "one-hot":
        return (output, target.argmax(1)) if output.dim() > 1 and output.shape == target.shape else None
    if kind == "class index":
        return (output, target) if output.dim() == target.dim() + 1 and not target.is_floating_point() else None
    return (output, target) if output.numel() == target.numel() else None


def _inputs(bench: Bench, batch: int, count: int) -> Tensor | None:
    """What the network was given, where its first axis goes over the same samples."""
    tape = bench.tapes[batch]
    first = next((tape.data[i] for i in tape.inputs if tape.data[i].dim()), None)
    return first if first is not None and len(first) == count else None
