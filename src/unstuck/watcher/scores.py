"""How good outputs are against the targets of a loss, in training and in evaluation, and how good chance is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstuck.evidence import Task
from unstuck.signals.score import accuracy, bit_accuracy, chance
from unstuck.watcher.loss_calls import mean_value
from unstuck.watcher.loss_state import LossState
from unstuck.watcher.trace import Trace

_TASKS = {
    "class index": "classification", "one-hot": "classification", "binary": "binary", "multi-label": "multi-label",
    "real": "regression", "probability": "unknown",
}  # fmt: skip
_SCORES = {"one-hot": "accuracy", "binary": "accuracy", "multi-label": "bit_accuracy", "real": "r2"}


# ---------------------------------------------------------------------- scores


def score_name(state: LossState, *, tokens: bool) -> str:
    """Name of the score of such a loss, "" where there is none.

    Args:
        state: The loss; its targets are known.
        tokens: The network predicts words from words.
    """
    if state.kind == "class index":
        return "perplexity" if tokens else "accuracy"
    otherwise = "accuracy" if state.kind == "probability" and state.name == "cross_entropy" else ""
    return _SCORES.get(state.kind, otherwise)


def score(state: LossState, output: Tensor, target: Tensor, mean_loss: Tensor | None) -> Tensor | None:
    """The score of outputs against targets, where they are; None where it can't be computed.

    Args:
        state: The loss.
        output: What the network gave.
        target: What it should have given.
        mean_loss: The loss of a word, which perplexity is made from; None where it isn't known.

    Returns:
        One number; of R2 the mean squared error, see `r2`.
    """
    if state.score == "perplexity":
        return None if mean_loss is None or mean_loss.numel() != 1 else mean_loss.detach().float().exp()
    if state.score == "accuracy":
        ignored = int(state.settings.get("ignore_index", -100))
        return accuracy(output, target, state.kind, ignore_index=ignored, threshold=state.threshold)  # pyright: ignore[reportArgumentType]
    if state.score == "bit_accuracy":
        return bit_accuracy(output, target, threshold=state.threshold)
    return _squared_error(state, output, target) if state.score == "r2" else None


def _squared_error(state: LossState, output: Tensor, target: Tensor) -> Tensor | None:
    if state.name == "poisson_nll_loss" and state.settings.get("log_input", True):
        output = output.exp()
    if output.shape != target.shape:
        output, target = output.squeeze(), target.squeeze()
        if output.shape != target.shape:
            return None
    return (output.float() - target.float()).square().mean()


def r2(squared_error: float, spread: float) -> float:
    """R2 of a mean squared error, where targets have this standard deviation."""
    return 1 - squared_error / (spread * spread) if spread > 0 else math.nan


def score_of(main: LossState | None, output: Tensor, target: Tensor) -> float:
    """The main score of outputs against targets, NaN when there is none."""
    if main is not None and main.logged:
        output = output.exp()
    value = score(main, output, target, None) if main is not None and main.score else None
    if main is None or value is None:
        return math.nan
    return r2(float(value), main.spread) if main.score == "r2" else float(value)


# ---------------------------------------------------------------------- evaluation


def evaluated(trace: Trace, main: LossState | None, batch: list[Tensor]) -> Tensor | None:
    """Loss, score and weight of an evaluated forward pass, as a tensor of three; None when there is nothing to tell.

    Args:
        trace: What the forward pass showed.
        main: The main loss, None while there is none.
        batch: Tensors of the batch that a loader gave for it.
    """
    loss, value, weight = _by_losses(trace, main)
    if main is not None and value is None:
        value, weight = _without_losses(trace, main, batch, weight)
    if value is not None and main is not None and main.score == "r2":
        spread = main.spread
        value = 1 - value.float() / max(spread * spread, 1e-30)
    if loss is None and value is None:
        return None
    devices = [part.device for part in (loss, value) if part is not None]
    device = next((d for d in devices if d.type != "cpu"), devices[0])
    nan = torch.full((), math.nan, device=device)
    parts = [loss if loss is not None else nan, value if value is not None else nan]
    numbers = [part.detach().float().reshape(()).to(device, non_blocking=True) for part in parts]
    return torch.stack([*numbers, torch.full((), weight, device=device)])


def _by_losses(trace: Trace, main: LossState | None) -> tuple[Tensor | None, Tensor | None, float]:
    """Loss, score and weight, by the loss functions that were called."""
    loss = value = None
    weight = 1.0
    for seen in trace.losses:
        if main is not None and main.name not in ("hand-written", seen.name):
            continue
        if loss is None and seen.value.numel() == 1:
            loss = mean_value(seen)
            if seen.target is not None and seen.target.dim():
                weight = float(seen.target.shape[0])
        if main is not None and value is None and seen.target is not None and main.kind != "none":
            value = score(main, seen.output, seen.target, mean_value(seen) if main.score == "perplexity" else None)
    return loss, value, weight


def _without_losses(trace: Trace, main: LossState, batch: list[Tensor], weight: float) -> tuple[Tensor | None, float]:
    """Score and weight, by what the script compares itself, else by outputs and the batch."""
    value = None
    if trace.compared and main.score == "accuracy":
        guess, truth, equal = trace.compared[-1]
        by_sample = main.kind not in ("class index", "one-hot") or equal.numel() == equal.shape[:1].numel()
        if equal.numel() > 1 and guess.shape == truth.shape and by_sample:  # single bits of classes tell little
            value, weight = equal.float().mean(), float(equal.shape[0]) if equal.dim() else 1.0
    if value is None and main.kind != "none" and trace.root_outputs:
        value, weight = _by_batch(main, trace.root_outputs[0], batch, weight)
    if value is None and main.score == "r2" and trace.subtracted:
        output, target = trace.subtracted[0]
        value, weight = score(main, output, target, None), float(len(target)) if target.dim() else 1.0
    return value, weight


def _by_batch(main: LossState, output: Any, batch: list[Tensor], weight: float) -> tuple[Tensor | None, float]:
    target = batch[-1] if batch else None
    if target is None or not isinstance(output, Tensor) or not output.dim() or not target.dim():
        return None, weight
    fits = main.kind == "class index" and not target.is_floating_point() and output.dim() == target.dim() + 1
    fits = fits and output.shape[1] == main.num_classes
    fits = fits or (main.kind != "class index" and output.shape == target.shape)
    if not fits or output.shape[0] != target.shape[0] or output.device != target.device:
        return None, weight
    return score(main, output, target, None), float(target.shape[0])


# ---------------------------------------------------------------------- chance


def task_of(main: LossState | None, batches: float) -> Task:
    """The task behind the main loss, and what chance gets at it, where so many calls of backward make a step."""
    if main is None or main.kind == "none":
        return Task()
    kind = "tokens" if main.score == "perplexity" else _TASKS[main.kind]
    share = main.labels / main.labels.sum() if main.labels is not None and main.labels.sum() else np.zeros(0)
    chance_loss, chance_score = _chance(main, share, batches)
    mean, spread = (main.target.get("mean", math.nan), main.spread) if kind == "regression" else (math.nan, math.nan)
    return Task(
        kind, main.num_classes, main.score, chance_loss, chance_score, mean, spread, tuple(float(s) for s in share)
    )


def _chance(main: LossState, share: np.ndarray, batches: float) -> tuple[float, float]:
    """Loss and score of the best constant prediction, given the share of each class."""
    loss, value = chance(
        main.kind,
        main.name,
        main.score,
        share=share.tolist(),
        mean=main.target.get("mean", math.nan),
        std=main.spread,
        absolute=main.absolute,
        reduction=main.reduced(batches),
    )
    if main.score == "perplexity" and main.labels is not None and len(share):
        # Of many words most samples miss the rare ones (Miller 1955).
        missed = (np.count_nonzero(share) - 1) / (2 * float(main.labels.sum()))
        loss, value = loss + missed, value * math.exp(missed)
    if main.settings.get("weighted") and main.score == "accuracy":
        return math.nan, 1.0 / max(2, main.num_classes)  # the best constant of a weighted loss is another one
    return loss * main.scale(batches), value
