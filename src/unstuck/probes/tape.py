"""One loss as it was computed, to be computed again: the calls from data and parameters to the tensor backward started from.

The watcher's tracer notes every call a script makes outside of modules, and every call of a module from outside
(`Recording`). When backward begins, the recording is sealed into a `Tape`: only the calls that lead from parameters to the
loss are kept, and in them every tensor is replaced by where it comes from: the result of an earlier call, a trained tensor,
or data. All else (targets, masks, noise, what was computed without gradients) is a constant of the tape. So nothing of the
step's graph stays alive, and `Tape.replay` computes the same loss with other parameters, other modules or other data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unstuck.probes.rows import Rows

MOST_CALLS = 4000  # calls of a forward pass outside modules; what makes more is not replayed
SMALL_MEMORY = 1 << 20  # bytes that may be held needlessly
_SETS = "__setitem__"
_CAST = ("cpu", "cuda")  # kinds of device whose autocast is noted


@dataclass(frozen=True)
class Result:
    """The result of an earlier call on the tape, and where in it the tensor is."""

    call: int
    path: tuple[Any, ...]


@dataclass(frozen=True)
class Trained:
    """A leaf with gradient: number `index` of the tape's `trained`."""

    index: int


@dataclass(frozen=True)
class Datum:
    """A constant: number `index` of the tape's `data`."""

    index: int


@dataclass(frozen=True)
class Module:
    """Number `index` of the tape's `modules`, as what is called."""

    index: int


@dataclass(frozen=True)
class Call:
    """A call with its tensors replaced by where they come from, and the autocast it was made under: kinds of device, with their types."""

    what: Callable[..., Any] | Module
    args: Any
    kwargs: Any
    casts: tuple[tuple[str, torch.dtype], ...] = ()


@dataclass
class Tape:
    """A loss that can be computed again.

    Attributes:
        calls: In order.
        modules: Modules called from outside, and the modes of all modules in each, as `modules()` orders them.
        trained: Leaves with gradient that were used outside of modules.
        data: Constants; they share memory with the script's tensors.
        versions: Of the data when they were recorded.
        root: The loss.
        output: What the loss function took, None when it could not be told.
        inputs: Indices of the data that the network was given.
        targets: Indices of the data the outputs were compared with.
        pools: By index of a datum, all rows that its own were taken from, where they are known.
        weights: How often each of those rows is drawn, relative to others; None where all are alike.
        casts: Whether calls are made again under the autocast that they were made under; else in the precision that tensors have, in
            which curvature and small differences of losses can be told.
    """

    calls: list[Call] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)
    modes: list[list[bool]] = field(default_factory=list)
    trained: list[Tensor] = field(default_factory=list)
    data: list[Tensor] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    root: Result = Result(0, ())
    output: Result | None = None
    inputs: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    pools: dict[int, Rows] = field(default_factory=dict)
    weights: Tensor | None = None
    casts: bool = False

    @property
    def fresh(self) -> bool:
        """Whether the script has left the data as they were."""
        return all(t._version == v for t, v in zip(self.data, self.versions, strict=True))

    @property
    def num_bytes(self) -> int:
        """Memory of the data."""
        return sum(t.numel() * t.element_size() for t in self.data)

    def pool(self, index: int) -> Rows | None:
        """All rows that those of a datum were taken from; None where they aren't known, or were written into."""
        rows = self.pools.get(index)
        return rows if rows is not None and rows.fresh else None

    def leave_large_memory(self) -> None:
        """Copies the data that are a small part of a larger tensor, such as a slice of a whole data set, to let go of that."""
        for i, tensor in enumerate(self.data):
            if tensor.layout == torch.strided:
                size = tensor.numel() * tensor.element_size()
                if tensor.untyped_storage().nbytes() > 2 * size + SMALL_MEMORY:
                    self.data[i] = tensor.clone()
                    self.versions[i] = self.data[i]._version

    def replay(
        self, modules: Sequence[nn.Module], trained: Sequence[Tensor], data: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """The loss, and what the loss function took.

        Args:
            modules: In place of `modules`.
            trained: In place of `trained`.
            data: In place of `data`.

        Returns:
            Loss and output; the output is None where the tape doesn't know it.
        """
        results: list[Any] = []

        def fill(value: Any) -> Any:
            match value:
                case Result():
                    return _at(results[value.call], value.path)
                case Trained():
                    return trained[value.index]
                case Datum():
                    return data[value.index]
                case Module():
                    return modules[value.index]
            return value

        for call in self.calls:
            what = modules[call.what.index] if isinstance(call.what, Module) else call.what
            args, kwargs = _mapped(call.args, fill), _mapped(call.kwargs, fill)
            with _casting(call.casts if self.casts else ()):
                out = what(*args, **kwargs)
            results.append(args[0] if out is None else out)
        output = _at(results[self.output.call], self.output.path) if self.output is not None else None
        return _at(results[self.root.call], self.root.path), output


class Recording:
    """The calls of a forward pass while it runs."""

    __slots__ = ("calls", "cuts", "full")

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any, tuple[tuple[str, torch.dtype], ...]]] = []
        self.cuts: dict[int, tuple[Tensor, Tensor]] = {}  # rows of a larger tensor, and that tensor
        self.full = False

    def note(self, what: Callable[..., Any], args: Any, kwargs: Any, out: Any) -> None:
        """A call outside of modules, or of a module from outside, that is over; one without gradients is left out."""
        made = args[0] if out is None and args else out
        first = made if isinstance(made, Tensor) else next((t for _, t in walk(made) if t.requires_grad), None)
        if isinstance(made, Tensor) and getattr(what, "__name__", "") == "__getitem__" and _takes_rows(args):
            self.cuts[id(made)] = (made, args[0])
        if first is None or not first.requires_grad or first.is_leaf:
            return
        if len(self.calls) < MOST_CALLS:
            self.calls.append((what, args, kwargs or {}, out, _casts()))
        else:
            self.full = True

    def seal(self, root: Tensor, *, output: Tensor | None, target: Tensor | None) -> Tape:
        """The tape of a loss.

        Args:
            root: The loss, or an alias of it.
            output: What the loss function took, or an alias of it.
            target: What it compared it with, or an alias.

        Returns:
            The tape.

        Raises:
            ValueError: The loss was made of something that was not recorded.
        """
        if self.full:
            raise ValueError("the forward pass makes too many calls outside of modules")
        return _Sealer(self.calls, self.cuts).seal(root, output, target)


