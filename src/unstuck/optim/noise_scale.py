"""The gradient noise scale: how large a batch is worth its samples, and what another batch size costs in updates and in time.

The gradient of a batch is that of the mean loss, G, and noise whose covariance is that of single samples, Sigma, over the batch
size. The noise scale tr(Sigma) / |G|^2 is the batch at which both are equally large (McCandlish et al. 2018, section 2). Far below
it twice the batch takes half the updates; far above it twice the batch takes as many.

Two ways lead to it, and both give `Products`, of which `noise_scale` makes the number with its interval:

- `split_batch`: gradients of parts of a batch, or of several batches. It works for every network.
- `per_sample`: the gradient of each sample, by `torch.func`. It is as good from fewer samples, but a batch norm that normalises by the
  batch at hand has no gradient of a single sample.

With and without replacement. The covariance is that of samples drawn anew each time. An epoch that goes through a shuffled set of
N samples draws without: its batches differ less, by 1 - B / N, and a batch of all N has no noise at all. Where the parts were
drawn without replacement from the training set, `total` makes the signal that of the set's own mean loss, which training
descends on, instead of that of all samples there could be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from unstuck._batches import numbers_kept
from unstuck.errors import MisuseError

_FEWEST = 3  # groups, without which nothing can be said of the error
_CHUNK_BYTES = 256 << 20  # of the gradients of single samples that are held at a time


@dataclass(frozen=True)
class Products:
    """Inner products of gradients of parts of equal size, at one and the same parameters.

    Parts may be gathered into groups, of which only the sum is kept.

    Attributes:
        sums: Inner products of the groups' sums of gradients, shape `(groups, groups)`, in float64.
        squares: Sum over the parts of each group of the square of the gradient's norm, shape `(groups,)`.
        counts: Parts in each group, shape `(groups,)`.
        size: Samples in a part.
    """

    sums: Tensor
    squares: Tensor
    counts: Tensor
    size: float


@dataclass(frozen=True)
class NoiseScale:
    """How noisy gradients are.

    Attributes:
        noise: Trace of the covariance of a single sample's gradient.
        signal: Square of the norm of the mean loss's gradient, without bias: where that is near 0 it may come out below it.
        low: Lower end of the interval of the scale, in samples.
        high: Its upper end; infinite where the gradient can't be told from noise.
        num_samples: Samples that it was measured on.
        num_parts: Gradients that were compared.
    """

    noise: float
    signal: float
    low: float
    high: float
    num_samples: int
    num_parts: int

    @property
    def is_known(self) -> bool:
        """Whether the gradient can be told from noise; else there is a lower bound only."""
        return math.isfinite(self.high)

    @property
    def scale(self) -> float:
        """The noise scale in samples; infinite where no signal was seen."""
        return self.noise / self.signal if self.signal > 0 else math.inf

    def __str__(self) -> str:
        if not self.is_known:
            return f"at least {self.low:.3g} samples: in {self.num_samples} no gradient is to be told from noise"
        return f"{self.scale:.3g} samples ({self.low:.3g} to {self.high:.3g})"


def noise_scale(*products: Products, total: int = 0, confidence: float = 0.95) -> NoiseScale:
    """The noise scale of what one or several batches show.

    Numerator and denominator are unbiased each, and averaged each by itself over the batches, since the mean of ratios is biased
    and has no variance. The interval is a jackknife's over groups, of signal over noise: that one is nearly normal where its
    inverse is not.

    Args:
        *products: Of each batch, or of each step that was looked at; those of several are taken as independent.
        total: Samples in the training set, when the parts were drawn from it without replacement; 0 for infinitely many.
        confidence: Of the interval, from 0 to 1.

    Returns:
        The noise scale, with its interval.

    Raises:
        MisuseError: Fewer than three groups in a batch, or none at all.

    Source:
        McCandlish et al. 2018, appendix A.1, there for two batch sizes; these are a part and all parts together, every pair of parts used.
        The jackknife for ratios: Efron and Stein 1981. Departure: an interval, and none for the scale where its signal's reaches 0.

    Example:
        Four gradients in one direction, 2 and 4: a mean of 3, a variance of 4/3, and a signal of 9 less a quarter of that.

        >>> found = noise_scale(split_batch([[torch.tensor([g])] for g in (2.0, 4.0, 2.0, 4.0)], size=1))
        >>> round(found.noise, 4), round(found.signal, 4)
        (1.3333, 8.6667)
    """
    if not products or any(len(p.counts) < _FEWEST for p in products):
        raise MisuseError(
            f"a noise scale needs at least {_FEWEST} gradients of each batch, and got {[len(p.counts) for p in products]}; "
            "split the batch into more parts"
        )
    each = [_moments(p, total) for p in products]
    noise, signal = (float(torch.stack([found[i] for found, _ in each]).mean()) for i in (0, 1))
    variance, groups = 0.0, 0
    for whole, without in each:
        changed = (without - whole.unsqueeze(1)) / len(products)
        ratios = (signal + changed[1]) / (noise + changed[0]).clamp(min=1e-300)
        count = len(ratios)
        variance += float((count - 1) / count * (ratios - ratios.mean()).square().sum())
        groups += count
    ratio = signal / noise if noise > 0 else math.inf if signal > 0 else 0.0
    reach = _quantile(0.5 + confidence / 2, groups - len(products)) * math.sqrt(variance)
    if noise == signal == 0:
        reach = math.inf  # no gradient at all: nothing is known
    parts = int(sum(float(p.counts.sum()) for p in products))
    samples = int(sum(float(p.counts.sum()) * p.size for p in products))
    low = 1 / (ratio + reach) if ratio + reach > 0 else math.inf
    return NoiseScale(noise, signal, low, 1 / (ratio - reach) if ratio > reach else math.inf, samples, parts)


def _moments(products: Products, total: int) -> tuple[Tensor, Tensor]:
    """Noise and signal, shape `(2,)`, and the same without each of the groups, shape `(2, groups)`."""
    sums, squares, counts = products.sums.double(), products.squares.double(), products.counts.double()
    rows = torch.cat([torch.zeros(1, dtype=torch.float64), 2 * sums.sum(1).cpu() - sums.diagonal().cpu()])
    whole = sums.sum().cpu() - rows
    each = squares.sum().cpu() - torch.cat([torch.zeros(1, dtype=torch.float64), squares.cpu()])
    count = counts.sum().cpu() - torch.cat([torch.zeros(1, dtype=torch.float64), counts.cpu()])
    noise = products.size * (each - whole / count) / (count - 1)
    signal = (whole - each) / (count * (count - 1))
    found = torch.stack([noise, signal + noise / total if total else signal])
    return found[:, 0], found[:, 1:]


def _quantile(probability: float, freedom: int) -> float:
    """Of Student's distribution, by its expansion about the normal one (Abramowitz and Stegun 26.7.5)."""
    z = math.sqrt(2) * float(torch.erfinv(torch.tensor(2 * probability - 1, dtype=torch.float64)))
    n = max(2, freedom)
    return (
        z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )  # fmt: skip


