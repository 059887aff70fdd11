"""A penalty on how many weights aren't zero, by gates that are trained with them.

    gate(model)  # before the optimizer is made
    training = unstuck.Training(model, loss, optimizer, batches, penalty=L0(1e-6))
    training.run()
    ungate(model)  # plain weights again, many exactly zero

The number of weights has no gradient. That of gates which are random and now and then exactly 0 has one in expectation
(Louizos, Welling & Kingma 2018). How many are zero is told by `unstuck.regularization.pruning.sparsity`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unstuck.errors import MisuseError
from unstuck.regularization._weights import Aside, By, check_strength, check_unit, some_weights, total, wide


class Gates(Aside):
    """Hard-concrete gates, by which each weight or unit is multiplied: random in training, and often exactly 0 or exactly 1.

    In evaluation they are what they are in the middle, and nothing is random.

    Source: Louizos, Welling & Kingma 2018, equations 10 to 13, with their temperature 2/3 and stretch from -0.1 to 1.1.

    Args:
        weight: What they are for.
        axes: Axes along which one gate is for all.
        opened: How probable it is at first that a gate isn't zero.
        generator: What the gates and their first noise are drawn by; torch's own unless given.
    """

    TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1
    NOISE = 0.01  # of the first logits, as in the authors' program: gates that start the same would still move apart, only later

    def __init__(
        self,
        weight: Tensor,
        axes: tuple[int, ...] = (),
        *,
        opened: float = 0.9,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        shape = [1 if axis in axes else size for axis, size in enumerate(weight.shape)]
        first = math.log(opened / (1 - opened)) + self.TEMPERATURE * math.log(-self.LOW / self.HIGH)
        noise = torch.empty(shape, device=weight.device, dtype=weight.dtype).normal_(0, self.NOISE, generator=generator)
        self.logits = nn.Parameter(first + noise)
        self.size = weight.numel() // noise.numel()
        """Weights to a gate."""
        self.generator = generator

    def forward(self, weight: Tensor) -> Tensor:
        """The weight times its gates."""
        return weight * (self.drawn() if self.training else self.settled())

    def drawn(self) -> Tensor:
        """Gates as in training (equations 10 and 11)."""
        tiny = torch.finfo(self.logits.dtype).eps
        uniform = torch.empty_like(self.logits).uniform_(tiny, 1 - tiny, generator=self.generator)
        return self._stretched(torch.sigmoid((uniform.logit() + self.logits) / self.TEMPERATURE))

    def settled(self) -> Tensor:
        """Gates as in evaluation (equation 13)."""
        return self._stretched(torch.sigmoid(self.logits))

    def opened(self) -> Tensor:
        """How probable it is that each gate isn't zero (equation 12)."""
        return torch.sigmoid(self.logits - self.TEMPERATURE * math.log(-self.LOW / self.HIGH))

    def _stretched(self, gates: Tensor) -> Tensor:
        return (gates * (self.HIGH - self.LOW) + self.LOW).clamp(0, 1)


def gate(
    model: nn.Module,
    *,
    by: By = "weight",
    opened: float = 0.9,
    spare: Sequence[str] = (),
    generator: torch.Generator | None = None,
) -> list[Gates]:
    """Puts gates on the weights of dense and convolutional layers, for `L0` to close.

    To be done before the optimizer is made, as the gates are trained. In training the gates are drawn anew whenever a weight is read:
    where a layer is used twice and should be the same, compute within `torch.nn.utils.parametrize.cached()`.

    Args:
        model: The model.
        by: A gate for each "weight", or for all weights of an "output" or an "input".
        opened: How probable it is at first that a gate isn't zero, between 0 and 1.
        spare: Paths of modules that are left out.
        generator: What gates are drawn by; torch's own unless given.

    Returns:
        The gates.

    Raises:
        MisuseError: No such layers, a probability that isn't one, or there are gates already.
    """
    if not 0 < opened < 1:
        raise MisuseError(f"gates that are open with probability {opened}; it must be between 0 and 1")
    if by != "weight":
        check_unit(by)
    if any(gates_of(model)):
        raise MisuseError("the model has gates already: remove them by ungate(model) before new ones are put in")
    layers = (nn.Linear, nn.modules.conv._ConvNd)
    found = []
    for weight in some_weights(model, spare=spare):
        if not isinstance(weight.module, layers) or weight.name != "weight":
            continue
        axes = () if by == "weight" else weight.rest(by)
        gates = Gates(weight.parameter, axes, opened=opened, generator=generator)
        parametrize.register_parametrization(
            weight.module, "weight", gates, unsafe=True
        )  # else gates would be drawn to try it
        found.append(gates.train(weight.module.training))
    if not found:
        raise MisuseError("the model has no dense or convolutional layers whose weights could be gated")
    return found


def gates_of(model: nn.Module) -> Iterator[tuple[str, Gates]]:
    """The gates of a model, each by the path of its layer."""
    for path, module in model.named_modules():
        if isinstance(module, Gates):
            yield path.partition("parametrizations.")[0].rstrip("."), module


@dataclass(frozen=True)
class L0:
    """The expected number of weights whose gates aren't zero, times a strength (Louizos et al. 2018, equation 12).

    A strength is per weight: divide by the number of samples to have that of the paper.

    Args:
        strength: From 0 on.

    Raises:
        MisuseError: A strength below 0.
    """

    strength: float

    def __post_init__(self) -> None:
        check_strength(self.strength)

    def __call__(self, model: nn.Module) -> Tensor:
        """The penalty of a model, one number.

        Args:
            model: With gates.

        Returns:
            The penalty.

        Raises:
            MisuseError: The model has none.
        """
        found = [gates for _, gates in gates_of(model)]
        if not found:
            raise MisuseError(
                "L0 counts gates, and the model has none: put them in by gate(model) before the optimizer is made"
            )
        return self.strength * total(gates.size * wide(gates.opened()).sum() for gates in found)


def ungate(model: nn.Module) -> None:
    """Makes the gates permanent, as they are in evaluation: weights are plain again, those behind closed gates exactly zero.

    Args:
        model: With gates.

    Raises:
        MisuseError: A gated weight is parametrized otherwise as well.
    """
    for path, gates in list(gates_of(model)):
        module = model.get_submodule(path)
        parametrizations: nn.ModuleDict = module.parametrizations  # pyright: ignore[reportAssignmentType]
        if list(parametrizations["weight"]) != [gates]:  # pyright: ignore[reportArgumentType]
            raise MisuseError(f"the weight of {path!r} has other parametrizations than gates: remove those first")
        gates.eval()
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
