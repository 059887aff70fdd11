"""Pruning: the smallest weights, or units, become zero and stay it while the rest is trained.

    pruning = Pruning(Cubic(0.9, steps=3000))  # nine in ten
    pruning.attach(training)
    training.run()
    print(sparsity(model))

What `torch.nn.utils.prune` does at once, this does by a schedule. Where that puts `weight_orig` and a mask in the place of a weight, so
that checkpoints have other names, every pass multiplies, and the model can't be copied behind one, here the model stays what it is:
masks lie outside it. Behind each step of the optimizer pruned weights are put back to zero, and what the optimizer remembers of them as
well, so that nothing moves them later. Their gradients are zero before a norm is taken of them all.

Zeros save nothing by themselves: dense kernels multiply by them as well. Units that are zero can be taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from unstuck._modes import evaluating
from unstuck.errors import MisuseError
from unstuck.regularization._weights import Weight, found_weights, some_weights, unit_norms

if TYPE_CHECKING:
    from unstuck.optim.weight_average import WeightAverage
    from unstuck.training import Training

Masks = dict[str, Tensor]
By = Literal["weight", "unit"]
Scope = Literal["global", "layer"]


@dataclass(frozen=True)
class Cubic:
    """A share that grows fast at first, where much is superfluous, and slowly at last: end + (start - end) (1 - t)³, t from 0 to 1.

    Source: Zhu & Gupta 2017, equation 1.

    Args:
        end: Share of zeros at the end, from 0 to 1.
        steps: Steps of the optimizer in which it is reached.
        first: Steps before it begins, in which the network learns what it needs.
        every: Steps between two prunings; the paper finds 100 to 1000 good.
        start: Share to begin with.

    Raises:
        MisuseError: Shares that aren't in that order, or steps below 1.

    Example:
        >>> cubic = Cubic(0.8, steps=100, every=50)
        >>> [round(cubic(step), 3) for step in (0, 49, 50, 99, 100, 1000)]  # half-way: 0.8 (1 - 1/8)
        [0.0, 0.0, 0.7, 0.7, 0.8, 0.8]
    """

    end: float
    steps: int
    first: int = 0
    every: int = 100
    start: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            raise MisuseError(f"a share of zeros from {self.start} to {self.end}; expected are 0 <= start <= end <= 1")
        if self.steps < 1 or self.every < 1 or self.first < 0:
            raise MisuseError(
                f"steps={self.steps}, every={self.every}, first={self.first}; steps and every must be from 1 on, first from 0"
            )

    def __call__(self, step: int) -> float:
        """The share behind a step, counted from 1."""
        behind = step - self.first
        if behind < 0:
            return 0.0
        if behind >= self.steps:
            return self.end
        done = behind // self.every * self.every / self.steps
        return self.end + (self.start - self.end) * (1 - done) ** 3


def magnitude_masks(
    model: nn.Module,
    share: float,
    *,
    by: By = "weight",
    norm: float = 1,
    scope: Scope = "global",
    spare: Sequence[str] | None = None,
    least: int = 1,
    masks: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Which weights stay when a share of them goes, the smallest first.

    Args:
        model: The model; it isn't changed.
        share: Of the weights, or units, that aren't spared; from 0 to 1.
        by: "weight", or "unit": what leads to one output, with its bias. A unit counts by the mean of its weights' magnitudes, or their
            root mean square, else large layers would lose all theirs.
        norm: 1 or 2: which of these.
        scope: Whether the smallest of the model go ("global"), or the same share of each "layer".
        spare: Paths of modules whose weights stay. By default none, and of units those of the last module, which are the model's output.
        least: Weights or units that each layer keeps, so that nothing is cut in two.
        masks: What was pruned before stays so.

    Returns:
        By the name of a parameter: True where it stays. Of what is spared there is none.

    Raises:
        MisuseError: A share that isn't one, or words that aren't known.
    """
    if not 0 <= share <= 1:
        raise MisuseError(f"a share of zeros of {share}; it must be from 0 to 1")
    for name, value, known in (
        ("by", by, ("weight", "unit")),
        ("scope", scope, ("global", "layer")),
        ("norm", norm, (1, 2)),
    ):
        if value not in known:
            raise MisuseError(f"{name} is {value!r}, but must be {known[0]!r} or {known[1]!r}")
    weights = _prunable(model, by, spare)
    scores = [_scores(w, by, norm, (masks or {}).get(w.full_name)) for w in weights]
    kept = _kept(scores, share, least) if scope == "global" else [_kept([s], share, least)[0] for s in scores]
    found: Masks = {}
    for weight, keep in zip(weights, kept, strict=True):
        found[weight.full_name] = keep.expand_as(weight.parameter).contiguous()
        if by == "unit" and (bias := _bias(weight)):
            found[bias] = keep.flatten()
    return found


