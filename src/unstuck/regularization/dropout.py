"""Dropout: what is dropped in training and kept in expectation, so that nothing has to be rescaled in evaluation.

`keep` is the probability that something stays, as Srivastava et al. (2014) count it; torch's `p` is 1 - keep.

| dropped | by |
|---|---|
| units, each by itself | `Dropout`: `torch.nn.Dropout` with a probability for each unit, or a generator of its own |
| units of a sequence, the same at all steps | `LockedDropout`; in the recurrence, `recurrent_dropout=` of `unstuck.recurrent` |
| whole channels | `torch.nn.Dropout1d`, `Dropout2d`, `Dropout3d` |
| words of a vocabulary, or of a text | `EmbeddingDropout`, `WordDropout` |
| weights | `drop_weights` |

`set_keep` and `KeepSchedule` set the probabilities of ours and of torch's; what is dropped in evaluation as well is in `monte_carlo`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence

from unstuck.errors import MisuseError, NotFoundError
from unstuck.regularization._weights import Aside

if TYPE_CHECKING:
    from unstuck.training import Training

TORCHS = nn.modules.dropout._DropoutNd


class Kept(Aside):
    """What all have in common that keep something with a probability, which may be set at any time.

    Args:
        keep: The probability, above 0 and at most 1; a tensor of them for what has one each.
        generator: What is dropped is drawn by it, on the device of what is dropped; by torch's own unless given.

    Raises:
        MisuseError: A probability that isn't one, or 0: nothing would be left to learn by.
    """

    _keeps: Tensor | None

    def __init__(self, keep: float | Tensor = 0.5, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.generator = generator
        self._keep = 1.0
        self.register_buffer(
            "_keeps", None, persistent=False
        )  # goes with the model to its device, and into no checkpoint
        self.keep = keep

    @property
    def keep(self) -> float | Tensor:
        """The probability that something is kept."""
        return self._keep if self._keeps is None else self._keeps

    @keep.setter
    def keep(self, keep: float | Tensor) -> None:
        _check(keep)
        if isinstance(keep, Tensor) and keep.dim():
            device = None if self._keeps is None else self._keeps.device
            self._keeps = keep.detach().to(device=device, dtype=torch.float32)
        else:
            self._keep, self._keeps = float(keep), None

    @property
    def drops(self) -> bool:
        """Whether anything is dropped as things stand."""
        return self.training and (self._keeps is not None or self._keep < 1)

    def mask(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        """Draws what is kept.

        Args:
            like: Gives device and type.
            shape: Of the mask.

        Returns:
            0 with probability 1 - keep, else 1 / keep, so that its expectation is 1.
        """
        if self._keeps is not None:
            drawn = torch.bernoulli(self._keeps.expand(torch.Size(shape)), generator=self.generator)
            return (drawn / self._keeps).to(like.dtype)
        return like.new_empty(torch.Size(shape)).bernoulli_(self._keep, generator=self.generator).div_(self._keep)

    def extra_repr(self) -> str:
        """The probability, in the line of a printed model."""
        return f"keep={self._keep:g}" if self._keeps is None else f"keep={tuple(self._keeps.shape)}"


class Dropout(Kept):
    """Drops each unit of each sample by itself, and scales up the others (inverted dropout).

    With a number as `keep` it draws the very numbers of `torch.nn.Dropout(1 - keep)`. Beyond that `keep` may be a tensor that is
    broadcast against the input, for a probability by unit (`(units,)`) or by channel (`(channels, 1, 1)`).

    Source: Srivastava et al. 2014, section 4, and their section 10 for scaling in training.

    Args:
        keep: Probability that a unit is kept, above 0 and at most 1.
        generator: What is dropped is drawn by it; by torch's own unless given.

    Raises:
        MisuseError: A probability that isn't one, or 0.

    Example:
        >>> drop = Dropout(keep=0.8, generator=torch.Generator().manual_seed(0))
        >>> sorted(set(drop(torch.ones(100)).tolist()))  # 1 / 0.8
        [0.0, 1.25]
        >>> drop.eval()(torch.ones(2)).tolist()
        [1.0, 1.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """What is left, of the input's shape."""
        if not self.drops:
            return x
        if self._keeps is None and self.generator is None:
            return F.dropout(x, 1 - self._keep)  # one kernel
        return x * self.mask(x, x.shape)


class LockedDropout(Kept):
    """Drops units of each sequence, the same at all of its steps (variational dropout).

    A mask that is drawn anew at every step makes noise that a recurrent layer sums up over time; one for the whole sequence doesn't.
    It stands before, between and behind recurrent layers. Sequences drop the same packed as padded, if drawn from the same state.

    Source: Gal & Ghahramani 2016, section 4. They also drop on the way into the recurrent weights: `recurrent_dropout=` of the layers
    of `unstuck.recurrent`, whose `variational=True` is this between layers.

    Args:
        keep: Probability that a unit is kept, above 0 and at most 1, or one for each, shape `(units,)`.
        batch_first: Whether sequences are `(batch, time, units)`, not `(time, batch, units)`.
        generator: What is dropped is drawn by it; by torch's own unless given.

    Raises:
        MisuseError: A probability that isn't one, or 0.
    """

    def __init__(
        self, keep: float | Tensor = 0.5, *, batch_first: bool = False, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(keep, generator=generator)
        self.batch_first = batch_first

    def forward(self, x: Any) -> Any:
        """What is left of the sequences.

        Args:
            x: `(time, batch, units)`, `(batch, time, units)` with `batch_first`, `(time, units)` of a single one, or packed ones.

        Returns:
            The same kind.

        Raises:
            MisuseError: The shape isn't that of sequences.
        """
        if not self.drops:
            return x
        if isinstance(x, PackedSequence):
            return self._packed(x)
        if x.dim() not in (2, 3):
            raise MisuseError(f"inputs of shape {tuple(x.shape)} are not sequences of units: 2 or 3 axes are expected")
        time = 1 if self.batch_first and x.dim() == 3 else 0
        return x * self.mask(x, [1 if axis == time else size for axis, size in enumerate(x.shape)])

    def _packed(self, x: PackedSequence) -> PackedSequence:
        sizes = x.batch_sizes.tolist()
        masks = self.mask(x.data, (sizes[0], x.data.shape[-1]))
        if x.sorted_indices is not None:
            masks = masks.index_select(0, x.sorted_indices)
        rows = torch.cat([masks[:size] for size in sizes])
        return PackedSequence(x.data * rows, x.batch_sizes, x.sorted_indices, x.unsorted_indices)


class EmbeddingDropout(Kept):
    """An embedding some of whose words are zero for a whole pass, wherever they stand; the others are scaled up.

    Source: Gal & Ghahramani 2016, section 4.2; Merity et al. 2018, section 4.3, keep 0.9.

    Args:
        embedding: That is looked up; it stays a module of its own, so its weight can be tied.
        keep: Probability that a word is kept, above 0 and at most 1.
        generator: What is dropped is drawn by it; by torch's own unless given.

    Raises:
        MisuseError: A probability that isn't one, or 0, or one for each of other than the embedding's words.
    """

    def __init__(
        self, embedding: nn.Embedding, keep: float | Tensor = 0.9, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(keep, generator=generator)
        self.embedding = embedding

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors of words, `(…, width)`.

        Args:
            tokens: Numbers of words, any shape.

        Returns:
            Their vectors, those of dropped words zero.
        """
        vectors = self.embedding(tokens)
        if not self.drops:
            return vectors
        return vectors * self.mask(vectors, (self.embedding.num_embeddings,))[tokens].unsqueeze(-1)


class WordDropout(Kept):
    """Puts the number of the unknown word in the place of some; nothing is scaled (Bowman et al. 2016, section 3.1; Iyyer et al. 2015).

    Args:
        unknown: That number.
        keep: Probability that a word is kept, above 0 and at most 1, or one for each position.
        spared: Numbers that stay, such as of padding, begin and end.
        generator: What is dropped is drawn by it; by torch's own unless given.

    Raises:
        MisuseError: A probability that isn't one, or 0.
    """

    def __init__(
        self,
        unknown: int,
        keep: float | Tensor = 0.9,
        *,
        spared: Sequence[int] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(keep, generator=generator)
        self.unknown, self.spared = unknown, tuple(spared)

    def forward(self, tokens: Tensor) -> Tensor:
        """Numbers of words, of the same shape."""
        if not self.drops:
            return tokens
        dropped = self.mask(torch.empty(0, device=tokens.device), tokens.shape) == 0
        for token in self.spared:
            dropped &= tokens != token
        return tokens.masked_fill(dropped, self.unknown)


# ---------------------------------------------------------------------- weights


class WeightMask(Kept):
    """A parametrization that drops a weight's numbers each by itself; see `drop_weights`."""

    holds = False
    """Whether a pass is under way, all of which uses the same numbers."""
    _held: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """What is left of the weight."""
        if not self.drops:
            return weight
        if self._held is not None:
            return self._held
        left = weight * self.mask(weight, weight.shape)
        if self.holds:
            self._held = left
        return left

    def begin(self) -> None:
        """Draws once from now on."""
        self.holds, self._held = True, None

    def end(self) -> None:
        """Lets go of what was drawn, which has a graph: what holds it can't be copied."""
        self.holds, self._held = False, None


def drop_weights(
    module: nn.Module, keeps: Mapping[str, float | Tensor], *, generator: torch.Generator | None = None
) -> list[WeightMask]:
    """Drops numbers of weights, not units: the same ones for a whole batch, and in a recurrent layer for all steps of a pass.

    For dense and convolutional layers (DropConnect), and for the hidden-to-hidden weights of recurrent ones, torch's or those of
    `unstuck.recurrent` (weight drop): `drop_weights(lstm, {"weight_hh_l0": 0.5})`. Can be done after the optimizer is made; taken back by
    `torch.nn.utils.parametrize.remove_parametrizations(module, name, leave_parametrized=False)`.

    Source: Wan et al. 2013, section 3, with mean weights in evaluation, not their sampled activations; Merity et al. 2018, section 2.

    Args:
        module: Whose weights.
        keeps: Probability that a number is kept, by the weight's name in the module.
        generator: What is dropped is drawn by it; by torch's own unless given.

    Returns:
        The masks, whose `keep` can be set; `set_keep` finds them as well.

    Raises:
        NotFoundError: The module has no parameter of that name.
        MisuseError: A probability that isn't one, or 0.
    """  # noqa: DOC502
    own = [name for name, _ in module.named_parameters(recurse=False)]
    for name in keeps:
        if name not in own and not parametrize.is_parametrized(module, name):
            raise NotFoundError(f"{type(module).__name__} has no parameter {name!r}{_nearest(name, own)}")
    if not _masks(module):
        module.register_forward_pre_hook(_begin)
        module.register_forward_hook(_end, always_call=True)
    masks = {name: WeightMask(keep, generator=generator).train(module.training) for name, keep in keeps.items()}
    for name, mask in masks.items():
        parametrize.register_parametrization(module, name, mask, unsafe=True)  # else a mask would be drawn to try it
    return list(masks.values())


def _masks(module: nn.Module) -> list[WeightMask]:
    lists = module.parametrizations.values() if parametrize.is_parametrized(module) else []  # pyright: ignore
    return [p for each in lists for p in each if isinstance(p, WeightMask)]


def _begin(module: nn.Module, given: Any) -> None:
    for mask in _masks(module):
        mask.begin()


def _end(module: nn.Module, given: Any, found: Any) -> None:
    for mask in _masks(module):
        mask.end()
    if isinstance(module, nn.RNNBase):  # which keeps the weights that it has used
        for place, name in enumerate(module._flat_weights_names):
            if parametrize.is_parametrized(module, name):
                module._flat_weights[place] = module.parametrizations[name].original  # pyright: ignore


# ---------------------------------------------------------------------- probabilities


def set_keep(model: nn.Module, keep: float | Mapping[str, float | Tensor]) -> None:
    """Sets how probable it is that something is kept, in our dropouts and torch's.

    Args:
        model: The model.
        keep: For all of them, or by the path of one or of a module that contains some.

    Raises:
        NotFoundError: No module of that path.
        MisuseError: No dropout there, a probability that isn't one, or one by unit for torch's.

    Example:
        >>> model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Linear(2, 2), Dropout(0.5)))
        >>> set_keep(model, {"0": 0.8, "1": 0.9})
        >>> round(model[0].p, 6), model[1][1].keep
        (0.2, 0.9)
    """
    keeps = keep if isinstance(keep, Mapping) else {"": keep}
    modules = dict(model.named_modules())
    for path, value in keeps.items():
        if path not in modules:
            raise NotFoundError(f"the model has no module {path!r}{_nearest(path, modules)}")
        _check(value)
        found = [m for m in modules[path].modules() if isinstance(m, (Kept, TORCHS))]
        if not found:
            raise MisuseError(f"there is no dropout in {path or type(model).__name__!r}")
        for module in found:
            _set(module, value)


def _set(module: nn.Module, keep: float | Tensor) -> None:
    if isinstance(module, Kept):
        module.keep = keep
    elif isinstance(keep, Tensor) and keep.dim():
        raise MisuseError(
            f"{type(module).__name__} of torch takes one probability, not one by unit: use Dropout of this module"
        )
    else:
        module.p = 1 - float(keep)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]


@dataclass(frozen=True)
class Curriculum:
    """A probability of keeping that goes from 1 to its last value exponentially: easy at first, and more noise by and by.

    Source: Morerio et al. 2017, equation 2, with their gamma = 10 / steps.

    Args:
        last: Where it goes to.
        steps: In which it gets there, but for e^-10.
    """

    last: float
    steps: int

    def __call__(self, step: int) -> float:
        """The probability behind a step of the optimizer, counted from 1."""
        return (1 - self.last) * math.exp(-10 * step / self.steps) + self.last


class KeepSchedule:
    """Sets probabilities behind each step of the optimizer: `training.on_step.append(KeepSchedule(Curriculum(0.5, 1000)))`.

    Args:
        keep: Takes the number of steps made, from 1, and returns what `set_keep` takes.
    """

    def __init__(self, keep: Callable[[int], float | Mapping[str, float | Tensor]]) -> None:
        self.keep, self.steps = keep, 0

    def __call__(self, training: Training) -> None:
        """As a hook of `training.on_step`."""
        self.step(training.model)

    def step(self, model: nn.Module) -> None:
        """Counts a step and sets the model's probabilities: in a loop of one's own.

        Args:
            model: The model.
        """
        self.steps += 1
        set_keep(model, self.keep(self.steps))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: steps made."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint.

        Args:
            state: What `state_dict` gave.
        """
        self.steps = state["steps"]


# ----------------------------------------------------------------------


def _check(keep: float | Tensor) -> None:
    if isinstance(keep, Tensor):
        if not bool(((keep > 0) & (keep <= 1)).all()):
            raise MisuseError(
                f"probabilities of keeping from {keep.min():g} to {keep.max():g}; all must be above 0 and at most 1"
            )
    elif not 0 < keep <= 1:
        raise MisuseError(
            f"a probability of keeping of {keep}; it must be above 0 and at most 1 (torch's p is 1 - keep)"
        )


def _nearest(name: str, names: Any) -> str:
    found = difflib.get_close_matches(name, [n for n in names if n], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
