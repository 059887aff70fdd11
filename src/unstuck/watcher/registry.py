"""Identity over the whole run: which module, parameter or layer is which, and what people call it.

Names are given when a sampled step ends, not when a thing is first seen, since only then is it known whether several models
need telling apart. A name, once given, stays.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.watcher import keras, ops
from unstuck.watcher.trace import LayerState

_TORCH = str(Path(torch.__path__[0]))
_HERE = Path(__file__).parents[1]
_OURS = tuple(str(_HERE / name) for name in ("watcher", "training.py", "watching.py", "integrations"))
_WRAPPERS = {
    "DistributedDataParallel": "module", "DataParallel": "module", "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "OptimizedModule": "_orig_mod", "AveragedModel": "module",
}  # fmt: skip


class ParameterState:
    """One trainable tensor while it is watched."""

    __slots__ = (
        "changed", "got_grad", "index", "initial", "model", "name", "optimizers", "path", "ref", "remade", "shape", "trainable",
        "used", "version",
    )  # fmt: skip

    def __init__(self, index: int, tensor: Tensor) -> None:
        self.index = index
        self.ref = weakref.ref(tensor)
        self.name = ""  # what people call it, given once
        self.path = self.model = ""  # where it sits: path in its model, or the variable that holds it
        self.shape = tuple(tensor.shape)
        self.trainable = bool(tensor.requires_grad)
        self.used = self.got_grad = self.remade = False
        self.changed: bool | None = None
        self.optimizers: dict[int, None] = {}
        self.initial: dict[str, float] = {}
        self.version = -1


class ModelState:
    """One network while it is watched."""

    def __init__(self, module: nn.Module, name: str, wrapped_by: tuple[str, ...]) -> None:
        self.ref = weakref.ref(module)
        self.name, self.kind, self.wrapped_by = name, type(module).__name__, wrapped_by
        self.num_parameters = sum(p.numel() for p in module.parameters())
        self.input_shape: tuple[int, ...] = ()
        self.modes: set[str] = set()
        self.trained = False


class Registry:
    """Gives layers, parameters, modules and models their identity and their names."""

    def __init__(self) -> None:
        self.models: list[ModelState] = []
        self.roots: dict[int, weakref.ref[nn.Module]] = {}
        self.layers: dict[tuple[Any, ...], LayerState] = {}
        self.ordered: list[LayerState] = []
        self.parameters: list[ParameterState] = []
        self._parameter_by_id: dict[int, ParameterState] = {}
        self._module_paths: dict[int, tuple[weakref.ref[nn.Module], ModelState | None, str]] = {}
        self._names: set[str] = set()
        self._by_path: dict[str, ParameterState] = {}
        self.root_calls: list[tuple[nn.Module, Tensor | None]] = []  # of this step

    # --- models

    def saw_root(self, module: nn.Module, args: Any) -> None:
        """A module was called from outside any other."""
        first = _first_tensor(args)
        self.root_calls.append((module, first))
        known = self.roots.get(id(module))
        if known is None or known() is not module:
            self._new_root(module)
        model = self.model_of(module)
        if model is not None and first is not None and not model.input_shape:
            model.input_shape = tuple(first.shape)

    def add_model(self, module: nn.Module, name: str = "") -> None:
        """Makes a module known before it is called."""
        known = self.roots.get(id(module))
        if known is None or known() is not module:
            self._new_root(module, name)

    def is_evaluated(self, module: nn.Module) -> bool:
        """Whether calls without gradients may be an evaluation: of a model that was trained, or of an average of its weights."""
        return id(module) in self.roots or type(module).__name__ == "AveragedModel"

    def model_of(self, module: nn.Module) -> ModelState | None:
        """The model a module belongs to, None for modules without parameters that belong to none."""
        found = self._module_paths.get(id(module))
        return found[1] if found is not None and found[0]() is module else None

    def _new_root(self, module: nn.Module, name: str = "") -> None:
        frames = list(user_frames())
        top = _owner(module, frames)
        self.roots[id(module)] = weakref.ref(module)
        if self.model_of(top) is None:
            inner, wrappers = _unwrap(top)
            name = name or variable_name(top, frames) or variable_name(inner, frames)
            has_parameters = next(inner.parameters(), None) is not None
            model = ModelState(inner, name or type(inner).__name__, wrappers) if has_parameters else None
            if model is not None:
                self._replace_or_add(model)
            self._learn_paths(top, inner, model, name or type(inner).__name__)

    def _replace_or_add(self, model: ModelState) -> None:
        for i, old in enumerate(self.models):
            if old.ref() is None and (old.name, old.kind, old.num_parameters) == (
                model.name,
                model.kind,
                model.num_parameters,
            ):
                self.models[i] = model
                return
        taken = {m.name for m in self.models}
        base, count = model.name, 2
        while model.name in taken:
            model.name, count = f"{base}{count}", count + 1
        self.models.append(model)

    def _learn_paths(self, top: nn.Module, inner: nn.Module, model: ModelState | None, name: str) -> None:
        for path, module in keras.named_modules(inner):
            self._module_paths[id(module)] = (weakref.ref(module), model, path if model is not None else name)
        while top is not inner:
            self._module_paths[id(top)] = (weakref.ref(top), model, "")
            top = getattr(top, _WRAPPERS[type(top).__name__])
        if model is not None:
            for path, parameter in keras.named_parameters(inner):
                state = self._state(parameter, search=False)
                if not state.path:
                    state.path, state.model = path, model.name

    def path(self, module: nn.Module) -> str:
        """Where a module sits: model's index and path in it; a module made since is looked up anew."""
        found = self._module_paths.get(id(module))
        if found is None or found[0]() is not module:
            name = type(module).__name__
            found = (weakref.ref(module), None, name)
            for model in self.models:
                top = model.ref()
                for path, other in keras.named_modules(top) if top is not None else ():
                    if other is module:
                        found = (found[0], model, path)
            self._module_paths[id(module)] = found
        model = found[1]
        return (
            found[2]
            if model is None
            else f"{self.models.index(model)}:{found[2]}"
            if model in self.models
            else found[2]
        )

    @staticmethod
    def is_layer(module: nn.Module) -> bool:
        """Whether the module is one of torch's own, so that what it computes bears its name."""
        return type(module).__module__.startswith("torch.nn.")

    # --- parameters

    def parameter(self, tensor: Tensor) -> int:
        """The index of a leaf tensor that is trained."""
        return self._state(tensor).index

    def _state(self, tensor: Tensor, *, search: bool = True) -> ParameterState:
        state = self._parameter_by_id.get(id(tensor))
        if state is not None and state.ref() is tensor:
            return state
        state = ParameterState(len(self.parameters), tensor)
        path = variable_name(tensor, user_frames()) if search else ""
        old = self._by_path.get(path) if path else None
        if old is not None and old.ref() is None and old.shape == state.shape:
            old.ref, old.remade = state.ref, True
            state = old
        else:
            state.path = path
            self.parameters.append(state)
            if path:
                self._by_path[path] = state
        self._parameter_by_id[id(tensor)] = state
        return state

    def derived(self, node: Any) -> list[int]:
        """Indices of the parameters that a tensor is made of, when it is made of parameters alone; else empty."""
        found: list[int] = []
        todo, seen = [node], 0
        while todo:
            node = todo.pop()
            seen += 1
            if seen > 12:
                return []
            variable = getattr(node, "variable", None)
            if variable is not None:
                found.append(self.parameter(variable))
            else:
                todo.extend(n for n, _ in node.next_functions if n is not None)
        return found

    def live_parameters(self) -> list[tuple[ParameterState, Tensor]]:
        """States with the tensors that still exist."""
        return [(s, t) for s in self.parameters if (t := s.ref()) is not None]

    # --- layers

    def new_layer(self, key: tuple[Any, ...], op: str) -> LayerState:
        """A layer not seen before."""
        layer = LayerState(len(self.ordered), key, op)
        self.layers[key] = layer
        self.ordered.append(layer)
        return layer

    def name_layers(self) -> None:
        """Gives names to what has none yet."""
        several = len(self.models) > 1
        for layer in self.ordered:
            if not layer.name:
                layer.name = self._unique(self._wanted(layer, several), layer)
        for state in self.parameters:
            if not state.name:
                state.name = self._parameter_name(state, several)

    def _parameter_name(self, state: ParameterState, several: bool) -> str:
        if state.model:
            return f"{state.model}.{state.path}" if several or state.path[0].isdigit() else state.path
        if state.path:
            return state.path
        users = [layer.name for layer in self.ordered if state.index in layer.parameters]
        return f"parameter of {users[0]}" if users else f"parameter {state.index}"

    def _wanted(self, layer: LayerState, several: bool) -> str:
        where, _, path = layer.path.rpartition(":")
        model = self.models[int(where)] if where.isdigit() else None
        layer.model = model.name if model is not None else ""
        if model is not None and path and (several or path[0].isdigit()):
            path = f"{model.name}.{path}"
        elif model is not None and not path and several:
            path = model.name if layer.settings.get("owned") else ""
        owned = layer.settings.pop("owned", False)
        composite = layer.settings.pop("composite", False)
        label = "loss" if layer.op == "loss" else layer.key[1] if layer.op == "other" else layer.op
        if owned and not composite:
            return path or layer.model or f"{layer.site} {label}"
        if owned or composite:
            return f"{path or layer.model} {label}"
        return f"{path} {layer.site} {label}" if path else f"{layer.site} {label}"

    def name_layer(self, layer: LayerState, module: nn.Module | None, name: str) -> None:
        """Notes, when a layer is made, what its name will depend on."""
        if module is None:
            return
        if self.is_layer(module):
            layer.settings["owned"] = True
            layer.settings["composite"] = next(module.children(), None) is not None
            if layer.op == "other":
                layer.op = _OP_OF_MODULE.get(type(module).__name__, layer.op)
            hidden = getattr(module, "hidden_size", None)
            if layer.op in ops.RECURRENT | ops.CELLS and isinstance(hidden, int):
                layer.settings["hidden_size"] = hidden
        elif keras.is_keras(module):
            used = [t for i in layer.parameters if (t := self.parameters[i].ref()) is not None]
            layer.settings["owned"] = True
            layer.settings["composite"] = layer.op == "add" or not any(keras.owns(module, t) for t in used)
        elif layer.parameters:
            own = {id(p) for p in module._parameters.values() if p is not None}
            used = {id(t) for i in layer.parameters if (t := self.parameters[i].ref()) is not None}
            if used & own:
                layer.settings["owned"] = True
                layer.settings["composite"] = len(own - used) > 0

    def _unique(self, name: str, layer: LayerState) -> str:
        if name in self._names:
            before = [self.ordered[i].name for i in layer.near if i < len(self.ordered)] if not layer.parameters else []
            if before and before[-1]:
                name = f"{name} after {before[-1]}"
            base, count = name, 2
            while name in self._names:
                name, count = f"{base} #{count}", count + 1
        self._names.add(name)
        return name