def _prunable(model: nn.Module, by: By, spare: Sequence[str] | None) -> list[Weight]:
    if spare is None and by == "unit":
        *others, last = some_weights(model)
        spare = [last.path] if others else ()
    return some_weights(model, spare=spare or ())


def _scores(weight: Weight, by: By, norm: float, mask: Tensor | None) -> Tensor:
    """Magnitudes; what is pruned comes before all others."""
    parameter = weight.parameter.detach()
    if by == "weight":
        found = parameter.abs()
        return found if mask is None else found.masked_fill(~mask, -1)
    rest = weight.rest("output")
    size = parameter.numel() / parameter.shape[weight.output]
    found = unit_norms(parameter, rest, norm) / size ** (1 / norm)
    return found if mask is None else found.masked_fill(~mask.any(rest, keepdim=True) if rest else ~mask, -1)


def _kept(scores: list[Tensor], share: float, least: int) -> list[Tensor]:
    """All but the smallest of several tensors together: exactly that many go, also among equals, but for the least of each that stays."""
    flat = [s.flatten().float() for s in scores]
    for one in flat:
        one[one.topk(min(least, len(one))).indices] = torch.inf
    every = torch.cat([one.to(flat[0].device) for one in flat])
    num_pruned = min(round(share * len(every)), len(every) - sum(min(least, len(one)) for one in flat))
    keep = torch.ones_like(every, dtype=torch.bool)
    keep[every.topk(num_pruned, largest=False).indices] = False
    parts = keep.split([len(one) for one in flat])
    return [part.view_as(s).to(s.device) for part, s in zip(parts, scores, strict=True)]


def _bias(weight: Weight) -> str:
    """Name of the bias whose numbers belong to the units, "" where there is none."""
    bias = getattr(weight.module, "bias", None)
    if weight.name != "weight" or not isinstance(bias, nn.Parameter):
        return ""
    fits = bias.dim() == 1 and len(bias) == weight.parameter.shape[weight.output]
    return weight.full_name.removesuffix("weight") + "bias" if fits else ""


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, Tensor], *, gradients: bool = False) -> None:
    """Makes weights zero.

    Args:
        model: The model.
        masks: By the name of a parameter: True where it stays.
        gradients: The gradients instead.

    Raises:
        MisuseError: A mask of a parameter that isn't there, or of another shape.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    pairs = []
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            shape = tuple(parameters[name].shape) if name in parameters else "none of that name"
            raise MisuseError(f"a mask of shape {tuple(mask.shape)} for {name!r}; the model has {shape}")
        target = parameters[name].grad if gradients else parameters[name]
        if target is not None:
            pairs.append((target, mask))
    _multiply(pairs)


def _multiply(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Tensors by masks; five times as fast on a processor as to fill in zeros."""
    if pairs:
        tensors, masks = zip(*pairs, strict=True)
        torch._foreach_mul_(list(tensors), list(masks))  # pyright: ignore[reportPrivateImportUsage]


