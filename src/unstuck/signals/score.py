"""How good outputs are against targets, what kind of targets these are, and what the best constant prediction would get.

Scores are small tensors on the outputs' device; nothing waits for it but `kind_by_values`, which is for once a loss. Chance
levels are plain numbers from statistics over many batches.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unstuck.signals.numbers import as_float
from unstuck.signals.sample import thin_batch

Kind = Literal["class index", "one-hot", "binary", "multi-label", "probability", "real", "none"]
VALUES = 65_536  # targets that `kind_by_values` looks at
SCORED, SCORED_MAPS = (
    1 << 22,
    1 << 18,
)  # outputs of a batch from which on only some samples are scored: looking along axis 1 of maps is slow
MOST_OUTPUTS = 64  # of a regression that R2 keeps apart


# ---------------------------------------------------------------------- kinds of targets


def target_kind(output_shape: Sequence[int], target: Shaped[Tensor, "..."] | None) -> Kind | None:
    """The kind of targets, as far as shape and type tell.

    Args:
        output_shape: Shape of the outputs they are compared with.
        target: The targets, None when there are none.

    Returns:
        "class index" for whole numbers, one for each place of the outputs but their class axis; "none" without targets; None where
        only the values tell, see `kind_by_values`.

    Example:
        >>> import torch
        >>> target_kind((8, 10), torch.zeros(8, dtype=torch.long))
        'class index'
    """
    if target is None:
        return "none"
    classes = output_shape[_class_axis(len(output_shape))] if len(output_shape) else 1
    whole = not target.is_floating_point() and not target.is_complex() and target.dtype is not torch.bool
    if whole and classes > 1 and target.numel() * classes == math.prod(output_shape):
        return "class index"
    return None


def kind_by_values(output_shape: Sequence[int], target: Shaped[Tensor, "..."] | None) -> Kind:
    """The kind of targets, by a look at their values. **Waits for the device**: for once a loss, not for every step.

    Classes lie along axis 1. Targets of 0 and 1 (or of -1 and 1) are one-hot when each row holds a single 1, else multi-label; in
    a single column they are binary, as a map (over two axes) multi-label. Rows that sum to one are probabilities.

    Args:
        output_shape: Shape of the outputs they are compared with.
        target: The targets, None when there are none.

    Returns:
        The kind.

    Example:
        >>> import torch
        >>> kind_by_values((2, 3), torch.eye(3)[:2])
        'one-hot'
    """
    kind = target_kind(output_shape, target)
    if kind is not None or target is None:
        return kind or "none"
    if target.numel() == 0 or target.is_complex():
        return "real"
    few = thin_batch(target, VALUES) if target.dim() else target
    values = few.detach().to("cpu", torch.float32, copy=True).numpy()
    zero_one, signed = (bool(np.isin(values, pair).all()) for pair in ((0, 1), (-1, 1)))
    if values.ndim > 1 and values.shape[1] > 1:
        ones = (values == 1).sum(1)
        if zero_one or signed:
            return "one-hot" if (ones == 1).all() else "multi-label"
        sums = values.sum(1)
        return "probability" if (values >= 0).all() and (abs(sums - 1) < 1e-4).all() else "real"
    if zero_one or signed:
        return "multi-label" if values.ndim > 2 else "binary"
    classes = output_shape[1] if len(output_shape) > 1 else 1
    indices = classes > 1 and values.size < math.prod(output_shape) and (values == values.round()).all()
    return "class index" if indices and values.min() >= 0 and values.max() < classes else "real"


def _class_axis(axes: int) -> int:
    return 1 if axes > 1 else 0


# ---------------------------------------------------------------------- scores


@torch.no_grad()
def accuracy(
    output: Shaped[Tensor, "..."],
    target: Shaped[Tensor, "..."],
    kind: Kind,
    *,
    ignore_index: int = -100,
    threshold: float = 0.0,
) -> Float[Tensor, ""]:
    """Share of samples (for maps and sequences: of places) whose class is right; of very large batches some samples are looked at.

    Args:
        output: Logits, probabilities or margins, classes along axis 1; binary ones have one for each target.
        target: Class indices, rows of class probabilities (one-hot or not), or binary targets (0 and 1, or -1 and 1).
        kind: Kind of the targets: "class index", "one-hot", "probability" or "binary".
        ignore_index: Class that doesn't count.
        threshold: Binary outputs above it mean 1: 0 for logits and margins, 0.5 for probabilities.

    Returns:
        From 0 to 1; NaN where nothing counts or shapes don't fit. An output that is NaN is wrong.

    Example:
        >>> import torch
        >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]), "class index").item()
        0.5
    """
    if kind == "binary":
        return bit_accuracy(output, target, threshold=threshold)
    if kind not in ("class index", "one-hot", "probability") or output.dim() == 0 or output.numel() == 0:
        return _nan(output)
    output, target = _fewer(output, target)
    axis = _class_axis(output.dim())
    output = as_float(output)
    guess, sound = output.argmax(axis), output.amax(axis).isnan().logical_not_()
    if kind == "class index":
        if guess.numel() != target.numel():
            return _nan(output)
        target = target.reshape(guess.shape)
        counts = target != ignore_index
        right = (guess == target) & sound & counts
        return right.sum(dtype=torch.float32) / counts.sum()
    if target.shape != output.shape:
        return _nan(output)
    return ((guess == target.argmax(axis)) & sound).float().mean()


@torch.no_grad()
def bit_accuracy(
    output: Shaped[Tensor, "..."], target: Shaped[Tensor, "..."], *, threshold: float = 0.0
) -> Float[Tensor, ""]:
    """Share of yes-or-no outputs that are right: for binary and multi-label targets and binary maps.

    Args:
        output: Logits, probabilities or margins.
        target: As many targets: 0 and 1, or -1 and 1.
        threshold: Outputs above it mean 1: 0 for logits and margins, 0.5 for probabilities.

    Returns:
        From 0 to 1; NaN when there are none, or not as many. An output that is NaN is wrong.

    Example:
        >>> import torch
        >>> bit_accuracy(torch.tensor([0.9, 0.2, 0.7]), torch.tensor([1.0, 0.0, 0.0]), threshold=0.5).item()
        0.6666666865348816
    """
    if output.numel() != target.numel() or output.numel() == 0:
        return _nan(output)
    output, target = _fewer(output, target)
    output = as_float(output)
    yes = target.reshape(output.shape) > 0.5
    return (((output > threshold) == yes) & (output == output)).float().mean()


@torch.no_grad()
def r2_pieces(output: Shaped[Tensor, "..."], target: Shaped[Tensor, "..."]) -> Float[Tensor, "4 output"]:
    """What a batch adds to the coefficient of determination; `r2` joins the pieces of many.

    Args:
        output: Predictions.
        target: As many targets.

    Returns:
        Sum of squared residuals, sum of squared deviations of the targets from their mean, that mean, and the count; a column for
        each output of a sample where there are at most 64, else one for all. NaN where shapes don't fit.
    """
    if output.numel() != target.numel() or output.numel() == 0:
        return torch.full((4, 1), math.nan, dtype=torch.float32, device=output.device)
    output, target = _fewer(output, target)
    columns = target.shape[1] if target.dim() == 2 and target.shape[1] <= MOST_OUTPUTS else 1
    goal = as_float(target).reshape(-1, columns)
    residual = as_float(output).reshape(goal.shape) - goal
    mean = goal.mean(0)
    spread = (goal - mean).square().sum(0)
    return torch.stack([residual.square().sum(0), spread, mean, torch.full_like(mean, goal.shape[0])]).float()


def r2(pieces: Iterable[np.ndarray]) -> float:
    """The coefficient of determination over batches: 1 - residual / total, each summed over outputs.

    Args:
        pieces: What `r2_pieces` gave for each batch, as arrays.

    Returns:
        1 for perfect predictions, 0 for those no better than each output's mean; NaN when the targets don't vary.

    Example:
        >>> import torch
        >>> targets = torch.tensor([1.0, 2.0, 3.0, 4.0])
        >>> batches = [r2_pieces(t, t).numpy() for t in targets.split(2)]
        >>> r2(batches)
        1.0
    """
    stacked = np.stack([np.asarray(piece, np.float64) for piece in pieces])
    residual, spread, mean, count = np.moveaxis(stacked, 1, 0)
    middle = (mean * count).sum(0) / count.sum(0)
    total = (spread + count * (mean - middle) ** 2).sum()
    return float(1 - residual.sum() / total) if total > 0 else math.nan


@torch.no_grad()
def perplexity(mean_token_loss: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The perplexity that a mean cross-entropy by token, in nats, stands for.

    Args:
        mean_token_loss: The loss.

    Returns:
        Its exponential.

    Example:
        >>> import torch
        >>> round(perplexity(torch.tensor(math.log(50.0))).item(), 3)
        50.0
    """
    return mean_token_loss.float().exp()