_LENT = frozenset({"wrapper_module", "original_module", "pl_module"})  # what Lightning calls whatever it has wrapped
_UNHELD = 3  # references to a frame's variables where only the frame has them: its own, ours, and that of who counts
_OP_OF_MODULE = {"Flatten": "flatten", "Unflatten": "reshape", "Softmax2d": "softmax"}


def user_frames() -> Iterator[FrameType]:
    """Frames of callers that are neither torch nor us, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_TORCH, *_OURS, "<unstuck", "<frozen")):
            yield frame
        frame = frame.f_back


def local_variables(frame: FrameType) -> Mapping[str, Any]:
    """A frame's local variables, of which nothing is kept alive when the mapping is gone.

    Before Python 3.13 the mapping that is asked for stays with the frame, and all that was in it lives as long as the function runs.
    """
    scope = frame.f_locals
    if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return scope  # the variables of a module or a class themselves
    found = dict(scope)
    if sys.version_info < (3, 13) and sys.getrefcount(scope) <= _UNHELD:  # else it is what locals() gave to the script
        scope.clear()
    return found


def variable_name(value: Any, frames: Any) -> str:
    """The name a value goes by in the callers' scopes: "model", "params[2]", "self.w"; "" when none is found."""
    seen: dict[int, Mapping[str, Any]] = {}
    for frame in frames:
        for scope in (local_variables(frame), frame.f_globals):
            if id(scope) in seen:
                continue
            seen[id(scope)] = scope
            for name, other in list(scope.items()):
                if other is value and not name.startswith("__") and name not in _LENT:
                    return (
                        name
                        if name not in ("self", "module", "input", "mod", "m", "p", "param")
                        else _better(name, value, frames)
                    )
            found = _inside(value, scope)
            if found:
                return found
    return ""