def _is_like(value: Any, mask: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == mask.shape and value.is_floating_point()


class Pruning:
    """Prunes while a model is trained, and keeps pruned what is.

    An average of the weights, such as that of a `Training`, is pruned with them. The best weights, where a training puts those back, are
    pruned as far as they were at their epoch.

    Attributes:
        masks: By the name of a parameter: True where it stays; empty before the first pruning.
        steps: Steps of the optimizer that were seen.

    Args:
        share: Share of zeros: a number for at once, or a function of the step such as `Cubic`. It is never less than before.
        by: See `magnitude_masks`, as all of the following.
        norm: L1 or L2.
        scope: Global or by layer.
        spare: Paths of modules.
        least: What each layer keeps.
    """

    def __init__(
        self,
        share: float | Callable[[int], float],
        *,
        by: By = "weight",
        norm: float = 1,
        scope: Scope = "global",
        spare: Sequence[str] | None = None,
        least: int = 1,
    ) -> None:
        self.share = share if callable(share) else _Constant(share)
        self.how: dict[str, Any] = {"by": by, "norm": norm, "scope": scope, "spare": spare, "least": least}
        self.masks: Masks = {}
        self.steps = 0
        self._last = 0.0

    def attach(self, training: Training) -> None:
        """Puts itself among the hooks of a training.

        Args:
            training: The training.
        """
        training.on_gradients.append(self.on_gradients)
        training.on_step.append(self.on_step)

    def on_gradients(self, training: Training) -> None:
        """As a hook: gradients of pruned weights become zero, and count in no norm."""
        apply_masks(training.model, self.masks, gradients=True)

    def on_step(self, training: Training) -> None:
        """As a hook: see `step`."""
        self.step(training.model, training.optimizer, training.average)

    def step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, average: WeightAverage | None = None
    ) -> None:
        """Behind a step of the optimizer: prunes more where it is time, and puts back to zero what is pruned.

        Args:
            model: The model.
            optimizer: What it remembers of pruned weights becomes zero; in the state of torch's optimizers and all that keep tensors of
                the weight's shape.
            average: Of the model's weights, which is brought up to date behind this: what is pruned becomes zero there too.
        """
        self.steps += 1
        share = self.share(self.steps)
        if share > self._last:
            self.masks, self._last = magnitude_masks(model, share, masks=self.masks, **self.how), share
            if average is not None:
                self._prune_average(model, average)
        apply_masks(model, self.masks)
        if optimizer is not None:
            self._forget(model, optimizer)

    @torch.no_grad()
    def _prune_average(self, model: nn.Module, average: WeightAverage) -> None:
        parameters, averages = dict(model.named_parameters(remove_duplicate=False)), dict(average.by_tensor())
        pairs = [(averages.get(parameters[name]), mask) for name, mask in self.masks.items()]
        _multiply([(mean, mask.to(mean.device)) for mean, mask in pairs if mean is not None])

    @torch.no_grad()
    def _forget(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        remembered = [(optimizer.state.get(parameters[name], {}).values(), mask) for name, mask in self.masks.items()]
        _multiply([(v, mask) for values, mask in remembered for v in values if _is_like(v, mask)])

    def rewind(
        self, model: nn.Module, state: Mapping[str, Any], optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Early weights with late masks: the lottery ticket, to be trained again.

        Source: Frankle & Carbin 2019, section 1; from large networks on the state of some steps, not the first (Frankle et al. 2020).

        Args:
            model: The model.
            state: Its early state, `copy.deepcopy(model.state_dict())`.
            optimizer: Forgets what it remembers.
        """
        model.load_state_dict(state)
        apply_masks(model, self.masks)
        if optimizer is not None:
            optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: masks and steps."""
        return {"masks": dict(self.masks), "steps": self.steps, "share": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint.

        Args:
            state: What `state_dict` gave.
        """
        self.masks, self.steps, self._last = dict(state["masks"]), state["steps"], state["share"]


@dataclass(frozen=True)
class _Constant:
    """The same share at every step."""

    share: float

    def __call__(self, step: int) -> float:
        return self.share


# ---------------------------------------------------------------------- what is zero


@dataclass(frozen=True)
class LayerSparsity:
    """How much of a weight is zero.

    Attributes:
        name: Of the weight.
        zeros: Numbers that are zero.
        size: All its numbers.
        dead_units: Outputs all of whose weights are zero.
        units: All its outputs.
    """

    name: str
    zeros: int
    size: int
    dead_units: int
    units: int


@dataclass(frozen=True)
class Sparsity:
    """How much of a model's weights is zero; can be printed.

    Attributes:
        layers: Weight by weight.
    """

    layers: tuple[LayerSparsity, ...]

    @property
    def zeros(self) -> int:
        """Numbers that are zero."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def size(self) -> int:
        """All of them."""
        return sum(layer.size for layer in self.layers)

    @property
    def share(self) -> float:
        """Of zeros, from 0 to 1; 0 where there are no weights."""
        return self.zeros / self.size if self.size else 0.0

    def __str__(self) -> str:
        rows = [f"{self.zeros:,} of {self.size:,} weights are zero ({self.share:.1%})"]
        for one in self.layers:
            rows.append(
                f"  {one.name}: {one.zeros:,} of {one.size:,} ({one.zeros / max(one.size, 1):.1%}); "
                f"{one.dead_units} of {one.units} outputs have none left"
            )
        return "\n".join(rows)


@torch.no_grad()
def sparsity(model: nn.Module) -> Sparsity:
    """Counts zeros among the weights as they are used in evaluation: behind gates, masks of torch and other parametrizations.

    Args:
        model: The model.

    Returns:
        How many there are; biases and norms aren't counted.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> model.weight.data = torch.tensor([[0.0, 1.0], [0.0, 0.0], [2.0, 3.0]])
        >>> print(sparsity(model))
        3 of 6 weights are zero (50.0%)
          weight: 3 of 6 (50.0%); 1 of 3 outputs have none left
    """
    with evaluating(model):
        return Sparsity(tuple(_counted(w) for w in found_weights(model)))


def _counted(weight: Weight) -> LayerSparsity:
    name, used = _used(weight)
    zero = used == 0
    dead = zero.all(weight.rest("output")) if weight.rest("output") else zero
    return LayerSparsity(name, int(zero.sum()), zero.numel(), int(dead.sum()), dead.numel())


def _used(weight: Weight) -> tuple[str, Tensor]:
    """The weight as its module uses it, and its name: behind a parametrization, or torch's pruning."""
    path, found, name = weight.full_name.rpartition("parametrizations.")
    if found:
        name = name.partition(".")[0]
        return path + name, getattr(weight.module, name)
    if weight.name.endswith("_orig") and hasattr(weight.module, weight.name.replace("_orig", "_mask")):
        name = weight.name.removesuffix("_orig")
        return weight.full_name.removesuffix("_orig"), weight.parameter * getattr(weight.module, f"{name}_mask")
    return weight.full_name, weight.parameter