class _Sealer:
    """Finds the calls a loss needs, and says of every tensor in them where it comes from."""

    def __init__(self, calls: list[tuple[Any, Any, Any, Any, Any]], cuts: dict[int, tuple[Tensor, Tensor]]) -> None:
        self.raw, self.cuts = calls, cuts
        self.tape = Tape()
        self.makers: dict[int, list[tuple[int, tuple[Any, ...]]]] = {}
        self.changes: dict[int, list[int]] = {}  # calls that write into what they are given, by its memory
        for number, (what, args, _, out, _) in enumerate(calls):
            made = args[0] if out is None and getattr(what, "__name__", "") == _SETS else out
            if args and made is args[0] and isinstance(made, Tensor):
                self.changes.setdefault(_memory(made), []).append(number)
            for path, tensor in walk(made):
                if tensor.requires_grad:
                    self.makers.setdefault(id(tensor), []).append((number, path))
        self.trained: dict[int, int] = {}
        self.data: dict[int, int] = {}
        self.modules: dict[int, int] = {}
        self.inputs: dict[int, None] = {}
        self.met: dict[int, None] = {}  # data that met results

    def seal(self, root: Tensor, output: Tensor | None, target: Tensor | None) -> Tape:
        last = len(self.raw)
        alias = None if root.requires_grad else self._alias(root, range(last))
        top = alias or self._maker(root, last)
        needed, todo = set[int](), [top]
        while todo:
            number, _ = todo.pop()
            if number in needed:
                continue
            needed.add(number)
            _, args, kwargs, *_ = self.raw[number]
            for _, tensor in walk((args, kwargs)):
                if tensor.requires_grad and not tensor.is_leaf:
                    todo.append(self._maker(tensor, number))
                    # it may have been changed through a view, or be a view of what was changed
                    todo.extend((change, ()) for change in self.changes.get(_memory(tensor), ()) if change < number)
        order = {number: place for place, number in enumerate(sorted(needed))}
        for number in sorted(needed):
            self.tape.calls.append(self._call(number, order))
        self.tape.root = Result(order[top[0]], top[1])
        self.tape.output = self._output(output, order)
        self._roles(target)
        return self.tape

    def _maker(self, tensor: Tensor, before: int) -> tuple[int, tuple[Any, ...]]:
        """The last call before another that gave a tensor.

        Raises:
            ValueError: There was none.
        """
        for number, path in reversed(self.makers.get(id(tensor), [])):
            if number < before:
                return number, path
        raise ValueError("the loss is made of a tensor that was computed inside of a module or before this step")

    def _call(self, number: int, order: Mapping[int, int]) -> Call:
        what, args, kwargs, _, casts = self.raw[number]
        tape = self.tape
        results = trained = 0
        data: list[int] = []

        def point(value: Any) -> Any:
            nonlocal results, trained
            if isinstance(value, nn.Module):
                return self._module(value)
            if not isinstance(value, Tensor):
                if any(t.requires_grad for _, t in walk(value)):
                    raise ValueError(f"the loss is made of tensors that a {type(value).__name__} holds")
                return value
            if value.requires_grad and value.is_leaf:
                trained += 1
                return Trained(_index(self.trained, tape.trained, value, value))
            if value.requires_grad:
                results += 1
                maker, path = self._maker(value, number)
                if maker not in order:
                    raise ValueError("the loss is made of tensors that are nested too deeply")
                return Result(order[maker], path)
            if id(value) not in self.data:
                tape.versions.append(value._version)
            data.append(_index(self.data, tape.data, value, value.detach()))
            if id(value) in self.cuts:
                tape.pools[data[-1]] = Rows.of(self.cuts[id(value)][1])
            return Datum(data[-1])

        pointed = _mapped(args, point), _mapped(kwargs, point)
        learns = isinstance(what, nn.Module) and any(p.requires_grad for p in what.parameters())
        if not results and (learns or trained):
            self.inputs.update(dict.fromkeys(data))
        elif results:
            self.met.update(dict.fromkeys(data))
        return Call(self._module(what) if isinstance(what, nn.Module) else what, *pointed, casts)

    def _module(self, module: nn.Module) -> Module:
        if id(module) not in self.modules:
            self.tape.modes.append([m.training for m in module.modules()])
        return Module(_index(self.modules, self.tape.modules, module, module))

    def _output(self, output: Tensor | None, order: Mapping[int, int]) -> Result | None:
        """Where the tape has the tensor that the loss function took: the same, or one that shares its memory and size."""
        found = None if output is None else self._alias(output, order)
        return None if found is None else Result(order[found[0]], found[1])

    def _alias(self, one: Tensor, calls: Iterable[int]) -> tuple[int, tuple[Any, ...]] | None:
        """The last of some calls that gave a tensor with the memory and shape of another."""
        for number in sorted(calls, reverse=True):
            for path, tensor in walk(self.raw[number][3]):
                if tensor.requires_grad and tensor.shape == one.shape and tensor.data_ptr() == one.data_ptr():
                    return number, path
        return None

    def _roles(self, target: Tensor | None) -> None:
        tape = self.tape
        known = [
            i for i, t in enumerate(tape.data)
            if target is not None and t.numel() == target.numel() and t.data_ptr() == target.data_ptr()
        ]  # fmt: skip
        tape.targets = tuple(known or [i for i in self.met if i not in self.inputs and tape.data[i].dim()])
        tape.inputs = tuple(i for i in self.inputs if i not in tape.targets)