def _better(name: str, value: Any, frames: Any) -> str:
    for frame in frames:
        for other, candidate in list(frame.f_globals.items()):
            if candidate is value and not other.startswith("__"):
                return other
    return "" if name == "self" else name


def _inside(value: Any, scope: Mapping[str, Any]) -> str:
    for name, other in list(scope.items()):
        if name.startswith("__"):
            continue
        if type(other) in (list, tuple) and len(other) <= 1000:
            for i, item in enumerate(other):
                if item is value:
                    return f"{name}[{i}]"
        elif type(other) is dict and len(other) <= 1000:
            for key, item in other.items():
                if item is value:
                    return f"{name}[{key!r}]"
        elif type(other).__module__ == "__main__" and not isinstance(other, type):
            for key, item in getattr(other, "__dict__", {}).items():
                if item is value:
                    return f"{name}.{key}"
    return ""


def _owner(module: nn.Module, frames: list[FrameType]) -> nn.Module:
    """The outermost module in whose method the call was made, or that a caller's variable holds, and that holds this one."""
    top = module
    for frame in frames[:40]:
        other = local_variables(frame).get("self")
        if isinstance(other, nn.Module) and other is not top and any(m is top for m in other.modules()):
            top = other
    if top is not module:
        return top
    held = [
        v
        for frame in frames[:4]
        for v in (*local_variables(frame).values(), *frame.f_globals.values())
        if isinstance(v, nn.Module)
    ]
    holders = [v for v in held if v is not module and any(m is module for m in v.modules())]
    return max(holders, key=lambda v: sum(1 for _ in v.modules()), default=module)


def _unwrap(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    wrappers: list[str] = []
    while (name := type(module).__name__) in _WRAPPERS and isinstance(
        getattr(module, _WRAPPERS[name], None), nn.Module
    ):
        wrappers.append(name)
        module = getattr(module, _WRAPPERS[name])
    return module, tuple(wrappers)


def _first_tensor(args: Any) -> Tensor | None:
    for item in args if isinstance(args, (tuple, list)) else (args,):
        if isinstance(item, Tensor):
            return item
        if isinstance(item, (tuple, list, dict)):
            found = _first_tensor(list(item.values()) if isinstance(item, dict) else item)
            if found is not None:
                return found
    return None