# ---------------------------------------------------------------------- two ways to the products


def split_batch(
    gradients: Iterable[Sequence[Tensor | None]],
    size: float,
    *,
    metric: Callable[[list[Tensor]], Sequence[Tensor]] | None = None,
) -> Products:
    """Products of the gradients of parts of equal size.

    Args:
        gradients: Of the mean loss over each part, at the same parameters: a tensor for each parameter, None where there is no gradient.
            All of them are held at a time.
        size: Samples in a part.
        metric: A symmetric matrix that products are taken in: what it does to a gradient. With the Hessian of the loss the noise scale
            is the better one of McCandlish et al. 2018, equation 2.8, tr(H Sigma) / G H G; by default it is the simple one.

    Returns:
        The products.

    Raises:
        MisuseError: There are none.
    """
    held = _held(gradients)
    if not held or not held[0]:
        raise MisuseError("a noise scale needs gradients, and got none")
    other = held if metric is None else [list(metric(g)) for g in held]
    sums = torch.zeros(len(held), len(held), dtype=torch.float64)
    for of_one, of_other in zip(zip(*held, strict=True), zip(*other, strict=True), strict=True):
        sums += _products(of_one, of_other)
    return Products(sums, sums.diagonal().clone(), torch.ones(len(held), dtype=torch.float64), size)


