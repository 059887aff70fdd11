"""Averages of a network's weights over its training, which are evaluated in place of the last weights.

Single steps go to and fro around where training leads; an average is nearer to it, as noise cancels (Polyak and Juditsky 1992). It costs a
pass over the weights at each step, and their memory once more.

Unlike `torch.optim.swa_utils.AveragedModel`, this is corrected for its start, keeps averages only and no second model, puts them into the
model itself for evaluation, never waits for the device, and follows the model when modules are replaced or thawed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.optim._averages import Average, Listing, grouped, mix, put_back, put_in
from unstuck.optim._places import Held, Place, bare, places

Kind = Literal["exponential", "equal"]
Buffers = Literal["average", "copy"]
_RUNNING = "running_"  # how norms begin the names of their statistics
_STATE = {"calls", "updates", "averages", "began"}


def decay_for(steps: int, *, share: float = 0.1, most: int = 1000) -> float:
    """A decay for a run: the average is over a tenth of it, and at most a thousand steps.

    An average lags: with a decay of d it is where the weights were d / (1 - d) steps ago, as long as they move steadily. So it must be
    short beside the time in which they still move far, and long beside the noise of steps, which it lowers the more the longer it is.

    Args:
        steps: Of the run, by updates of the average.
        share: Of the run that the average is over.
        most: Steps that it is over at most.

    Returns:
        The decay, from 0 to less than 1.

    Raises:
        MisuseError: There are no steps, or the share isn't above 0 and up to 1.

    Example:
        >>> decay_for(100), decay_for(20_000)
        (0.9, 0.999)
    """
    if steps < 1 or not 0 < share <= 1:
        raise MisuseError(
            f"{steps} steps and a share of {share:g}: give 1 step or more, and a share above 0 and up to 1"
        )
    return 1 - 1 / max(1.0, min(steps * share, most))


class WeightAverage:
    """An average of a model's weights, brought up to date behind each step of the optimizer.

    Parameters are averaged from when they are first trained; what is frozen needs no average, and neither do integers. Parameters
    that several modules share count once. A model that is compiled, or wrapped for several processes, goes by the names that it has
    without that; on all processes parameters agree, and so do their averages. Modules may be replaced: what is new begins an average of
    its own.

    Args:
        model: The model that is trained.
        kind: "exponential": each update takes its part of what is new, so that old weights are forgotten. "equal": the mean of all,
            which is right when the rate is constant or cyclic and training has come near to where it leads.
        decay: How much of an exponential average is kept at each update, from 0 to less than 1: it is over the last 1 / (1 - decay).
            It is corrected for its start: at once an average of the weights there were. See `decay_for`.
        start: Steps that come before the first that counts.
        every: Of the steps behind these, every how many one is taken, the first of them after so many.
        buffers: "average": running statistics of norms are averaged with the weights, "copy": those of the last step are evaluated.
            All other buffers are evaluated as they are, since means of tables or of unit vectors would be of no use.
        dtype: Of averages; by default that of the weights, and float32 where these have half precision, in which small changes are lost.
        device: Where averages are kept; by default with the weights. On another one each update has to wait for it.

    Attributes:
        updates: Steps that were taken into the average.

    Raises:
        MisuseError: Something given can't be used so; the message says why.

    Source:
        Polyak and Juditsky 1992 (equal averages of stochastic approximation); Kingma and Ba 2015, section 3 (correction of exponential
        ones); Izmailov et al. 2018, algorithm 1 (`kind="equal"` with `start` and `every`).

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> average = WeightAverage(model, decay=0.5)
        >>> for weight in (1.0, 4.0):
        ...     _ = nn.init.constant_(model.weight, weight)
        ...     average.update()
        >>> with average.swapped_in():
        ...     model.weight.item()  # (0.5 * 1 + 4) / (0.5 + 1)
        3.0
        >>> model.weight.item()
        4.0
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        kind: Kind = "exponential",
        decay: float = 0.999,
        start: int = 0,
        every: int = 1,
        buffers: Buffers = "average",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        _check(model, kind, decay, start, every, buffers, dtype)
        self.model, self.kind, self.decay = model, kind, decay
        self.start, self.every, self.buffers = start, every, buffers
        self.dtype, self.device = dtype, torch.device(device) if device is not None else None
        self.reset()

    def reset(self) -> None:
        """Forgets all weights: what is taken in after that begins another average.

        Raises:
            MisuseError: The average is in the model.
        """  # noqa: DOC502
        self._refuse_inside("reset")
        self.calls = self.updates = 0
        self._averages: dict[str, Average] = {}
        self._listing: Listing | None = None

    # ------------------------------------------------------------------ averaging

    def update(self) -> None:
        """Takes in the weights as they are, behind a step of the optimizer.

        Raises:
            MisuseError: The average is in the model.
        """  # noqa: DOC502
        self._refuse_inside("update")
        self.calls += 1
        if self.calls <= self.start or (self.calls - self.start) % self.every:
            return
        listing = self._listed()
        self.updates += 1
        with torch.no_grad():
            for group in listing.groups:
                mix(group.averages, group.own, self._share(self.updates - group.began))

    def _share(self, count: int) -> float:
        """Of the newest weights in an average over so many."""
        return 1 / count if self.kind == "equal" else (1 - self.decay) / (1 - self.decay**count)

    def averages(self) -> dict[str, Tensor]:
        """The averages by the names that the model has for them; they change with the next update.

        Returns:
            Those of parameters and running statistics that are averaged, empty before the first update.

        Raises:
            MisuseError: The average is in the model.
        """  # noqa: DOC502
        self._refuse_inside("averages")
        if self.updates:
            self._listed()
        return {name: average.tensor for name, average in self._averages.items()}

    def by_tensor(self) -> list[tuple[Tensor, Tensor]]:
        """The model's tensors that are averaged, each with its average, which may be changed; none before the first update.

        Returns:
            Pairs.

        Raises:
            MisuseError: The average is in the model.
        """  # noqa: DOC502
        self._refuse_inside("by_tensor")
        return [(own, average.tensor) for own, average in self._listed().pairs] if self.updates else []

    def is_of(self, model: nn.Module) -> bool:
        """Whether it is an average of this model, which may be compiled or wrapped for several processes."""
        return bare(self.model) is bare(model)

    def synchronize(self, group: Any = None) -> None:
        """Makes averages of running statistics equal on all processes: their mean; those of weights are so already.

        To be called by all processes, before an evaluation or a checkpoint. Alone it does nothing.

        Args:
            group: Of processes, by default all.

        Raises:
            MisuseError: The average is in the model.
        """  # noqa: DOC502
        self._refuse_inside("synchronize")
        if not (torch.distributed.is_available() and torch.distributed.is_initialized() and self.updates):
            return
        self._listed()
        for average in self._averages.values():
            if average.of_buffer:
                torch.distributed.all_reduce(average.tensor, group=group)
                average.tensor.div_(torch.distributed.get_world_size(group))

    # ------------------------------------------------------------------ evaluating

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """While which the model has the averages for weights, and the averages' memory holds its own.

        Values are exchanged in place: parameters and their addresses stay the same for the optimizer, and no third copy is made. Averages
        of another type than the weights can't be exchanged; there the weights are kept aside, where the averages are. Within another
        one it does nothing, nor before there is an average.
        """
        if self._inside or not self.updates:
            yield
            return
        changed: list[tuple[Tensor, Tensor, Tensor | None]] = []
        pairs = self._listed().pairs
        self._inside = True
        try:
            with torch.no_grad():
                for own, average in pairs:
                    changed.append((own, average.tensor, put_in(own, average.tensor)))
            yield
        finally:
            with torch.no_grad():
                for own, average, kept in reversed(changed):
                    put_back(own, average, kept)
            self._inside = False

    @torch.no_grad()
    def copy_to(self, model: nn.Module | None = None) -> None:
        """Gives a model the averages for good.

        Args:
            model: One of the same structure, which is given all else as well, frozen parameters and buffers; by default the model itself.

        Raises:
            MisuseError: Names or shapes are others, or the average is in the model.
        """  # noqa: DOC502
        self._refuse_inside("copy_to")
        averages = self.averages()
        own = {place.name: place.tensor for place in places(self.model)}
        to = own if model is None else {place.name: place.tensor for place in places(model)}
        _check_fit("the model", {name: t.shape for name, t in to.items()}, {name: t.shape for name, t in own.items()})
        for name, tensor in to.items():
            value = averages.get(name, own[name])
            if value is not tensor:
                tensor.copy_(value)

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What it needs to go on: averages by names, as references, and counts; settings aren't part of it.

        Returns:
            It.

        Raises:
            MisuseError: The average is in the model.
        """  # noqa: DOC502
        averages = self.averages()
        began = {name: average.began for name, average in self._averages.items()}
        return {"calls": self.calls, "updates": self.updates, "averages": averages, "began": began}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where another stood; the model isn't changed.

        Args:
            state: What `state_dict` gave.

        Raises:
            MisuseError: It is none, is of a model with other names or shapes, or the average is in the model.
        """
        self._refuse_inside("load_state_dict")
        if not isinstance(state, dict) or set(state) != _STATE:
            raise MisuseError(f"this is no state of a WeightAverage, which has {sorted(_STATE)}")
        own = {place.name: place for place in places(self.model)}
        given: dict[str, Tensor] = state["averages"]
        wanted = {n: p.tensor.shape for n, p in own.items() if n in given or (state["updates"] and self._wants(p))}
        _check_fit("the state", {name: t.shape for name, t in given.items()}, wanted)
        self.reset()
        self.calls, self.updates = state["calls"], state["updates"]
        for name, tensor in given.items():
            new = self._as_kept(own[name].tensor, tensor.detach())
            self._averages[name] = Average(new, state["began"][name], own[name].is_buffer)

    def __getstate__(self) -> dict[str, Any]:
        """For copies: what was found of the model is looked for again there.

        Returns:
            All else.

        Raises:
            MisuseError: The average is in the model.
        """  # noqa: DOC502
        self.averages()  # names are those of now
        return {**vars(self), "_listing": None}

    # ------------------------------------------------------------------ what the model holds

    _inside = False

    def _refuse_inside(self, what: str) -> None:
        if self._inside:
            raise MisuseError(
                f"{what} was called while the average is in the model: leave `with average.swapped_in()` first"
            )

    def _listed(self) -> Listing:
        """What the model holds, looked for anew if anything was replaced; averages are begun for what is new."""
        if self._listing is None or not self._listing.is_current(self.model):
            self._listing = self._found()
        return self._listing

    @torch.inference_mode(False)  # what is begun there couldn't be updated elsewhere
    def _found(self) -> Listing:
        found, before = list(places(self.model)), self._listing
        averages: dict[str, Average] = {}
        for place in found:
            known = self._averages.get(place.name) if before is None else before.known.get(place.identity)
            if known is not None and known.tensor.shape == place.tensor.shape:
                known.tensor = self._as_kept(place.tensor, known.tensor, copy=False)
                averages[place.name] = known
            elif self._wants(place):
                new = self._as_kept(place.tensor, place.tensor.detach())
                averages[place.name] = Average(new, self.updates, place.is_buffer)
        self._averages = averages
        averaged = [(place, averages[place.name]) for place in found if place.name in averages]
        pairs = [(place.tensor, average) for place, average in averaged]
        frozen = [p.tensor for p in found if p.name not in averages and not p.is_buffer and p.is_real]
        return Listing(Held(self.model), frozen, pairs, grouped(pairs), {p.identity: a for p, a in averaged})

    def _wants(self, place: Place) -> bool:
        """Whether a tensor is to be averaged."""
        if place.is_buffer:
            return self.buffers == "average" and place.key.startswith(_RUNNING) and place.is_real
        return place.tensor.requires_grad and place.is_real

    def _as_kept(self, own: Tensor, value: Tensor, *, copy: bool = True) -> Tensor:
        """A value in the type and on the device in which the average of a tensor is kept."""
        given = self.dtype if own.is_floating_point() else None
        return value.to(self.device or own.device, given or torch.promote_types(own.dtype, torch.float32), copy=copy)