def _casts() -> tuple[tuple[str, torch.dtype], ...]:
    """The kinds of device for which autocast is on, and to which types."""
    return tuple((kind, torch.get_autocast_dtype(kind)) for kind in _CAST if torch.is_autocast_enabled(kind))


@contextlib.contextmanager
def _casting(casts: tuple[tuple[str, torch.dtype], ...]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for kind, dtype in casts:
            stack.enter_context(torch.autocast(kind, dtype))
        yield


def _takes_rows(args: Any) -> bool:
    """Whether an indexing takes some rows of a tensor and nothing else."""
    if len(args) != 2 or not isinstance(args[0], Tensor) or args[0].requires_grad:
        return False
    rows = args[1]
    return (
        isinstance(rows, slice)
        or (isinstance(rows, Tensor) and rows.dim() == 1)
        or isinstance(rows, (list, np.ndarray))
    )


def walk(value: Any, path: tuple[Any, ...] = (), depth: int = 4) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """Tensors in nested tuples, lists, dicts and plain objects, each with its path."""
    if isinstance(value, Tensor):
        yield path, value
    elif depth == 0 or value is None or isinstance(value, (int, float, str, bool, slice, type)):
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk(item, (*path, key), depth - 1)
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from walk(item, (*path, i), depth - 1)
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module) and not callable(value):
        for key, item in vars(value).items():
            yield from walk(item, (*path, _Attribute(key)), depth - 1)


@dataclass(frozen=True)
class _Attribute:
    name: str


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = getattr(value, step.name) if isinstance(step, _Attribute) else value[step]
    return value


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A nested structure with its leaves changed; what is no tuple, list, dict or slice is a leaf."""
    if type(value) in (tuple, list):
        return type(value)(_mapped(v, change) for v in value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return tuple.__new__(type(value), (_mapped(v, change) for v in value))  # some check what they are given
    if type(value) is dict:
        return {k: _mapped(v, change) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(_mapped(value.start, change), _mapped(value.stop, change), _mapped(value.step, change))
    return change(value)


def _memory(tensor: Tensor) -> int:
    """What a tensor shares with its views."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def _index(known: dict[int, int], items: list[Any], key: Any, value: Any) -> int:
    found = known.get(id(key))
    if found is None:
        found = known[id(key)] = len(items)
        items.append(value)
    return found