def _held(gradients: Iterable[Sequence[Tensor | None]]) -> list[list[Tensor]]:
    """Gradients, dense, of the parameters that have one in any part; zeros where there is none in another."""
    columns = []
    for column in zip(*map(list, gradients), strict=True):
        like = next((g for g in column if g is not None), None)
        if like is not None:
            dense = [torch.zeros_like(like) if g is None else g for g in column]
            columns.append([g if g.layout is torch.strided else g.to_dense() for g in dense])
    return [list(row) for row in zip(*columns, strict=True)]


def _products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """All inner products of tensors, on the processor and summed in double precision, block by block, so that few are copied."""
    blocks = [zip(*(t.detach().reshape(-1).split(1 << 16) for t in many), strict=True) for many in (left, right)]
    found = torch.zeros(len(left), len(right), dtype=torch.float64, device=left[0].device)
    for a, b in zip(*blocks, strict=True):
        found += torch.stack(a).double() @ torch.stack(b).double().T
    return found.cpu()


def per_sample(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    groups: int = 32,
    chunk: int = 0,
    seed: int = 0,
) -> Products:
    """Products of the gradients of single samples.

    They are computed by `vmap` where every operation of the network can be, else one after the other. Random numbers, such as
    dropout's, are drawn for each sample, and the global generators are as before.

    Args:
        model: The network, in the mode that it is to be measured in.
        loss: Mean loss of outputs and targets, of a batch of a single sample here.
        inputs: Shape `(batch, ...)`.
        targets: Shape `(batch, ...)`.
        groups: Groups of samples, for the interval; their sums of gradients are held.
        chunk: Samples whose gradients are computed at a time; 0 for what fits 256 MiB.
        seed: Of those random numbers.

    Returns:
        The products, with a size of 1.

    Raises:
        MisuseError: The network has a batch norm that normalises by the batch at hand: samples have no gradients of their own.
    """
    mixing = next((name for name, part in model.named_modules() if _mixes(part)), None)
    if mixing is not None:
        raise MisuseError(
            f"{mixing or 'the network'} is a batch norm in training mode, through which every sample of a batch acts on every other: "
            "there are no gradients of single samples; use split_batch with parts of the size that is trained with"
        )
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    size = sum(p.numel() * p.element_size() for p in learned.values())
    chunk = chunk or max(1, _CHUNK_BYTES // max(1, size))
    bounds = torch.linspace(0, len(inputs), min(groups, len(inputs)) + 1).round().long().tolist()
    sums: list[list[Tensor]] = []
    squares = torch.zeros(len(bounds) - 1, dtype=torch.float64)
    with numbers_kept():
        torch.manual_seed(seed)
        gradients = _Gradients(model, loss, learned)
        for group, (first, last) in enumerate(pairwise(bounds)):
            total = [torch.zeros_like(p) for p in learned.values()]
            for found in gradients.of(inputs[first:last], targets[first:last], chunk):
                for to, one in zip(total, found, strict=True):
                    to += one.sum(0)
                squares[group] += sum(float(one.double().square().sum()) for one in found)
            sums.append(total)
    made = split_batch(sums, 1.0)
    counts = torch.tensor([b - a for a, b in pairwise(bounds)], dtype=torch.float64)
    return Products(made.sums, squares, counts, 1.0)


def _mixes(part: nn.Module) -> bool:
    batch_norm = isinstance(part, nn.modules.batchnorm._BatchNorm)
    return batch_norm and (part.training or part.running_mean is None)


class _Gradients:
    """Gradients of single samples: many at once, or one by one once that turned out not to work."""

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any], Tensor], learned: dict[str, nn.Parameter]) -> None:
        self.model, self.loss, self.learned = model, loss, learned
        self.at_once = True
        values = {name: p.detach() for name, p in learned.items()}

        def value(of: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return loss(functional_call(model, of, (x.unsqueeze(0),)), y.unsqueeze(0))

        many = vmap(grad(value), in_dims=(None, 0, 0), randomness="different")
        self._many = lambda x, y: [g.detach() for g in many(values, x, y).values()]

    def of(self, inputs: Tensor, targets: Tensor, chunk: int) -> Iterator[list[Tensor]]:
        """Gradients of a chunk of samples after the other, each with samples first."""
        for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True):
            if self.at_once:
                try:
                    yield self._many(x, y)
                    continue
                except (
                    RuntimeError,
                    NotImplementedError,
                    ValueError,
                ):  # what vmap has no rule for; the loop shows any other
                    self.at_once = False
            for i in range(len(x)):
                yield [g.unsqueeze(0) for g in self._single(x[i : i + 1], y[i : i + 1])]

    def _single(self, x: Tensor, y: Tensor) -> list[Tensor]:
        held = list(self.learned.values())
        with torch.enable_grad():
            found = torch.autograd.grad(self.loss(self.model(x), y), held, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(held, found, strict=True)]