# ---------------------------------------------------------------------- what is given


def _check(model: Any, kind: str, decay: float, start: int, every: int, buffers: str, dtype: Any) -> None:
    if not isinstance(model, nn.Module):
        raise MisuseError(f"model is a {type(model).__name__}, but must be an nn.Module")
    if kind not in ("exponential", "equal"):
        raise MisuseError(f'kind is {kind!r}, but must be "exponential" or "equal"')
    if not 0 <= decay < 1:
        raise MisuseError(f"decay is {decay!r}, but must be from 0 to less than 1, such as 0.999")
    for name, count, least in (("start", start, 0), ("every", every, 1)):
        if not isinstance(count, Integral) or count < least:
            raise MisuseError(f"{name} is {count!r}, but must be a whole number from {least} on")
    if buffers not in ("average", "copy"):
        raise MisuseError(f'buffers is {buffers!r}, but must be "average" or "copy"')
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise MisuseError(f"dtype is {dtype!r}, but must be one of floating numbers, such as torch.float32")


def _check_fit(what: str, given: dict[str, torch.Size], wanted: dict[str, torch.Size]) -> None:
    """Refuses tensors of other names or shapes.

    Raises:
        MisuseError: There are some.
    """
    for name in sorted(wanted.keys() ^ given.keys()):
        missing = name in wanted
        raise MisuseError(
            f"{what} has {'no' if missing else 'a'} tensor {name!r}{'' if missing else ', which the averaged model has not'}: "
            "it must be of a model of the same structure"
        )
    for name, shape in wanted.items():
        if given[name] != shape:
            raise MisuseError(
                f"{name} has the shape {tuple(given[name])} in {what}, but {tuple(shape)} in the averaged model"
            )
