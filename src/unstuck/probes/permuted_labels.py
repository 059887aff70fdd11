"""Does it learn anything from its labels that it wouldn't from any others?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unstuck.probes.bench import Bench, Clock

LEAST = 20  # updates, of which fewer tell nothing


def permuted_labels(bench: Bench, clock: Clock, *, most: int = 150, rate: float = 3e-3) -> dict[str, Any] | None:
    """Trains from the first values with Adam, with the labels as they are and exchanged between all samples.

    Both can be learned by heart. Only labels that follow from the inputs make it better on batches that weren't trained on.

    Args:
        bench: The training.
        clock: Limits the updates.
        most: Updates with each.
        rate: Of Adam.

    Returns:
        `steps`, and `losses` and `scores` of the batches between (with their own labels) before, after training with the labels, and
        after training with permuted ones; a loss is None where it diverged. None when it isn't known what the labels are.
    """
    targets = _permuted(bench)
    if not bench.starts or targets is None or bench.held == bench.fitted:
        return None
    steps = int(min(most, clock.left / (8 * bench.cost)))
    if steps < LEAST:
        return None
    bench.restore(start=True)
    look = bench.some(bench.held, clock, 40)
    found = [bench.measured(look)]
    for data in (None, lambda batch: _with(bench, batch, targets[batch])):
        bench.restore(start=True)
        losses = bench.train(bench.adam(rate), bench.fitted, steps, data=data)
        found.append(bench.measured_after(losses, look))
    losses, scores = zip(*found, strict=True)
    return {"steps": steps, "losses": list(losses), "scores": list(scores)}


def _permuted(bench: Bench) -> dict[int, Tensor] | None:
    """By batch that is trained on its labels, exchanged between all samples; None when they aren't known."""
    tapes = [bench.tapes[b] for b in bench.fitted]
    if any(len(t.targets) != 1 or not t.data[t.targets[0]].dim() for t in tapes):
        return None
    labels = [t.data[t.targets[0]] for t in tapes]
    if len({x.shape[1:] for x in labels}) != 1:
        return None
    whole = torch.cat(list(labels))
    order = torch.randperm(len(whole), generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    parts = whole[order.to(whole.device)].split([len(x) for x in labels])
    return dict(zip(bench.fitted, parts, strict=True))


def _with(bench: Bench, batch: int, labels: Tensor) -> list[Tensor]:
    tape = bench.tapes[batch]
    return [labels if i in tape.targets else t for i, t in enumerate(tape.data)]