# ---------------------------------------------------------------------- what a batch size costs


@dataclass(frozen=True)
class Tradeoff:
    """Updates, samples and time that it takes to a given loss, by batch size.

    Attributes:
        critical: The critical batch size: there both updates and samples are twice what they are at least. The noise scale, averaged
            over the run, is an estimate of it.
        least_updates: Updates with a batch without noise, S_min.

    Source:
        McCandlish et al. 2018, equations 2.7 and 2.11.
    """

    critical: float
    least_updates: float = 1.0

    @property
    def least_samples(self) -> float:
        """Samples with the smallest of batches, E_min."""
        return self.least_updates * self.critical

    def updates(self, size: float) -> float:
        """Updates with batches of this size: S_min (1 + B_crit / B)."""
        return self.least_updates * (1 + self.critical / size)

    def samples(self, size: float) -> float:
        """Samples with batches of this size: E_min (1 + B / B_crit)."""
        return self.least_samples + self.least_updates * size

    def time(self, size: float, seconds: float) -> float:
        """Seconds in all with batches of this size, an update of which takes `seconds`."""
        return self.updates(size) * seconds


def relative_updates(
    size: float, own: float, scales: Sequence[float], weights: Sequence[float], *, total: float = math.inf
) -> float:
    """Updates to where a run got, with batches of another size, relative to those it made.

    What it did while the noise scale was b takes (1 + b / B) / (1 + b / own) times the updates; this is the mean of that over
    the run. The rate must go with the batch: `relative_rate`.

    Args:
        size: The other batch size.
        own: That of the run.
        scales: Noise scales along the run, in samples; infinite where the gradient can't be told from noise.
        weights: How much of the run's updates each of them stands for.
        total: Samples in the training set, of which batches are drawn without replacement: one of them all has no noise.

    Returns:
        1 for its own size, less for larger ones.

    Example:
        A noise scale of 100 all along; 25 instead of 100 samples take 5/2 of the updates.

        >>> relative_updates(25, 100, [100.0, 100.0], [1, 3])
        2.5
    """
    inverse = [1 / max(b, 1e-12) for b in scales]
    there, here = (max(1e-12, 1 / n - 1 / total) for n in (size, own))
    each = [(r + there) / (r + here) for r in inverse]
    return sum(w * e for w, e in zip(weights, each, strict=True)) / sum(weights)


def critical_batch_size(own: float, scales: Sequence[float], weights: Sequence[float]) -> float:
    """The critical batch size of a whole run: with it `Tradeoff` takes as many updates without noise as `relative_updates` does.

    Args:
        own: Batch size of the run.
        scales: Noise scales along it.
        weights: How much of the run's updates each of them stands for.

    Returns:
        In samples; infinite where all scales are.

    Example:
        >>> round(critical_batch_size(32, [100.0, 100.0], [1, 1]), 6)
        100.0
    """
    least = relative_updates(math.inf, own, scales, weights)
    return own * (1 / least - 1) if least > 0 else math.inf


def relative_rate(updates: float, *, adaptive: bool) -> float:
    """What the learning rate is multiplied by when updates become fewer or more.

    Gradient descent with batches of the size B is best at a rate in proportion to 1 / (1 + B_crit / B) (McCandlish et al. 2018, equation
    2.6), which is the inverse of the number of updates: linear in the batch size below the critical one (Goyal et al. 2017), and no
    higher far above it. Optimizers that divide by the size of the gradient take the square root of that (Malladi et al. 2022).

    Args:
        updates: Relative number of updates, as `relative_updates` gives it.
        adaptive: The optimizer divides by the size of past gradients, as Adam does.

    Returns:
        The factor.
    """
    return 1 / math.sqrt(updates) if adaptive else 1 / updates