def _fewer(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Some samples of a very large batch."""
    every = -(-output.numel() // (SCORED if output.dim() < 3 else SCORED_MAPS))
    fits = every > 1 and output.dim() > 0 and target.dim() > 0 and output.shape[0] == target.shape[0]
    return (output[::every], target[::every]) if fits else (output, target)


def _nan(like: Tensor) -> Tensor:
    return torch.full((), math.nan, dtype=torch.float32, device=like.device)


# ---------------------------------------------------------------------- chance


@dataclass(frozen=True)
class Statistics:
    """What is known of targets over many batches.

    Attributes:
        share: Share of each class; for multi-label targets the rate of each label.
        mean: Mean of all target values.
        std: Their standard deviation.
        absolute: Mean absolute deviation from the median, or from the mean.
    """

    share: Sequence[float] = ()
    mean: float = math.nan
    std: float = math.nan
    absolute: float = math.nan

    @property
    def rate(self) -> float:
        """Share of the larger value among targets of 0 and 1, or of -1 and 1; the two are told apart by mean and deviation."""
        mean, variance = self.mean, self.std**2
        if abs(variance - (1 - mean**2)) < abs(variance - mean * (1 - mean)):
            return (1 + mean) / 2
        return mean


def chance(
    kind: str,
    loss_name: str,
    score: str,
    *,
    share: Sequence[float] | np.ndarray = (),
    mean: float = math.nan,
    std: float = math.nan,
    absolute: float = math.nan,
    reduction: str = "mean",
) -> tuple[float, float]:
    """Loss and score of the best constant prediction; see `chance_loss` and `chance_score`.

    Args:
        kind: Kind of the targets.
        loss_name: Name of the loss function.
        score: Name of the score.
        share: Share of each class.
        mean: Mean of the targets.
        std: Their standard deviation.
        absolute: Their mean absolute deviation.
        reduction: How the loss is reduced.

    Returns:
        Loss and score, each NaN when it isn't known.
    """
    known = Statistics([float(s) for s in share], mean, std, absolute)
    return chance_loss(kind, loss_name, known, reduction=reduction), chance_score(kind, score, known)


def chance_loss(kind: str, loss_name: str, known: Statistics, *, reduction: str = "mean") -> float:
    """The loss of the best prediction that is the same for every sample.

    Cross-entropy gives the labels' entropy, binary cross-entropy that of the base rate, the squared error the variance, the
    absolute error the mean absolute deviation. Huber losses (with their threshold at 1) are those of normally distributed targets.

    Args:
        kind: Kind of the targets, as in `evidence.LossCall`.
        loss_name: Name of the loss function, as there.
        known: Statistics of the targets.
        reduction: How the loss is reduced; of a sum nothing is known.

    Returns:
        The loss in its own unit, NaN when it isn't known.

    Example:
        >>> round(chance_loss("class index", "cross_entropy", Statistics(share=[0.1] * 10)), 4)
        2.3026
    """
    if reduction == "sum":
        return math.nan
    if loss_name in ("cross_entropy", "nll_loss", "linear_cross_entropy"):
        return _entropy(known.share)
    if loss_name in _BINARY:
        rates = known.share if kind in ("one-hot", "multi-label") and known.share else [known.rate]
        return sum(_entropy((rate, 1 - rate)) for rate in rates) / len(rates)
    variance, absolute = _deviations(kind, known)
    if loss_name == "mse_loss":
        return variance
    if loss_name == "l1_loss":
        return absolute
    if loss_name in ("smooth_l1_loss", "huber_loss"):
        return _huber(math.sqrt(variance)) if kind == "real" else variance / 2
    if loss_name == "gaussian_nll_loss" and variance > 0:
        return (math.log(variance) + 1) / 2
    if loss_name == "poisson_nll_loss" and known.mean > 0:
        return known.mean * (1 - math.log(known.mean))
    return math.nan


_BINARY = (
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "soft_margin_loss", "multilabel_soft_margin_loss",
)  # fmt: skip


def chance_score(kind: str, score: str, known: Statistics) -> float:
    """The score of the best prediction that is the same for every sample.

    Args:
        kind: Kind of the targets.
        score: accuracy, bit_accuracy, r2 or perplexity.
        known: Statistics of the targets.

    Returns:
        The largest class's share for accuracy, the mean over labels for bit accuracy, 0 for r2, the exponential of the labels'
        entropy for perplexity; NaN when it isn't known.

    Example:
        >>> chance_score("class index", "accuracy", Statistics(share=[0.25, 0.75]))
        0.75
    """
    if score == "r2":
        return 0.0
    if score == "perplexity":
        return math.exp(_entropy(known.share))
    if score == "accuracy" and kind != "binary":
        return max(known.share, default=math.nan)
    if score in ("accuracy", "bit_accuracy"):
        rates = known.share if kind == "multi-label" and known.share else [known.rate]
        return sum(max(rate, 1 - rate) for rate in rates) / len(rates)
    return math.nan


def _entropy(shares: Sequence[float]) -> float:
    """In nats; NaN when nothing is known or these are no shares."""
    if not shares or not all(0 <= share <= 1 for share in shares):
        return math.nan
    return -sum(share * math.log(share) for share in shares if share > 0) + 0.0


def _deviations(kind: str, known: Statistics) -> tuple[float, float]:
    """Mean squared and mean absolute deviation from the best constant, which is another for each output."""
    variance = known.std**2
    if kind == "one-hot" and len(known.share) > 1:
        count = len(known.share)
        plain = (1 - 1 / count) / count  # variance of all entries of rows of 0 and 1
        unit = 2.0 if variance > 2 * plain else 1.0  # between the two values
        squared = sum(share * (1 - share) for share in known.share) / count
        return unit**2 * squared, unit * sum(min(share, 1 - share) for share in known.share) / count
    if kind == "binary":
        rate = known.rate
        unit = 1.0 if rate == known.mean else 2.0
        return unit**2 * rate * (1 - rate), unit * min(rate, 1 - rate)
    return variance, known.absolute


def _huber(deviation: float) -> float:
    """Expected Huber loss (threshold 1) of a normal variable with mean 0."""
    if not deviation > 0:
        return 0.0 if deviation == 0 else math.nan
    edge = 1 / deviation
    density = math.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi)
    tail = math.erfc(edge / math.sqrt(2)) / 2
    return deviation**2 * (0.5 - tail - edge * density) + 2 * deviation * density - tail
